"""Params of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from podium.params import Section


class TrainParams(Section):
    """The training loop; lr, epochs, batch_size and image_size stand at the top level."""

    optimizer: Literal["adamw", "adam", "sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    schedule: Literal["cosine", "constant"]
    warmup_epochs: Annotated[float, Field(ge=0, le=100)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    augment: Literal["none", "light"]
    flip: Literal["none", "horizontal", "both"]
    # Stop after this many epochs without a better val score; 0: never.
    patience: Annotated[int, Field(ge=0, le=1000)]
