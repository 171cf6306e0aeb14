"""From splits and the training list to weights and a model card."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
from paddle import nn

from podium.data.augment import make_augment
from podium.data.image_cache import load_images, readable_rows
from podium.engine.batches import ImageSource, Source, ViewedImages
from podium.engine.features import check_same_start, load_features
from podium.engine.phases import (
    ALL,
    HEAD,
    Phase,
    check_augmentation,
    check_phases,
    count_augmented_epochs,
    count_views,
    is_whole,
    make_plan,
)
from podium.engine.runs import Run
from podium.engine.training import Job, Part, Recipe, Trained, TrainingData, train
from podium.engine.weights import State, read_state
from podium.errors import PodiumError
from podium.models.initial_weights import InitialWeights, load_initial_weights
from podium.models.networks import (
    Network,
    UpperNetwork,
    build_network,
    depth_below_head,
    make_preprocessing,
)
from podium.models.params import ModelParams
from podium.runtime import derive_seed
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import DataTask

# `epochs: auto`; docs/accuracy.md has what fewer and more bought.
_LEAST_EPOCHS, _MOST_EPOCHS = 3, 30
_ENOUGH_PICTURES = 16_000
_ENOUGH_PICTURES_OF_SEVERAL = 9_000


@dataclass(frozen=True)
class TrainingInputs:
    """What the earlier stages made: tables, and where the frozen trunk's features stand.

    Attributes:
        train_lists: by the fold that is held out.
    """

    manifest: pd.DataFrame
    splits: pd.DataFrame
    train_lists: Mapping[int, Sequence[str]]
    features: Path


@dataclass(frozen=True)
class Fitted:
    """The whole network's best state, its card (without the weights' hash) and the training."""

    state: State
    card: dict[str, Any]
    trained: Trained


def make_train_metrics(fitted: Mapping[int, Fitted]) -> dict[str, Any]:
    """What metrics/train.json says: means over the folds, and under `folds` each by itself.

    `soup_epochs`, with `train.soup`, is how many epochs' weights were averaged.
    """
    folds = [
        {
            "fold": fold,
            "epoch": one.trained.epoch,
            "epochs_run": len(one.trained.curve),
            "val_score": round(one.trained.score, 6),
            "train_loss": round(one.trained.curve[-1].train_loss, 6),
            "val_loss": round(one.trained.curve[-1].val_loss, 6),
            **({"soup_epochs": len(one.trained.soup)} if one.trained.soup else {}),
        }
        for fold, one in fitted.items()
    ]
    if len(folds) == 1:
        return {key: value for key, value in folds[0].items() if key != "fold"}
    means = {key: round(float(np.mean([row[key] for row in folds])), 6) for key in folds[0]}
    return {**{key: value for key, value in means.items() if key != "fold"}, "folds": folds}


@dataclass(frozen=True)
class FitJob:
    """A model for each training list: from what, which, how, judged by what.

    Attributes:
        image_size_px: side of the pictures that the net is judged on.
    """

    inputs: TrainingInputs
    model: ModelParams
    recipe: Recipe
    image_size_px: int
    data_task: DataTask
    net_task: NetTask


def choose_epochs(epochs: int | None, freeze: str, train_lists: Mapping[int, Sequence[str]]) -> int:
    """What `epochs: auto` (None) means; the same for all folds, whose curves are averaged.

    A head on features that are there costs nothing: 30. Else as many passes as show a model
    16,000 pictures, or each of several folds' models 9,000: what one of them has missed another
    one knows. 3 to 30.
    """
    if epochs is not None:
        return epochs
    if freeze == "all":
        return _MOST_EPOCHS
    longest = max(map(len, train_lists.values()))
    enough = _ENOUGH_PICTURES if len(train_lists) == 1 else _ENOUGH_PICTURES_OF_SEVERAL
    return min(max(round(enough / longest), _LEAST_EPOCHS), _MOST_EPOCHS)


def fit_folds(job: FitJob, run: Run) -> dict[int, Fitted]:
    """A model for each training list, one after another."""
    fitted = {}
    for fold in job.inputs.train_lists:
        if run.group.rank == 0 and len(job.inputs.train_lists) > 1:
            print(f"held out: fold {fold}", flush=True)
        fitted[fold] = fit(job, fold, run)
    return fitted


def fit(job: FitJob, fold: int, run: Run) -> Fitted:
    """Train the network on the training list without `fold`; judge by `fold`.

    What the plan's phases hold fixed is read from the features that its stage computed.
    """
    inputs, model, recipe, data_task = job.inputs, job.model, job.recipe, job.data_task
    rows = readable_rows(inputs.manifest, "train")
    image_ids: list[str] = rows["image_id"].tolist()
    val_ids = inputs.splits.loc[inputs.splits["fold"] == fold, "image_id"].tolist()
    train_rows = find_rows(inputs.train_lists[fold], image_ids, "data/train_list.csv")
    data = TrainingData(
        image_ids=image_ids,
        targets=data_task.training_targets(rows["label"].tolist(), rows["soft_label"].tolist()),
        train_rows=np.array(train_rows, np.int64),
        val_rows=find_rows(val_ids, image_ids, "data/splits.csv"),
        score=lambda outputs, targets: data_task.score(data_task.predictions(outputs), targets),
    )

    start = _load_start(inputs.features, model, run)

    def build_fresh(strength: float) -> Network:
        paddle.seed(derive_seed(recipe.seed, "weights"))
        dropout = model.dropout * strength
        return build_network(model.name, model.pretrained, job.net_task.outputs, dropout, start)

    def build(phase: Phase) -> Part:
        network = build_fresh(phase.strength)
        trainee: nn.Layer = network
        depth_of: Callable[[str], int] = partial(depth_below_head, network)
        if phase.part == HEAD:
            trainee, depth_of = network.head, lambda name: 0
        elif phase.part != ALL:
            trainee = UpperNetwork(network, model.top_layers)
        if run.group.rank:
            run.group.barrier()  # rank 0 decodes what is not in the store yet
        source = _make_source(job, rows, phase, n_views if is_whole(plan) else 0)
        if not run.group.rank:
            run.group.barrier()
        return Part(network, trainee, depth_of, source)

    params = recipe.params
    plan = make_plan(
        model.freeze, model.starts_trained, params.unfreeze, params.size_schedule, job.image_size_px
    )
    check_phases(plan, recipe.epochs)
    n_views = count_views(plan, params.views, len(rows))
    check_augmentation(plan, params.augment, params.recipes, n_views, params.augment_until)
    fitted_task = job.net_task.fit_to(data.targets[data.train_rows])
    training = Job(build, plan, fitted_task, data, recipe, data_task.primary)
    with run.fold(fold) as (on_epoch, checkpoints), run.steps(fold) as on_step:
        trained = train(training, on_epoch, run.group, checkpoints, on_step)
    card = _make_card(job, start, fold, trained)
    state = {**read_state(build_fresh(1.0)), **trained.state}
    return Fitted(state, card, trained)


def find_rows(wanted: Sequence[str], image_ids: Sequence[str], name: str) -> list[int]:
    """The places of the `wanted` among `image_ids`.

    Raises:
        PodiumError: one has none; `name` is the file that wants it.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    missing = [image_id for image_id in wanted if image_id not in row_of]
    if missing:
        raise PodiumError(f"{name} names {missing[0]!r}, which the manifest lacks: run `dvc repro`")
    return [row_of[image_id] for image_id in wanted]


