"""SIGKILL at random times: how many trainings end with the bytes of one that nobody killed.

A demo competition of 96 images is made in a temporary folder. For each of two trainings (one on
pictures that grow, one in which more and more of the net learns), `dvc repro train` is run once
undisturbed; then it is killed again and again, at a uniformly random time, dvc, its stage, the
stage's second process or all at once, and started anew. Out: a Markdown table of whom the kills hit
and at what, and in how many trainings all files are the same; with --write also on the pages with
the marks `kills`. Exit code 1: something was not as promised.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 200 --seed 1
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
from pathlib import Path

from clones import ROOT, write_table
from eda_speed import cpu_model

sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT))

import tests.conftest  # noqa: F401, the math environment before Paddle
from tests.competition import make_plain_run
from tests.kills import (
    DVC_WRITING,
    PHASES,
    SCENARIOS,
    TARGETS,
    Kill,
    Report,
    kill_often,
    make_reference,
)


def measure(n_kills: int, seed: int) -> tuple[Report, list[float]]:
    """The kills of all scenarios together, and the seconds of each undisturbed."""
    total, seconds = Report(), []
    with tempfile.TemporaryDirectory(prefix="podium-kills-") as name:
        folder = Path(name)
        _, plain = make_plain_run(folder / "plain run")
        for number, (scenario, params) in enumerate(SCENARIOS.items()):
            share = n_kills * (number + 1) // len(SCENARIOS) - n_kills * number // len(SCENARIOS)
            room = folder / scenario
            reference = make_reference(plain, room, params)
            report = kill_often(reference, room, share, seed + number)
            print(f"{scenario}: {sentence(report)}", file=sys.stderr, flush=True)
            seconds.append(reference.seconds)
            total.kills += report.kills
            total.ended += report.ended
            total.identical += report.identical
            total.problems += report.problems
    return total, seconds


def make_table(kills: list[Kill]) -> str:
    """Whom they hit, by what they hit it at."""
    counts = collections.Counter((kill.target, kill.phase) for kill in kills)
    phases = [phase for phase in PHASES if any(kill.phase == phase for kill in kills)]
    lines = [
        "| " + " | ".join(["killed", *phases, "together"]) + " |",
        "|---" * (len(phases) + 2) + "|",
    ]
    for target in TARGETS:
        row = [counts[target, phase] for phase in phases]
        lines.append("| " + " | ".join([target, *map(str, row), str(sum(row))]) + " |")
    sums = [sum(counts[target, phase] for target in TARGETS) for phase in phases]
    lines.append("| " + " | ".join(["together", *map(str, sums), str(sum(sums))]) + " |")
    return "\n".join(lines)


def sentence(report: Report) -> str:
    """The outcome."""
    same = "all" if report.identical == report.ended else f"{report.identical} of"
    mended = sum(kill.phase == DVC_WRITING for kill in report.kills)
    by_hand = f" ({mended} of the kills cut dvc.lock short: taken from git)" if mended else ""
    return (
        f"{len(report.kills)} kills, {report.ended} trainings ended, "
        f"{same} {report.ended} bit-identical{by_hand}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="how many, over all trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the times and targets")
    parser.add_argument("--write", action="store_true", help="put the table on the pages")
    arguments = parser.parse_args()
    report, seconds = measure(arguments.kills, arguments.seed)
    how = " and ".join(f"{value:.0f} s" for value in seconds)
    cores = len(os.sched_getaffinity(0))
    head = f"Undisturbed, the trainings take {how} on {cores} cores of {cpu_model()}."
    table = f"{head}\n\n{make_table(report.kills)}\n\n{sentence(report)}."
    print(table)
    if report.problems:
        sys.exit("\n\n".join(["", f"{len(report.problems)} differences:", *report.problems]))
    if arguments.write:
        write_table("kills", table)


if __name__ == "__main__":
    main()
