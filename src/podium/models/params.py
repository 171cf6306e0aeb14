"""Params of the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from podium.params import Section

BackboneName = Literal[
    "efficientnet_lite0",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
]


class ModelParams(Section):
    """Which trunk, with which weights, and how much of it stays fixed."""

    name: BackboneName
    # ImageNet weights that ship inside a package: efficientnet_lite0 only; nothing is downloaded.
    pretrained: bool
    # What is fixed runs once per image and view, in the inference engine; only the rest trains.
    # all: the trunk; trunk: its first layers; none: nothing.
    freeze: Literal["none", "trunk", "all"]
    # Of the trunk's layers (efficientnet_lite0: 18), how many at its end are not its first ones.
    top_layers: Annotated[int, Field(ge=1, le=17)]
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _check_weights(self) -> ModelParams:
        if self.pretrained and self.name != "efficientnet_lite0":
            raise ValueError(
                f"model.pretrained false with {self.name}: offline weights exist for "
                "efficientnet_lite0 only"
            )
        if self.freeze != "none" and not self.pretrained:
            raise ValueError(
                "model.freeze none while model.pretrained is false: a frozen random trunk "
                "learns nothing"
            )
        return self
