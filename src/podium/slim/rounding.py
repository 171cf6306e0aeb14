"""Weights rounded to int8 so that what a layer gives changes least, not what it holds.

In: weights, and moments of what the layer sees on calibration images. Out: weights on the int8 grid,
and how much their error shifts each output in the mean, which the bias takes back.

Column after column is rounded, and the error is made up for by the columns that are still to come, as
far as their inputs go along with its input: GPTQ (Frantar, Ashkboos, Hoefler and Alistarh, ICLR
2023, arXiv:2210.17323), after optimal brain quantisation. The bias makes up for the mean exactly
(Nagel, van Baalen, Blankevoort and Welling, ICCV 2019, arXiv:1906.04721, sec. 4.2), so it is the
inputs' covariance that counts here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LARGEST = 127
# Added to the diagonal, of its mean: few images do not span all directions. More than GPTQ's 0.01, as
# there are hardly more patches than directions here (0.01, 0.1, 1: logits off by 0.062, 0.059, 0.062).
_DAMPING = 0.1
# Columns whose errors reach the later ones together: the same sums, in cache.
_BLOCK = 32


@dataclass
class Moments:
    """Sums over patches, the inputs of a layer's outputs.

    Attributes:
        total: (groups, d).
        squares: (groups, d, d).
        count: how many patches.
        means: (groups, d), of all places of each batch, added up once for each of its patches: the
            last batch may be smaller.
    """

    total: Floats
    squares: Floats
    means: Floats
    count: int = 0

    def add(self, patches: npt.NDArray[np.float32], mean: Floats) -> None:
        """Take in float32 (groups, n, d), some places of a batch, and the mean of all its places."""
        self.means += mean * patches.shape[1]
        self.total += patches.sum(axis=1, dtype=np.float64)
        self.squares += patches.transpose(0, 2, 1) @ patches
        self.count += patches.shape[1]

    @property
    def mean(self) -> Floats:
        """(groups, d), of all places."""
        return self.means / self.count

    def covariance(self) -> Floats:
        """(groups, d, d), damped, so that it has an inverse."""
        mean = self.total / self.count
        values = self.squares / self.count - mean[:, :, None] * mean[:, None, :]
        diagonal = np.einsum("gdd->gd", values)
        damping = _DAMPING * diagonal.mean(axis=1, keepdims=True) + 1e-12
        damped: Floats = values + np.eye(values.shape[1]) * damping[:, :, None]
        return damped


def make_moments(groups: int, width: int) -> Moments:
    """Empty ones."""
    return Moments(
        np.zeros((groups, width)), np.zeros((groups, width, width)), np.zeros((groups, width))
    )


def round_weights(
    weights: npt.NDArray[np.float32], moments: Moments
) -> tuple[npt.NDArray[np.float32], Floats]:
    """Round to int8 with one symmetric scale per output.

    The largest weight of each output stays where it is, at 127 steps, so whoever takes the scale off
    the rounded weights finds the same grid.

    Args:
        weights: float32 (outputs, ...), each group's outputs one after another.
        moments: of the layer's patches, in the order of a weight's elements.

    Returns:
        weights on the grid, in the shape they came in; and the mean shift of each output (outputs,).
    """
    groups, width = moments.total.shape
    given = weights.reshape(groups, -1, width).astype(np.float64)
    largest = np.abs(given).max(axis=2)
    step = np.where(largest > 0, largest / LARGEST, 1)
    pinned = np.abs(given).argmax(axis=2)
    covariance = moments.covariance()
    order = np.argsort(-np.einsum("gdd->gd", covariance).mean(axis=0), kind="stable")
    covariance = covariance[:, order][:, :, order]
    # Upper Cholesky factor of the inverse: row j says how the later columns make up for j.
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    left = given[:, :, order]
    rounded = np.empty_like(left)
    for begin in range(0, width, _BLOCK):
        end = min(begin + _BLOCK, width)
        errors = np.empty((*left.shape[:2], end - begin))
        for j in range(begin, end):
            column = left[:, :, j]
            steps = np.clip(np.round(column / step), -LARGEST, LARGEST)
            is_pinned = pinned == order[j]
            steps = np.where(is_pinned, np.sign(given[:, :, order[j]]) * LARGEST, steps)
            rounded[:, :, j] = steps * step
            error = (column - rounded[:, :, j]) / factor[:, None, j, j]
            left[:, :, j + 1 : end] -= error[:, :, None] * factor[:, None, j, j + 1 : end]
            errors[:, :, j - begin] = error
        left[:, :, end:] -= errors @ factor[:, begin:end, end:]
    back = np.empty_like(rounded)
    back[:, :, order] = rounded
    shift = ((back - given) * moments.mean[:, None, :]).sum(axis=2).reshape(-1)
    return back.reshape(weights.shape).astype(np.float32), shift
