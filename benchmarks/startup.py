"""How long until something happens: stages without tensors, and a run with nothing to do.

Run: python benchmarks/startup.py, in a repository whose DAG is up to date (`make run`). Prints
seconds from the start of the process to the stage's own work, and a no-op `podium run` beside a
no-op `dvc repro`, in turns; medians of 5.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from eda_speed import cpu_model

ROOT = Path(__file__).resolve().parents[1]
TURNS = 5
TENSOR_FREE = ("eda", "split", "label_shuffle")
MOST_SECONDS = 1.0
MOST_RATIO = 1.5

# The stage as DVC starts it, but for what it does when it gets to work.
ENTER = """
import sys
sys.argv[0] = "-m"
import stages, podium.stage, runpy
podium.stage.run_stage = lambda name, work: print("entered", flush=True)
runpy.run_module("stages.{name}", run_name="__main__")
"""


def main() -> None:
    """Print the table; exit 1 where the DAG is not up to date."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    dvc = [sys.executable, "-m", "dvc", "repro"]
    podium = [sys.executable, "-m", "podium.cli", "run"]
    if "up to date" not in said_by(podium, environment):
        sys.exit("the DAG was not up to date: once it is (`make run`), run this again")

    print(f"{cpu_model()}; medians of {TURNS}")
    for name in TENSOR_FREE:
        seconds = statistics.median(time_to_enter(name, environment) for _ in range(TURNS))
        print(f"stage {name}: at work after {seconds:.2f} s (at most {MOST_SECONDS:g})")
    times: dict[str, list[float]] = {"dvc": [], "podium": []}
    for _ in range(TURNS):
        for program, command in (("dvc", dvc), ("podium", podium)):
            start = time.perf_counter()
            said_by(command, environment)
            times[program].append(time.perf_counter() - start)
    medians = {program: statistics.median(values) for program, values in times.items()}
    print(f"no-op dvc repro {medians['dvc']:.2f} s, no-op podium run {medians['podium']:.2f} s")
    print(f"ratio {medians['podium'] / medians['dvc']:.2f} (at most {MOST_RATIO})")


def time_to_enter(name: str, environment: dict[str, str]) -> float:
    """Seconds from the start of the stage's process until its work would begin."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", ENTER.format(name=name)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if line != "entered\n":
        sys.exit(f"stage {name} said {line!r}")
    return seconds


def said_by(command: list[str], environment: dict[str, str]) -> str:
    """Run a command that must succeed; its stdout."""
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
