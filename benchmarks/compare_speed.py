"""What the time of `podium compare A B` is made of.

In: two runs of this repository, as `podium compare` takes them. Out: processor seconds of each part
and of the whole command, medians of 5; the wall clock would count what else the machine does.

    python benchmarks/compare_speed.py HEAD my-experiment
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from clones import ROOT
from eda_speed import cpu_model

TURNS = 5
PARTS = ("interpreter and imports", "reading both runs", "statistics", "page with pictures")
SCRIPT = """
import json, sys, time
from pathlib import Path
from podium.commands.compare import Runs, compare_runs, make_page
import rich.console, rich.table
stamps = [time.process_time()]
runs = Runs(Path.cwd())
both = [runs.load(name) for name in sys.argv[1:]]
stamps.append(time.process_time())
result = compare_runs(*both)
stamps.append(time.process_time())
make_page(result, Path.cwd())
stamps.append(time.process_time())
print(json.dumps([after - before for before, after in zip([0, *stamps], stamps)]))
"""


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, help="what podium compare is told")
    names = parser.parse_args().runs
    turns = [time_parts(names) for _ in range(TURNS)]
    print(f"{cpu_model()}, processor seconds, medians of {TURNS}")
    for part, seconds in zip(PARTS, zip(*turns, strict=True), strict=True):
        print(f"{part}: {statistics.median(seconds):.2f}")
    print(f"together: {statistics.median(sum(turn) for turn in turns):.2f}")


def time_parts(names: list[str]) -> list[float]:
    """Processor seconds of each of `PARTS`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        cwd=Path.cwd(),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(seconds) for seconds in json.loads(done.stdout)]


if __name__ == "__main__":
    main()
