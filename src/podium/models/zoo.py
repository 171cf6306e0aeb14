"""paddle.vision's classification models as trunks: cut before their classifier, pooled over the image.

Most are chains, whose layers can be run apart; AlexNet, SqueezeNet and GoogLeNet are one layer each.
"""

from __future__ import annotations

import sys

import paddle
from paddle import nn
from paddle.nn import functional

from podium.models.catalogue import TRUNK_DEPTHS
from podium.models.convolutions import make_convolutions_fast

# What their own pooling makes is made for their classifier: a 7 x 7 map, or several outputs.
_BATCH_NORM_MOMENTUM = 0.9
_POOLED_HERE = ("vgg", "alexnet", "googlenet")
# By the beginning of a net's name, how its classifier's parameters are called, in paddle.vision's
# files and, for the residual nets and VGG, in torchvision's.
_CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "resnet": ("fc.",),
    "resnext": ("fc.",),
    "wide_resnet": ("fc.",),
    "vgg": ("classifier.",),
    "mobilenet_v1": ("fc.",),
    "mobilenet_v2": ("classifier.",),
    "mobilenet_v3": ("classifier.",),
    "shufflenet": ("_fc.",),
    "densenet": ("out.",),
    "squeezenet": ("_conv9.",),
    "alexnet": ("_fc6.", "_fc7.", "_fc8."),
    "googlenet": ("_fc_out.", "_conv_o", "_fc_o", "_out"),
}
# The zoo's own names of its weights, where they are not the net's.
_WEIGHTS_NAMES = {
    "mobilenet_v1": "mobilenetv1_1.0",
    "mobilenet_v2": "mobilenetv2_1.0",
    "mobilenet_v3_small": "mobilenet_v3_small_x1.0",
    "mobilenet_v3_large": "mobilenet_v3_large_x1.0",
}


class ZooTrunk(nn.Layer):
    """Trunk: float32 (N, 3, H, W) -> float32 features (N, features), pooled over the image.

    Args:
        name: a function of paddle.vision.models; `TRUNK_DEPTHS` knows which.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = _build(name)
        make_convolutions_fast(self.model)
        self._pools = name.startswith(_POOLED_HERE)
        self._steps = [[""]] if TRUNK_DEPTHS[name] == 1 else _find_layers(self.model)

    @property
    def depth(self) -> int:
        """Layers: convolutions or blocks, each with what follows it; the last with the pooling."""
        return len(self._steps)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.run(x, 0, self.depth)

    def run(self, x: paddle.Tensor, first: int, last: int) -> paddle.Tensor:
        """Layers `first` to `last` - 1 on what layer `first` - 1 gave."""
        for layer in range(first, last):
            for path in self._steps[layer]:
                x = _find(self.model, path)(x)
            if layer == self.depth - 1:
                x = (
                    x[0] if isinstance(x, tuple) else x
                )  # GoogLeNet's two others help its classifier
                x = functional.adaptive_avg_pool2d(x, 1) if self._pools else x
                x = paddle.flatten(x, 1)
        return x

    def layer_of(self, parameter: str) -> int:
        """The layer that a parameter of this trunk belongs to, by its name."""
        name = parameter.removeprefix("model.")
        return next(
            layer
            for layer, paths in enumerate(self._steps)
            if any(path == "" or name.startswith(f"{path}.") for path in paths)
        )


def classifier_prefixes(name: str) -> tuple[str, ...]:
    """How the names of a zoo net's classifier parameters begin."""
    return next(prefixes for start, prefixes in _CLASSIFIERS.items() if name.startswith(start))


def find_weights_source(name: str) -> tuple[str, str] | None:
    """Address and MD5 of the ImageNet weights that paddle.vision has for a net; None: it has none."""
    urls = sys.modules[getattr(paddle.vision.models, name).__module__].model_urls
    found: tuple[str, str] | None = urls.get(_WEIGHTS_NAMES.get(name, name))
    return found


def _build(name: str) -> nn.Layer:
    """A net of paddle.vision without its classifier.

    Its MobileNetV3 keeps 99 % of batch norm's running statistics at a step (TensorFlow's number,
    for trainings of 100,000 steps): after a few hundred they are still those of the start, and the
    net answers at chance. No net here keeps more than Paddle's and PaddleClas's 90 %.
    """
    model = _build_as_is(name)
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = min(layer._momentum, _BATCH_NORM_MOMENTUM)
    return model


def _build_as_is(name: str) -> nn.Layer:
    build = getattr(paddle.vision.models, name)
    if name.startswith(
        "squeezenet"
    ):  # its classifier is a convolution, which cannot have 0 outputs
        model = build(num_classes=1)
        del model._conv9
        model.num_classes = 0
        return model
    if name == "alexnet":
        return build(num_classes=0)
    return build(num_classes=0, with_pool=not name.startswith(_POOLED_HERE))


def _find_layers(model: nn.Layer) -> list[list[str]]:
    """A chain's layers as paths of sublayers: each begins with a convolution or a block of them."""
    layers: list[list[str]] = []
    for name, child in model.named_children():
        parts = [(name, child)]
        if type(child) is nn.Sequential:
            parts = [(f"{name}.{place}", part) for place, part in child.named_children()]
        for path, part in parts:
            convolves = any(isinstance(s, nn.Conv2D) for s in part.sublayers(include_self=True))
            if convolves or not layers:
                layers.append([path])
            else:
                layers[-1].append(path)
    return layers


def _find(model: nn.Layer, path: str) -> nn.Layer:
    for name in path.split(".") if path else ():
        model = getattr(model, name)
    return model
