"""predictions/*.csv: raw probabilities per image, so that all that follows re-runs for free.

Columns: image_id, fold where a model per fold predicted, then p_<class> for each class; rows sorted
by image_id; floats exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from podium.errors import PodiumError, ProblemsError
from podium.files import write_csv

if TYPE_CHECKING:
    import pandas as pd

Probabilities = npt.NDArray[np.float64]

# A float32 softmax sums to 1 within 1e-6; what is off by more than this is something else.
SUM_TOLERANCE = 1e-3


def write_predictions(
    path: Path,
    image_ids: Sequence[str],
    probabilities: npt.NDArray[np.floating],
    classes: Sequence[str],
    folds: Sequence[int] | None = None,
) -> None:
    """Replace `path` by the predictions, sorted by image_id.

    Args:
        path: predictions/NAME.csv.
        image_ids: n unique ids.
        probabilities: (n, k), 0..1, each row sums to 1 within `SUM_TOLERANCE`.
        classes: k class names.
        folds: the fold of each row, held out by the model that predicted it.

    Raises:
        ValueError: any of that does not hold.
    """
    import pandas as pd

    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (len(image_ids), len(classes)):
        raise ValueError(f"{values.shape} values for {len(image_ids)} x {len(classes)}")
    if len(set(image_ids)) != len(image_ids):
        raise ValueError("an image_id occurs twice")
    problems = _row_problems(image_ids, values)
    if problems:
        raise ValueError(f"not probabilities: {problems[0]}")
    frame = pd.DataFrame(values, columns=_columns(classes)[1:])
    frame.insert(0, "image_id", pd.Series(list(image_ids), dtype=str))
    if folds is not None:
        frame.insert(1, "fold", list(folds))
    write_csv(path, frame.sort_values("image_id"))


def load_predictions(
    path: Path, expected_ids: Sequence[str], classes: Sequence[str]
) -> Probabilities:
    """Read predictions of exactly `expected_ids`.

    Returns:
        float64 (n, k): rows in the order of `expected_ids`, columns in the order of `classes`; the
        very floats that were written.

    Raises:
        PodiumError: missing, empty, or other columns than image_id and p_<class> of each class.
        ProblemsError: ids twice, unknown or missing; cells that are no probability; rows whose sum
            is not 1 within `SUM_TOLERANCE`.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise PodiumError(f"{path} is missing or empty: run `dvc repro`") from None
    columns = _columns(classes)
    frame = frame.drop(columns="fold", errors="ignore")
    if list(frame.columns) != columns:
        raise PodiumError(
            f"{path}: expected columns {', '.join(columns)}, got {', '.join(frame.columns)}"
        )
    found = frame["image_id"].tolist()
    twice = sorted(set(frame.loc[frame["image_id"].duplicated(), "image_id"]))
    problems = [f"{image_id!r} occurs twice" for image_id in twice]
    problems += [f"{name!r} was not asked for" for name in sorted(set(found) - set(expected_ids))]
    problems += [f"{name!r} is missing" for name in sorted(set(expected_ids) - set(found))]
    if not problems:
        values = _parse(frame[columns[1:]])
        problems = _row_problems(found, values)
    if problems:
        raise ProblemsError(
            f"{path}: not the predictions of the {len(expected_ids)} images asked for; "
            "remove it and run `dvc repro`:",
            problems,
        )
    place = {image_id: row for row, image_id in enumerate(found)}
    return values[[place[image_id] for image_id in expected_ids]]


def _columns(classes: Sequence[str]) -> list[str]:
    return ["image_id", *(f"p_{name}" for name in classes)]


def _parse(cells: pd.DataFrame) -> Probabilities:
    """float64 of the cells, NaN where one is no number."""

    def number(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return float("nan")

    rows = [[number(cell) for cell in row] for row in cells.itertuples(index=False, name=None)]
    return np.array(rows, dtype=np.float64).reshape(len(cells), cells.shape[1])


def _row_problems(image_ids: Sequence[str], values: Probabilities) -> list[str]:
    """One line for each row that is no distribution over the classes."""
    sums = values.sum(axis=1)
    in_range = np.all((values >= 0) & (values <= 1), axis=1)  # false for NaN
    sums_to_1 = np.abs(sums - 1) <= SUM_TOLERANCE
    problems = []
    for row in np.flatnonzero(~(in_range & sums_to_1)).tolist():
        if in_range[row]:
            problems.append(f"{image_ids[row]!r}: probabilities sum to {sums[row]:.4f}, expected 1")
        else:
            problems.append(f"{image_ids[row]!r}: expected numbers from 0 to 1 in every column")
    return problems
