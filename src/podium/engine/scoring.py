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

from podium.data.image_cache import Images, load_images, readable_rows
from podium.data.stored_rows import StoredRows
from podium.data.submission import fill_unreadable
from podium.data.views import Tta
from podium.engine.ensemble import Ensemble
from podium.engine.inference import Outputs
from podium.errors import PodiumError
from podium.runtime import derive_seed
from podium.tasks.answers import Answers
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
    def soft_labels(self) -> list[str]:
        """As in the manifest, "" where there are none."""
        return self._column("soft_label")

    @property
    def groups(self) -> list[str]:
        """Group ids: rows that are no independent evidence share one."""
        return self._column("group_id")

    def images(self, size_px: int) -> Images:
        """uint8 (N, size_px, size_px, 3)."""
        return load_images(self.train, size_px, "decode train").select(self.positions)

    def _column(self, name: str) -> list[str]:
        values: list[str] = self.train[name].iloc[self.positions].tolist()
        return values


def make_val_set(manifest: pd.DataFrame, splits: pd.DataFrame, val_fold: int) -> ValSet:
    """The rows of fold `val_fold`."""
    train = readable_rows(manifest, "train")
    val_ids = set(splits.loc[splits["fold"] == val_fold, "image_id"])
    return ValSet(train, np.flatnonzero(train["image_id"].isin(val_ids).to_numpy()))


@dataclass(frozen=True)
class OutOfFold:
    """What each model says of the fold that it was not trained on.

    Attributes:
        val: the rows of those folds together, sorted by image_id.
        folds: of each row.
        probabilities: (N, k), of each row by its own fold's model.
    """

    val: ValSet
    folds: list[int]
    probabilities: Probabilities


def predict_out_of_fold(
    models: Path, manifest: pd.DataFrame, splits: pd.DataFrame, task: DataTask, tta: Tta
) -> OutOfFold:
    """Predictions of the val rows from the saved weights, the mean over the views of each image.

    Raises:
        PodiumError: a model is missing, damaged, or of a fold that splits.csv does not have.
    """
    ensemble = Ensemble(models, tta)
    sets = [make_val_set(manifest, splits, fold) for fold in ensemble.folds]
    for fold, val in zip(ensemble.folds, sets, strict=True):
        if not len(val.positions):
            raise PodiumError(f"data/splits.csv has no rows of fold {fold}: run `dvc repro`")
    images = load_images(sets[0].train, ensemble.preprocessing.image_size_px, "decode train")
    outputs = ensemble.run_each(images, [val.positions for val in sets], "predict val")
    positions = np.concatenate([val.positions for val in sets])
    folds = np.repeat(ensemble.folds, [len(val.positions) for val in sets])
    order = np.argsort(positions)
    probabilities = np.concatenate([task.predictions(values) for values in outputs])
    return OutOfFold(
        ValSet(sets[0].train, positions[order]), folds[order].tolist(), probabilities[order]
    )


@dataclass(frozen=True)
class PredictedTest:
    """Of all test rows, (n, k) each.

    Attributes:
        raw: the mean of the models' probabilities.
        submitted: what `Answers` make of them.
    """

    raw: Probabilities
    submitted: Probabilities


def predict_test(
    manifest: pd.DataFrame,
    size_px: int,
    run: Callable[[Images], Sequence[Outputs]],
    task: DataTask,
    answers: Answers,
) -> PredictedTest:
    """Predictions of all test rows; what cannot be read gets the training labels' prior.

    Args:
        manifest: of train and test.
        size_px: what the models want.
        run: images -> outputs of each model, whose probabilities are averaged.
        task: turns outputs into probabilities.
        answers: what is submitted of them.
    """
    test = manifest[manifest["source"] == "test"]
    train = manifest[manifest["source"] == "train"]
    labels, soft_labels = train["label"].tolist(), train["soft_label"].tolist()
    prior = task.fallback_prediction(task.training_targets(labels, soft_labels))
    readable = readable_rows(manifest, "test")
    each = [np.zeros((0, len(task.classes)))]
    if not readable.empty:
        images = load_images(readable, size_px, "decode test")
        each = [task.predictions(outputs) for outputs in run(images)]
    return PredictedTest(
        fill_unreadable(np.mean(each, axis=0), test, prior),
        fill_unreadable(answers.apply(each), test, prior),
    )


def load_calibration_images(
    manifest: pd.DataFrame, train_list: Sequence[str], wanted: int, size_px: int, seed: int
) -> Images:
    """At most `wanted` different images of the training list, drawn by the seed.

    Drawn from the list's entries, so a class is as frequent as in training.
    """
    return load_training_images(manifest, train_list, wanted, size_px, seed)[0]


def load_training_images(
    manifest: pd.DataFrame, train_list: Sequence[str], wanted: int, size_px: int, seed: int
) -> tuple[StoredRows, list[str]]:
    """As `load_calibration_images`, with their labels."""
    train = readable_rows(manifest, "train")
    position_of = {image_id: row for row, image_id in enumerate(train["image_id"])}
    rng = np.random.default_rng(derive_seed(seed, "calibration"))
    drawn = dict.fromkeys(train_list[i] for i in rng.permutation(len(train_list)))
    positions = sorted(position_of[image_id] for image_id in list(drawn)[:wanted])
    images = load_images(train, size_px, "decode train").select(positions)
    return images, train["label"].iloc[positions].tolist()