def _make_source(job: FitJob, rows: pd.DataFrame, phase: Phase, n_fixed_views: int) -> Source:
    if phase.part != ALL:
        return load_features(job.inputs.features, phase, len(rows), job.image_size_px)
    params = job.recipe.params
    augmented_epochs = count_augmented_epochs(params.augment_until, job.recipe.epochs)
    source = ImageSource(
        images=load_images(rows, phase.image_size_px, "decode train"),
        judged_images=load_images(rows, job.image_size_px, "decode train"),
        image_ids=rows["image_id"].tolist(),
        preprocessing=make_preprocessing(job.model.name, phase.image_size_px),
        augment=make_augment(
            params.augment,
            params.flip,
            job.recipe.seed,
            phase.strength,
            params.recipes.of_images(),
            # The views of all epochs are drawn as if they were the first ones.
            None if n_fixed_views else augmented_epochs,
        ),
    )
    return ViewedImages(source, n_fixed_views) if n_fixed_views else source


def _load_start(features: Path, model: ModelParams, run: Run) -> InitialWeights | None:
    if run.group.rank:
        run.group.barrier()  # rank 0 downloads what is not in Paddle's cache yet
    start = load_initial_weights(model.name, model.pretrained, model.weights, model.allow_download)
    if not run.group.rank:
        check_same_start(features, start)
        run.group.barrier()
    return start


def _make_card(
    job: FitJob, start: InitialWeights | None, fold: int, trained: Trained
) -> dict[str, Any]:
    inputs, model, recipe, data_task = job.inputs, job.model, job.recipe, job.data_task
    split_lines = (inputs.splits["image_id"] + "," + inputs.splits["fold"].astype(str)).tolist()
    return {
        "task": data_task.name,
        "classes": list(data_task.classes),
        "architecture": {
            "name": model.name,
            "outputs": job.net_task.outputs,
            "dropout": model.dropout,
        },
        "preprocessing": make_preprocessing(model.name, job.image_size_px).to_card(),
        "params": {
            "seed": recipe.seed,
            "lr": recipe.lr,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "model": model.model_dump(),
            "train": recipe.params.model_dump(mode="json"),
            "runtime": recipe.runtime.model_dump(),
            "split": {"val_fold": fold},
        },
        "data": {
            "images_sha256": _hash_lines(inputs.manifest["sha256"].tolist()),
            "splits_sha256": _hash_lines(split_lines),
            "train_list_sha256": _hash_lines(inputs.train_lists[fold]),
        },
        "pretrained_sha256": start.sha256 if start else None,
        "score": {
            "metric": data_task.primary.name,
            "val": round(trained.score, 6),
            "epoch": trained.epoch,
            **({"soup_epochs": list(trained.soup)} if trained.soup else {}),
        },
    }


def _hash_lines(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
