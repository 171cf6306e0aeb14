"""From splits and the training list to weights and a model card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd

from podium.data.augment import make_augment
from podium.data.image_cache import load_images, readable_rows
from podium.engine.batches import FeatureSource, ImageSource, Source
from podium.engine.curves import EpochRow
from podium.engine.features import load_train_features
from podium.engine.training import Recipe, Trained, TrainingData, train
from podium.engine.weights import State, read_state
from podium.errors import PodiumError
from podium.models.networks import build_network, make_preprocessing, pretrained_sha256
from podium.models.params import ModelParams
from podium.runtime import derive_seed
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import DataTask


@dataclass(frozen=True)
class TrainingInputs:
    """What the earlier stages made: tables, and where the frozen trunk's features stand."""

    manifest: pd.DataFrame
    splits: pd.DataFrame
    train_list: Sequence[str]
    features: Path
    val_fold: int


@dataclass(frozen=True)
class Fitted:
    """The whole network's best state, its card (without the weights' hash) and the training."""

    state: State
    card: dict[str, Any]
    trained: Trained

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics/train.json says."""
        return {
            "best_epoch": self.trained.best_epoch,
            "epochs_run": len(self.trained.curve),
            "best_val_score": round(self.trained.best_score, 6),
            "train_loss": round(self.trained.curve[-1].train_loss, 6),
            "val_loss": round(self.trained.curve[-1].val_loss, 6),
        }


def fit(
    inputs: TrainingInputs,
    model: ModelParams,
    recipe: Recipe,
    image_size_px: int,
    data_task: DataTask,
    net_task: NetTask,
    on_epoch: Callable[[EpochRow], None],
) -> Fitted:
    """Train the network that `model` names on the training list; judge by the val fold.

    With `model.freeze: all` only the head trains, on the stored features; the trunk's state is the
    pretrained one, untouched.
    """
    paddle.seed(derive_seed(recipe.seed, "weights"))
    network = build_network(model.name, model.pretrained, net_task.outputs, model.dropout)
    rows = readable_rows(inputs.manifest, "train")
    row_of = {image_id: row for row, image_id in enumerate(rows["image_id"])}
    val_ids = inputs.splits.loc[inputs.splits["fold"] == inputs.val_fold, "image_id"].tolist()
    train_rows = _find_rows(inputs.train_list, row_of, "data/train_list.csv")
    val_rows = _find_rows(val_ids, row_of, "data/splits.csv")
    data = TrainingData(
        source=_make_source(inputs, rows, model, recipe, image_size_px),
        targets=data_task.targets(rows["label"].tolist()),
        train_rows=np.array(train_rows, np.int64),
        val_rows=val_rows,
        score=lambda outputs, targets: data_task.score(data_task.predictions(outputs), targets),
    )
    trainee = network.head if model.freeze == "all" else network
    trained = train(trainee, net_task, data, recipe, data_task.primary, on_epoch)
    card = _make_card(model, recipe, image_size_px, data_task, net_task, inputs, trained)
    return Fitted(read_state(network), card, trained)


def _find_rows(image_ids: Sequence[str], row_of: dict[str, int], name: str) -> list[int]:
    missing = [image_id for image_id in image_ids if image_id not in row_of]
    if missing:
        raise PodiumError(f"{name} names {missing[0]!r}, which the manifest lacks: run `dvc repro`")
    return [row_of[image_id] for image_id in image_ids]


def _make_source(
    inputs: TrainingInputs,
    rows: pd.DataFrame,
    model: ModelParams,
    recipe: Recipe,
    image_size_px: int,
) -> Source:
    if model.freeze == "all":
        return FeatureSource(load_train_features(inputs.features, rows))
    return ImageSource(
        images=load_images(rows, image_size_px, "decode train"),
        image_ids=rows["image_id"].tolist(),
        preprocessing=make_preprocessing(model.name, image_size_px),
        augment=make_augment(recipe.params.augment, recipe.params.flip, recipe.seed),
    )


def _make_card(
    model: ModelParams,
    recipe: Recipe,
    image_size_px: int,
    data_task: DataTask,
    net_task: NetTask,
    inputs: TrainingInputs,
    trained: Trained,
) -> dict[str, Any]:
    split_lines = (inputs.splits["image_id"] + "," + inputs.splits["fold"].astype(str)).tolist()
    return {
        "task": data_task.name,
        "classes": list(data_task.classes),
        "architecture": {
            "name": model.name,
            "outputs": net_task.outputs,
            "dropout": model.dropout,
        },
        "preprocessing": make_preprocessing(model.name, image_size_px).to_card(),
        "params": {
            "seed": recipe.seed,
            "lr": recipe.lr,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "model": model.model_dump(),
            "train": recipe.params.model_dump(),
            "split": {"val_fold": inputs.val_fold},
        },
        "data": {
            "images_sha256": _hash_lines(inputs.manifest["sha256"].tolist()),
            "splits_sha256": _hash_lines(split_lines),
            "train_list_sha256": _hash_lines(inputs.train_list),
        },
        "pretrained_sha256": pretrained_sha256(model.pretrained),
        "score": {
            "metric": data_task.primary.name,
            "val": round(trained.best_score, 6),
            "epoch": trained.best_epoch,
        },
    }


def _hash_lines(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
