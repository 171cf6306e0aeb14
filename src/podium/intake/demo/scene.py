"""What lies around the lemon: table tops and the decoys on them. Nothing here knows the grade."""

from __future__ import annotations

import math
from random import Random

import numpy as np

from podium.intake.demo.noise import Field, blend, make_grid, ramp, value_noise

Colour = tuple[float, float, float]

_SURFACES = ("plain", "gradient", "wood", "cloth", "stone", "paper")
_CLOTH_COLOURS: tuple[Colour, ...] = (
    (0.80, 0.78, 0.74),
    (0.35, 0.42, 0.55),
    (0.55, 0.30, 0.28),
    (0.32, 0.42, 0.34),
    (0.62, 0.58, 0.50),
    (0.24, 0.24, 0.27),
    (0.70, 0.62, 0.70),
)


def paint_scene(background_seed: int, size: int) -> Field:
    """A table top with leaves, twigs, seeds and petals.

    Returns:
        float32 (3, size, size), reflectance 0..1.
    """
    random = Random(background_seed)
    noise = np.random.Generator(np.random.PCG64(background_seed))
    surface = _paint_surface(random, noise, size)
    for _ in range(random.choice((0, 0, 1, 1, 2, 3))):
        _paint_leaf(surface, random, size)
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        _paint_twig(surface, random, size)
    for _ in range(random.choice((0, 0, 2, 4, 7))):
        _paint_crumb(surface, random, size)
    return np.clip(surface, 0.02, 1.0)


def _paint_surface(random: Random, noise: np.random.Generator, size: int) -> Field:
    kind = random.choice(_SURFACES)
    base = random.choice(_CLOTH_COLOURS)
    value = random.uniform(0.75, 1.2)
    base = (base[0] * value, base[1] * value, base[2] * value)
    x, y = make_grid(size)
    image = np.empty((3, size, size), dtype=np.float32)
    for plane, level in zip(image, base, strict=True):
        plane[:] = level
    broad = value_noise(noise, size, 4)
    fine = value_noise(noise, size, 48)
    if kind == "plain":
        image *= 0.94 + 0.12 * broad
    elif kind == "gradient":
        angle = random.uniform(0, 2 * math.pi)
        slope = random.uniform(0.25, 0.6)
        along = (x - 0.5) * np.float32(math.cos(angle)) + (y - 0.5) * np.float32(math.sin(angle))
        image *= 1 + np.float32(slope) * along
    elif kind == "wood":
        light = random.choice((0.85, 1.25, 1.5))
        wood = (0.50 * light, 0.36 * light, 0.24 * light)
        grain = value_noise(noise, size, 3, stretch=12)
        if random.random() < 0.5:
            grain = grain.T
        rings = (broad + np.float32(0.25) * grain) * np.float32(random.uniform(5, 9))
        rings = np.abs(rings - np.floor(rings) - np.float32(0.5)) * 2
        tone = 0.80 + 0.22 * rings + 0.22 * (grain - 0.5) + 0.10 * (fine - 0.5)
        for plane, level in zip(image, wood, strict=True):
            plane[:] = np.float32(level) * tone
    elif kind == "cloth":
        threads = np.float32(random.choice((24, 32, 40)))
        warp = np.abs(x * threads - np.floor(x * threads) - np.float32(0.5))
        weft = np.abs(y * threads - np.floor(y * threads) - np.float32(0.5))
        image *= 1.02 - 0.35 * np.maximum(warp, weft) + 0.14 * (broad - 0.5) + 0.10 * (fine - 0.5)
        if random.random() < 0.4:
            stripes = np.float32(random.randint(2, 5)) * (x + y if random.random() < 0.5 else x - y)
            band = ramp(0.34, 0.38, np.abs(stripes - np.floor(stripes) - np.float32(0.5)))
            blend(
                image, np.float32(0.5) * band * np.ones_like(broad), random.choice(_CLOTH_COLOURS)
            )
    elif kind == "stone":
        chips = value_noise(noise, size, 26)
        flakes = value_noise(noise, size, 40)
        image *= 0.88 + 0.2 * broad
        blend(image, np.float32(0.8) * ramp(0.70, 0.76, chips), random.choice(_CLOTH_COLOURS))
        blend(image, np.float32(0.8) * ramp(0.74, 0.80, flakes), random.choice(_CLOTH_COLOURS))
    else:
        creases = np.abs(value_noise(noise, size, 7) - value_noise(noise, size, 7))
        image *= 0.86 + 0.5 * np.minimum(creases, np.float32(0.35)) + 0.08 * (fine - 0.5)
    return image


