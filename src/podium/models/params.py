"""Params of the network."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from podium.errors import did_you_mean
from podium.models.catalogue import TRUNK_DEPTHS, WITH_OFFLINE_WEIGHTS, WITHOUT_WEIGHTS
from podium.params import Section

# DVC hashes it as a dependency of the features stage: a dependency's name cannot come from a param
# that may be empty.
WEIGHTS_FOLDER = "data/weights"


def _check_name(name: str) -> str:
    if name not in TRUNK_DEPTHS:
        raise ValueError(
            "efficientnet_lite0..2 or a classification model of paddle.vision.models but "
            f"inception_v3{did_you_mean(name, TRUNK_DEPTHS)}"
        )
    return name


def _check_weights_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    folder = PurePosixPath(WEIGHTS_FOLDER).parts
    if parts[: len(folder)] != folder or len(parts) == len(folder) or ".." in parts:
        raise ValueError(f"nothing, or a file in {WEIGHTS_FOLDER}: copy it there, DVC looks there")
    return path


class ModelParams(Section):
    """Which trunk, with which weights, and how much of it stays fixed."""

    name: Annotated[str, AfterValidator(_check_name)]
    # ImageNet weights: of efficientnet_lite0..2 from a package, of the others from the network.
    pretrained: bool
    # Initial weights of the trunk from a file instead; the head is always new.
    weights: Annotated[str, AfterValidator(_check_weights_path)] | None
    # Nothing reaches for the network while this is false.
    allow_download: bool
    # What is fixed runs once per image and view, in the inference engine; only the rest trains.
    # all: the trunk; trunk: its first layers; none: nothing.
    freeze: Literal["none", "trunk", "all"]
    # Of the trunk's layers (`TRUNK_DEPTHS`), how many at its end are not its first ones.
    top_layers: Annotated[int, Field(ge=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @property
    def starts_trained(self) -> bool:
        """Whether the trunk begins with weights that have learned something."""
        return self.pretrained or self.weights is not None

    @model_validator(mode="after")
    def _check_weights(self) -> ModelParams:
        if self.pretrained and self.weights is not None:
            raise ValueError("model.pretrained false with model.weights: a trunk begins with one")
        if self.pretrained and self.name in WITHOUT_WEIGHTS:
            raise ValueError(
                f"model.pretrained false with {self.name}, of which there are no weights to "
                "download; model.weights takes a file of yours"
            )
        is_offline = self.name in WITH_OFFLINE_WEIGHTS
        if self.pretrained and not is_offline and not self.allow_download:
            raise ValueError(
                f"model.pretrained false with {self.name}, or model.allow_download true (Paddle's "
                "weights, from the network), or model.weights with a file of yours: offline "
                f"weights exist for {', '.join(WITH_OFFLINE_WEIGHTS)} only"
            )
        if self.freeze != "none" and not self.starts_trained:
            raise ValueError(
                "model.freeze none while model.pretrained is false and model.weights empty: a "
                "frozen random trunk learns nothing"
            )
        return self

    @model_validator(mode="after")
    def _check_layers(self) -> ModelParams:
        depth = TRUNK_DEPTHS[self.name]
        if depth == 1 and self.freeze == "trunk":
            raise ValueError(
                f"model.freeze all or none with {self.name}: its layers do not run apart"
            )
        if depth > 1 and self.top_layers >= depth:
            raise ValueError(
                f"model.top_layers 1 .. {depth - 1} with {self.name}, whose trunk has {depth} "
                f"layers (it is {self.top_layers})"
            )
        return self
