"""Params of compression."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from podium.params import Section


class CompressParams(Section):
    """Which compressed candidate is made, and how much score it may cost."""

    # int8: static post-training quantisation as PaddleSlim makes it. none: the float32 model ships.
    quantize: Literal["int8", "none"]
    # Training images that the activation ranges are read from.
    calibration_images: Annotated[int, Field(ge=8, le=10_000)]
    # A candidate whose primary val score falls by more than this does not ship.
    max_drop: Annotated[float, Field(ge=0, le=1)]
