"""The whole of params.yaml as one schema, from the sections that stand beside their readers.

Stages read only their own sections, so that a change elsewhere re-runs nothing; this is for the
command line, which checks all of it before anything starts.
"""

from __future__ import annotations

from podium.data.params import (
    CompetitionParams,
    DataParams,
    EdaParams,
    LabelShuffleParams,
    SplitParams,
)
from podium.data.rules import check_pseudo_labels, check_start, check_tta, describe_metric
from podium.engine.params import RuntimeParams, TrainParams
from podium.models.params import ModelParams
from podium.params import BatchSize, ChosenImageSize, Epochs, LearningRate, Params, Seed
from podium.slim.params import CompressParams
from podium.tasks.classification.params import EvaluateParams


class AllParams(Params):
    """Every key of params.yaml."""

    seed: Seed
    lr: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    image_size: ChosenImageSize
    competition: CompetitionParams
    data: DataParams
    eda: EdaParams
    split: SplitParams
    label_shuffle: LabelShuffleParams
    model: ModelParams
    train: TrainParams
    runtime: RuntimeParams
    evaluate: EvaluateParams
    compress: CompressParams


def check_rules(params: AllParams) -> list[str]:
    """Refuse what `competition.rules` forbids, as the stages do, before the first of them runs.

    Returns:
        Lines for the user about what is allowed and to be looked at.

    Raises:
        PodiumError: a param asks for what is forbidden.
    """
    rules = params.competition.rules
    check_start(
        params.model.pretrained, params.model.weights, rules.pretrained, rules.external_data
    )
    check_pseudo_labels(params.train.pseudo_threshold, rules.pseudo_labels)
    check_tta(params.evaluate.tta, rules.tta)
    differs = describe_metric(params.evaluate.primary, rules.metric)
    return [differs] if differs else []
