"""submission.csv in the organiser's exact format, and the proof that it is.

In: the manifest's test rows, raw predictions, the sample submission. Out: bytes. `make_submission`
writes them; `prove_format` reads them again with nothing but the csv module and says of each rule
whether they keep it.
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

# What a submission's bytes are held to, in the order in which they are looked at.
FORMAT_RULES = ("encoding", "line ends", "header", "columns", "ids", "order", "values")
_BOM = b"\xef\xbb\xbf"
_NEWLINES = {"\n": "LF", "\r\n": "CRLF"}
# A breach of the first keeps the others from being looked at.
_HIDDEN_BY = {
    "encoding": FORMAT_RULES[2:],
    "line ends": FORMAT_RULES[2:],
    "header": FORMAT_RULES[3:],
    "columns": FORMAT_RULES[4:],
    "ids": ("order",),
}
_SHOWN = 3
_VALUES_SHOWN = 10


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
    problems = _find_problems(content, form, task)
    if problems:
        raise ProblemsError("the submission is not legal; rules broken:", problems)


def prove_format(
    content: bytes, manifest_test: pd.DataFrame, task: SubmissionTask, sample: Table | None
) -> dict[str, tuple[bool, str]]:
    """Of each of `FORMAT_RULES`: whether the bytes keep it, and what they have, or what is wrong.

    Args:
        content: the file's bytes.
        manifest_test, task, sample: as for `make_submission`.

    Raises:
        PodiumError, ProblemsError: as `make_submission`.
    """
    form = _find_format(manifest_test["listed_id"].tolist(), task, sample)
    broken: dict[str, list[str]] = {}
    for problem in _find_problems(content, form, task):
        rule, _, words = problem.partition(": ")
        broken.setdefault(rule, []).append(words)
    kept = _describe_format(form, _read_records(content, form.dialect)) if not broken else {}
    found: dict[str, tuple[bool, str]] = {}
    for rule in FORMAT_RULES:
        cause = next((cause for cause in broken if rule in _HIDDEN_BY.get(cause, ())), "")
        if rule in broken:
            others = len(broken[rule]) - 1
            found[rule] = False, broken[rule][0] + (f" (and {others} more)" if others else "")
        elif cause:
            found[rule] = False, f"not looked at, since {cause} is broken"
        else:
            found[rule] = True, kept.get(rule, "as expected")
    return found


def doubt_values(manifest_test: pd.DataFrame, task: SubmissionTask, sample: Table | None) -> str:
    """What is to be looked at where the sample's only value column holds nothing that we could have
    written: 0.5 for a probability, say, or 0 where our class is 0.0. It may be a placeholder, too.

    Returns:
        "" where one of its values is ours, all are empty, or there is no such column.
    """
    form = _find_format(manifest_test["listed_id"].tolist(), task, sample)
    if sample is None or len(form.header) != 2:
        return ""
    values = sample.frame[form.header[form.places.index(0)]].unique()
    given = sorted(value for value in values if value)
    if not given or not all(task.submission_cell_problem([value]) for value in given):
        return ""
    shown = ", ".join(map(repr, given[:_SHOWN])) + (", ..." if len(given) > _SHOWN else "")
    return f"the sample's own values are {shown}, none of which we would write: placeholders?"


def _describe_format(form: _Format, records: list[list[str]]) -> dict[str, str]:
    """What a legal submission has, rule by rule."""
    dialect, at = form.dialect, form.places.index(-1)
    model = "the sample" if dialect.line_numbers else "data/manifest.csv (there is no sample)"
    rows = records[1:] if dialect.has_header else records
    words = {
        "encoding": f"UTF-8 {'with' if dialect.bom else 'without'} a BOM",
        "line ends": f"{_NEWLINES[dialect.newline]}, "
        f"{'one' if dialect.final_newline else 'none'} after the last row",
        "header": ", ".join(form.header) if dialect.has_header else "none",
        "columns": f"{len(form.header)} cells a row",
        "ids": f"{len(form.ids)} test images, each once",
        "order": f"as in {model}",
        "values": f"{len(form.header) - 1} legal columns beside the ids",
    }
    if len(form.header) == 2:
        counts = Counter(row[1 - at] for row in rows)
        shown = [f"{value} ({times})" for value, times in sorted(counts.items())[:_VALUES_SHOWN]]
        more = f", ... {len(counts)} in all" if len(counts) > _VALUES_SHOWN else ""
        words["values"] = ", ".join(shown) + more
    return words


def _find_problems(content: bytes, form: _Format, task: SubmissionTask) -> list[str]:
    """`RULE: what is wrong` of each breach."""
    problems = _byte_problems(content, form.dialect)
    if problems:
        return problems
    try:
        records = _read_records(content, form.dialect)
    except csv.Error as error:
        return [f"columns: this is no CSV: {error}"]
    return _record_problems(records, form, task)


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
    name = _NEWLINES[dialect.newline]
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
        raise csv.Error(f"line {reader.line_num}: {error}") from None


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
