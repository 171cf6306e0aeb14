"""Reads and writes an organiser's CSV without changing a cell or the way it is written.

In: a CSV with or without a header; comma, semicolon or tab; LF or CRLF; BOM or none; quoted cells.
Out: a frame of str and the dialect, from which `format_table` makes the same bytes again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podium.data.ids import is_image_name
from podium.errors import PodiumError, ProblemsError

if TYPE_CHECKING:
    from _csv import Reader

    import pandas as pd

DELIMITERS = (",", ";", "\t")
LIST_SUFFIX = ".txt"  # of PaddlePaddle's lists of images: `train/7.jpg 3`
_BOM = b"\xef\xbb\xbf"
_INDEX_NAMES = frozenset({"", "index", "unnamed: 0"})  # as pandas heads it in a CSV, and reads that
_RIVAL_SHARE = 0.9  # of the files that another column names: a few images may be missing
PROBE_ROWS = 1000  # how many rows decide how a table is written and what its columns hold


@dataclass(frozen=True)
class Table:
    """A CSV as read: its cells and how they were written.

    Attributes:
        frame: all cells as str, "" where empty; columns named by the header's cells, or "0", "1",
            ... where there is none; index 0..n-1.
        line_numbers: for each row of `frame` the line of the file it starts on, from 1.
        has_header: whether the first record was taken as the header.
        delimiter: "," or ";" or tab; or a space, in a list (.txt) of two columns.
        spaced: whether each delimiter is followed by a space that belongs to no cell.
        quoted: whether every cell stands in quotes, also those that need none.
        newline: "\\n" or "\\r\\n".
        final_newline: whether the last line ends with `newline`.
        bom: whether the file starts with a UTF-8 byte order mark.
    """

    frame: pd.DataFrame
    line_numbers: list[int]
    has_header: bool
    delimiter: str
    spaced: bool
    quoted: bool
    newline: str
    final_newline: bool
    bom: bool


def read_table(path: Path, has_header: bool) -> Table:
    """Read a CSV whose only unknown is how it is written. Blank lines are skipped.

    Raises:
        PodiumError: missing, empty, header only, binary, not UTF-8, broken quotes, or a column
            name that occurs twice.
        ProblemsError: rows with another number of cells than the first one.
    """
    import pandas as pd

    content = _read_bytes(path)
    text = _decode(path, content)
    is_list = path.suffix.lower() == LIST_SUFFIX
    delimiter = " " if is_list and _has_one_space_a_line(text) else _find_delimiter(text)
    spaced = _is_spaced(text, delimiter)
    records, lines = _parse(path, text, delimiter, spaced)
    if not records:
        raise PodiumError(f"{path} is empty: expected one row per image")
    width = len(records[0])
    ragged = [
        f"{path}, line {line}: {len(record)} cells, line {lines[0]} has {width}"
        for record, line in zip(records, lines, strict=True)
        if len(record) != width
    ]
    if ragged:
        raise ProblemsError(
            f"{path}: rows of different length (delimiter {delimiter!r}); mend these lines, "
            "cells that contain the delimiter need quotes:",
            ragged,
        )
    columns = [str(number) for number in range(width)]
    rows, row_lines = records, lines
    if has_header:
        columns, rows, row_lines = records[0], records[1:], lines[1:]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise PodiumError(
                f"{path}, line {lines[0]}: column name {twice[0]!r} occurs twice: rename one"
            )
        if not rows:
            raise PodiumError(f"{path} has a header and no rows: expected one row per image")
    newline = "\r\n" if "\r\n" in text else "\n"
    final_newline = text.endswith("\n")
    quoted = text == _format_records(records, delimiter, spaced, True, newline, final_newline)
    return Table(
        frame=pd.DataFrame(rows, columns=columns, dtype=str),
        line_numbers=row_lines,
        has_header=has_header,
        delimiter=delimiter,
        spaced=spaced,
        quoted=quoted,
        newline=newline,
        final_newline=final_newline,
        bom=content.startswith(_BOM),
    )


def format_table(table: Table, frame: pd.DataFrame) -> bytes:
    """The bytes of `frame` (columns and cells of str) in the dialect of `table`.

    Of a table as read, `format_table(table, table.frame)` gives the file's own bytes back, save
    for blank lines and quotes that were used here and not there.
    """
    records = [[str(cell) for cell in row] for row in frame.itertuples(index=False, name=None)]
    if table.has_header:
        records.insert(0, [str(name) for name in frame.columns])
    text = _format_records(
        records, table.delimiter, table.spaced, table.quoted, table.newline, table.final_newline
    )
    return (_BOM if table.bom else b"") + text.encode("utf-8")


def check_declared_header(
    path: Path,
    table: Table,
    id_exists: Callable[[str], bool],
    key: str = "competition.csv_header",
) -> None:
    """Compare what was declared about the header with what stands in the first line.

    Args:
        path: the CSV, for the message.
        table: as read with the declared `has_header`.
        id_exists: whether a cell names an image file.
        key: the param that declares it, for the message.

    Raises:
        PodiumError: the header is a row, or the first row is a header.
    """
    if table.has_header:
        # A class may be headed as an image is named: `id,0,1` beside 0.png.
        name = _find_ids(table.frame.head(PROBE_ROWS), id_exists)
        if id_exists(name):
            raise PodiumError(
                f"{path}, line 1: expected a header, got {name!r}, which is an image: "
                f"set {key}: false (columns are then numbers from 0)"
            )
    elif first_row_is_header(table, id_exists):
        raise PodiumError(
            f"{path}, line {table.line_numbers[0]} looks like a header "
            f"({', '.join(table.frame.iloc[0])}): set {key}: true (columns then have names)"
        )


def first_row_is_header(table: Table, id_exists: Callable[[str], bool]) -> bool:
    """Whether the first row of a table read without header is one.

    It is when rows below name images while its own cell in that column does not, and its other
    cells are not all repeated below. (A first row whose image is missing has a file's extension
    or a label that other rows have too; a header `id,0,1` has a "1" that no probability repeats.)
    """
    first, below = table.frame.iloc[0], table.frame.iloc[1 : 1 + PROBE_ROWS]
    id_column = _find_ids(below, id_exists)
    if not any(map(id_exists, below[id_column])):
        return False
    if id_exists(first[id_column]) or is_image_name(first[id_column]):
        return False
    others = [column for column in below.columns if column != id_column]
    return not others or not all((below[column] == first[column]).any() for column in others)


def rank_id_columns(frame: pd.DataFrame, find: Callable[[str], str | None]) -> list[str]:
    """The columns that may hold the ids, the likeliest first; more than one where only a person can
    tell which is right.

    Ids name the most different files: a label or a one-hot 0 can name a file too, but the same few
    in all rows. A row number names as many as the ids do, and others: of columns that name files for
    more than half of the rows, those of whole file names (`7.jpg`) win, then those that are not headed
    as an index is.

    Args:
        frame: text cells.
        find: a cell -> the file that it names, or None.
    """
    files = {str(name): [find(str(cell)) for cell in frame[name]] for name in frame.columns}
    counts = {name: len({*found} - {None}) for name, found in files.items()}
    likely = [name for name in files if 2 * counts[name] > len(frame)]
    if not likely:
        return [max(counts, key=lambda name: counts[name])]
    for is_better in (
        lambda name: 2 * sum(is_image_name(str(cell)) for cell in frame[name]) > len(frame),
        lambda name: name.strip().lower() not in _INDEX_NAMES,
    ):
        likely = list(filter(is_better, likely)) or likely
    first = max(likely, key=lambda name: counts[name])
    rivals = [
        name
        for name in likely
        if files[name] != files[first] and counts[name] >= _RIVAL_SHARE * counts[first]
    ]
    return [first, *rivals]


def _find_ids(frame: pd.DataFrame, id_exists: Callable[[str], bool]) -> str:
    return rank_id_columns(frame, lambda cell: cell if id_exists(cell) else None)[0]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: check its name in the competition section") from None
    except IsADirectoryError:
        raise PodiumError(f"{path} is a folder: expected a CSV file") from None


def _decode(path: Path, content: bytes) -> str:
    """The text behind the BOM."""
    if not content:
        raise PodiumError(f"{path} is empty (0 bytes): expected one row per image")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PodiumError(f"{path} is UTF-16 text: save it as UTF-8")
    if content.startswith(b"PK\x03\x04"):
        raise PodiumError(f"{path} is a zip or Excel file: export the table as CSV (UTF-8)")
    if b"\0" in content:
        raise PodiumError(f"{path} is a binary file: expected a CSV in UTF-8")
    try:
        text = content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.removeprefix(_BOM).count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise PodiumError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"
        ) from None
    # Only old Mac files end lines with a lone CR; nothing here would write them back.
    return text if "\n" in text else text.replace("\r", "\n")


def _records(text: str, delimiter: str, spaced: bool) -> Reader:
    return csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True
    )


def _find_delimiter(text: str) -> str:
    """The delimiter that gives all of the first records the same number of cells, the most of them.

    Where none does (a ragged file), the one that the first line holds most of.
    """
    best, best_width = "", 1
    for delimiter in DELIMITERS:
        widths = set()
        try:
            reader = _records(text, delimiter, False)
            for _, record in zip(range(PROBE_ROWS), reader, strict=False):
                if record:
                    widths.add(len(record))
        except csv.Error:
            continue
        if len(widths) == 1 and max(widths) > best_width:
            best, best_width = delimiter, max(widths)
    if best:
        return best
    first_line = text.lstrip().split("\n", 1)[0]
    return max(DELIMITERS, key=first_line.count)


def _has_one_space_a_line(text: str) -> bool:
    """Whether spaces delimit two columns: neither names with spaces nor sentences are cut up."""
    lines = [line for line in text.splitlines()[:PROBE_ROWS] if line.strip()]
    return all(line.strip().count(" ") == 1 and len(line.split()) == 2 for line in lines)


def _is_spaced(text: str, delimiter: str) -> bool:
    """Whether a space follows every delimiter of the first record and of all the text."""
    return delimiter in text and text.count(delimiter) == text.count(delimiter + " ")


def _parse(
    path: Path, text: str, delimiter: str, spaced: bool
) -> tuple[list[list[str]], list[int]]:
    """The records that are not blank, and the line each starts on."""
    reader = _records(text, delimiter, spaced)
    records, lines = [], []
    start = 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append(record)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise PodiumError(
            f"{path}, line {start}: not a readable CSV row ({error}): mend its quotes"
        ) from None
    return records, lines


def _format_records(
    records: list[list[str]],
    delimiter: str,
    spaced: bool,
    quoted: bool,
    newline: str,
    final_newline: bool,
) -> str:
    special = (delimiter, '"', "\r", "\n")

    def cell_text(cell: str) -> str:
        if quoted or any(mark in cell for mark in special) or (spaced and cell != cell.lstrip(" ")):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    joint = delimiter + (" " if spaced else "")
    text = newline.join(joint.join(cell_text(cell) for cell in record) for record in records)
    return text + (newline if final_newline else "")
