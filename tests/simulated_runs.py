"""Pairs of runs whose true difference is known: how often does compare's interval cover it?

In: nothing. Out: a table on stdout, of 500 pairs: `python -m tests.simulated_runs`. The tests run the
same simulation, a short one each time and the long one in `make test-slow`.

Images come in groups of one to three that share a class and a difficulty, as bursts and duplicates
do; both runs see the same difficulty, and add errors of their own. The truth is the difference on
200,000 groups.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from scipy.special import softmax

from podium.tasks.protocol import DataTask
from podium.tasks.table import make_data_task
from podium.trust.compare import Comparison, Side, compare

Array = np.ndarray[Any, Any]

CLASSES = ("0", "1", "2", "3")
PRIOR = (0.4, 0.3, 0.2, 0.1)
POPULATION = 200_000


@dataclass(frozen=True)
class Pair:
    """Two runs on the same images."""

    before: Side
    after: Side
    targets: Array
    groups: list[str]


def make_task(primary: str = "accuracy") -> DataTask:
    """Four grades."""
    return make_data_task("classification", classes=CLASSES, ordinal=True, primary_metric=primary)


def draw_pair(draw: np.random.Generator, n_groups: int, skills: tuple[float, float]) -> Pair:
    """Two runs of these skills; equal skills: they differ by luck only."""
    sizes = draw.integers(1, 4, n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    targets = draw.choice(len(CLASSES), n_groups, p=PRIOR)[group]
    difficulty = draw.normal(size=(n_groups, len(CLASSES)))[group]
    sides = []
    for skill in skills:
        logits = skill * np.eye(len(CLASSES))[targets] + difficulty
        logits += 0.6 * draw.normal(size=logits.shape)
        probabilities = softmax(1.5 * logits, axis=1)
        sides.append(Side(probabilities, probabilities.argmax(axis=1)))
    return Pair(*sides, targets, [f"g{number:06d}" for number in group])


def simulate(
    pairs: int, n_groups: int, draws: int, skills: tuple[float, float], primary: str = "accuracy"
) -> Iterator[Comparison]:
    """Comparisons of independent pairs."""
    for number in range(pairs):
        pair = draw_pair(np.random.default_rng(number), n_groups, skills)
        yield compare(
            make_task(primary), pair.before, pair.after, pair.targets, pair.groups, draws, number
        )


def true_differences(skills: tuple[float, float]) -> Array:
    """Of each of the task's metrics, in its order."""
    pair = draw_pair(np.random.default_rng(2**20), POPULATION, skills)
    names = [spec.name for spec in make_task().compared]
    rows = np.arange(len(pair.targets))
    before, after = (
        make_task().make_scorer(names, side.probabilities, side.labels, pair.targets)(rows)
        for side in (pair.before, pair.after)
    )
    return np.asarray(after - before)


def measure_coverage(
    pairs: int, n_groups: int, draws: int, skills: tuple[float, float]
) -> dict[str, float]:
    """Share of the pairs whose interval holds the true difference, by metric."""
    truth = true_differences(skills)
    covered = np.zeros(len(truth))
    for found in simulate(pairs, n_groups, draws, skills):
        covered += [
            change.low <= value <= change.high
            for change, value in zip(found.changes, truth, strict=True)
        ]
    shares = zip(make_task().compared, (covered / pairs).tolist(), strict=True)
    return {spec.name: share for spec, share in shares if spec.can_be_resampled}


def main() -> None:
    """Print the table."""
    names = [spec.name for spec in make_task().compared if spec.can_be_resampled]
    print("| val groups | skills | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for n_groups, skills in ((160, (2.0, 2.0)), (160, (2.0, 2.4))):
        found = measure_coverage(500, n_groups, 1000, skills)
        cells = " | ".join(f"{share:.1%}" for share in found.values())
        print(f"| {n_groups} | {skills[0]} against {skills[1]} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
