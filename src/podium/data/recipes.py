"""Augmentation recipes of the literature that change one image: policies, and holes.

Each takes an image and a random generator. A hole is filled with the mean of ImageNet's pixels,
which preprocessing turns into about 0: the papers cut holes into normalised images. `mixup` and
`cutmix`, which need a second image and its target, are in `podium.engine.mixing`.

albumentations has relatives of the four below, and no policies. They are not the papers': its
CoarseDropout keeps holes off the edge, its Erasing never takes more than 30 % (of a square image),
its GridDropout shakes each hole in its cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from podium.data.decode import RGB
from podium.data.policies import MEAN, apply_autoaugment, apply_randaugment

Change = Callable[[RGB, np.random.Generator], RGB]

# DeVries & Taylor's square for CIFAR-10 is half as wide as the image; PaddleClas cuts as much.
_CUTOUT_SIDE = 0.5
# Zhong et al., section 4: area, aspect ratio.
_ERASED_AREA = (0.02, 0.4)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASING_ATTEMPTS = 100
# Singh & Lee hide cells of 16, 32, 44 or 56 px in 224, each with probability 0.5.
_CELLS_PER_SIDE = (14, 7, 5, 4)
_HIDDEN = 0.5
# Chen et al., for ImageNet: the grid's unit is 96 to 224 px of 224, and 0.6 of its side is kept.
_GRID_UNIT = (96 / 224, 1.0)
_GRID_KEPT = 0.6


@dataclass(frozen=True)
class ImageRecipes:
    """How probable each recipe is, 0..1, in the order in which they act."""

    autoaugment: float = 0.0
    randaugment: float = 0.0
    cutout: float = 0.0
    random_erasing: float = 0.0
    hide_and_seek: float = 0.0
    grid_mask: float = 0.0


NO_RECIPES = ImageRecipes()


def recipes_that_act(recipes: ImageRecipes) -> list[tuple[str, float, Change]]:
    """Name, probability and function of each recipe that is not off, in the order of the fields."""
    every = [(field.name, getattr(recipes, field.name)) for field in fields(recipes)]
    return [(name, probability, _CHANGES[name]) for name, probability in every if probability]


def cutout(image: RGB, rng: np.random.Generator) -> RGB:
    """Cut a square of half the image's side around any pixel, over the edge too (DeVries & Taylor,
    arXiv:1708.04552)."""
    height, width = image.shape[:2]
    reach = round(_CUTOUT_SIDE * min(height, width)) // 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    changed = image.copy()
    changed[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = MEAN
    return changed


def random_erasing(image: RGB, rng: np.random.Generator) -> RGB:
    """Put noise into a rectangle of 2 to 40 % of the image (Zhong et al., arXiv:1708.04896)."""
    height, width = image.shape[:2]
    for _ in range(_ERASING_ATTEMPTS):
        area = rng.uniform(*_ERASED_AREA) * height * width
        aspect = rng.uniform(*_ERASED_ASPECT)
        tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < tall <= height and 0 < wide <= width:
            break
    else:
        return image
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    changed = image.copy()
    noise = rng.integers(0, 256, (tall, wide, 3), dtype=np.uint8)
    changed[top : top + tall, left : left + wide] = noise
    return changed


def hide_and_seek(image: RGB, rng: np.random.Generator) -> RGB:
    """Hide about half of the cells of a grid (Singh & Lee, arXiv:1704.04232)."""
    height, width = image.shape[:2]
    cells = int(rng.choice(_CELLS_PER_SIDE))
    hidden = rng.random((cells, cells)) < _HIDDEN
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    return _fill(image, hidden[np.ix_(rows, columns)])


def grid_mask(image: RGB, rng: np.random.Generator) -> RGB:
    """Cut square holes out in a grid of random pitch and place (Chen et al., arXiv:2001.04086)."""
    height, width = image.shape[:2]
    low, high = (max(2, round(share * min(height, width))) for share in _GRID_UNIT)
    unit = int(rng.integers(low, high + 1))
    hole = max(1, round((1 - _GRID_KEPT) * unit))
    down, right = int(rng.integers(unit)), int(rng.integers(unit))
    rows = (np.arange(height) + down) % unit < hole
    columns = (np.arange(width) + right) % unit < hole
    return _fill(image, rows[:, None] & columns)


def _fill(image: RGB, where: npt.NDArray[np.bool_]) -> RGB:
    changed = image.copy()
    changed[where] = MEAN
    return changed


_CHANGES: dict[str, Change] = {
    "autoaugment": apply_autoaugment,
    "randaugment": apply_randaugment,
    "cutout": cutout,
    "random_erasing": random_erasing,
    "hide_and_seek": hide_and_seek,
    "grid_mask": grid_mask,
}
