"""Fixed views of an image whose predictions are averaged: test-time augmentation.

In: uint8 images. Out: the same images mirrored, turned or moved. Nothing is drawn by chance, so
val, test and the shipped model see the same views on every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from podium.data.decode import RGB
from podium.errors import PodiumError

Tta = Literal["none", "horizontal", "both", "dihedral", "shift"]

# A photo's frame cuts anywhere: a move of this share of the side is far less than the subject.
_SHIFT = 1 / 32

_Move = Callable[[RGB], RGB]


def make_views(images: RGB, tta: Tta) -> list[RGB]:
    """The views of each image, the image itself first.

    Args:
        images: uint8 (N, S, S, 3), squares.
        tta: none: the image. horizontal: and its mirror image. both: mirrored in each axis and in
            both. dihedral: the eight turns and mirror images of the square. shift: moved left,
            right, up and down by 1/32 of the side, at least 1 px, the gap filled by reflection.

    Returns:
        `count_views(tta)` arrays like `images`.
    """
    return [move(images) for move in _MOVES[tta]]


def count_views(tta: Tta) -> int:
    """How many times as much work a prediction is."""
    return len(_MOVES[tta])


def describe_cost(tta: Tta) -> str:
    """What the views cost, "" for the plain image."""
    views = count_views(tta)
    return "" if views == 1 else f"tta {tta}: {views} views of each image, {views} times the work"


def parse_tta(value: object, where: str) -> Tta:
    """The views that a file names.

    Raises:
        PodiumError: no such views.
    """
    for known in _MOVES:
        if value == known:
            return known
    raise PodiumError(f"{where}: expected tta of {', '.join(get_args(Tta))}, got {value!r}")


def _turn(quarters: int, mirrored: bool) -> _Move:
    def move(images: RGB) -> RGB:
        turned = np.rot90(images, quarters, axes=(1, 2))
        return turned[:, :, ::-1] if mirrored else turned

    return move


def _shift(down: int, right: int) -> _Move:
    def move(images: RGB) -> RGB:
        height, width = images.shape[1:3]
        step = max(1, round(width * _SHIFT))
        padded = np.pad(images, ((0, 0), (step, step), (step, step), (0, 0)), mode="reflect")
        top, left = step * (1 - down), step * (1 - right)
        moved: RGB = padded[:, top : top + height, left : left + width]
        return moved

    return move


_PLAIN = _turn(0, False)
_MOVES: dict[Tta, tuple[_Move, ...]] = {
    "none": (_PLAIN,),
    "horizontal": (_PLAIN, _turn(0, True)),
    "both": (_PLAIN, _turn(0, True), _turn(2, True), _turn(2, False)),
    "dihedral": tuple(
        _turn(quarters, mirrored) for mirrored in (False, True) for quarters in range(4)
    ),
    "shift": (_PLAIN, _shift(0, -1), _shift(0, 1), _shift(-1, 0), _shift(1, 0)),
}
