"""Random changes to training images. Every draw is f(seed, epoch, image_id, occurrence).

So a picture's augmentation depends neither on the worker that makes it nor on what was drawn
before, and a resumed or a differently parallel run sees the same pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from podium.data.decode import RGB
from podium.data.presets import NO_PRESET, apply_transform, make_transforms
from podium.data.recipes import NO_RECIPES, ImageRecipes, recipes_that_act
from podium.runtime import derive_seed

# (image, epoch, image_id, occurrence in this epoch) -> image of the same shape
Augment = Callable[[RGB, int, str, int], RGB]


def make_augment(
    preset: str,
    flip: str,
    seed: int,
    strength: float = 1.0,
    recipes: ImageRecipes = NO_RECIPES,
    augmented_epochs: int | None = None,
) -> Augment | None:
    """The augmentation that `train.augment`, `train.flip` and `train.recipes` name; None where all
    are off.

    Mirrors come first, then the preset, then the recipes. Mirroring is a choice of its own, since a
    mirrored digit or hand sign is another class and a mirrored lemon is a lemon. Several threads
    may call the result at once.

    Args:
        preset: none, or one of augment_presets.yaml.
        flip: none | horizontal | both.
        seed: of all draws.
        strength: > 0 .. 1, scales every range of the preset; mirrors and recipes are as frequent
            as ever.
        recipes: probabilities.
        augmented_epochs: preset and recipes act in the epochs 1 .. this; None: in all. Mirrors
            always do: a mirrored picture is as good as the picture.

    Raises:
        PodiumError: (when called) the preset names a transform or an argument that is not there, or
            one that fails on a picture or changes its size or type.
    """
    acting = recipes_that_act(recipes)
    if preset == flip == NO_PRESET and not acting:
        return None
    own = threading.local()  # a step holds its random state: each thread has its own steps

    def augment(image: RGB, epoch: int, image_id: str, occurrence: int) -> RGB:
        if getattr(own, "shape", None) != image.shape:
            own.mirrors, own.preset = _make_steps(preset, flip, strength, image.shape[:2])
            own.shape = image.shape
        acts = augmented_epochs is None or epoch <= augmented_epochs
        steps = [*own.mirrors, *own.preset] if acts else own.mirrors
        # One seed per step: Compose would give all steps the same one, and so, for example,
        # mirror upside down whenever it mirrors left to right.
        for number, step in enumerate(steps):
            step.set_random_seed(derive_seed(seed, "augment", epoch, image_id, occurrence, number))
            image = apply_transform(preset, step, image)
        if acts:
            for name, probability, change in acting:
                rng = np.random.default_rng(
                    derive_seed(seed, "recipe", name, epoch, image_id, occurrence)
                )
                if rng.random() < probability:
                    image = change(image, rng)
        return image

    return augment


def _make_steps(
    preset: str, flip: str, strength: float, size_px: tuple[int, int]
) -> tuple[list[Any], list[Any]]:
    """Mirrors, and the preset's transforms."""
    import albumentations
    import cv2

    cv2.setNumThreads(0)
    mirrors: list[Any] = []
    if flip in ("horizontal", "both"):
        mirrors.append(albumentations.HorizontalFlip(p=0.5))
    if flip == "both":
        mirrors.append(albumentations.VerticalFlip(p=0.5))
    return mirrors, make_transforms(preset, strength, size_px)
