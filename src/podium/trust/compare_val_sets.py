"""Whether two runs answered the same questions: only then do their scores say which is better.

In: two `StoredRun`s. Out: nothing, or everything that differs, in one error.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from podium.errors import ProblemsError
from podium.trust.compare_runs import StoredRun

_SHOWN = 3
# What must be the same of each image, and what is said where it is not.
_SAME = {
    "label": "another label",
    "soft_label": "another soft label",
    "fold": "another held-out fold",
    "pixel_hash": "other pixels",
    "group_id": "another group",
}
# What can make the val set another one.
_DECIDES = ("seed", "data.", "eda.", "split.", "competition.")


def check_same_val_set(before: StoredRun, after: StoredRun) -> None:
    """Refuse runs whose val sets differ.

    Raises:
        ProblemsError: task, classes, images, or a label, the fold, pixels or group of an image
            differ; with counts, the first ids, and the params that may be why.
    """
    problems = []
    for key in ("competition.task", "competition.ordinal"):
        if before.param(key) != after.param(key):
            problems.append(f"{key}: {before.param(key)} against {after.param(key)}")
    if before.classes != after.classes:
        problems.append(_explain_classes(before, after))
    ids_before, ids_after = set(before.rows["image_id"]), set(after.rows["image_id"])
    for name, only in ((before.name, ids_before - ids_after), (after.name, ids_after - ids_before)):
        if only:
            problems.append(f"{_images(len(only))} only in {name}: {_first(sorted(only))}")
    both = before.rows.merge(after.rows, on="image_id", suffixes=("_before", "_after"))
    for column, what in _SAME.items():
        differ = both[both[f"{column}_before"] != both[f"{column}_after"]]
        if len(differ):
            first = _first(_describe(differ, column))
            problems.append(f"{what} in {_images(len(differ))}: {first}")
    if not problems:
        return
    for key in sorted(before.params.keys() | after.params.keys()):
        values = before.params.get(key), after.params.get(key)
        if key.startswith(_DECIDES) and values[0] != values[1]:
            problems.append(f"this may be why: {key}: {values[0]} against {values[1]}")
    if before.inputs.get(before.param("competition.source")) != after.inputs.get(
        after.param("competition.source")
    ):
        problems.append(f"this may be why: other files in {after.param('competition.source')}")
    raise ProblemsError(
        f"{before.name} ({_images(len(before.rows))}) and {after.name} ({_images(len(after.rows))}) "
        "were not judged on the same val set, so their scores cannot be compared:",
        problems,
    )


def _explain_classes(before: StoredRun, after: StoredRun) -> str:
    lost = [name for name in before.classes if name not in after.classes]
    new = [name for name in after.classes if name not in before.classes]
    if not lost and not new:
        return "competition.classes: the same classes in another order"
    parts = [
        f"{len(names)} only in {run.name}: {_first(names)}"
        for run, names in ((before, lost), (after, new))
        if names
    ]
    return f"competition.classes: {'; '.join(parts)}"


def _describe(rows: pd.DataFrame, column: str) -> list[str]:
    """The ids; with both values, where a reader can tell them apart."""
    if column not in ("label", "fold"):
        return rows["image_id"].tolist()
    columns = (rows["image_id"], rows[f"{column}_before"], rows[f"{column}_after"])
    return [f"{name} ({old} against {new})" for name, old, new in zip(*columns, strict=True)]


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"
