"""The presets of `train.augment`: data in augment_presets.yaml, made into albumentations here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from podium.data.decode import RGB
from podium.errors import PodiumError, did_you_mean
from podium.params import read_yaml

PRESETS_FILE = Path(__file__).with_name("augment_presets.yaml")
NO_PRESET = "none"
# An argument of this value is the height and width of the picture, which a file cannot know.
OWN_SIZE = "image_size"


def preset_names() -> tuple[str, ...]:
    """What `train.augment` may say: none, and what the file of presets holds."""
    return (NO_PRESET, *_read_presets())


def make_transforms(preset: str, strength: float, size_px: tuple[int, int]) -> list[Any]:
    """albumentations' transforms of a preset; none of `none`.

    Args:
        preset: one of `preset_names()`.
        strength: > 0 .. 1, scales every range.
        size_px: height and width of the pictures, for `size: image_size`.

    Raises:
        PodiumError: the file names no such transform or argument, or a value that it does not take.
    """
    if preset == NO_PRESET:
        return []
    return build_transforms(_where(preset), _read_presets()[preset], strength, size_px)


def apply_transform(preset: str, transform: Any, image: RGB) -> RGB:
    """What one of albumentations' transforms makes of a picture: as large, and uint8.

    Raises:
        PodiumError: the transform fails on this picture (it is too small for a crop, say, or the
            transform wants more than a picture), or changes its size, number of channels or type.
    """
    try:
        changed: RGB = transform(image=image)["image"]
    except MemoryError:
        raise  # no fault of the preset: the training says what needs less
    except Exception as error:  # some of albumentations' own derive from nothing closer
        said = " ".join(str(error).split()) or type(error).__name__
        raise PodiumError(
            f"{_where(preset)}: {type(transform).__name__}: fails on a picture of "
            f"{_describe(image)}: {said}"
        ) from error
    _check_kept(preset, transform, image, changed)
    return changed


def _check_kept(preset: str, transform: Any, before: RGB, after: RGB) -> None:
    """A batch is one array of bytes: each picture must stay as large as it was, and uint8."""
    if after.shape == before.shape and after.dtype == before.dtype:
        return
    cure = "leave it out"
    if after.dtype != before.dtype:
        cure += ": pixels are normalised after augmentation"
    elif after.shape[:2] != before.shape[:2]:
        cure += f"; to crop, list RandomResizedCrop with `size: {OWN_SIZE}`"
    raise PodiumError(
        f"{_where(preset)}: {type(transform).__name__}: expected size and type of the picture that "
        f"it is given, {_describe(before)}, got {_describe(after)}: {cure}"
    )


def _where(preset: str) -> str:
    return f"{PRESETS_FILE.name}: {preset}"


def _describe(image: RGB) -> str:
    return f"{' x '.join(map(str, image.shape))} {image.dtype}"


@cache
def _read_presets() -> dict[str, list[dict[str, Any]]]:
    return read_yaml(PRESETS_FILE)


def build_transforms(
    where: str, listed: Sequence[Mapping[str, Any]], strength: float, size_px: tuple[int, int]
) -> list[Any]:
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
            values = {key: _settle(value, strength, size_px) for key, value in arguments.items()}
            made.append(kind(**values))
        except (TypeError, ValueError, KeyError) as error:
            said = " ".join(str(error).split())
            raise PodiumError(f"{where}: {name}: a value that it does not take: {said}") from None
    return made


def _settle(value: Any, strength: float, size_px: tuple[int, int]) -> Any:
    """A range at some strength, low to high; the picture's own size; all else is itself.

    Raises:
        KeyError: a mapping that is no range.
    """
    if value == OWN_SIZE:
        return size_px
    if not isinstance(value, dict):
        return value
    neutral = value["neutral"]
    if "plus_minus" in value:
        reach = value["plus_minus"] * strength
        return (neutral - reach, neutral + reach)
    return tuple(sorted((neutral, neutral + (value["up_to"] - neutral) * strength)))
