"""What a photo shows, before a pixel is drawn: the hidden variables, and so the true grade.

The grade is drawn first, then defects that add up to a severity inside the grade's band. Bands lie
a factor of two apart, so that a clean label can be learnt. Everything else (pose, light,
background, decoys) is drawn from streams that never see the grade.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Literal

from podium.intake.demo.spec import PAIR_BLOCK, DemoSpec, Split
from podium.runtime import derive_seed

GRADES = (0, 1, 2, 3)  # best .. out of grade

# Photos of each grade in a block of 99 consecutive indices, shuffled within the block.
GRADE_SHARES = (36, 23, 21, 19)

DefectKind = Literal["scab", "mould", "greening", "lump"]

# Severity of a defect = weight x its area in percent of the lemon's outline.
SEVERITY_WEIGHT: dict[DefectKind, float] = {
    "scab": 1.0,
    "mould": 1.5,
    "greening": 0.6,
    "lump": 1.6,
}
# The most severity one kind can contribute: what can be placed without overlap on one side.
_MOST_SEVERITY: dict[DefectKind, float] = {"scab": 13.0, "mould": 13.0, "greening": 9.0}
_MOST_PIECES: dict[DefectKind, int] = {"scab": 7, "mould": 4, "greening": 3}
# A piece below this severity would be hard to tell from a pore or a drop in a 128 px photo.
_LEAST_PIECE: dict[DefectKind, float] = {"scab": 1.5, "mould": 2.4, "greening": 2.0}
# Larger ones are split, so that a worse grade shows in the count of the pieces and in their area.
_MOST_PIECE = 4.5

_SEVERITY_BANDS = ((0.0, 0.3), (3.2, 4.1), (10.0, 12.5), (24.0, 29.0))
_THRESHOLDS = (1.2, 6.2, 17.5)  # between the bands, near their geometric means

# A lump makes grade 2 of a lemon that is otherwise grade 1.
_LUMP_CHANCE = (0.0, 0.0, 0.4, 0.5)

# A defect's centre keeps this far from the outline (1.0), where the lemon turns away from the lens.
_REACH = 0.86


@dataclass(frozen=True)
class Lemon:
    """Pose and skin. Lengths in units of the frame's side; angle in radians, y pointing down."""

    center_x: float
    center_y: float
    angle: float
    half_length: float
    half_width: float
    skin: tuple[float, float, float]
    pores: float
    has_stem: bool


@dataclass(frozen=True)
class Light:
    """Direction towards the lamp (unit vector, z towards the lens), fill light and colour gains."""

    direction: tuple[float, float, float]
    fill: float
    gains: tuple[float, float, float]
    dapple: float


@dataclass(frozen=True)
class Defect:
    """One blemish.

    Args:
        kind: what it is.
        x, y: centre in units of the lemon's half length and half width, -1..1.
        area: share of the lemon's outline that it covers (for a lump: that it adds or cuts), 0..1.
        variant: 0..1, what sets it apart from its like: outline, hue, bump or dent.
    """

    kind: DefectKind
    x: float
    y: float
    area: float
    variant: float

    @property
    def severity(self) -> float:
        """Contribution to the lemon's severity."""
        return SEVERITY_WEIGHT[self.kind] * 100 * self.area


@dataclass(frozen=True)
class Mark:
    """A harmless thing on the lemon; x, y as in `Defect`, radius in the same unit."""

    kind: Literal["sticker", "drop"]
    x: float
    y: float
    radius: float
    variant: float


@dataclass(frozen=True)
class Reshot:
    """How a near-duplicate differs from its original: crop (units of the frame) and exposure."""

    left: float
    top: float
    zoom: float
    gain: float


@dataclass(frozen=True)
class PhotoPlan:
    """Everything that decides a photo's pixels, whatever its size."""

    lemon: Lemon
    light: Light
    defects: tuple[Defect, ...]
    marks: tuple[Mark, ...]
    background_seed: int
    texture_seed: int
    grain_seed: int
    grain: float
    defects_shown: bool = True
    reshot: Reshot | None = None

    @property
    def severity(self) -> float:
        """What the grade is decided by: the sum over the defects that can be seen."""
        return sum(defect.severity for defect in self.defects) if self.defects_shown else 0.0

    @property
    def grade(self) -> int:
        """True grade, 0 (best) to 3 (out of grade)."""
        return sum(self.severity >= threshold for threshold in _THRESHOLDS)


def make_plan(spec: DemoSpec, split: Split, index: int) -> PhotoPlan:
    """What photo `index` of `split` shows."""
    original = _near_duplicates(spec).get(index) if split == "train" else None
    if original is None:
        return _make_original(spec.seed, split, index)
    random = Random(derive_seed(spec.seed, "demo-reshot", index))
    zoom = random.uniform(0.96, 0.985)
    return replace(
        _make_original(spec.seed, split, original),
        grain_seed=derive_seed(spec.seed, "demo-grain", split, index),
        reshot=Reshot(
            left=random.uniform(0, 1 - zoom),
            top=random.uniform(0, 1 - zoom),
            zoom=zoom,
            gain=random.choice((random.uniform(0.92, 0.96), random.uniform(1.04, 1.08))),
        ),
    )


