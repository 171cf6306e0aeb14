"""Batches of the training list: which rows, in which order, as which arrays.

In: the training list as row numbers. Out: for every epoch its batches. All of it is a pure
function of the seed and the epoch, so nothing needs to be stored to continue a run.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from podium.data.augment import Augment
from podium.data.image_cache import FileImages, Images
from podium.data.preprocessing import Preprocessing
from podium.data.stored_rows import StoredRows
from podium.runtime import derive_seed

Rows = npt.NDArray[np.int64]
Inputs = npt.NDArray[np.float32]
TaskT = TypeVar("TaskT")
MadeT = TypeVar("MadeT")


class Source(Protocol):
    """Where a net's inputs come from, by row number."""

    def __len__(self) -> int:
        """Rows."""

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """Inputs to learn from; `occurrences` counts each row's earlier uses in this epoch."""

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """Inputs to judge by: nothing random."""


def view_number(epoch: int, occurrence: int, n_views: int) -> int:
    """The view, from 0, that a use of an image in an epoch learns on."""
    return (epoch - 1 + occurrence) % n_views


@dataclass(frozen=True)
class FeatureSource:
    """What a frozen trunk, or its first layers, made of the images.

    Attributes:
        plain: of the images as they are, (N, ...).
        views: of `n_views` augmented views of each, view after view, (n_views * N, ...); None to
            learn on `plain`.
    """

    plain: npt.NDArray[np.float32] | StoredRows
    views: npt.NDArray[np.float32] | StoredRows | None = None

    def __len__(self) -> int:
        return len(self.plain)

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """Of each row the epoch's view; a second use in the same epoch gets the next one."""
        if self.views is None:
            return self.plain_inputs(rows)
        count = len(self.plain)
        n_views = len(self.views) // count
        numbers = [
            view_number(epoch, occurrence, n_views) * count + row
            for row, occurrence in zip(rows, occurrences, strict=True)
        ]
        return self.views[numbers].astype(np.float32)

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """Of the rows' images as they are."""
        return self.plain[rows].astype(np.float32)


@dataclass(frozen=True)
class ImageSource:
    """Decoded images, augmented and preprocessed.

    Attributes:
        images: uint8 (N, H, W, 3), to learn from.
        judged_images: the same ones at the size that the net is judged at.
        image_ids: N.
        preprocessing: pixels to inputs, of either size.
        augment: None: learn from the images as they are.
    """

    images: Images | FileImages
    judged_images: Images | FileImages
    image_ids: Sequence[str]
    preprocessing: Preprocessing
    augment: Augment | None

    def __len__(self) -> int:
        return len(self.images)

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """The rows' images, float32 (n, 3, H, W), each with its own augmentation."""
        if self.augment is None:
            return self.preprocessing.apply(self.images[rows])
        changed = [
            self.augment(self.images[row], epoch, self.image_ids[row], occurrence)
            for row, occurrence in zip(rows, occurrences, strict=True)
        ]
        return self.preprocessing.apply(np.stack(changed))

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """The rows' images, float32 (n, 3, H, W), to judge by."""
        return self.preprocessing.apply(self.judged_images[rows])


@dataclass(frozen=True)
class ViewedImages:
    """Images of which a training sees so many fixed views: what frozen layers see, or a training
    list that was expanded ahead.

    Attributes:
        images: augmented afresh for each epoch.
        n_views: as in `train.views`; 0: the images as they are.
    """

    images: ImageSource
    n_views: int

    def __len__(self) -> int:
        return len(self.images)

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """The epoch's views; view v was drawn as epoch v + 1 of the images would be."""
        if not self.n_views:
            return self.images.plain_inputs(rows)
        return np.concatenate(
            [
                self.images.training_inputs([row], [0], view_number(epoch, use, self.n_views) + 1)
                for row, use in zip(rows, occurrences, strict=True)
            ]
        )

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """The images as they are."""
        return self.images.plain_inputs(rows)


def epoch_batches(
    train_rows: Rows, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[list[int], list[int]]]:
    """The epoch's batches: every entry of the list once, in a fresh order.

    Yields:
        row numbers, and how often each was used before in this epoch.
    """
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(train_rows)
    uses: defaultdict[int, int] = defaultdict(int)
    n_steps = count_steps(len(order), batch_size)
    for step in range(n_steps):
        stop = len(order) if step == n_steps - 1 else (step + 1) * batch_size
        rows = [int(row) for row in order[step * batch_size : stop]]
        occurrences = []
        for row in rows:
            occurrences.append(uses[row])
            uses[row] += 1
        yield rows, occurrences


def count_steps(n_rows: int, batch_size: int) -> int:
    """Optimiser steps in an epoch. The last batch may be smaller, but a single row joins the batch
    before: batch norm learns nothing on it, and its step would weigh as much as any."""
    return max(1, -(-n_rows // batch_size) - (n_rows % batch_size == 1))


def split_batch(n_rows: int, parts: int) -> list[range]:
    """The passes over a batch, in order: contiguous, as equal as can be, and none of one row, on
    which batch norm learns nothing. Fewer than `parts` where the batch is that small."""
    used = max(1, min(parts, n_rows // 2))
    bounds = [n_rows * number // used for number in range(used + 1)]
    return [range(low, high) for low, high in pairwise(bounds)]


def prefetch(
    todo: Iterable[TaskT], make: Callable[[TaskT], MadeT], threads: int
) -> Iterator[MadeT]:
    """`make` of each, in order, made by `threads` threads while the caller is busy.

    At most one more than `threads` wait in memory; an error comes where its turn is.
    """
    tasks = iter(todo)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(make, task) for task in islice(tasks, threads + 1))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, task) for task in islice(tasks, 1))
            yield made
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
