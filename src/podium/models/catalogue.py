"""The trunks that Podium knows, and what params are checked against before Paddle is loaded.

tests/test_backbones.py holds the figures to the nets themselves.
"""

from __future__ import annotations

# Layers that can be run apart, frozen, or learn at their own rate; 1: the net is all or nothing.
TRUNK_DEPTHS = {
    "efficientnet_lite0": 18,
    "efficientnet_lite1": 23,
    "efficientnet_lite2": 23,
    # The rest is paddle.vision.models, but for inception_v3: at 64 px no map is left of it.
    "resnet18": 9,
    "resnet34": 17,
    "resnet50": 17,
    "resnet101": 34,
    "resnet152": 51,
    "resnext50_32x4d": 17,
    "resnext50_64x4d": 17,
    "resnext101_32x4d": 34,
    "resnext101_64x4d": 34,
    "resnext152_32x4d": 51,
    "resnext152_64x4d": 51,
    "wide_resnet50_2": 17,
    "wide_resnet101_2": 34,
    "vgg11": 8,
    "vgg13": 10,
    "vgg16": 13,
    "vgg19": 16,
    "mobilenet_v1": 14,
    "mobilenet_v2": 19,
    "mobilenet_v3_small": 13,
    "mobilenet_v3_large": 17,
    "densenet121": 8,
    "densenet161": 8,
    "densenet169": 8,
    "densenet201": 8,
    "densenet264": 8,
    "alexnet": 1,
    "squeezenet1_0": 1,
    "squeezenet1_1": 1,
    "googlenet": 1,
    "shufflenet_v2_x0_25": 18,
    "shufflenet_v2_x0_33": 18,
    "shufflenet_v2_x0_5": 18,
    "shufflenet_v2_x1_0": 18,
    "shufflenet_v2_x1_5": 18,
    "shufflenet_v2_x2_0": 18,
    "shufflenet_v2_swish": 18,
}

# Their ImageNet weights come inside a package.
WITH_OFFLINE_WEIGHTS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

# paddle.vision has no ImageNet weights of these.
WITHOUT_WEIGHTS = ("vgg11", "vgg13")

# Smaller inputs leave their pooling windows hanging over the map's edge.
_NEEDS_64_PX = ("alexnet", "googlenet", "squeezenet1_0", "squeezenet1_1")


def least_image_size_px(name: str) -> int:
    """The smallest input that a trunk makes sense of."""
    return 64 if name in _NEEDS_64_PX else 16
