"""Networks: a trunk that turns an image into features, and a linear head.

In: a name. Out: a `Network` whose state splits into `trunk.*` and `head.*`, with the preprocessing
its trunk was made for.
"""

from __future__ import annotations

import hashlib

import paddle
from paddle import nn

from podium.data.preprocessing import Preprocessing
from podium.models import efficientnet_lite
from podium.models.convolutions import make_convolutions_fast

# RGB in 0..255. Lite0: its training code's (x - 127) / 128; the zoo: ImageNet statistics.
_LITE_MEAN, _LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class _ZooTrunk(nn.Layer):
    """A paddle.vision model without its classifier, pooled: (N, 3, H, W) -> (N, features)."""

    depth = 1  # layers that could be told apart: they have no weights worth sparing

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = getattr(paddle.vision.models, name)(num_classes=0, with_pool=True)
        make_convolutions_fast(self.model)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.flatten(self.model(x), 1)

    def layer_of(self, parameter: str) -> int:
        """All are one."""
        return 0


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


def build_trunk(name: str, pretrained: bool) -> nn.Layer:
    """A trunk by its name in `model.name`; weights random (paddle.seed) or from ImageNet."""
    if name == "efficientnet_lite0":
        trunk = efficientnet_lite.EfficientNetLite0()
        if pretrained:
            trunk.set_state_dict(efficientnet_lite.load_imagenet_state())
        return trunk
    return _ZooTrunk(name)


def build_head(feature_dim: int, outputs: int, dropout: float) -> nn.Layer:
    """Dropout and a linear layer: (N, feature_dim) -> (N, outputs)."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(feature_dim, outputs))


def build_network(name: str, pretrained: bool, outputs: int, dropout: float) -> Network:
    """Trunk and a fresh head."""
    trunk = build_trunk(name, pretrained)
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


def make_preprocessing(name: str, image_size_px: int) -> Preprocessing:
    """The preprocessing that goes with a trunk."""
    if name == "efficientnet_lite0":
        return Preprocessing(image_size_px, _LITE_MEAN, _LITE_STD)
    return Preprocessing(image_size_px, _IMAGENET_MEAN, _IMAGENET_STD)


def pretrained_sha256(pretrained: bool) -> str | None:
    """Hash of the weights file that training started from (`ModelParams` allows one trunk with
    weights); None from scratch."""
    if not pretrained:
        return None
    return hashlib.sha256(efficientnet_lite.imagenet_weights_path().read_bytes()).hexdigest()
