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
from podium.data.rules import describe_metric
from podium.engine.params import RuntimeParams, TrainParams
from podium.engine.refusals import check_params
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
    """Refuse what is forbidden or impossible, as the stages do, before the first of them runs.

    Returns:
        Lines for the user about what is allowed and to be looked at.

    Raises:
        PodiumError: as `check_params`.
    """
    check_params(params)
    differs = describe_metric(params.evaluate.primary, params.competition.rules.metric)
    return [differs] if differs else []
