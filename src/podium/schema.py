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
from podium.engine.params import RuntimeParams, TrainParams
from podium.models.params import ModelParams
from podium.params import BatchSize, Epochs, ImageSize, LearningRate, Params, Seed
from podium.slim.params import CompressParams
from podium.tasks.classification.params import EvaluateParams


class AllParams(Params):
    """Every key of params.yaml."""

    seed: Seed
    lr: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    image_size: ImageSize
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
