"""What smaller nets are made from, and what a smaller net is.

In: models/foldK and the tables. Out: a `Parent`; the makers turn it into a `Variant`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.image_cache import Images, load_images, readable_rows
from podium.data.preprocessing import Preprocessing
from podium.engine.batches import Rows
from podium.engine.fit import find_rows
from podium.engine.provenance import hash_json
from podium.engine.runner import CARD_FILE
from podium.engine.scoring import make_val_set
from podium.engine.weights import fold_folder, load_network
from podium.errors import PodiumError
from podium.models.networks import Network
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import DataTask


@dataclass(frozen=True, eq=False)
class Parent:
    """The trained net of one fold, and what it may teach with: nothing of it sees a val label.

    Attributes:
        network: in evaluation mode.
        preprocessing: of the net.
        card: its model card; what it was trained with stands under `params`.
        image_ids: N, of the readable train images, all folds.
        images: theirs, uint8 (N, H, W, 3).
        targets: theirs, as the loss takes them.
        train_rows: the fold's training list as numbers of rows; repeats allowed.
        val_rows: the held-out fold's. A maker looks at the net's answers on them, to see which
            epoch comes nearest to the parent's, and at no label.
        net_task: the loss against the targets.
        seed: every draw derives from it.
    """

    network: Network
    preprocessing: Preprocessing
    card: dict[str, Any]
    image_ids: Sequence[str]
    images: Images
    targets: npt.NDArray[Any]
    train_rows: Rows
    val_rows: Rows
    net_task: NetTask
    seed: int


@dataclass(frozen=True)
class Variant:
    """A smaller float32 network made from the trained one.

    Attributes:
        name: pruned | student.
        network: in evaluation mode, preprocessed (N, 3, H, W) -> outputs (N, k): the trained net's
            preprocessing and outputs. `podium.engine.inference.export` takes it.
        made_by: how, and what was asked for and got; ready for JSON, no clocks.
        sensitivity: rows of the curves that prune.by: sensitivity chose its ratios from: layer,
            ratio, loss. Empty otherwise.
    """

    name: str
    network: Network
    made_by: dict[str, Any]
    sensitivity: list[dict[str, Any]] = field(default_factory=list)


def hash_lesson(
    card: dict[str, Any],
    manifest: pd.DataFrame,
    splits: pd.DataFrame,
    train_list: Sequence[str],
    fold: int,
    seed: int,
) -> str:
    """A hash of all that a parent is and teaches with, told from tables: no image is read.

    Args:
        card: of the fold's model.
        manifest, splits, train_list, fold, seed: see `load_parent`.
    """
    val = make_val_set(manifest, splits, fold)
    facts = {
        "weights": card["weights"]["sha256"],
        **{key: card.get(key) for key in ("task", "classes", "architecture", "preprocessing")},
        "train": card.get("params", {}).get("train"),
        "images": val.train[["image_id", "sha256", "label", "soft_label"]].to_csv(index=False),
        "train_list": list(train_list),
        "val": val.image_ids,
        "seed": seed,
    }
    return hash_json(facts)


def load_parent(
    models: Path,
    fold: int,
    manifest: pd.DataFrame,
    splits: pd.DataFrame,
    train_list: Sequence[str],
    data_task: DataTask,
    build_task: Callable[..., NetTask],
    seed: int,
) -> Parent:
    """The model of `fold` with its training list and its images.

    Args:
        models: the folder of the folds' models.
        fold: the one that was held out.
        manifest, splits, train_list: of the competition; the list of this fold.
        data_task: gives the targets.
        build_task: (data_task, **facts) -> the tensor half; `podium.tasks.table.build_net_task`.
        seed: `seed` of params.yaml.

    Raises:
        PodiumError: weights or card are missing, damaged or do not belong together; the card does
            not say how the net was trained; an image of the list is not in the manifest.
    """
    network, preprocessing, card = load_network(fold_folder(models, fold))
    rows = readable_rows(manifest, "train")
    image_ids: list[str] = rows["image_id"].tolist()
    try:
        train = card["params"]["train"]
        facts = {
            "label_smoothing": train["label_smoothing"],
            "loss_name": train["loss"],
            "focal_gamma": train["focal_gamma"],
            "class_weights": train["class_weights"],
            "ordinal": train["loss"] == "ordinal",
        }
    except (KeyError, TypeError):
        raise PodiumError(
            f"{fold_folder(models, fold) / CARD_FILE} does not say how the net was trained, which "
            "smaller nets need: train again"
        ) from None
    return Parent(
        network=network,
        preprocessing=preprocessing,
        card=card,
        image_ids=image_ids,
        images=load_images(rows, preprocessing.image_size_px, "decode train"),
        targets=data_task.training_targets(rows["label"].tolist(), rows["soft_label"].tolist()),
        train_rows=np.array(find_rows(train_list, image_ids, "data/train_list.csv"), np.int64),
        val_rows=make_val_set(manifest, splits, fold).positions,
        net_task=build_task(data_task, **facts),
        seed=seed,
    )
