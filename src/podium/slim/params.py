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

    # Largest bytes of the model's files, in MB (10^6 bytes); None: any that the rules allow.
    max_mb: Annotated[float, Field(gt=0)] | None
    # Most floating-point operations an image, in millions: twice the multiply-accumulates.
    max_mflops: Annotated[float, Field(gt=0)] | None
    # By so much evaluate.primary may fall on the val fold, against the trained net.
    max_drop: Annotated[float, Field(ge=0, le=1)]
    # Longest median latency of one view at batch 1, one thread, in milliseconds of the machine that
    # runs this.
    max_ms: Annotated[float, Field(gt=0)] | None
    # What the legal ones are ranked by; the other two break ties.
    prefer: Literal["bytes", "score", "flops"]


class PruneParams(Section):
    """The candidate net `pruned`: the trained net with fewer filters."""

    # How filters are ranked. l1: by the L1 norm; fpgm: by their distance from the others.
    method: Literal["l1", "fpgm"]
    # Share of the multiply-accumulates that shall go.
    ratio: Annotated[float, Field(gt=0, lt=1)]
    # uniform: the same share of each layer's filters. sensitivity: more where outputs suffer less.
    by: Literal["uniform", "sensitivity"]
    # Times that filters are cut and the rest is trained; each takes its share of the passes.
    rounds: Annotated[int, Field(ge=1, le=10)]
    # Passes over the training list that the net learns from its parent, all rounds together.
    passes: Annotated[int, Field(ge=1, le=1000)]


class StudentParams(Section):
    """The candidate net `student`: the first layers of the trained net, taught by the whole one."""

    # Share of the trunk's layers that are kept, from the first.
    depth: Annotated[float, Field(gt=0, lt=1)]
    # Passes over the training list.
    passes: Annotated[int, Field(ge=1, le=1000)]
    # Of both softmaxes: the higher, the more the small probabilities count.
    temperature: Annotated[float, Field(gt=0, le=100)]
    # Weight of the parent's answers against the images' own labels.
    alpha: Annotated[float, Field(ge=0, le=1)]


class QatParams(Section):
    """Quantisation-aware training: the net learns to live with int8 before it is made."""

    # Passes over the training list.
    passes: Annotated[int, Field(ge=1, le=1000)]


class CompressParams(Section):
    """Which candidates are made, and how one of them is chosen."""

    nets: Annotated[list[Literal["trained", "pruned", "student"]], Field(min_length=1), OnceEach]
    # qat: int8, and where that loses too much, int8 of a net that has learned to live with it.
    precisions: Annotated[
        list[Literal["float32", "bf16", "int8", "qat"]], Field(min_length=1), OnceEach
    ]
    formats: Annotated[list[Literal["paddle", "onnx"]], Field(min_length=1), OnceEach]
    # Training images that int8's ranges and roundings are read from.
    calibration_images: Annotated[int, Field(ge=8, le=10_000)]
    select: SelectParams
    prune: PruneParams
    student: StudentParams
    qat: QatParams
