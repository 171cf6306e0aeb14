"""Small trainings for tests: params with changes, and a job over a net without pixels."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from podium.engine.batches import FeatureSource
from podium.engine.params import RuntimeParams, TrainParams
from podium.engine.phases import Phase
from podium.engine.training import Job, Part, Recipe, TrainingData
from podium.models.networks import build_head
from podium.tasks.classification.data import ClassificationData
from podium.tasks.classification.net import ClassificationNet

NO_RECIPES = {
    "autoaugment": 0.0,
    "randaugment": 0.0,
    "cutout": 0.0,
    "random_erasing": 0.0,
    "hide_and_seek": 0.0,
    "grid_mask": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
PLAIN = {
    "optimizer": "adamw",
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "step_epochs": [],
    "step_factor": 0.1,
    "warmup_epochs": 1.0,
    "clip_norm": 0.0,
    "loss": "cross_entropy",
    "focal_gamma": 2.0,
    "class_weights": "none",
    "label_smoothing": 0.0,
    "augment": "none",
    "flip": "none",
    "recipes": NO_RECIPES,
    "augment_until": 1.0,
    "views": 0,
    "unfreeze": [],
    "layer_decay": 1.0,
    "size_schedule": [],
    "ema": 0.0,
    "keep": "best",
    "soup": 0,
    "patience": 0,
    "pseudo_threshold": 0,
    "processes": 1,
    "accumulate": 1,
    "checkpoint_every": 0,
}
CPU = RuntimeParams(device="cpu", amp=False)
TASK = ClassificationData(("a", "b", "c"), ordinal=False)
ONE_PHASE = (Phase(0.0, "all", 32, 1.0),)


def params(**changes: object) -> TrainParams:
    """`train` of params.yaml, plain, with some changes."""
    return TrainParams.model_validate({**PLAIN, **changes})


def recipe(lr: float = 0.05, epochs: int = 3, batch_size: int = 16, **changes: object) -> Recipe:
    """How to train, with some changes to `train`."""
    return Recipe(params(**changes), CPU, lr, epochs, batch_size, seed=0)


def toy_head(dropout: float = 0.1, norm: bool = False) -> nn.Layer:
    """8 numbers in, 3 out; the same at every call."""
    paddle.seed(1)
    head = build_head(8, 3, dropout)
    return nn.Sequential(nn.BatchNorm1D(8), head) if norm else head


def toy_job(how: Recipe, dropout: float = 0.1, norm: bool = False, n_train: int = 60) -> Job:
    """Three classes that eight numbers tell apart, more or less; 30 rows to judge by."""
    n = n_train + 30
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 3
    features = rng.normal(size=(n, 8)).astype(np.float32)
    features[np.arange(n), targets] += 3
    source = FeatureSource(features)
    data = TrainingData(
        image_ids=[f"row{number}" for number in range(n)],
        targets=targets,
        train_rows=np.arange(n_train),
        val_rows=list(range(n_train, n)),
        score=lambda outputs, t: TASK.score(TASK.predictions(outputs), t),
    )

    def build(_: Phase) -> Part:
        head = toy_head(dropout, norm)
        return Part(head, head, lambda name: 0, source)

    task = ClassificationNet(
        3,
        how.params.label_smoothing,
        loss_name=how.params.loss,
        focal_gamma=how.params.focal_gamma,
        class_weights=how.params.class_weights,
        ordinal=True,
    )
    fitted = task.fit_to(targets[:n_train])
    return Job(build, ONE_PHASE, fitted, data, how, TASK.primary)