def hide_defects(plan: PhotoPlan) -> PhotoPlan:
    """The same photo of the same lemon without its defects: grade 0."""
    return replace(plan, defects_shown=False)


def swap_background(plan: PhotoPlan, background_seed: int) -> PhotoPlan:
    """The same lemon in the same light before another background: the grade stays."""
    return replace(plan, background_seed=background_seed)


def true_label(spec: DemoSpec, split: Split, index: int) -> int:
    """The grade that the photo shows, 0..3."""
    return make_plan(spec, split, index).grade


def observed_label(spec: DemoSpec, split: Split, index: int) -> int:
    """The grade that the organiser wrote down: in train, some are a grade off."""
    grade = true_label(spec, split, index)
    return _noisy_grade(spec, index, grade) if split == "train" else grade


def noisy_indices(spec: DemoSpec) -> tuple[int, ...]:
    """The training indices whose observed label is wrong, ascending."""
    return tuple(index for index in range(spec.train) if _is_noisy(spec, index))


def near_duplicate_pairs(spec: DemoSpec) -> tuple[tuple[int, int], ...]:
    """(original, re-shot) training indices that show the same lemon."""
    return tuple(sorted((original, twin) for twin, original in _near_duplicates(spec).items()))


def _is_noisy(spec: DemoSpec, index: int) -> bool:
    return Random(derive_seed(spec.seed, "demo-label-noise", index)).random() < spec.label_noise


def _noisy_grade(spec: DemoSpec, index: int, grade: int) -> int:
    if not _is_noisy(spec, index):
        return grade
    neighbours = [near for near in (grade - 1, grade + 1) if near in GRADES]
    return Random(derive_seed(spec.seed, "demo-label-step", index)).choice(neighbours)


@lru_cache(maxsize=8)
def _near_duplicates(spec: DemoSpec) -> dict[int, int]:
    """Re-shot index -> original's index; both would have had the same grade, so shares hold."""
    twins = {}
    for block in range(spec.near_duplicates):
        indices = list(range(block * PAIR_BLOCK, (block + 1) * PAIR_BLOCK))
        Random(derive_seed(spec.seed, "demo-near-duplicates", block)).shuffle(indices)
        first_of: dict[int, int] = {}
        for index in indices:
            grade = _drawn_grade(spec.seed, "train", index)
            if grade in first_of:
                twins[index] = first_of[grade]
                break
            first_of[grade] = index
    return twins


