"""Params of judging a classification model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from podium.data.params import MetricName
from podium.data.views import Tta
from podium.params import Auto, Section

PrimaryMetric = MetricName


class EvaluateParams(Section):
    """The metric that `train.keep: best` and the headline use, the effort for intervals, and what is
    made of the nets' outputs."""

    # qwk (quadratic weighted kappa) needs competition.ordinal: true.
    primary: PrimaryMetric
    bootstrap_draws: Annotated[int, Field(ge=100, le=100_000)]
    # Views of each image, in val, test and deploy/, whose outputs are averaged. None: auto, the
    # mirrors that the model learned from, where the rules allow views.
    tta: Annotated[Tta | None, Auto]
    # One temperature for all logits, used where it lowers the log loss (95 %).
    calibrate: bool
    # auto: labels decided otherwise, where that raises the primary metric (95 %).
    decoder: Literal["argmax", "auto"]
