"""Params of training, and of the machine it runs on."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticKnownError

from podium.data.presets import preset_names
from podium.data.recipes import ImageRecipes
from podium.params import Auto, ImageSize, Section


def _as_pair(value: Any) -> Any:
    """YAML has lists only; an integer is a fraction, too."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], int | float):
        return (float(value[0]), value[1])
    raise ValueError("pairs [share of the epochs, value]")


Start = Annotated[float, Field(ge=0, lt=1)]
StepShare = Annotated[float, Field(gt=0, lt=1)]
SizeStep = Annotated[tuple[Start, ImageSize], BeforeValidator(_as_pair)]
PartStep = Annotated[tuple[Start, Literal["head", "top", "all"]], BeforeValidator(_as_pair)]


Probability = Annotated[float, Field(ge=0, le=1)]


class RecipeParams(Section):
    """How probable each augmentation recipe is: for an image, or (the last two) for a batch."""

    autoaugment: Probability
    randaugment: Probability
    cutout: Probability
    random_erasing: Probability
    hide_and_seek: Probability
    grid_mask: Probability
    mixup: Probability
    cutmix: Probability

    @field_validator("cutmix")
    @classmethod
    def _check_sum(cls, cutmix: float, others: ValidationInfo) -> float:
        mixup = others.data.get("mixup", 0.0)  # missing where it is itself refused
        if cutmix + mixup > 1 + 1e-9:
            raise ValueError(f"at most 1 - mixup ({1 - mixup:g}): a step is mixed one way")
        return cutmix

    def of_images(self) -> ImageRecipes:
        """Those that change one image."""
        return ImageRecipes(**self.model_dump(exclude={"mixup", "cutmix"}))


class TrainParams(Section):
    """The training loop; lr, epochs, batch_size and image_size stand at the top level."""

    optimizer: Literal["adamw", "adam", "sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    schedule: Literal["cosine", "step", "linear", "constant", "one_cycle"]
    # Shares of the epochs after which schedule step multiplies lr by step_factor.
    step_epochs: list[StepShare]
    step_factor: Annotated[float, Field(gt=0, lt=1)]
    warmup_epochs: Annotated[float, Field(ge=0, le=100)]
    # The greatest norm of all gradients together; 0: any.
    clip_norm: Annotated[float, Field(ge=0, le=1000)]
    loss: Literal["cross_entropy", "focal", "ordinal"]
    focal_gamma: Annotated[float, Field(ge=0, le=10)]
    class_weights: Literal["none", "balanced", "effective"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    # A preset of src/podium/data/augment_presets.yaml, or none.
    augment: str
    # auto: the mirrors whose pictures quick models answer as well as others.
    flip: Literal["auto", "none", "horizontal", "both"]
    recipes: RecipeParams
    # The share of the epochs in which preset and recipes act; the last ones see mirrors only.
    augment_until: Annotated[float, Field(gt=0, le=1)]
    # Augmented views of each training image that a frozen trunk sees; 0: the plain image. None: auto.
    # Nothing frozen: fixed pictures of each image; 0, auto: each epoch draws its own.
    views: Annotated[Annotated[int, Field(ge=0, le=64)] | None, Auto]
    # [share of the epochs, part that learns from there on]; empty: all that model.freeze allows.
    unfreeze: list[PartStep]
    # The learning rate of a layer is lr times this to the power of its distance from the head.
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    # [share of the epochs, side in px of what it learns on]; empty: image_size.
    size_schedule: list[SizeStep]
    # The net that is judged and kept is a moving average of the one that learns; 0: it itself.
    ema: Annotated[float, Field(ge=0, lt=1)]
    # The epoch whose weights are kept. best: by val score, which then flatters: among many epochs one
    # is lucky on these rows.
    keep: Literal["last", "best"]
    # The best epochs' weights, of which an average is made in the end; 0: the best one's alone.
    soup: Annotated[int, Field(ge=0, le=20)]
    # Stop after this many epochs without a better val score; 0: never.
    patience: Annotated[int, Field(ge=0, le=1000)]
    # A second round learns from the test images that the first is at least so sure of; 0: one round.
    pseudo_threshold: Annotated[float, Field(ge=0, le=1)]
    # Processes that share each step's batch. Another number rounds differently.
    processes: Annotated[int, Field(ge=1, le=64)]
    # Passes that a process's share of the batch is cut into: the same step with less memory.
    accumulate: Annotated[int, Field(ge=1, le=256)]
    # Optimiser steps between checkpoints within an epoch; 0: at the end of each epoch only.
    checkpoint_every: Annotated[int, Field(ge=0, le=1_000_000)]

    @field_validator("augment")
    @classmethod
    def _check_preset(cls, name: str) -> str:
        names = preset_names()
        if name not in names:
            raise PydanticKnownError("literal_error", {"expected": " | ".join(names)})
        return name

    @field_validator("pseudo_threshold")
    @classmethod
    def _check_threshold(cls, threshold: float) -> float:
        if 0 < threshold < 0.5:
            raise ValueError("0 or 0.5 .. 1")
        return threshold

    @field_validator("unfreeze", "size_schedule")
    @classmethod
    def _check_order(cls, steps: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
        if steps and steps[0][0] != 0:
            raise ValueError("the first pair at 0")
        if any(late[0] <= early[0] for early, late in pairwise(steps)):
            raise ValueError("shares that grow from pair to pair")
        return steps

    @field_validator("step_epochs")
    @classmethod
    def _check_steps(cls, shares: list[float], info: ValidationInfo) -> list[float]:
        if any(late <= early for early, late in pairwise(shares)):
            raise ValueError("shares of the epochs that grow")
        if not shares and info.data.get("schedule") == "step":
            raise ValueError("at least one share with train.schedule step")
        return shares

    @field_validator("unfreeze")
    @classmethod
    def _check_parts(cls, steps: list[PartStep]) -> list[PartStep]:
        parts = [("head", "top", "all").index(part) for _, part in steps]
        if parts != sorted(parts):
            raise ValueError("parts that go from head to top to all, and not back")
        return steps

    @field_validator("soup", "patience")
    @classmethod
    def _check_kept(cls, count: int, info: ValidationInfo) -> int:
        if count and info.data.get("keep") == "last":
            raise ValueError("0 unless train.keep is best, whose epochs it looks for")
        return count


class RuntimeParams(Section):
    """The machine. Another device or precision gives other bits."""

    device: Literal["cpu", "gpu"]
    amp: bool

    @model_validator(mode="after")
    def _check_amp(self) -> RuntimeParams:
        if self.amp and self.device == "cpu":
            raise ValueError("runtime.amp false on the cpu: float16 is no faster there")
        return self
