"""submission.csv in the organiser's exact format, and the proof that it is.

In: the manifest's test rows, raw predictions, the sample submission. Out: bytes. `make_submission`
writes them; `check_submission` reads them again with nothing but the csv module and names the rule
that they break.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from podium.data.table import Table, format_table, read_table
from podium.errors import PodiumError, ProblemsError

if TYPE_CHECKING:
    import pandas as pd

_BOM = b"\xef\xbb\xbf"
_SHOWN = 3


class SubmissionTask(Protocol):
    """What a submission's format needs to know of a task."""

    @property
    def submission_columns(self) -> tuple[str, ...]:
        """The columns beside the id.

        A sample may give a single column any name; of several its header must name these, in any
        order, and without header they stand in this order.
        """

    def submission_cells(self, predictions: npt.NDArray[np.float64]) -> list[list[str]]:
        """For each image the cells of `submission_columns`."""

    def submission_cell_problem(self, cells: Sequence[str]) -> str:
        """What is illegal about the cells of one image, "" where nothing is."""


@dataclass(frozen=True)
class _Format:
    """Where the ids stand, in what order, and which column holds which value."""

    dialect: Table
    header: list[str]
    ids: list[str]
    # For each column of the file its place in `submission_columns`; -1 is the id.
    places: list[int]


def load_sample(source: Path, sample: str | None, has_header: bool) -> Table | None:
    """The organiser's sample submission below `source`; None where there is none."""
    return None if sample is None else read_table(source / sample, has_header)


