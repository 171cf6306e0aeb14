"""From a plan to a photo: scene, shadow, lemon, camera, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.intake.demo.lemon import LemonLayer, paint_lemon
from podium.intake.demo.noise import Field, ramp, value_noise
from podium.intake.demo.plan import PhotoPlan, Reshot
from podium.intake.demo.scene import paint_scene
from podium.runtime import derive_seed

_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": "4:2:0"}
_JPEG_RESHOT: dict[str, Any] = {"format": "JPEG", "quality": 78, "subsampling": "4:2:0"}


@dataclass(frozen=True)
class Photo:
    """A rendered photo.

    Args:
        pixels: uint8 (size, size, 3), RGB.
        lemon: bool (size, size), where the pixels show nothing but lemon.
    """

    pixels: npt.NDArray[np.uint8]
    lemon: npt.NDArray[np.bool_]


def render_photo(plan: PhotoPlan, size_px: int) -> Photo:
    """Draw `plan` as a square photo of `size_px` pixels."""
    layer = paint_lemon(plan, size_px)
    frame = paint_scene(plan.background_seed, size_px)
    frame *= 1 - layer.shadow
    frame += layer.cover * (layer.rgb - frame)
    _expose(frame, layer, plan)
    lemon = layer.cover == 1
    if plan.reshot is not None:
        frame, lemon = _reshoot(frame, lemon, plan.reshot)
    random = np.random.Generator(np.random.PCG64(plan.grain_seed))
    frame += np.float32(plan.grain) * (random.random(frame.shape[1:], dtype=np.float32) - 0.5)
    frame += np.float32(plan.grain / 2) * (random.random(frame.shape, dtype=np.float32) - 0.5)
    levels = np.clip(frame * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    return Photo(np.ascontiguousarray(levels.transpose(1, 2, 0)), lemon)


def render_jpeg(plan: PhotoPlan, size_px: int) -> bytes:
    """The file that the competition ships: fixed quality, no metadata, the same bytes each time."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(render_photo(plan, size_px).pixels)
    image.save(stream, **(_JPEG if plan.reshot is None else _JPEG_RESHOT))
    return stream.getvalue()


def _expose(frame: Field, layer: LemonLayer, plan: PhotoPlan) -> None:
    """Light colour, dappled light, and an exposure that keeps the mean colour silent on the grade.

    A spoilt lemon is darker. The camera adds back what the defects take from the frame's mean, by
    a rule that looks at the lemon only: another background leaves the lemon's pixels alone.
    """
    size = frame.shape[1]
    light = plan.light
    if light.dapple > 0:
        random = np.random.Generator(np.random.PCG64(derive_seed(plan.texture_seed, "demo-dapple")))
        frame *= 1 - np.float32(light.dapple) * ramp(0.45, 0.62, value_noise(random, size, 3))
    for plane, gain, lost in zip(frame, light.gains, layer.darkening, strict=True):
        plane *= np.float32(gain)
        plane += np.float32(lost)


def _reshoot(
    frame: Field, lemon: npt.NDArray[np.bool_], reshot: Reshot
) -> tuple[Field, npt.NDArray[np.bool_]]:
    """The same scene a moment later: another crop, enlarged to the frame, another exposure."""
    size = frame.shape[1]
    places = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(reshot.zoom)

    def neighbours(start: float) -> tuple[npt.NDArray[np.intp], Field]:
        place = np.clip(places + np.float32(start * size - 0.5), 0, size - 1.001)
        before = place.astype(np.intp)
        return before, place - before.astype(np.float32)

    row, down = neighbours(reshot.top)
    column, right = neighbours(reshot.left)
    rows = frame[:, row] + (frame[:, row + 1] - frame[:, row]) * down[:, None]
    crop = rows[:, :, column] + (rows[:, :, column + 1] - rows[:, :, column]) * right
    return np.float32(reshot.gain) * crop, lemon[row][:, column]