def _draw_spot(random: Random) -> tuple[float, float]:
    """A place away from the middle, where the lemon would hide it."""
    angle = random.uniform(0, 2 * math.pi)
    distance = random.uniform(0.36, 0.62)
    return 0.5 + distance * math.cos(angle), 0.5 + distance * math.sin(angle)


def _local(size: int, x0: float, y0: float, angle: float) -> tuple[Field, Field]:
    """Coordinates along and across a thing at (x0, y0), in units of the frame."""
    x, y = make_grid(size)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx, dy = x - np.float32(x0), y - np.float32(y0)
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def _paint_leaf(image: Field, random: Random, size: int) -> None:
    """A lemon leaf: green as greening is, brown when dry, pointed at both ends, with a midrib."""
    x0, y0 = _draw_spot(random)
    u, v = _local(size, x0, y0, random.uniform(0, 2 * math.pi))
    length, width = random.uniform(0.12, 0.20), random.uniform(0.045, 0.08)
    t = u * np.float32(1 / length)
    edge = np.float32(width) * (1 - t * t)
    mask = ramp(0.0, 1.5 / size, edge - np.abs(v)) * (np.abs(t) < 1)
    shadow = ramp(-0.02, 0.01, edge - np.abs(v - np.float32(0.012))) * (np.abs(t) < 1)
    image *= 1 - np.float32(0.35) * shadow
    tone = random.uniform(0.7, 1.25)
    colour = (0.42 * tone, 0.30 * tone, 0.16 * tone)
    if random.random() < 0.7:
        colour = (0.22 * tone, 0.44 * tone, 0.14 * tone)
    blend(image, mask, colour)
    rib = mask * ramp(1.6 / size, 0.6 / size, np.abs(v))
    blend(image, np.float32(0.5) * rib, (0.62, 0.70, 0.40))
    image *= 1 - np.float32(0.18) * mask * (v > 0)


def _paint_twig(image: Field, random: Random, size: int) -> None:
    """A thin brown stick."""
    x0, y0 = _draw_spot(random)
    u, v = _local(size, x0, y0, random.uniform(0, 2 * math.pi))
    length, width = random.uniform(0.10, 0.22), random.uniform(0.008, 0.016)
    across = np.abs(v + np.float32(random.uniform(-1.5, 1.5)) * u * u)
    mask = ramp(width + 0.8 / size, width - 0.8 / size, across) * ramp(
        length, length - 0.02, np.abs(u)
    )
    tone = random.uniform(0.7, 1.3)
    blend(image, mask, (0.36 * tone, 0.25 * tone, 0.15 * tone))


def _paint_crumb(image: Field, random: Random, size: int) -> None:
    """A seed, pebble or petal: spots in the colours of scab and mould that harm nobody."""
    x0, y0 = _draw_spot(random)
    u, v = _local(size, x0, y0, random.uniform(0, 2 * math.pi))
    length = random.uniform(0.016, 0.045)
    width = length * random.uniform(0.5, 0.9)
    distance = np.sqrt((u * np.float32(1 / length)) ** 2 + (v * np.float32(1 / width)) ** 2)
    edge = 1.0 / size / width
    image *= 1 - np.float32(0.3) * ramp(1.6, 0.8, distance)
    colour = random.choice(
        (
            (0.30, 0.19, 0.11),
            (0.45, 0.30, 0.16),
            (0.92, 0.92, 0.88),
            (0.60, 0.66, 0.60),
            (0.2, 0.2, 0.2),
        )
    )
    blend(image, ramp(1 + edge, 1 - edge, distance), colour)
    blend(image, np.float32(0.35) * ramp(0.6, 0.0, distance), (0.95, 0.93, 0.90))
