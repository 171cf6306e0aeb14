"""Params of compression."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from podium.params import Section


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
    """Which compressed candidate is made, and how much score it may cost."""

    # int8: static post-training quantisation as PaddleSlim makes it. none: the float32 model ships.
    quantize: Literal["int8", "none"]
    # Training images that the activation ranges are read from.
    calibration_images: Annotated[int, Field(ge=8, le=10_000)]
    # A candidate whose primary val score falls by more than this does not ship.
    max_drop: Annotated[float, Field(ge=0, le=1)]
    prune: PruneParams
    student: StudentParams
    qat: QatParams