def fill_unreadable(
    predictions: npt.NDArray[np.float64],
    manifest_test: pd.DataFrame,
    fallback: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Predictions of all test rows from those of the readable ones.

    Args:
        predictions: (number of rows without a problem, k), in the manifest's order.
        manifest_test: the manifest's test rows.
        fallback: (k,), what a row with a problem gets (the class prior).

    Returns:
        float64 (number of test rows, k), in the manifest's order.
    """
    readable = (manifest_test["problem"] == "").to_numpy()
    filled = np.tile(np.asarray(fallback, dtype=np.float64), (len(manifest_test), 1))
    filled[readable] = predictions
    return filled


def make_submission(
    manifest_test: pd.DataFrame,
    predictions: npt.NDArray[np.float64],
    task: SubmissionTask,
    sample: Table | None,
) -> bytes:
    """The submission: the sample's dialect, header, ids and order, with our values.

    Without a sample: comma, LF, no BOM, header `id,label` (or `id` and the classes), the test ids
    in the manifest's order.

    Args:
        manifest_test: the manifest's test rows (column listed_id).
        predictions: one row for each of them, in their order.
        task: turns predictions into cells.
        sample: the organiser's sample submission as read, or None.

    Raises:
        PodiumError, ProblemsError: the sample's ids are not the test ids, or its columns are not
            the task's.
    """
    import pandas as pd

    listed = manifest_test["listed_id"].tolist()
    form = _find_format(listed, task, sample)
    cells_of = dict(zip(listed, task.submission_cells(predictions), strict=True))
    rows = [
        [name if place < 0 else cells_of[name][place] for place in form.places] for name in form.ids
    ]
    return format_table(form.dialect, pd.DataFrame(rows, columns=form.header, dtype=str))


def check_submission(
    content: bytes, manifest_test: pd.DataFrame, task: SubmissionTask, sample: Table | None
) -> None:
    """Prove from the bytes that a submission is what the organiser asked for.

    Args:
        content: the file's bytes.
        manifest_test, task, sample: as for `make_submission`.

    Raises:
        ProblemsError: the rules that it breaks: encoding, line ends, header, columns, ids, order,
            values.
    """
    form = _find_format(manifest_test["listed_id"].tolist(), task, sample)
    problems = _byte_problems(content, form.dialect)
    if not problems:
        problems = _record_problems(_read_records(content, form.dialect), form, task)
    if problems:
        raise ProblemsError("the submission is not legal; rules broken:", problems)


def _find_format(listed_ids: Sequence[str], task: SubmissionTask, sample: Table | None) -> _Format:
    columns = task.submission_columns
    if not listed_ids:
        raise PodiumError(
            "data/manifest.csv has no test images, so nothing can be handed in: "
            "mend competition.test_images"
        )
    twice = sorted(name for name, times in Counter(listed_ids).items() if times > 1)
    if twice:
        raise PodiumError(
            f"data/manifest.csv: test id {twice[0]!r} stands for {listed_ids.count(twice[0])} "
            "files: rename them below competition.test_images"
        )
    if sample is None:
        header = ["id", *columns]
        return _Format(_plain_dialect(), header, list(listed_ids), [-1, *range(len(columns))])
    header = [str(name) for name in sample.frame.columns]
    id_column = _find_id_column(listed_ids, sample)
    others = [name for name in header if name != id_column]
    if sample.has_header and len(columns) > 1:
        if sorted(others) != sorted(columns):
            raise PodiumError(
                f"competition.sample_submission: expected beside the ids ({id_column!r}) a column "
                f"for each class ({', '.join(columns)}), got {', '.join(others) or 'none'}: mend "
                "competition.classes, or set competition.submission: label"
            )
        places = [-1 if name == id_column else columns.index(name) for name in header]
    else:
        if len(others) != len(columns):
            raise PodiumError(
                f"competition.sample_submission: expected {len(columns)} column(s) beside the ids "
                f"({id_column!r}), got {len(others)} ({', '.join(others) or 'none'}): mend "
                "competition.submission (label: one column; probability: one for each class)"
            )
        places = [-1 if name == id_column else others.index(name) for name in header]
    return _Format(sample, header, sample.frame[id_column].tolist(), places)


def _find_id_column(listed_ids: Sequence[str], sample: Table) -> str:
    """The column whose cells are test ids, each once. (eda speaks of test images not listed.)"""
    frame, wanted = sample.frame, set(listed_ids)
    overlap = {str(name): len(wanted & set(frame[name])) for name in frame.columns}
    best = max(overlap, key=lambda name: overlap[name])
    if not overlap[best]:
        raise PodiumError(
            f"competition.sample_submission: no column holds the test ids (such as "
            f"{listed_ids[0]!r}); first row: {', '.join(frame.iloc[0])}: mend the sample or "
            "competition.test_images"
        )
    problems = []
    seen: set[str] = set()
    for line, name in zip(sample.line_numbers, frame[best], strict=True):
        if name in seen:
            problems.append(f"line {line}: id {name!r} occurs twice")
        elif name not in wanted:
            problems.append(f"line {line}: id {name!r} is no test image of data/manifest.csv")
        seen.add(name)
    if problems:
        raise ProblemsError(
            "competition.sample_submission: expected each test id once; mend the sample or "
            "competition.test_images:",
            problems,
        )
    return best


def _plain_dialect() -> Table:
    import pandas as pd

    return Table(
        frame=pd.DataFrame(),
        line_numbers=[],
        has_header=True,
        delimiter=",",
        spaced=False,
        quoted=False,
        newline="\n",
        final_newline=True,
        bom=False,
    )


def _byte_problems(content: bytes, dialect: Table) -> list[str]:
    """Rules broken below the level of rows."""
    problems = []
    if content.startswith(_BOM) != dialect.bom:
        problems.append(f"encoding: expected UTF-8 {'with' if dialect.bom else 'without'} a BOM")
    try:
        text = content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        return [*problems, f"encoding: byte {error.start + 1} is not UTF-8"]
    name = {"\n": "LF", "\r\n": "CRLF"}[dialect.newline]
    if text.count("\n") != text.count(dialect.newline) or ("\r\n" in text) != (name == "CRLF"):
        problems.append(f"line ends: expected {name} everywhere")
    if text.endswith("\n") != dialect.final_newline:
        problems.append(
            f"line ends: expected {'a' if dialect.final_newline else 'no'} line end after the "
            "last row"
        )
    return problems


def _read_records(content: bytes, dialect: Table) -> list[list[str]]:
    text = content.removeprefix(_BOM).decode("utf-8")
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=dialect.delimiter,
        skipinitialspace=dialect.spaced,
        strict=True,
    )
    try:
        return list(reader)
    except csv.Error as error:
        raise PodiumError(f"the submission is no CSV: line {reader.line_num}: {error}") from None


def _record_problems(records: list[list[str]], form: _Format, task: SubmissionTask) -> list[str]:
    if form.dialect.has_header:
        header, records = (records[0] if records else []), records[1:]
        if header != form.header:
            return [f"header: expected {', '.join(form.header)}, got {', '.join(header)}"]
    first_row = 2 if form.dialect.has_header else 1
    width = len(form.header)
    problems = [
        f"columns: row {row}: expected {width} cells, got {len(record)}"
        for row, record in enumerate(records, start=first_row)
        if len(record) != width
    ]
    if problems:
        return problems
    at = form.places.index(-1)
    problems = _id_problems([record[at] for record in records], form.ids)
    for row, record in enumerate(records, start=first_row):
        cells = [""] * (width - 1)
        for place, cell in zip(form.places, record, strict=True):
            if place >= 0:
                cells[place] = cell
        wrong = task.submission_cell_problem(cells)
        if wrong:
            problems.append(f"values: row {row} ({record[at]!r}): {wrong}")
    return problems


def _id_problems(got: list[str], expected: list[str]) -> list[str]:
    problems = []
    twice = sorted(name for name, times in Counter(got).items() if times > 1)
    for fault, names in (
        ("listed twice", twice),
        ("not in the sample", sorted(set(got) - set(expected))),
        ("missing", sorted(set(expected) - set(got))),
    ):
        if names:
            shown = ", ".join(repr(name) for name in names[:_SHOWN])
            problems.append(f"ids: {len(names)} {fault}: {shown}{', ...' * (len(names) > _SHOWN)}")
    if not problems and got != expected:
        row = next(
            row for row, pair in enumerate(zip(got, expected, strict=True)) if len(set(pair)) > 1
        )
        problems.append(f"order: expected {expected[row]!r} at place {row + 1}, got {got[row]!r}")
    return problems
