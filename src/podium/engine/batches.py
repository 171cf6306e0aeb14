"""Batches of the training list: which rows, in which order, as which arrays.

In: the training list as row numbers. Out: for every epoch its batches. All of it is a pure
function of the seed and the epoch, so nothing needs to be stored to continue a run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from podium.data.augment import Augment
from podium.data.decode import RGB
from podium.data.preprocessing import Preprocessing
from podium.runtime import derive_seed

Rows = npt.NDArray[np.int64]
Inputs = npt.NDArray[np.float32]


class Source(Protocol):
    """Where a net's inputs come from."""

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """Inputs to learn from; `occurrences` counts each row's earlier uses in this epoch."""

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """Inputs to judge by: nothing random."""


@dataclass(frozen=True)
class FeatureSource:
    """Features of a frozen trunk, float32 (N, features)."""

    features: npt.NDArray[np.float32]

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """The rows' features, the same in every epoch."""
        return self.features[rows]

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """The rows' features."""
        return self.features[rows]


@dataclass(frozen=True)
class ImageSource:
    """Decoded images, uint8 (N, H, W, 3), augmented and preprocessed."""

    images: RGB
    image_ids: Sequence[str]
    preprocessing: Preprocessing
    augment: Augment | None

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """The rows' images, float32 (n, 3, H, W), each with its own augmentation."""
        if self.augment is None:
            return self.plain_inputs(rows)
        changed = [
            self.augment(self.images[row], epoch, self.image_ids[row], occurrence)
            for row, occurrence in zip(rows, occurrences, strict=True)
        ]
        return self.preprocessing.apply(np.stack(changed))

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """The rows' images, float32 (n, 3, H, W)."""
        return self.preprocessing.apply(self.images[rows])


def epoch_batches(
    train_rows: Rows, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[list[int], list[int]]]:
    """The epoch's batches: every entry of the list once, in a fresh order.

    Yields:
        row numbers, and how often each was used before in this epoch.
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(train_rows)
    uses: defaultdict[int, int] = defaultdict(int)
    for start in range(0, len(order), batch_size):
        rows = [int(row) for row in order[start : start + batch_size]]
        occurrences = []
        for row in rows:
            occurrences.append(uses[row])
            uses[row] += 1
        yield rows, occurrences


def count_steps(n_rows: int, batch_size: int) -> int:
    """Optimiser steps in an epoch; the last batch may be smaller."""
    return -(-n_rows // batch_size)


def plain_batches(source: Source, rows: Sequence[int], batch_size: int) -> Iterator[Any]:
    """Inputs of `rows` in order, nothing random."""
    for start in range(0, len(rows), batch_size):
        yield source.plain_inputs(rows[start : start + batch_size])
