"""Whether one run is better than another on the same images, or whether that is noise.

In: what both say of the same rows, the truth, and which rows belong together. Out: for each metric
the difference with a paired interval, a p-value for the primary one, the images whose answer
changed, and one word.

Three questions, three methods, none of which takes images of one group for independent but the
second, which is there because it is known:

- how large is the difference: a paired bootstrap that draws whole groups, both runs scored on the
  same rows (Efron and Tibshirani 1993, ch. 16; Field and Welsh 2007);
- did as many images turn right as wrong: McNemar's exact test (McNemar 1947), on single images;
- could the two runs be the same but for luck: a randomisation test of the primary metric that swaps
  the runs in whole groups (Fisher 1935; Noreen 1989, ch. 2). For accuracy it is exact, and with
  groups of one image it is McNemar's test; for other metrics swaps are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from podium.runtime import derive_seed
from podium.tasks.evidence import CONFIDENCE, draw_groups, find_class_numbers, mcnemar_p
from podium.tasks.protocol import DataTask, MetricSpec, Scorer

Positions = npt.NDArray[np.int64]
Word = Literal["better", "worse", "noise"]

# Drawn swaps for each comparison that the p-values are corrected for: the smallest p that can come
# out is about 1 / swaps, and times the number of comparisons it must stay well below 5 %.
_SWAPS_PER_COMPARISON = 100
# What two sums of the same numbers in another order may differ by.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Side:
    """What one run says of the n rows.

    Attributes:
        probabilities: float64 (n, k), as submitted where probabilities are.
        labels: class numbers, int64 (n,), as submitted where labels are.
    """

    probabilities: npt.NDArray[np.float64]
    labels: Positions


@dataclass(frozen=True)
class Change:
    """One metric under both runs.

    Attributes:
        spec: its name and direction.
        before, after: its values.
        low, high: 95 % interval of after - before; NaN where `spec` cannot be resampled.
    """

    spec: MetricSpec
    before: float
    after: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """after - before, whatever the direction."""
        return self.after - self.before

    @property
    def gain(self) -> float:
        """The difference in the metric's own direction: above 0 is better."""
        return self.difference if self.spec.higher_is_better else -self.difference

    def judge(self, p: float) -> Word:
        """better or worse where both p and the interval say so, else noise."""
        if p <= 1 - CONFIDENCE and (self.low > 0 or self.high < 0):
            return "better" if self.gain > 0 else "worse"
        return "noise"


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        changes: a row for each metric, the primary one first.
        p: two-sided, of the primary metric, by swaps of whole groups.
        mcnemar_p: two-sided, exact, of `mended` against `broken`.
        mended: positions of rows that only the second run has right.
        broken: of those that only the first has right.
        moved: of those that both have wrong, with different labels.
        n, n_groups: rows, and groups of them.
    """

    changes: tuple[Change, ...]
    p: float
    mcnemar_p: float
    mended: Positions
    broken: Positions
    moved: Positions
    n: int
    n_groups: int

    @property
    def primary(self) -> Change:
        """The row that decides."""
        return self.changes[0]

    @property
    def word(self) -> Word:
        """About the primary metric, in its own direction."""
        return self.primary.judge(self.p)


def compare(
    task: DataTask,
    before: Side,
    after: Side,
    targets: npt.NDArray[Any],
    groups: Sequence[str],
    draws: int,
    seed: int,
    comparisons: int = 1,
) -> Comparison:
    """Compare two runs on the same n rows.

    Args:
        task: names the metrics, with their directions, and scores.
        before, after: the two runs.
        targets: as `task.training_targets` gives them.
        groups: of each row; rows that are no independent evidence share one.
        draws: bootstrap samples, and swaps at least.
        seed: of both.
        comparisons: how many p-values are corrected together.

    Raises:
        ValueError: sides, targets and groups of different lengths, or none at all.
    """
    n = len(targets)
    if not n or {len(before.labels), len(after.labels), len(groups)} != {n}:
        raise ValueError(
            f"{len(before.labels)}, {len(after.labels)} answers, {n} targets, {len(groups)} groups"
        )
    # Both sides as one table: row i of the second run is row n + i, so that one scorer serves both.
    table = (
        np.concatenate([before.probabilities, after.probabilities]),
        np.concatenate([before.labels, after.labels]),
        np.concatenate([targets, targets]),
    )
    scorer = task.make_scorer([spec.name for spec in task.compared], *table)
    everything = np.arange(n)
    values = scorer(everything), scorer(everything + n)
    drawn = [
        scorer(rows + n) - scorer(rows) for rows in draw_groups(groups, draws, seed, "compare")
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.array(drawn), [tail, 1 - tail], axis=0)
    unsure = [not spec.can_be_resampled for spec in task.compared]
    low[unsure] = high[unsure] = np.nan
    numbers = find_class_numbers(targets)
    right_before, right_after = before.labels == numbers, after.labels == numbers
    mended = np.flatnonzero(~right_before & right_after)
    broken = np.flatnonzero(right_before & ~right_after)
    moved = np.flatnonzero(~right_before & ~right_after & (before.labels != after.labels))
    if task.primary.counts_right:
        p = sign_flip_p(right_after.astype(np.int64) - right_before, groups)
    else:
        swaps = max(draws, _SWAPS_PER_COMPARISON * comparisons)
        p = _drawn_swap_p(task.make_scorer([task.primary.name], *table), groups, swaps, seed)
    return Comparison(
        changes=tuple(
            Change(spec, *(float(numbers[place]) for numbers in (*values, low, high)))
            for place, spec in enumerate(task.compared)
        ),
        p=p,
        mcnemar_p=mcnemar_p(len(mended), len(broken)),
        mended=mended,
        broken=broken,
        moved=moved,
        n=n,
        n_groups=len(set(groups)),
    )


def sign_flip_p(gains: npt.NDArray[np.int64], groups: Sequence[str]) -> float:
    """Two-sided exact p of a sum of whole numbers if each group's sum had either sign (Fisher 1935).

    Args:
        gains: of each row, int64 (n,): 1 where it turned right, -1 where it turned wrong.
        groups: of each row.

    Returns:
        The share of all choices of signs whose sum is as far from 0; `mcnemar_p` where groups are
        single rows.
    """
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    sums = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
    np.add.at(sums, numbers, gains)
    sizes = np.abs(sums[sums != 0])
    chances = np.ones(1)  # of each sum, from -total to total
    for size in sizes.tolist():
        step = np.zeros(2 * size + 1)
        step[[0, -1]] = 0.5
        chances = np.convolve(chances, step)
    distance = np.abs(np.arange(len(chances)) - len(chances) // 2)
    return min(1.0, float(chances[distance >= abs(int(sums.sum()))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being looked at together (Holm 1979), in their order.

    At 5 %, the chance of one false word among all of them is at most 5 %, however they depend on
    each other; and here they do, by sharing a baseline and the images. A false discovery rate would
    let one word in twenty be false, and what is chosen is the one that looks best.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _drawn_swap_p(scorer: Scorer, groups: Sequence[str], swaps: int, seed: int) -> float:
    """Share of random swaps whose primary metric differs by as much as it does (Noreen 1989).

    The true assignment counts as one of them, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        scorer: of the primary metric alone, of 2n rows: those of the second run after the first's.
        groups: of the n rows; a group is swapped whole.
        swaps: how many.
        seed: the run's.
    """
    n = len(groups)
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    n_groups = int(numbers.max()) + 1
    random = np.random.default_rng(derive_seed(seed, "swap", "compare"))
    rows = np.arange(n)
    observed = abs(scorer(rows + n)[0] - scorer(rows)[0])
    as_far = 1
    for _ in range(swaps):
        offset = n * random.integers(0, 2, n_groups)[numbers]
        found = abs(scorer(rows + n - offset)[0] - scorer(rows + offset)[0])
        as_far += bool(found >= observed - _ROUNDING)
    return as_far / (swaps + 1)
