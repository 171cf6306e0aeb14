"""Predictions of trained models, for evaluate, compress and submit.

In: a model folder and manifest rows. Out: probabilities, float64 (N, k), raw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.decode import RGB
from podium.data.image_cache import load_images, readable_rows
from podium.data.submission import fill_unreadable
from podium.engine.inference import Outputs, run_network
from podium.engine.weights import load_network
from podium.runtime import derive_seed
from podium.tasks.protocol import DataTask

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ValSet:
    """The val fold's rows, sorted by image_id.

    Attributes:
        train: all of the manifest's train rows, which share one decoding.
        positions: of the val rows among them.
    """

    train: pd.DataFrame
    positions: npt.NDArray[np.int64]

    @property
    def image_ids(self) -> list[str]:
        """Ids of the val images."""
        return self._column("image_id")

    @property
    def labels(self) -> list[str]:
        """Class names."""
        return self._column("label")

    @property
    def groups(self) -> list[str]:
        """Group ids: rows that are no independent evidence share one."""
        return self._column("group_id")

    def images(self, size_px: int) -> RGB:
        """uint8 (N, size_px, size_px, 3)."""
        images: RGB = load_images(self.train, size_px, "decode train")[self.positions]
        return images

    def _column(self, name: str) -> list[str]:
        values: list[str] = self.train[name].iloc[self.positions].tolist()
        return values


def make_val_set(manifest: pd.DataFrame, splits: pd.DataFrame, val_fold: int) -> ValSet:
    """The rows of fold `val_fold`."""
    train = readable_rows(manifest, "train")
    val_ids = set(splits.loc[splits["fold"] == val_fold, "image_id"])
    return ValSet(train, np.flatnonzero(train["image_id"].isin(val_ids).to_numpy()))


def predict_val(models: Path, val: ValSet, task: DataTask) -> Probabilities:
    """Probabilities of the val rows from the saved weights."""
    network, preprocessing, _ = load_network(models)
    images = val.images(preprocessing.image_size_px)
    return task.predictions(run_network(network, images, preprocessing, "predict val"))


def predict_test(
    manifest: pd.DataFrame, size_px: int, run: Callable[[RGB], Outputs], task: DataTask
) -> Probabilities:
    """Probabilities of all test rows; what cannot be read gets the training labels' prior.

    Args:
        manifest: of train and test.
        size_px: what the model wants.
        run: images -> outputs.
        task: turns outputs into probabilities.
    """
    test = manifest[manifest["source"] == "test"]
    labels = manifest.loc[manifest["source"] == "train", "label"].tolist()
    prior = task.fallback_prediction(labels)
    readable = readable_rows(manifest, "test")
    if readable.empty:
        return fill_unreadable(np.zeros((0, len(task.classes))), test, prior)
    images = load_images(readable, size_px, "decode test")
    return fill_unreadable(task.predictions(run(images)), test, prior)


def load_calibration_images(
    manifest: pd.DataFrame, train_list: Sequence[str], wanted: int, size_px: int, seed: int
) -> RGB:
    """At most `wanted` different images of the training list, drawn by the seed.

    Drawn from the list's entries, so a class is as frequent as in training.
    """
    train = readable_rows(manifest, "train")
    position_of = {image_id: row for row, image_id in enumerate(train["image_id"])}
    rng = np.random.default_rng(derive_seed(seed, "calibration"))
    drawn = dict.fromkeys(train_list[i] for i in rng.permutation(len(train_list)))
    positions = sorted(position_of[image_id] for image_id in list(drawn)[:wanted])
    images: RGB = load_images(train, size_px, "decode train")[positions]
    return images
