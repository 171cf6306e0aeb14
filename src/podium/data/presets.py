"""The presets of `train.augment`: data in augment_presets.yaml, made into albumentations here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from podium.errors import PodiumError, did_you_mean
from podium.params import read_yaml

PRESETS_FILE = Path(__file__).with_name("augment_presets.yaml")
NO_PRESET = "none"


def preset_names() -> tuple[str, ...]:
    """What `train.augment` may say: none, and what the file of presets holds."""
    return (NO_PRESET, *_read_presets())


def make_transforms(preset: str, strength: float) -> list[Any]:
    """albumentations' transforms of a preset; none of `none`.

    Args:
        preset: one of `preset_names()`.
        strength: > 0 .. 1, scales every range.

    Raises:
        PodiumError: the file names no such transform or argument, or a value that it does not take.
    """
    if preset == NO_PRESET:
        return []
    return build_transforms(f"{PRESETS_FILE.name}: {preset}", _read_presets()[preset], strength)


@cache
def _read_presets() -> dict[str, list[dict[str, Any]]]:
    return read_yaml(PRESETS_FILE)


def build_transforms(where: str, listed: Sequence[Mapping[str, Any]], strength: float) -> list[Any]:
    """albumentations' transforms as a preset lists them: `make_transforms` of a list in hand.

    Args:
        where: what a message begins with.
    """
    import albumentations

    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise PodiumError(
            f"{where}: expected a list of transforms, each `transform: NAME` and more"
        )
    kinds = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    made = []
    for entry in listed:
        arguments = dict(entry)
        name = str(arguments.pop("transform", None))
        kind = getattr(albumentations, name, None)
        if not (inspect.isclass(kind) and issubclass(kind, kinds)):
            near = did_you_mean(name, dir(albumentations))
            raise PodiumError(
                f"{where}: expected a transform of albumentations, got {name!r}{near}"
            )
        known = inspect.signature(kind).parameters
        for argument in arguments:
            if argument not in known:
                raise PodiumError(
                    f"{where}: {name}: expected arguments that it has, got {argument!r}"
                    f"{did_you_mean(argument, known)}"
                )
        try:
            made.append(kind(**{key: _scale(value, strength) for key, value in arguments.items()}))
        except (TypeError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())
            raise PodiumError(f"{where}: {name}: a value that it does not take: {said}") from None
    return made


def _scale(value: Any, strength: float) -> Any:
    """A range at some strength; what is no range is itself.

    Raises:
        KeyError: a mapping that is no range.
    """
    if not isinstance(value, dict):
        return value
    neutral = value["neutral"]
    if "plus_minus" in value:
        reach = value["plus_minus"] * strength
        return (neutral - reach, neutral + reach)
    return (neutral, neutral + (value["up_to"] - neutral) * strength)
