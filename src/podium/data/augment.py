"""Random changes to training images. Every draw is f(seed, epoch, image_id, occurrence).

So a picture's augmentation depends neither on the worker that makes it nor on what was drawn
before, and a resumed or a differently parallel run sees the same pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from podium.data.decode import RGB
from podium.runtime import derive_seed

# (image, epoch, image_id, occurrence in this epoch) -> image of the same shape
Augment = Callable[[RGB, int, str, int], RGB]


def make_augment(preset: str, flip: str, seed: int, strength: float = 1.0) -> Augment | None:
    """The augmentation that `train.augment` and `train.flip` name; None where both are `none`.

    `light` moves, turns and tints a little. Mirroring is a choice of its own, since a mirrored
    digit or hand sign is another class and a mirrored lemon is a lemon. Several threads may call
    the result at once.

    Args:
        preset: none | light.
        flip: none | horizontal | both.
        seed: of all draws.
        strength: > 0 .. 1, scales every range of the preset; mirrors are as frequent as ever.
    """
    if preset == flip == "none":
        return None
    own = threading.local()  # a step holds its random state: each thread has its own steps

    def augment(image: RGB, epoch: int, image_id: str, occurrence: int) -> RGB:
        if not hasattr(own, "steps"):
            own.steps = _make_steps(preset, flip, strength)
        # One seed per step: Compose would give all steps the same one, and so, for example,
        # mirror upside down whenever it mirrors left to right.
        for number, step in enumerate(own.steps):
            step.set_random_seed(derive_seed(seed, "augment", epoch, image_id, occurrence, number))
            image = step(image=image)["image"]
        return image

    return augment


def _make_steps(preset: str, flip: str, strength: float) -> list[Any]:
    import albumentations
    import cv2

    cv2.setNumThreads(0)
    steps: list[Any] = []
    if flip in ("horizontal", "both"):
        steps.append(albumentations.HorizontalFlip(p=0.5))
    if flip == "both":
        steps.append(albumentations.VerticalFlip(p=0.5))
    if preset == "light":
        steps += [
            albumentations.Affine(
                scale=(1 - 0.1 * strength, 1 + 0.1 * strength),
                rotate=(-15 * strength, 15 * strength),
                translate_percent=(-0.05 * strength, 0.05 * strength),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.9,
            ),
            albumentations.ColorJitter(
                brightness=0.15 * strength,
                contrast=0.15 * strength,
                saturation=0.15 * strength,
                hue=0.02 * strength,
                p=0.8,
            ),
        ]
    return steps
