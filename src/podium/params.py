"""Reads params.yaml: strictly, typed and frozen.

In: params.yaml. Out: one frozen pydantic object per stage, holding only the sections that stage
names. The schema of a section stands beside the code that reads it; this module only knows how to
read and how to complain.

ruamel (YAML 1.2, DVC's own reader) makes `lr: 3e-4` a number; PyYAML would make it a string.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from podium.errors import PodiumError, ProblemsError, did_you_mean

PARAMS_FILE = Path("params.yaml")

# The top level of params.yaml. A stage checks the sections it reads; this list lets every stage
# refuse a mistyped top-level key, also one that it does not read itself.
TOP_LEVEL_KEYS = (
    "seed",
    "lr",
    "epochs",
    "batch_size",
    "image_size",
    "competition",
    "data",
    "eda",
    "split",
    "label_shuffle",
    "model",
    "train",
    "runtime",
    "evaluate",
    "compress",
)


def _read_auto(value: Any) -> Any:
    """`auto` as None; an empty value is a mistake."""
    if value is None:
        raise ValueError("a number or auto")
    return None if value == "auto" else value


# Before a number that may be None: `auto`.
Auto = BeforeValidator(_read_auto)
Seed = Annotated[int, Field(ge=0, lt=2**32, description="every random draw derives from it")]
LearningRate = Annotated[float, Field(gt=0, le=10, description="peak learning rate")]
Epochs = Annotated[
    Annotated[int, Field(ge=1, le=10_000, description="passes over the training list")] | None,
    Auto,
]
BatchSize = Annotated[int, Field(ge=1, le=4096, description="images per optimiser step")]
ImageSize = Annotated[
    int, Field(ge=16, le=1024, multiple_of=2, description="side of the square net input, px")
]
ChosenImageSize = Annotated[ImageSize | None, Auto]


class Section(BaseModel):
    """One section of params.yaml: frozen, no unknown keys, no silent conversion."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Params(BaseModel):
    """Base of what a stage reads: the sections and top-level keys it names, and no others."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


ParamsT = TypeVar("ParamsT", bound=Params)


def load_params(schema: type[ParamsT], path: Path = PARAMS_FILE) -> ParamsT:
    """Read and check the part of `path` that `schema` names.

    Raises:
        PodiumError: file missing or not YAML.
        ProblemsError: unknown, missing, mistyped or out-of-range keys, all of them at once.
    """
    tree = read_yaml(path)
    problems = [
        f"{path}: unknown key {key!r}{did_you_mean(str(key), TOP_LEVEL_KEYS)}"
        for key in tree
        if key not in TOP_LEVEL_KEYS
    ]
    try:
        params = schema.model_validate(tree)
    except ValidationError as error:
        problems += [_explain(path, schema, detail) for detail in error.errors()]
    if problems:
        if len(problems) == 1:
            raise PodiumError(problems[0])
        raise ProblemsError(f"{path} has {len(problems)} problems:", problems)
    return params


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path` as plain Python values.

    Raises:
        PodiumError: missing, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run from the top folder of the repository") from None
    except UnicodeDecodeError:
        raise PodiumError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in `text` as plain Python values; `where` it comes from, for the message.

    Raises:
        PodiumError: not YAML, or not a mapping.
    """
    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PodiumError(f"{where}{place}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise PodiumError(f"{where}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise PodiumError(f"{where}: expected `key: value` lines, got {type(tree).__name__}")
    return tree


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one mapping: `{"train": {"ema": 0.9}}` -> `{"train.ema": 0.9}`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found.update(flatten(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def _explain(path: Path, schema: type[BaseModel], detail: Any) -> str:
    """One line for one pydantic error: key, what was expected, what came."""
    location = tuple(part for part in detail["loc"] if isinstance(part, str) and part[0] != "f:")
    key = ".".join(location) or str(path)
    if detail["type"] == "extra_forbidden":
        return (
            f"{path}: unknown key {key!r}{did_you_mean(location[-1], _siblings(schema, location))}"
        )
    if detail["type"] == "missing":
        return f"{path}: {key} is missing: {detail['msg'].lower()}"
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    known = (
        re.findall(r"\w+", detail["ctx"]["expected"]) if detail["type"] == "literal_error" else []
    )
    if isinstance(detail["input"], dict) and detail["type"] == "value_error":
        return f"{path}: {key}: expected {message}"  # of a section: not all of it is to blame
    near = did_you_mean(str(detail["input"]), known)
    return f"{path}: {key}: expected {message}, got {detail['input']!r}{near}"


def _siblings(schema: type[BaseModel], location: tuple[str, ...]) -> list[str]:
    """The keys that are known where the unknown one stands."""
    model: Any = schema
    for part in location[:-1]:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return list(getattr(model, "model_fields", {}))
