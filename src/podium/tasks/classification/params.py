"""Params of judging a classification model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from podium.params import Section

PrimaryMetric = Literal["accuracy", "balanced_accuracy", "macro_f1", "qwk", "log_loss"]


class EvaluateParams(Section):
    """The metric that early stopping and the headline use, and the effort for intervals."""

    # qwk (quadratic weighted kappa) needs competition.ordinal: true.
    primary: PrimaryMetric
    bootstrap_draws: Annotated[int, Field(ge=100, le=100_000)]
