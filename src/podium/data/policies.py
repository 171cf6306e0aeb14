"""AutoAugment and RandAugment: operations on a whole image, at a learned or at one fixed level.

Operations and their ranges are those of Cubuk et al. (arXiv:1805.09501, table 6), made of
Pillow's, as the authors' were. A level is a share of the range: 0 changes nothing or little, 1 is
the most. What comes into the picture from outside is MEAN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from podium.data.decode import RGB

# Of ImageNet's pixels, RGB.
MEAN = (124, 116, 104)

_SHEAR = 0.3
_SHIFT = 150 / 331  # of the side; the authors' images were 331 px wide
_ROTATE_DEGREES = 30.0
_ENHANCE = 0.9
_LOST_BITS = 4

# RandAugment (arXiv:1909.13719): N operations at level M; 2 and 9 of 30 are its ResNet-50's on
# ImageNet.
_RANDAUGMENT_N = 2
_RANDAUGMENT_LEVEL = 9 / 30

Operation = Callable[[Image.Image, float], Image.Image]


def _move(
    a: float, b: float, c: float, d: float, e: float, f: float, image: Image.Image
) -> Image.Image:
    matrix = (a, b, c, d, e, f)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=MEAN
    )


def _shear_x(image: Image.Image, level: float) -> Image.Image:
    return _move(1, _SHEAR * level, 0, 0, 1, 0, image)


def _shear_y(image: Image.Image, level: float) -> Image.Image:
    return _move(1, 0, 0, _SHEAR * level, 1, 0, image)


def _translate_x(image: Image.Image, level: float) -> Image.Image:
    return _move(1, 0, _SHIFT * level * image.width, 0, 1, 0, image)


def _translate_y(image: Image.Image, level: float) -> Image.Image:
    return _move(1, 0, 0, 0, 1, _SHIFT * level * image.height, image)


def _rotate(image: Image.Image, level: float) -> Image.Image:
    angle = _ROTATE_DEGREES * level
    return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=MEAN)


def _posterize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(_LOST_BITS * level))


def _solarize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.solarize(image, round(255 * (1 - level)))


def _color(image: Image.Image, level: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + _ENHANCE * level)


def _contrast(image: Image.Image, level: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + _ENHANCE * level)


def _brightness(image: Image.Image, level: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + _ENHANCE * level)


def _sharpness(image: Image.Image, level: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + _ENHANCE * level)


# Those that go both ways get a random sign with their level.
_SIGNED: dict[str, Operation] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}
_OPERATIONS: dict[str, Operation] = {
    **_SIGNED,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "invert": lambda image, level: ImageOps.invert(image),
}
# RandAugment's own list: no inversion; `identity` is one of the 14.
_RANDAUGMENT = (*(name for name in _OPERATIONS if name != "invert"), "identity")

# The policy learned on ImageNet (table 9): operation, probability, level 0..9; then a second one.
_AUTOAUGMENT = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)
_AUTOAUGMENT_LEVELS = 9


def apply_autoaugment(image: RGB, rng: np.random.Generator) -> RGB:
    """One of the 25 sub-policies that were best for ImageNet (arXiv:1805.09501)."""
    changed = Image.fromarray(image)
    for name, probability, level in _AUTOAUGMENT[int(rng.integers(len(_AUTOAUGMENT)))]:
        if rng.random() < probability:
            changed = _apply(changed, name, level / _AUTOAUGMENT_LEVELS, rng)
    return np.asarray(changed)


def apply_randaugment(image: RGB, rng: np.random.Generator) -> RGB:
    """Two of 14 operations, drawn with replacement, at a third of their range
    (arXiv:1909.13719)."""
    changed = Image.fromarray(image)
    for name in rng.choice(_RANDAUGMENT, _RANDAUGMENT_N):
        if name != "identity":
            changed = _apply(changed, str(name), _RANDAUGMENT_LEVEL, rng)
    return np.asarray(changed)


def _apply(image: Image.Image, name: str, level: float, rng: np.random.Generator) -> Image.Image:
    if name in _SIGNED and rng.random() < 0.5:
        level = -level
    return _OPERATIONS[name](image, level)
