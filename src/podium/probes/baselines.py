"""What can be scored without looking at the object: the floor under every later number.

In: 32 px thumbnails and labels. Out: the accuracy of always saying the commonest class, of a
logistic regression on thumbnails, and of one that sees the border alone, cross-validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from podium.probes.cross_validation import (
    Features,
    draw_sample,
    predict_linear,
)
from podium.probes.findings import Effect
from podium.tasks.classification.metrics import grouped_accuracy_interval

LINEAR_PX = 16
BORDER_SHARE = 0.1


@dataclass(frozen=True)
class Baseline:
    """Accuracy, 0..1, with its 95 % interval, by groups."""

    accuracy: float
    low: float
    high: float

    def as_effect(self) -> Effect:
        """For `podium.probes.findings`."""
        return Effect(self.accuracy, self.low, self.high)


@dataclass(frozen=True)
class Baselines:
    """Majority of all images; linear and border of `n_images` of them, None where not measured.

    Attributes:
        floor: the majority's share where classes of fewer than two groups are left out.
        left_out: how many images those are, in words; "" where there are none.
    """

    majority: float
    n_images: int
    linear: Baseline | None
    border: Baseline | None
    floor: float
    left_out: str

    @property
    def border_tells_much(self) -> bool:
        """Whether the border surely closes half of the gap between majority and 100 %."""
        return self.border is not None and self.border.low >= (1 + self.floor) / 2


def measure_baselines(
    thumbnails: npt.NDArray[np.uint8],
    labels: Sequence[str],
    group_ids: Sequence[str],
    seed: int,
) -> Baselines:
    """Cross-validate both probes over the same grouped, stratified folds.

    Args:
        thumbnails: uint8 (n, s, s, 3).
        labels: (n,).
        group_ids: (n,); rows of one group stay in one fold.
        seed: decides which images are taken where there are more than `MAX_IMAGES`, and the folds.

    Returns:
        Equal for equal arguments, whatever the number of cores.
    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    majority = float(np.bincount(codes).max() / len(codes))
    sample = draw_sample(labels, group_ids, seed)
    count = len(sample.rows)
    if not count:
        return Baselines(majority, 0, None, None, sample.floor, "")
    few = thumbnails[sample.rows]
    rights = [
        predict_linear(features, sample.codes, sample.folds) == sample.codes
        for features in (_small(few), _border(few))
    ]
    linear, border = (
        Baseline(float(right.mean()), *grouped_accuracy_interval(right, sample.groups))
        for right in rights
    )
    return Baselines(majority, count, linear, border, sample.floor, sample.left_out)


def _small(thumbnails: npt.NDArray[np.uint8]) -> Features:
    """The whole picture at `LINEAR_PX`, by averaging."""
    n, side = len(thumbnails), thumbnails.shape[1]
    step = side // LINEAR_PX
    blocks = thumbnails.reshape(n, LINEAR_PX, step, LINEAR_PX, step, 3).astype(np.float64)
    return np.asarray(blocks.mean(axis=(2, 4))).reshape(n, -1)


def _border(thumbnails: npt.NDArray[np.uint8]) -> Features:
    """The outermost tenth of the side, all around."""
    side = thumbnails.shape[1]
    width = max(1, round(side * BORDER_SHARE))
    outside = np.ones((side, side), dtype=bool)
    outside[width:-width, width:-width] = False
    return thumbnails[:, outside].reshape(len(thumbnails), -1).astype(np.float64)
