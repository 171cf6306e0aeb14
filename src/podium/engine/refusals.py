"""What no run can end well with, refused before the first expensive stage: params that contradict
each other or the competition's rules.

In: sections of params.yaml. Out: one line and exit 2.

The stages that need a param refuse it as well, since it may change after the training; but the last of
them is hours away. So features and train look at params here that they do not depend on in dvc.yaml:
these decide whether the stage runs, never what comes out of it.
"""

from __future__ import annotations

from typing import Protocol

from podium.data.params import CompetitionParams
from podium.data.rules import check_pseudo_labels, check_start, check_tta
from podium.engine.params import TrainParams
from podium.engine.phases import (
    TOP,
    check_cutmix,
    check_phases,
    check_pseudo_threshold,
    list_parts,
    make_plan,
)
from podium.errors import PodiumError
from podium.models.catalogue import TRUNK_DEPTHS
from podium.models.params import ModelParams
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import make_data_task


class Sections(Protocol):
    """What is looked at, of any stage's params."""

    @property
    def epochs(self) -> int | None: ...
    @property
    def competition(self) -> CompetitionParams: ...
    @property
    def model(self) -> ModelParams: ...
    @property
    def train(self) -> TrainParams: ...
    @property
    def evaluate(self) -> EvaluateParams: ...


def check_params(params: Sections) -> None:
    """Refuse what one look at params.yaml shows to be impossible or forbidden.

    Raises:
        PodiumError: initial weights, views or pseudo-labels against `competition.rules`; a metric or
            a loss for grades in order where there are none; images to cut, or test images to learn
            from, where layers are frozen; a warm-up longer than `epochs`, or a phase that none of them
            falls into, where they are not auto.
    """
    competition, model, train = params.competition, params.model, params.train
    primary, tta = params.evaluate.primary, params.evaluate.tta
    rules = competition.rules
    check_start(model.pretrained, model.weights, rules.pretrained, rules.external_data)
    check_pseudo_labels(train.pseudo_threshold, rules.pseudo_labels)
    check_tta(tta, rules.tta)
    make_data_task(  # which refuses a metric that is not for these classes
        competition.task,
        classes=competition.classes,
        ordinal=competition.ordinal,
        primary_metric=primary,
    )
    if train.loss == "ordinal" and not competition.ordinal:
        raise PodiumError(
            "train.loss: ordinal is for grades in order, but competition.ordinal is false: "
            "set it to true or choose cross_entropy or focal"
        )
    parts = [part for _, part in list_parts(model.freeze, train.unfreeze)]
    if TOP in parts and TRUNK_DEPTHS[model.name] == 1:
        raise PodiumError(
            f"train.unfreeze: expected head or all with {model.name}, whose layers do not run apart, "
            f"got {TOP}"
        )
    check_cutmix(train.recipes.cutmix, parts)
    check_pseudo_threshold(train.pseudo_threshold, model.freeze, parts)
    if params.epochs is not None:
        check_warmup(train, params.epochs)
        starts, most = model.starts_trained, max((px for _, px in train.size_schedule), default=0)
        plan = make_plan(model.freeze, starts, train.unfreeze, train.size_schedule, most)
        check_phases(plan, params.epochs)


def check_warmup(train: TrainParams, epochs: int) -> None:
    """Refuse a warm-up that the training would not see the end of.

    Args:
        train: as in params.yaml.
        epochs: of the training; what auto means is known once there is a training list.

    Raises:
        PodiumError: the learning rate would only rise, and not reach `lr`.
    """
    if train.schedule != "one_cycle" and train.warmup_epochs > epochs:
        raise PodiumError(
            f"train.warmup_epochs: expected {epochs} at most, the epochs of this training, got "
            f"{train.warmup_epochs:g}: the learning rate would only rise; set fewer, or more epochs"
        )
