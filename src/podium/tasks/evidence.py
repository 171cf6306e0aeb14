"""Whether a change made after training is a gain: parts for nested fitting, and its interval.

What is fitted on the very rows that it is scored on always looks like a gain. So it is fitted on
all parts but one and scored on that one, in turn, and kept only where the interval of the gain, by
a bootstrap over groups, lies above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.runtime import derive_seed

Positions = npt.NDArray[np.int64]
Targets = npt.NDArray[np.int64]
# Class numbers (n,) or, of soft labels, distributions over the classes (n, k).
HardOrSoft = npt.NDArray[Any]

# Fewer rows say too little about a temperature or a threshold, and a bootstrap over fewer groups is too
# sure of itself (Cameron, Gelbach and Miller 2008).
MIN_ROWS, MIN_GROUPS = 50, 20
PARTS = 5
CONFIDENCE = 0.95


def find_class_numbers(targets: HardOrSoft) -> Targets:
    """Each row's class, int64 (n,): of a soft label the likeliest, of equals the first."""
    return targets.argmax(axis=1) if targets.ndim == 2 else targets


@dataclass(frozen=True)
class Evidence:
    """Rows that the models have not learned from, with all that a gain is judged by.

    Attributes:
        targets: class numbers, int64 (n,), or soft labels, float64 (n, k).
        groups: of each row; rows that are no independent evidence share one.
        parts: number of the part of each row, int64 (n,); a group is in one part.
        draws: bootstrap repetitions.
        seed: the run's.
    """

    targets: HardOrSoft
    groups: Sequence[str]
    parts: Positions
    draws: int
    seed: int

    @property
    def class_numbers(self) -> Targets:
        """`find_class_numbers` of the targets."""
        return find_class_numbers(self.targets)


def make_parts(
    targets: Targets, groups: Sequence[str], folds: Sequence[int], seed: int
) -> Positions:
    """Parts for nested fitting: the folds where there are several, else `PARTS` of the rows.

    Groups are dealt whole, from the largest to the smallest and class by class, each to the part
    that is smallest so far: single images of a class are spread evenly.

    Args:
        targets: int64 (n,).
        groups, folds: of each of the n rows.
        seed: the run's.

    Returns:
        int64 (n,).
    """
    if len(set(folds)) > 1:
        return np.array(folds, dtype=np.int64)
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)

    def dealing_key(group: str) -> tuple[int, list[int], int, str]:
        rows = rows_of[group]
        return -len(rows), sorted(targets[rows]), derive_seed(seed, "parts", group), group

    parts = np.empty(len(groups), dtype=np.int64)
    sizes = [0] * PARTS
    for group in sorted(rows_of, key=dealing_key):
        part = sizes.index(min(sizes))
        parts[rows_of[group]] = part
        sizes[part] += len(rows_of[group])
    return parts


def draw_groups(groups: Sequence[str], draws: int, seed: int, subject: str) -> Iterator[Positions]:
    """The rows of each bootstrap sample: whole groups, drawn with replacement.

    Args:
        groups: of each of the n rows; rows that are no independent evidence share one.
        draws: how many samples.
        seed: the run's.
        subject: of the draws: other subjects draw otherwise.

    Yields:
        Positions of rows, which may repeat, int64; about n of them.
    """
    order = np.argsort(np.array(groups), kind="stable")
    _, starts, sizes = np.unique(np.array(groups)[order], return_index=True, return_counts=True)
    random = np.random.default_rng(derive_seed(seed, "bootstrap", subject))
    for _ in range(draws):
        drawn = random.integers(0, len(starts), len(starts))
        ends = np.cumsum(sizes[drawn])
        within = np.arange(ends[-1]) - np.repeat(ends - sizes[drawn], sizes[drawn])
        yield order[np.repeat(starts[drawn], sizes[drawn]) + within]


def gain_interval(
    gain: Callable[[Positions], float],
    evidence: Evidence,
    subject: str,
    comparisons: int = 1,
) -> tuple[float, float]:
    """95 % percentile interval of a gain, by a paired bootstrap that draws whole groups.

    Both sides of the comparison are scored on the same drawn rows (Efron and Tibshirani 1993,
    ch. 16; groups: Field and Welsh 2007).

    Args:
        gain: what is gained on the rows at these positions, which may repeat.
        evidence: the groups, the draws, the seed.
        subject: of the draws: other subjects draw otherwise.
        comparisons: gains that are looked at together; each tail is shared out among them, so that
            a useless one passes in 2.5 % of cases whatever their number (Bonferroni).

    Returns:
        Low and high.
    """
    samples = draw_groups(evidence.groups, evidence.draws, evidence.seed, subject)
    gains = np.array([gain(rows) for rows in samples])
    tail = (1 - CONFIDENCE) / 2 / comparisons
    low, high = np.quantile(gains, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar_p(mended: int, broken: int) -> float:
    """Two-sided exact p of a fair coin that fell `mended` to `broken` (McNemar 1947).

    What scipy.stats.binomtest(mended, mended + broken).pvalue is, in whole numbers: importing
    scipy.stats takes longer than all the rest of a comparison.
    """
    n, fewer = mended + broken, min(mended, broken)
    tail = sum(math.comb(n, heads) for heads in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << n))


def report_gain(before: float, after: float, gain: float, interval: tuple[float, float]) -> Any:
    """The keys of a judged change, rounded to 6 decimals."""
    low, high = interval
    values = {"before": before, "after": after, "gain": gain, "gain_low": low, "gain_high": high}
    return {name: round(value, 6) for name, value in values.items()}
