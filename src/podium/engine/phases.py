"""The phases of a training: which part of the net learns, and at which image size.

In: `model.freeze`, `train.unfreeze`, `train.size_schedule`. Out: the plan, in order.

Progressive resizing with a regularisation that grows with the size: Tan & Le, EfficientNetV2
(arXiv:2104.00298), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from podium.data.presets import NO_PRESET
from podium.data.recipes import ImageRecipes, recipes_that_act
from podium.engine.params import RecipeParams
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
    parts = list_parts(freeze, unfreeze)
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
    if largest > image_size_px:
        raise PodiumError(
            f"params.yaml: train.size_schedule: expected {image_size_px} px at most, the image_size "
            f"that the net is judged at, got {largest}: leave larger ones out, or set image_size: "
            f"{largest}"
        )
    plan = []
    for start in sorted({start for start, _ in (*parts, *sizes)}):
        part = next(part for begin, part in reversed(parts) if begin <= start)
        size = next(size for begin, size in reversed(sizes) if begin <= start)
        grown = (size - smallest) / (largest - smallest) if largest > smallest else 1.0
        strength = _LEAST_STRENGTH + (1 - _LEAST_STRENGTH) * grown
        plan.append(Phase(start, part, size, strength))
    return tuple(plan)


def list_parts(freeze: str, unfreeze: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    """[share of the epochs, part that learns from there on], at least one of them.

    Args:
        freeze: as in `model`.
        unfreeze: as in `train`; may be empty.
    """
    return unfreeze or [(0.0, _MOST[freeze])]


def describe_last_size(plan: Sequence[Phase], image_size_px: int) -> str:
    """That the net never learns at the size it is judged at, "" where it ends with it."""
    last = plan[-1].image_size_px
    if last == image_size_px:
        return ""
    return (
        f"train.size_schedule ends at {last} px, but the net is judged at image_size {image_size_px} "
        f"px, which it never learns at; end with [share, {image_size_px}] or set image_size: {last}"
    )


def phase_of(plan: tuple[Phase, ...], epoch: int, epochs: int) -> Phase:
    """The phase of epoch `epoch` (from 1) of `epochs`."""
    return next(phase for phase in reversed(plan) if phase.start <= (epoch - 1) / epochs)


def check_phases(plan: tuple[Phase, ...], epochs: int) -> None:
    """Refuse a plan of which some phase has no epoch.

    Raises:
        PodiumError: with so few epochs the net would never learn that part, or at that size.
    """
    reached = {phase_of(plan, epoch, epochs) for epoch in range(1, epochs + 1)}
    for phase in plan:
        if phase not in reached:
            raise PodiumError(
                f"train.unfreeze, train.size_schedule: expected an epoch for each phase, got none of "
                f"{epochs} for the one that begins at the share {phase.start:g}: set epochs to more, or "
                "let it begin earlier"
            )


def count_augmented_epochs(until: float, epochs: int) -> int:
    """The epochs, from the first on, in which preset and recipes act: those that begin before the share
    `until` of `epochs` is over."""
    return math.ceil(round(until * epochs, 6))


def is_whole(plan: Sequence[Phase]) -> bool:
    """Whether all layers learn from the first epoch on."""
    return all(phase.part == ALL for phase in plan)


def choose_views(views: int | None, n_images: int) -> int:
    """What `train.views: auto` (None) means for frozen layers: 6, or as few as 2 where the images are
    many, since each of them costs a run through those layers."""
    return views if views is not None else min(6, max(2, 40_000 // max(1, n_images)))


def count_views(plan: Sequence[Phase], views: int | None, n_images: int) -> int:
    """The fixed pictures of each image that a training sees.

    Frozen layers: as `choose_views` says. Nothing frozen: a training list expanded ahead to
    `train.views` pictures of each image; 0 and auto mean none, every epoch draws anew.
    """
    return (views or 0) if is_whole(plan) else choose_views(views, n_images)


def check_image_recipes(plan: tuple[Phase, ...], recipes: ImageRecipes, views: int) -> None:
    """Refuse recipes for images that nobody would see.

    Raises:
        PodiumError: all phases learn on features of plain images.
    """
    acting = recipes_that_act(recipes)
    if acting and views == 0 and all(phase.part != ALL for phase in plan):
        name = acting[0][0]
        raise PodiumError(
            f"params.yaml: train.recipes.{name}: expected 0 while model.freeze holds layers and "
            f"train.views is 0, got {acting[0][1]:g}: frozen layers see plain images then; set "
            "train.views, or model.freeze: none"
        )


def check_cutmix(probability: float, parts: Collection[str]) -> None:
    """Refuse images to cut where no phase sees any.

    Args:
        probability: `train.recipes.cutmix`.
        parts: that learn, in any phase.

    Raises:
        PodiumError: all of them learn on features.
    """
    if probability and ALL not in parts:
        raise PodiumError(
            f"params.yaml: train.recipes.cutmix: expected 0 while model.freeze holds layers, got "
            f"{probability:g}: it cuts images, and frozen layers are through with them; mixup "
            "mixes features, too; or set model.freeze: none"
        )


def check_pseudo_threshold(threshold: float, freeze: str, parts: Collection[str]) -> None:
    """Refuse test images to learn from where a phase learns on features, which they have none of.

    Args:
        threshold: `train.pseudo_threshold`.
        freeze: as in `model`.
        parts: that learn, in any phase.

    Raises:
        PodiumError: not all of them are the whole net.
    """
    if threshold and set(parts) != {ALL}:
        raise PodiumError(
            "train.pseudo_threshold: expected 0 while a part of the net is frozen (model.freeze "
            f"{freeze}), since features are computed for training images only, got "
            f"{threshold:g}: set model.freeze: none and train.unfreeze: [], or the threshold to 0"
        )


def check_augmentation(
    plan: tuple[Phase, ...], preset: str, recipes: RecipeParams, views: int, until: float
) -> None:
    """Refuse augmentation that cannot act as params say.

    Args:
        preset, recipes: as in `train`.
        views: as `count_views` says.
        until: `train.augment_until`.

    Raises:
        PodiumError: as `check_image_recipes` and `check_cutmix`; an end to what is drawn into views,
            unless it is that of mixup and cutmix, which a preset outlasts.
    """
    images = recipes.of_images()
    check_image_recipes(plan, images, views)
    check_cutmix(recipes.cutmix, [phase.part for phase in plan])
    ends = [*(phase.start for phase in plan[1:]), 1.0]
    is_late = any(phase.part != ALL and end > until for phase, end in zip(plan, ends, strict=True))
    goes_on = views and (is_late or (is_whole(plan) and until < 1))
    ends_nothing = preset != NO_PRESET and not (recipes.mixup or recipes.cutmix)
    if goes_on and (recipes_that_act(images) or ends_nothing):
        raise PodiumError(
            f"params.yaml: train.augment_until: expected 1.0 while train.augment or recipes act in "
            f"train.views, got {until:g}: views are drawn once, for all epochs; or let all layers "
            "learn by that share (model.freeze: none with train.views: 0, or train.unfreeze)"
        )
