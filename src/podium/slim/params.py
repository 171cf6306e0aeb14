"""Params of compression."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from podium.params import Section

ItemT = TypeVar("ItemT")


def _check_once_each(values: list[ItemT]) -> list[ItemT]:
    if len(set(map(str, values))) < len(values):
        raise ValueError("each name once")
    return values


OnceEach = AfterValidator(_check_once_each)


class SelectParams(Section):
    """Which of the candidates may ship, and which of those does."""

    # Largest bytes of the model's files, in MB (10^6 bytes); None: any.
    max_mb: Annotated[float, Field(gt=0)] | None
    # Most floating-point operations an image, in millions: twice the multiply-accumulates.
    max_mflops: Annotated[float, Field(gt=0)] | None
    # By so much evaluate.primary may fall on the val fold, against the trained net.
    max_drop: Annotated[float, Field(ge=0, le=1)]
    # Longest median latency at batch 1, one thread, in milliseconds of the machine that runs this.
    max_ms: Annotated[float, Field(gt=0)] | None
    # What the legal ones are ranked by; the other two break ties.
    prefer: Literal["bytes", "score", "flops"]


class CompressParams(Section):
    """Which candidates are made, and how one of them is chosen."""

    nets: Annotated[list[Literal["trained", "pruned", "student"]], Field(min_length=1), OnceEach]
    precisions: Annotated[list[Literal["float32", "bf16", "int8"]], Field(min_length=1), OnceEach]
    formats: Annotated[list[Literal["paddle", "onnx"]], Field(min_length=1), OnceEach]
    # Training images that int8's ranges and roundings are read from.
    calibration_images: Annotated[int, Field(ge=8, le=10_000)]
    select: SelectParams
