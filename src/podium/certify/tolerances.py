"""What may differ between classes of CPUs, and by how much.

Another vector unit rounds differently, and a training makes that grow: weights cannot be compared.
Tables made without a net must be the same bytes; scores and predictions must be near.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.certify.comparison import Hashes
from podium.dag import declared_outputs, load_stages
from podium.errors import PodiumError

SCORES = "metrics/evaluate.json"
PREDICTIONS = ("predictions/val.csv", "predictions/test.csv")
# What a certificate keeps of predictions: so many rows, so many digits.
_ROWS_KEPT = 2000
_DIGITS = 5
_NETS = "src/podium/engine"


@dataclass(frozen=True)
class Tolerances:
    """The largest differences that pass on another class of CPUs.

    Attributes:
        score: of each number in metrics/evaluate.json, and of one beyond 1 (a log loss) this share.
        mean_probability: mean absolute difference of predicted probabilities.
        answers_changed: share of images with another most probable class.
    """

    score: float = 0.05
    mean_probability: float = 0.03
    answers_changed: float = 0.10


@dataclass(frozen=True)
class Check:
    """One comparison: of what, the difference found, the largest allowed."""

    what: str
    difference: float
    allowed: float

    @property
    def passes(self) -> bool:
        """Whether it is within the tolerance."""
        return self.difference <= self.allowed


def exact_files(root: Path) -> list[str]:
    """The tables that stages without a net make: the same bytes on every machine."""
    stages = load_stages(root)
    return [
        output.path.as_posix()
        for output in declared_outputs(root)
        if output.kind == "outs"
        and output.path.suffix == ".csv"
        and _NETS not in stages[output.stage].get("deps", [])
    ]


def read_scores(root: Path) -> dict[str, float]:
    """The top-level numbers of metrics/evaluate.json; empty where there is no such file."""
    path = root / SCORES
    if not path.is_file():
        return {}
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {
        key: value
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def read_predictions(root: Path) -> dict[str, dict[str, list[float]]]:
    """File -> image_id -> probabilities, rounded; of many images those whose hashed ids come
    first, which is the same choice on every machine."""
    import pandas as pd

    found = {}
    for name in PREDICTIONS:
        if not (root / name).is_file():
            continue
        frame = pd.read_csv(root / name, dtype={"image_id": str}, keep_default_na=False)
        columns = [column for column in frame.columns if column.startswith("p_")]
        ids = set(sorted(frame["image_id"], key=_hash)[:_ROWS_KEPT])
        rows = frame[frame["image_id"].isin(ids)]
        values = rows[columns].to_numpy(np.float64).round(_DIGITS)
        found[name] = dict(zip(rows["image_id"], values.tolist(), strict=True))
    return found


def _hash(image_id: str) -> str:
    return hashlib.sha256(image_id.encode("utf-8")).hexdigest()


def compare_loosely(
    hashes: tuple[Hashes, Hashes],
    scores: tuple[Mapping[str, float], Mapping[str, float]],
    predictions: tuple[Mapping[str, Any], Mapping[str, Any]],
    exact: Iterable[str],
    tolerances: Tolerances,
) -> list[Check]:
    """What can be compared across classes of CPUs; of each pair the expected comes first."""
    checks = []
    by_file = [{file: digest for (_, file), digest in part.items()} for part in hashes]
    for file in exact:
        ours, theirs = (part.get(file) for part in by_file)
        checks.append(Check(f"{file}: bytes", float(ours is None or ours != theirs), 0.0))
    ours_s, theirs_s = scores
    for name in dict.fromkeys([*ours_s, *theirs_s]):
        if name not in ours_s or name not in theirs_s:
            checks.append(Check(f"{SCORES}: {name} in both", 1.0, 0.0))
            continue
        difference = abs(ours_s[name] - theirs_s[name])
        if isinstance(ours_s[name], int):
            checks.append(Check(f"{SCORES}: {name}", float(difference), 0.0))
        else:
            allowed = tolerances.score * max(1.0, abs(ours_s[name]))
            checks.append(Check(f"{SCORES}: {name}", difference, allowed))
    for name in dict.fromkeys([*predictions[0], *predictions[1]]):
        checks += _compare_predictions(
            name, predictions[0].get(name, {}), predictions[1].get(name, {}), tolerances
        )
    return checks


def _compare_predictions(
    name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], tolerances: Tolerances
) -> list[Check]:
    if ours.keys() != theirs.keys() or not ours:
        return [Check(f"{name}: ids in one only", float(len(ours.keys() ^ theirs.keys()) or 1), 0)]
    first = np.array([ours[image_id] for image_id in ours], np.float64)
    second = np.array([theirs[image_id] for image_id in ours], np.float64)
    if first.shape != second.shape:
        return [Check(f"{name}: columns", 1.0, 0.0)]
    changed = float((first.argmax(1) != second.argmax(1)).mean())
    mean = float(np.abs(first - second).mean())
    return [
        Check(f"{name}: share of answers changed", changed, tolerances.answers_changed),
        Check(f"{name}: mean difference of probabilities", mean, tolerances.mean_probability),
    ]


def load_tolerances(content: Any) -> Tolerances:
    """The tolerances that a certificate states.

    Raises:
        PodiumError: others than are known here, or no numbers.
    """
    known = asdict(Tolerances())
    if (
        not isinstance(content, dict)
        or content.keys() != known.keys()
        or not all(isinstance(value, int | float) for value in content.values())
    ):
        raise PodiumError(
            f"the certificate's tolerances: expected numbers for {', '.join(known)}, got {content!r}"
        )
    return Tolerances(**content)
