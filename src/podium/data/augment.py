"""Random changes to training images. Every draw is f(seed, epoch, image_id, occurrence).

So a picture's augmentation depends neither on the worker that makes it nor on what was drawn
before, and a resumed or a differently parallel run sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable

from podium.data.decode import RGB
from podium.runtime import derive_seed

# (image, epoch, image_id, occurrence in this epoch) -> image of the same shape
Augment = Callable[[RGB, int, str, int], RGB]


def make_augment(preset: str, seed: int) -> Augment | None:
    """The augmentation named by `train.augment`; None for `none`.

    `light` moves, turns and tints a little. It never mirrors: a mirrored digit or hand sign is
    another class.
    """
    if preset == "none":
        return None
    import albumentations
    import cv2

    cv2.setNumThreads(0)
    recipe = albumentations.Compose(
        [
            albumentations.Affine(
                scale=(0.9, 1.1),
                rotate=(-15, 15),
                translate_percent=(-0.05, 0.05),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.9,
            ),
            albumentations.ColorJitter(
                brightness=0.15, contrast=0.15, saturation=0.15, hue=0.02, p=0.8
            ),
        ]
    )

    def augment(image: RGB, epoch: int, image_id: str, occurrence: int) -> RGB:
        recipe.set_random_seed(derive_seed(seed, "augment", epoch, image_id, occurrence))
        changed: RGB = recipe(image=image)["image"]
        return changed

    return augment
