"""data/relabel.csv: labels that the user mends, in git, beside the organiser's untouched list.

In: its rows, most of them copied from reports/audit/relabel_candidates.csv. Out: the listing with
those labels changed, and a record of each. A row that does not fit stops the run: it is the user's own.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from podium.data.listing import TRAIN, Listing, Problem
from podium.data.soft_labels import format_soft_label
from podium.errors import PodiumError, ProblemsError, did_you_mean

RELABEL = Path("data/relabel.csv")
# What a candidate has, too: a row can be copied as it is. `given` guards against a stale row.
COLUMNS = ("image_id", "given", "label", "quality")


@dataclass(frozen=True)
class Relabel:
    """One row: `image_id` had the label `given` and gets `label`; `line` of the file, from 1."""

    image_id: str
    given: str
    label: str
    line: int


def load_relabels(path: Path = RELABEL) -> list[Relabel]:
    """Read the file; where there is none, nothing is changed.

    Raises:
        PodiumError: not UTF-8, or another header.
        ProblemsError: rows with another number of cells.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise PodiumError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Relabel] = []
    problems: list[str] = []
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise PodiumError(
                f"{path}, line 1: expected {','.join(COLUMNS)}, got {','.join(header) or 'nothing'}: "
                "`git checkout` it"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(COLUMNS):
                problems.append(
                    f"{path}, line {reader.line_num}: expected {len(COLUMNS)} cells "
                    f"({','.join(COLUMNS)}), got {len(cells)}"
                )
                continue
            image_id, given, label, _ = (cell.strip() for cell in cells)
            rows.append(Relabel(image_id, given, label, reader.line_num))
    except csv.Error as error:
        raise PodiumError(f"{path}, line {reader.line_num}: no CSV: {error}: mend it") from None
    _stop_for(path, problems)
    return rows


def apply_relabels(
    listing: Listing, relabels: Sequence[Relabel], classes: Sequence[str], path: Path = RELABEL
) -> tuple[Listing, list[Problem]]:
    """The listing with the labels changed, and one record for each change.

    Raises:
        ProblemsError: rows of an image that is no usable training image, twice of one image, of a
            label that is no class, or whose `given` is not what the organiser says.
    """
    place = {row.image_id: k for k, row in enumerate(listing.rows) if row.source == TRAIN}
    rows = list(listing.rows)
    seen: dict[str, int] = {}
    problems, records = [], []
    for change in relabels:
        trouble = _find_trouble(change, listing, place, seen, classes)
        seen.setdefault(change.image_id, change.line)
        if trouble:
            problems.append(f"{path}, line {change.line}: {trouble}")
            continue
        row = rows[place[change.image_id]]
        soft = [str(float(name == change.label)) for name in classes] if row.soft_label else None
        rows[place[change.image_id]] = replace(
            row, label=change.label, soft_label=format_soft_label(soft) if soft else ""
        )
        was = f"given {change.given!r}"
        records.append(
            Problem(path.as_posix(), change.line, change.image_id, was, f"now {change.label!r}")
        )
    _stop_for(path, problems)
    return replace(listing, rows=rows), records


def _find_trouble(
    change: Relabel,
    listing: Listing,
    place: dict[str, int],
    seen: dict[str, int],
    classes: Sequence[str],
) -> str:
    """What is wrong with the row, "" where nothing is."""
    if change.image_id not in place:
        near = did_you_mean(change.image_id, place)
        return f"{change.image_id!r} is no training image that can be used{near}"
    if change.image_id in seen:
        return f"{change.image_id!r} is already on line {seen[change.image_id]}: keep one"
    if change.label not in classes:
        near = did_you_mean(change.label, classes)
        return f"label {change.label!r} is not in competition.classes{near}"
    given = listing.rows[place[change.image_id]].label
    if change.given != given:
        return (
            f"{change.image_id!r} is given as {given!r}, not {change.given!r}: mend or drop the row"
        )
    return ""


def _stop_for(path: Path, problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise PodiumError(problems[0])
    if problems:
        raise ProblemsError(f"{path} has {len(problems)} rows that do not fit:", problems)
