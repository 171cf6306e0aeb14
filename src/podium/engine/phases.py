"""The phases of a training: which part of the net learns, and at which image size.

In: `model.freeze`, `train.unfreeze`, `train.size_schedule`. Out: the plan, in order.

Progressive resizing with a regularisation that grows with the size: Tan & Le, EfficientNetV2
(arXiv:2104.00298), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podium.errors import PodiumError

HEAD, TOP, ALL = "head", "top", "all"
_PARTS = (HEAD, TOP, ALL)
# The most that learns under each `model.freeze`.
_MOST = {"all": HEAD, "trunk": TOP, "none": ALL}
# Augmentation and dropout at the smallest size of a schedule, as a share of what params say.
_LEAST_STRENGTH = 1 / 3


@dataclass(frozen=True)
class Phase:
    """A stretch of the training.

    Attributes:
        start: the share of the epochs before it, 0 <= start < 1.
        part: head | top | all.
        image_size_px: what the net learns on; it is judged at `image_size`.
        strength: of augmentation and dropout, > 0 .. 1.
    """

    start: float
    part: str
    image_size_px: int
    strength: float


def make_plan(
    freeze: str,
    pretrained: bool,
    unfreeze: Sequence[tuple[float, str]],
    size_schedule: Sequence[tuple[float, int]],
    image_size_px: int,
) -> tuple[Phase, ...]:
    """The phases in order; the first starts at 0.

    Args:
        freeze: as in `model`.
        pretrained: whether the trunk begins with weights that have learned something.
        unfreeze, size_schedule: as in `train`; may be empty.
        image_size_px: what the net is judged on.

    Raises:
        PodiumError: a schedule that the model cannot follow.
    """
    most = _MOST[freeze]
    parts = unfreeze or [(0.0, most)]
    sizes = size_schedule or [(0.0, image_size_px)]
    for _, part in parts:
        if _PARTS.index(part) > _PARTS.index(most):
            raise PodiumError(
                f"params.yaml: train.unfreeze: expected {most!r} at most, as model.freeze "
                f"{freeze!r} says, got {part!r}"
            )
        if part != ALL and not pretrained:
            raise PodiumError(
                f"params.yaml: train.unfreeze: expected no {part!r} while model.pretrained is "
                "false and model.weights empty: what stays fixed has learned nothing"
            )
    smallest, largest = (least_or_most(size for _, size in sizes) for least_or_most in (min, max))
    plan = []
    for start in sorted({start for start, _ in (*parts, *sizes)}):
        part = next(part for begin, part in reversed(parts) if begin <= start)
        size = next(size for begin, size in reversed(sizes) if begin <= start)
        grown = (size - smallest) / (largest - smallest) if largest > smallest else 1.0
        strength = _LEAST_STRENGTH + (1 - _LEAST_STRENGTH) * grown
        plan.append(Phase(start, part, size, strength))
    return tuple(plan)


def phase_of(plan: tuple[Phase, ...], epoch: int, epochs: int) -> Phase:
    """The phase of epoch `epoch` (from 1) of `epochs`."""
    return next(phase for phase in reversed(plan) if phase.start <= (epoch - 1) / epochs)
