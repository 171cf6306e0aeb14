"""Networks: a trunk that turns an image into features, and a linear head.

In: a name. Out: a `Network` whose state splits into `trunk.*` and `head.*`, with the preprocessing
its trunk was made for.
"""

from __future__ import annotations

import paddle
from paddle import nn

from podium.data.preprocessing import Preprocessing
from podium.errors import PodiumError
from podium.models.catalogue import WITH_OFFLINE_WEIGHTS, least_image_size_px
from podium.models.efficientnet_lite import EfficientNetLite
from podium.models.initial_weights import (
    InitialWeights,
    load_initial_weights,
    set_initial_weights,
)
from podium.models.zoo import ZooTrunk

# RGB in 0..255. Lite nets: their training code's (x - 127) / 128; the zoo: ImageNet statistics.
_LITE_MEAN, _LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Network(nn.Layer):
    """float32 (N, 3, H, W) -> float32 outputs (N, outputs): logits, densities, ... per the task."""

    def __init__(self, trunk: nn.Layer, head: nn.Layer) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.trunk(x))


class LowerTrunk(nn.Layer):
    """The first layers of a trunk: float32 (N, 3, H, W) -> the map that the others go on from."""

    def __init__(self, trunk: nn.Layer, top_layers: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.end = trunk.depth - top_layers

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.trunk.run(x, 0, self.end)


class UpperNetwork(nn.Layer):
    """The last `top_layers` of a network's trunk, and its head: maps -> outputs.

    The layers below neither run nor learn.
    """

    def __init__(self, network: Network, top_layers: int) -> None:
        super().__init__()
        self.trunk, self.head = network.trunk, network.head
        self.begin = network.trunk.depth - top_layers
        for name, parameter in self.trunk.named_parameters():
            if self.trunk.layer_of(name) < self.begin:
                parameter.stop_gradient = True

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.trunk.run(x, self.begin, self.trunk.depth))


def depth_below_head(network: nn.Layer, parameter: str) -> int:
    """How many layers a parameter of a `Network` or an `UpperNetwork` is away from the head: 0 in
    the head itself."""
    part, _, name = parameter.partition(".")
    if part != "trunk":
        return 0
    return int(network.trunk.depth - network.trunk.layer_of(name))


def build_trunk(name: str, pretrained: bool, start: InitialWeights | None = None) -> nn.Layer:
    """A trunk by its name in `model.name`.

    Args:
        name: as there.
        pretrained: with the ImageNet weights that come inside a package (the Lite nets').
        start: with these weights instead. With neither they are random (paddle.seed).

    Raises:
        PodiumError: `start` does not fit.
    """
    trunk = EfficientNetLite(name) if name in WITH_OFFLINE_WEIGHTS else ZooTrunk(name)
    start = start or load_initial_weights(name, pretrained, None, allow_download=False)
    if start:
        set_initial_weights(trunk, name, start)
    return trunk


def build_head(feature_dim: int, outputs: int, dropout: float) -> nn.Layer:
    """Dropout and a linear layer: (N, feature_dim) -> (N, outputs)."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, outputs))


def build_network(
    name: str,
    pretrained: bool,
    outputs: int,
    dropout: float,
    start: InitialWeights | None = None,
) -> Network:
    """Trunk, as `build_trunk` builds it, and a fresh head."""
    trunk = build_trunk(name, pretrained, start)
    return Network(trunk, build_head(feature_dim(trunk), outputs, dropout))


def feature_dim(trunk: nn.Layer) -> int:
    """How many features a trunk gives: asked by running one small image through it."""
    was_training = trunk.training
    trunk.eval()
    with paddle.no_grad():
        features = trunk(paddle.zeros([1, 3, 64, 64]))
    if was_training:
        trunk.train()
    return int(features.shape[1])


def check_image_size(name: str, image_size_px: int) -> None:
    """Raises:
    PodiumError: images too small for the trunk `name`.
    """
    least = least_image_size_px(name)
    if image_size_px < least:
        raise PodiumError(
            f"model.name {name}: expected image_size and train.size_schedule of {least} px at "
            f"least, got {image_size_px}: choose larger images or another net"
        )


def make_preprocessing(name: str, image_size_px: int) -> Preprocessing:
    """The preprocessing that goes with a trunk."""
    if name in WITH_OFFLINE_WEIGHTS:
        return Preprocessing(image_size_px, _LITE_MEAN, _LITE_STD)
    return Preprocessing(image_size_px, _IMAGENET_MEAN, _IMAGENET_STD)
