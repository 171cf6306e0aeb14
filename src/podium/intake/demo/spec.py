"""What a demo competition consists of: a few numbers, on record in its demo.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from podium.errors import PodiumError, ProblemsError, did_you_mean
from podium.files import write_json

Split = Literal["train", "test"]

SPEC_FILE = "demo.json"

# One near-duplicate pair lives in each of the first blocks of this many training indices: few
# enough for small demos, enough that every block holds two lemons of one grade (pigeonhole).
PAIR_BLOCK = 16

_LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "train": (1, 1_000_000),
    "test": (1, 1_000_000),
    "size_px": (32, 1024),
    "label_noise": (0.0, 0.5),
    "near_duplicates": (0, 1000),
}


@dataclass(frozen=True)
class DemoSpec:
    """The parameters of a demo competition.

    Args:
        seed: every draw derives from it.
        train, test: number of photos.
        size_px: side of the square photos, pixels.
        label_noise: probability that a training label is moved to a neighbouring grade, 0..0.5.
        near_duplicates: pairs of training photos that show the same lemon.

    Raises:
        ProblemsError: a value of the wrong type or out of range.
    """

    seed: int = 0
    train: int = 800
    test: int = 200
    size_px: int = 160
    label_noise: float = 0.03
    near_duplicates: int = 6

    def __post_init__(self) -> None:
        problems = []
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            kind = "number" if isinstance(low, float) else "whole number"
            allowed = (int, float) if isinstance(low, float) else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed):
                problems.append(f"{name}: expected a {kind}, got {value!r}")
            elif not low <= value <= high:
                problems.append(f"{name}: expected {low} to {high}, got {value}")
        if not problems and self.near_duplicates * PAIR_BLOCK > self.train:
            problems.append(
                f"near_duplicates: {self.near_duplicates} pairs need train to be at least "
                f"{self.near_duplicates * PAIR_BLOCK}, got {self.train}"
            )
        if problems:
            raise ProblemsError("the demo competition cannot be made like this:", problems)

    def count(self, split: Split) -> int:
        """Number of photos in `split`."""
        return self.train if split == "train" else self.test


def write_spec(root: Path, spec: DemoSpec) -> None:
    """Write demo.json below `root`."""
    write_json(root / SPEC_FILE, asdict(spec))


def load_spec(root: Path) -> DemoSpec:
    """The spec that the demo competition in `root` was made from.

    Raises:
        PodiumError: demo.json is missing or is not what `write_spec` writes.
        ProblemsError: its values are out of range.
    """
    path = root / SPEC_FILE
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PodiumError(
            f"{path} is missing: {root} is no demo competition; make one with `podium init --demo`"
        ) from None
    except ValueError as error:
        raise PodiumError(f"{path}: not valid JSON: {error}; restore it") from None
    known = [field.name for field in fields(DemoSpec)]
    if not isinstance(record, dict):
        raise PodiumError(f"{path}: expected the keys {', '.join(known)}, got {record!r}")
    for key in record:
        if key not in known:
            raise PodiumError(f"{path}: unknown key {key!r}{did_you_mean(key, known)}")
    missing = [key for key in known if key not in record]
    if missing:
        raise PodiumError(f"{path}: {', '.join(missing)} missing: restore the file")
    return DemoSpec(**record)
