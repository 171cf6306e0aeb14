"""The lemon itself: outline, skin, defects, harmless marks, shading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from podium.intake.demo.noise import Field, blend, make_grid, ramp, value_noise
from podium.intake.demo.plan import Defect, Lemon, Mark, PhotoPlan

_BODY = 0.88  # where the body's ellipse ends, in half lengths; the nipples reach 1.0
_TABLE = 4096

_STICKERS = (
    (0.16, 0.32, 0.62),
    (0.72, 0.14, 0.14),
    (0.94, 0.94, 0.92),
    (0.20, 0.50, 0.26),
    (0.46, 0.30, 0.16),
    (0.36, 0.56, 0.52),
)


@dataclass(frozen=True)
class LemonLayer:
    """The lit lemon, to be laid over a scene.

    Args:
        rgb: float32 (3, size, size), 0..1.
        cover: float32 (size, size), 1 on the lemon, 0 off it, between on the rim.
        shadow: float32 (size, size), how much of the lamp's light the lemon takes from the table.
        darkening: by how much the defects lower the whole frame's mean red, green and blue; the
            same whether or not they are shown.
    """

    rgb: Field
    cover: Field
    shadow: Field
    darkening: tuple[float, float, float]


def paint_lemon(plan: PhotoPlan, size: int) -> LemonLayer:
    """Draw the lemon of `plan` on an empty frame of `size` x `size` pixels."""
    lemon, light = plan.lemon, plan.light
    noise = np.random.Generator(np.random.PCG64(plan.texture_seed))
    u, v = _lemon_coordinates(lemon, size)
    lumps = [d for d in plan.defects if d.kind == "lump" and plan.defects_shown]
    width = _profile(u, lemon) * _lump_factor(lumps, u, v, lemon)
    ratio = v / np.maximum(width, np.float32(1e-4))
    cover = ramp(-0.7 / size, 0.7 / size, width - np.abs(v))

    rough = value_noise(noise, size, 56)
    wobble = value_noise(noise, size, 16)
    height = np.maximum(width, 0) * np.sqrt(np.maximum(1 - ratio * ratio, np.float32(0.02)))
    height += np.float32(0.0048 * lemon.pores) * rough
    shade, gloss = _light_up(height, plan, size)

    skin = np.empty((3, size, size), dtype=np.float32)
    mottle = (
        0.95 + 0.07 * value_noise(noise, size, 7) + np.float32(0.05 * lemon.pores) * (rough - 0.5)
    )
    for plane, level in zip(skin, lemon.skin, strict=True):
        plane[:] = np.float32(level) * mottle
    pores = np.float32(0.16 * lemon.pores) * ramp(0.72, 0.92, value_noise(noise, size, 44))
    skin *= 1 - pores
    _paint_ends(skin, u, lemon)

    blemished = skin.copy()
    x, y = u * np.float32(1 / lemon.half_length), v * np.float32(1 / lemon.half_width)
    for defect in plan.defects:
        if defect.kind != "lump":
            _paint_defect(blemished, gloss, defect, x, y, wobble, rough)
    lit = cover * shade
    darkening = [
        float(np.mean(lit * (clean - spoilt), dtype=np.float64)) * gain
        for clean, spoilt, gain in zip(skin, blemished, light.gains, strict=True)
    ]
    rgb = blemished if plan.defects_shown else skin
    for mark in plan.marks:
        _paint_mark(rgb, gloss, mark, x, y, plan)
    rgb *= shade
    rgb += gloss
    return LemonLayer(
        rgb, cover, _cast_shadow(plan, size), (darkening[0], darkening[1], darkening[2])
    )


def _lemon_coordinates(lemon: Lemon, size: int) -> tuple[Field, Field]:
    """u along the axis and v across it, (size, size), in units of the frame."""
    x, y = make_grid(size)
    dx, dy = x - np.float32(lemon.center_x), y - np.float32(lemon.center_y)
    cosine, sine = np.float32(math.cos(lemon.angle)), np.float32(math.sin(lemon.angle))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


@lru_cache(maxsize=1)
def _profile_table() -> Field:
    """Half width over -1..1 half lengths: an ellipse with a small ellipse (nipple) at each end."""
    t = np.linspace(-1, 1, _TABLE)
    body = np.sqrt(np.maximum(0, 1 - (t / _BODY) ** 2))
    body *= 0.9 + 0.1 * body  # slimmer towards the ends
    nipple = 0.30 * np.sqrt(np.maximum(0, 1 - ((np.abs(t) - 0.78) / 0.22) ** 2))
    # Polynomial smooth maximum (Quilez): rounds the neck between the two.
    overlap = np.maximum(0, 0.22 - np.abs(body - nipple)) / 0.22
    tips = np.where(np.abs(t) > 0.6, overlap * overlap * 0.25 * 0.22, 0)
    return np.asarray(np.maximum(body, nipple) + tips, dtype=np.float32)


def _profile(u: Field, lemon: Lemon) -> Field:
    """Half width of the outline at `u`; negative beyond the ends."""
    place = (u * np.float32(1 / lemon.half_length) + 1) * np.float32((_TABLE - 1) / 2)
    table = _profile_table()
    inside = np.clip(place, 0, _TABLE - 1).astype(np.intp)
    width = table[inside] * np.float32(lemon.half_width)
    return np.asarray(np.where((place < 0) | (place > _TABLE - 1), np.float32(-1), width))


def _lump_factor(lumps: list[Defect], u: Field, v: Field, lemon: Lemon) -> Field | np.float32:
    """What lumps multiply the half width by: a knob or a dent on one side."""
    factor: Field | np.float32 = np.float32(1)
    for lump in lumps:
        # A bump h(1 - t^2)^2 over a half length s covers 16/15 h s of the outline's pi.
        reach = 0.30
        bump = lump.area * math.pi * 15 / 16 / reach
        t = (u * np.float32(1 / lemon.half_length) - np.float32(lump.x)) * np.float32(1 / reach)
        side = ramp(0.0, 0.7, v * np.float32(lump.y / lemon.half_width))
        sign = 1.0 if lump.variant < 0.6 else -1.0
        factor = factor + np.float32(sign * bump) * side * np.maximum(0, 1 - t * t) ** 2
    return factor


def _light_up(height: Field, plan: PhotoPlan, size: int) -> tuple[Field, Field]:
    """Diffuse shade (about 0.4..1.1) and gloss (0..0.5) of a height field in units of the frame."""
    down, right = np.gradient(height)
    slope_x, slope_y = right * np.float32(size), down * np.float32(size)
    length = np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    toward_x, toward_y, toward_z = (np.float32(part) for part in plan.light.direction)
    lambert = (toward_z - slope_x * toward_x - slope_y * toward_y) / length
    fill = np.float32(plan.light.fill)
    rim = 0.75 + 0.25 / length
    shade = (fill + (1.15 - fill) * np.maximum(lambert, 0)) * rim
    # Blinn's half vector between lamp and lens.
    half_z = toward_z + 1
    norm = np.sqrt(toward_x * toward_x + toward_y * toward_y + half_z * half_z)
    gloss = np.maximum(half_z - slope_x * toward_x - slope_y * toward_y, 0) / (length * norm)
    for _ in range(5):
        gloss = gloss * gloss
    return shade.astype(np.float32), (np.float32(0.38) * gloss).astype(np.float32)


def _paint_ends(skin: Field, u: Field, lemon: Lemon) -> None:
    """A brown-green stem button on one end, a faint dark tip on the other: harmless."""
    t = u * np.float32(1 / lemon.half_length)
    if lemon.has_stem:
        blend(skin, np.float32(0.9) * ramp(0.93, 0.97, t), (0.36, 0.36, 0.16))
    blend(skin, np.float32(0.5) * ramp(-0.95, -1.0, t), (0.50, 0.38, 0.16))


def _paint_defect(
    skin: Field, gloss: Field, defect: Defect, x: Field, y: Field, wobble: Field, rough: Field
) -> None:
    """Scab, mould or greening, with ragged edges that keep the planned area."""
    dx, dy = x - np.float32(defect.x), y - np.float32(defect.y)
    # 1 at the planned edge; the noise is centred, so that it moves the edge both ways.
    distance = np.sqrt(dx * dx + dy * dy) * np.float32(1 / math.sqrt(defect.area))
    if defect.kind == "scab":
        ragged = distance + np.float32(0.7) * (wobble - 0.5) + np.float32(0.35) * (rough - 0.5)
        mask = ramp(1.12, 0.88, ragged)
        tone = 0.8 + 0.4 * defect.variant
        blend(skin, mask, (0.40 * tone, 0.23 * tone, 0.10 * tone))
        crust = ramp(0.45, 0.75, rough) * ramp(0.85, 0.6, ragged)
        blend(skin, np.float32(0.55) * crust, (0.62, 0.46, 0.28))
        gloss *= 1 - np.float32(0.85) * mask
    elif defect.kind == "mould":
        ragged = distance + np.float32(0.5) * (wobble - 0.5) + np.float32(0.45) * (rough - 0.5)
        mask = ramp(1.18, 0.82, ragged)
        blend(skin, np.float32(0.95) * mask, (0.92, 0.92, 0.88))
        core = ramp(0.78, 0.52, ragged) * (0.65 + 0.35 * rough)
        hue = 0.1 * defect.variant
        blend(skin, core, (0.34 + hue, 0.46, 0.42 - hue))
        gloss *= 1 - np.float32(0.9) * mask
    else:
        soft = distance + np.float32(0.5) * (wobble - 0.5)
        mask = ramp(1.30, 0.70, soft)
        tone = 0.85 + 0.3 * defect.variant
        blend(skin, np.float32(0.92) * mask, (0.32 * tone, 0.56 * tone, 0.12))


def _paint_mark(rgb: Field, gloss: Field, mark: Mark, x: Field, y: Field, plan: PhotoPlan) -> None:
    """A fruit sticker or a water drop."""
    aspect = plan.lemon.half_length / plan.lemon.half_width
    dx = (x - np.float32(mark.x)) * np.float32(math.sqrt(aspect) / mark.radius)
    dy = (y - np.float32(mark.y)) * np.float32(1 / math.sqrt(aspect) / mark.radius)
    distance = np.sqrt(dx * dx + dy * dy)
    if mark.kind == "sticker":
        mask = ramp(1.06, 0.94, distance)
        colour = _STICKERS[int(mark.variant * len(_STICKERS))]
        ink = (0.15, 0.15, 0.2) if min(colour) > 0.8 else (0.96, 0.95, 0.92)
        blend(rgb, mask, colour)
        blend(rgb, ramp(0.10, 0.04, np.abs(distance - np.float32(0.80))), ink)
        blend(
            rgb, ramp(0.16, 0.08, np.abs(np.abs(dy) - np.float32(0.22))) * (np.abs(dx) < 0.45), ink
        )
        gloss *= 1 - np.float32(0.5) * mask
        return
    # A drop is a lens: dark towards the lamp, bright away from it, a glint on top.
    angle = plan.lemon.angle
    lamp_x, lamp_y = plan.light.direction[:2]
    along = np.float32(lamp_x * math.cos(angle) + lamp_y * math.sin(angle))
    across = np.float32(lamp_y * math.cos(angle) - lamp_x * math.sin(angle))
    mask = ramp(1.1, 0.9, distance)
    rgb *= 1 - np.float32(0.30) * mask * (along * dx + across * dy)
    gx, gy = dx - np.float32(0.5) * along, dy - np.float32(0.5) * across
    gloss += np.float32(0.45) * mask * ramp(0.45, 0.2, np.sqrt(gx * gx + gy * gy))


def _cast_shadow(plan: PhotoPlan, size: int) -> Field:
    """Soft shadow on the table, on the side away from the lamp."""
    lemon = plan.lemon
    u, v = _lemon_coordinates(lemon, size)
    reach = 0.45 * lemon.half_width
    lamp_x, lamp_y, lamp_z = plan.light.direction
    move_x, move_y = -lamp_x / lamp_z * reach, -lamp_y / lamp_z * reach
    cosine, sine = math.cos(lemon.angle), math.sin(lemon.angle)
    u = u - np.float32(move_x * cosine + move_y * sine)
    v = v - np.float32(move_y * cosine - move_x * sine)
    x, y = u * np.float32(1 / lemon.half_length), v * np.float32(1 / lemon.half_width)
    return np.float32(0.62) * ramp(1.22, 0.72, np.sqrt(x * x + y * y))