def _drawn_grade(seed: int, split: Split, index: int) -> int:
    """The shares are exact in every block of 99; the order within a block is random."""
    return _block_grades(seed, split, index // sum(GRADE_SHARES))[index % sum(GRADE_SHARES)]


@lru_cache(maxsize=64)
def _block_grades(seed: int, split: Split, block: int) -> tuple[int, ...]:
    grades = [
        grade for grade, share in zip(GRADES, GRADE_SHARES, strict=True) for _ in range(share)
    ]
    Random(derive_seed(seed, "demo-grade", split, block)).shuffle(grades)
    return tuple(grades)


def _make_original(seed: int, split: Split, index: int) -> PhotoPlan:
    def stream(subject: str) -> Random:
        return Random(derive_seed(seed, f"demo-{subject}", split, index))

    marks = _draw_marks(stream("marks"))
    return PhotoPlan(
        lemon=_draw_lemon(stream("lemon")),
        light=_draw_light(stream("light")),
        defects=_draw_defects(stream("defects"), _drawn_grade(seed, split, index), marks),
        marks=marks,
        background_seed=derive_seed(seed, "demo-background", split, index),
        texture_seed=derive_seed(seed, "demo-texture", split, index),
        grain_seed=derive_seed(seed, "demo-grain", split, index),
        grain=stream("camera").uniform(0.006, 0.05),
    )


def _draw_lemon(random: Random) -> Lemon:
    half_length = random.uniform(0.33, 0.385)
    half_width = half_length * random.uniform(0.70, 0.80)
    angle = random.uniform(0, 2 * math.pi)
    # The outermost tenth of the frame stays free of lemon: the border must not show defects.
    across, along = math.cos(angle), math.sin(angle)
    room_x = 0.40 - math.hypot(half_length * across, half_width * along)
    room_y = 0.40 - math.hypot(half_length * along, half_width * across)
    ripeness = random.uniform(0, 1)  # lemon-green yellow .. orange yellow
    value = random.uniform(0.90, 1.0)
    return Lemon(
        center_x=0.5 + random.uniform(-1, 1) * max(0.0, room_x),
        center_y=0.5 + random.uniform(-1, 1) * max(0.0, room_y),
        angle=angle,
        half_length=half_length,
        half_width=half_width,
        skin=(
            value * (0.95 + 0.05 * ripeness),
            value * (0.86 - 0.12 * ripeness),
            value * random.uniform(0.10, 0.28),
        ),
        pores=random.uniform(0.4, 1.0),
        has_stem=random.random() < 0.5,
    )


def _draw_light(random: Random) -> Light:
    azimuth = random.uniform(0, 2 * math.pi)
    elevation = math.radians(random.uniform(38, 65))
    exposure = random.uniform(0.92, 1.16)
    warmth = random.uniform(-0.07, 0.07)
    return Light(
        direction=(
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ),
        fill=random.uniform(0.45, 0.62),
        gains=(exposure * (1 + warmth), exposure, exposure * (1 - warmth)),
        dapple=random.uniform(0.12, 0.32) if random.random() < 0.35 else 0.0,
    )


def _draw_marks(random: Random) -> tuple[Mark, ...]:
    """Harmless things on the lemon, the same for all grades: a sticker, water drops."""
    kinds: list[tuple[Literal["sticker", "drop"], float, float]] = []
    if random.random() < 0.45:
        kinds.append(("sticker", 0.15, 0.21))
    if random.random() < 0.4:
        kinds += [("drop", 0.045, 0.085)] * random.randint(2, 6)
    marks: list[Mark] = []
    for kind, low, high in kinds:
        radius = random.uniform(low, high)
        x, y = _draw_place(random, radius, 0.8, [(mark.x, mark.y, mark.radius) for mark in marks])
        marks.append(Mark(kind, x, y, radius, random.random()))
    return tuple(marks)


def _draw_defects(random: Random, grade: int, marks: tuple[Mark, ...]) -> tuple[Defect, ...]:
    """Defects whose severities add up to a value inside the grade's band, without overlap."""
    low, high = _SEVERITY_BANDS[grade]
    severity = random.uniform(low, high)
    if grade == 0 and random.random() < 0.5:
        return ()
    pieces: list[tuple[DefectKind, float]] = []
    if random.random() < _LUMP_CHANCE[grade]:
        lump = random.uniform(5.0, 6.5)
        pieces.append(("lump", lump))
        severity -= lump
    for kind, part in _share_out(random, grade, severity):
        most = min(_MOST_PIECES[kind], max(1, int(part / _LEAST_PIECE[kind])))
        fewest = min(most, max((most + 1) // 2, math.ceil(part / _MOST_PIECE)))
        count = random.randint(fewest, most)
        weights = [random.uniform(0.6, 1.0) for _ in range(count)]
        pieces += [(kind, part * weight / sum(weights)) for weight in weights]
    pieces.sort(key=lambda piece: -piece[1] / SEVERITY_WEIGHT[piece[0]])
    taken = [(mark.x, mark.y, mark.radius) for mark in marks if mark.kind == "sticker"]
    defects: list[Defect] = []
    for kind, part in pieces:
        area = part / SEVERITY_WEIGHT[kind] / 100
        radius = math.sqrt(area)
        if kind == "lump":
            x, y = random.uniform(-0.55, 0.55), random.choice((-1.0, 1.0))
        else:
            x, y = _draw_place(random, radius, _REACH, taken)
            taken.append((x, y, radius))
        defects.append(Defect(kind, x, y, area, random.random()))
    return tuple(defects)


def _share_out(random: Random, grade: int, severity: float) -> list[tuple[DefectKind, float]]:
    """Split `severity` over one or more kinds, none above what it can hold."""
    if severity < 0.05:
        return []
    kinds: list[DefectKind] = ["scab", "mould", "greening"]
    random.shuffle(kinds)
    if grade == 0:
        return [("scab", severity)]
    wanted = random.randint(*((1, 2), (1, 3), (2, 3))[grade - 1])
    while sum(_MOST_SEVERITY[kind] for kind in kinds[:wanted]) < severity:
        wanted += 1
    chosen = kinds[:wanted]
    weights = [random.uniform(0.35, 1.0) for _ in chosen]
    shares = [severity * weight / sum(weights) for weight in weights]
    excess = 0.0
    for number, kind in enumerate(chosen):
        over = max(0.0, shares[number] - _MOST_SEVERITY[kind])
        shares[number] -= over
        excess += over
    for number, kind in enumerate(chosen):
        room = min(excess, _MOST_SEVERITY[kind] - shares[number])
        shares[number] += room
        excess -= room
    return list(zip(chosen, shares, strict=True))


def _draw_place(
    random: Random, radius: float, reach: float, taken: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """Where a disc of `radius` fits inside `reach`, free of `taken`; else the freest of 40 tries."""
    best, best_room = (0.0, 0.0), -math.inf
    for _ in range(40):
        angle = random.uniform(0, 2 * math.pi)
        distance = math.sqrt(random.random()) * max(0.05, reach - radius)
        x, y = distance * math.cos(angle), distance * math.sin(angle)
        room = min((math.hypot(x - tx, y - ty) - tr for tx, ty, tr in taken), default=1.0) - radius
        if room > 0.04:
            return x, y
        if room > best_room:
            best, best_room = (x, y), room
    return best
