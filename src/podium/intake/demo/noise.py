"""Textures and soft edges, in plain float32 arithmetic.

Pixels see only + - * / sqrt and comparisons, which IEEE 754 fixes to the last bit (sines are taken
of a few scalars, in float64): the photos do not depend on the CPU's vector units. All textures are
made on a lattice of their own, so that a photo shows the same thing at every size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


@lru_cache(maxsize=8)
def make_grid(size: int) -> tuple[Field, Field]:
    """x (1, size) and y (size, 1) of the pixel centres, in units of the frame's side."""
    centers = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return centers[None, :], centers[:, None]


def ramp(low: float, high: float, values: Field) -> Field:
    """Smooth step: 0 at `low`, 1 at `high` (which may be below `low`), flat beyond."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def value_noise(random: np.random.Generator, size: int, cells: int, stretch: int = 1) -> Field:
    """Smooth random field (size, size) in 0..1.

    Args:
        random: gives `(cells * stretch + 1) x (cells + 1)` lattice values.
        size: side of the field, pixels.
        cells: lattice cells along x.
        stretch: cells along y for each one along x.
    """
    lattice = random.random((cells * stretch + 1, cells + 1), dtype=np.float32)
    top, weight = _lattice_weights(size, cells * stretch)
    rows = lattice[top] + (lattice[top + 1] - lattice[top]) * weight[:, None]
    left, weight = _lattice_weights(size, cells)
    before = rows[:, left]
    return np.asarray(before + (rows[:, left + 1] - before) * weight, dtype=np.float32)


@lru_cache(maxsize=64)
def _lattice_weights(size: int, cells: int) -> tuple[npt.NDArray[np.intp], Field]:
    """For every pixel the lattice point before it and the smoothed distance from it, 0..1."""
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    before = position.astype(np.intp)
    return before, ramp(0, 1, position - before.astype(np.float32))


def blend(image: Field, mask: Field, colour: tuple[float, float, float] | Field) -> None:
    """Lay `colour` (three values or planes) over the planes of `image` (3, h, w), in place."""
    for plane, paint in zip(image, colour, strict=True):
        plane += mask * (np.asarray(paint, dtype=np.float32) - plane)
