"""What the competition lists, before any image is opened: rows, and everything wrong with them.

In: `competition:` of params.yaml, the organiser's CSVs, the names of the files. Out: one `Row` per
image to use and one `Problem` per thing that does not fit, with file and line.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from podium.data.ids import IdResolver, is_image_name, list_images
from podium.data.params import ListingParams
from podium.data.soft_labels import (
    find_likeliest,
    find_soft_label_problem,
    format_soft_label,
)
from podium.data.table import Table, check_declared_header, rank_id_columns, read_table
from podium.errors import PodiumError, did_you_mean

TRAIN, TEST = "train", "test"
DROPPED = "dropped"
LEFT_OUT = "left out: the sample does not ask for it"
PRIOR = "kept: gets the class prior"
_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """One thing that cannot be used as it is.

    Attributes:
        file: POSIX path of the CSV, image or folder where it stands, relative to the repository.
        line: of the CSV, from 1; None where `file` is no CSV.
        image_id: the image it is about; "" where it is about none.
        problem: one line without file and row.
        action: what happens to the row under `eda.on_problem: drop`.
    """

    file: str
    line: int | None
    image_id: str
    problem: str
    action: str = DROPPED

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.problem}"


@dataclass(frozen=True)
class Row:
    """One listed image. `image_id` is relative to competition.source; `line` as in `Problem`.

    Of a soft label, `label` is its likeliest class.
    """

    image_id: str
    listed_id: str
    source: str
    label: str = ""
    group: str = ""
    file: str = ""
    line: int | None = None
    problem: str = ""
    soft_label: str = ""


@dataclass
class Listing:
    """All rows that may be used (train without those that have a problem), and what is odd.

    Attributes:
        rows: in the order listed.
        problems: what stops the run, or is dropped.
        odd_files: lines about files that nothing lists; they change nothing.
        n_train_listed: rows of the training CSV, or images in class folders, usable or not.
    """

    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    odd_files: list[str] = field(default_factory=list)
    n_train_listed: int = 0


def load_listing(root: Path, competition: ListingParams) -> Listing:
    """Read the CSVs and the folders' names.

    Args:
        root: the repository's top folder.
        competition: what the organiser gave out.

    Raises:
        PodiumError: a folder or CSV is missing or unreadable, a column or header is not as
            declared, or two lists name one image for train and test.
    """
    source = root / competition.source
    train_files = _list_folder(root, source, competition.train_images, "train_images")
    test_files = _list_folder(root, source, competition.test_images, "test_images")
    # Where one folder stands in the other, its images are not the other's.
    train_files = _leave_out(train_files, competition.train_images, competition.test_images)
    test_files = _leave_out(test_files, competition.test_images, competition.train_images)
    listing = Listing()
    unknown: set[str] = set()
    if competition.train_csv is None:
        unknown = _add_class_folders(listing, competition, train_files)
    else:
        _add_train_csv(listing, root, competition, train_files)
    in_train = {row.image_id for row in listing.rows} | {p.image_id for p in listing.problems}
    _add_test(listing, root, competition, test_files, in_train)
    both = in_train & {row.image_id for row in listing.rows if row.source == TEST}
    if both:
        raise PodiumError(
            f"{competition.source}/{min(both)} is a training and a test image "
            f"({len(both)} such): mend competition.train_images, test_images or the CSVs"
        )
    listed = in_train | unknown | {row.image_id for row in listing.rows}
    listed |= {problem.image_id for problem in listing.problems}
    for folder, files in (
        (competition.train_images, train_files),
        (competition.test_images, test_files),
    ):
        names = {_join(folder, name) for name in files}
        listing.odd_files += [f"{name}: no list names it" for name in sorted(names - listed)]
        listing.odd_files += [f"{name}: no image" for name in _list_others(source, folder)]
    listing.odd_files = sorted(set(listing.odd_files))
    return listing


def _list_folder(root: Path, source: Path, folder: str, key: str) -> list[str]:
    path = source / folder
    shown = _shown(root, path)
    if not path.is_dir():
        raise PodiumError(f"{shown} is no folder: mend competition.{key} or bring the images there")
    files = list_images(path)
    if not files:
        raise PodiumError(f"{shown} holds no image: mend competition.{key}")
    return files


def _leave_out(files: list[str], folder: str, other: str) -> list[str]:
    """`files` of `folder` without those of `other`, where that stands inside `folder`."""
    inside, outside = PurePosixPath(other), PurePosixPath(folder)
    if inside == outside or not inside.is_relative_to(outside):
        return files
    prefix = f"{inside.relative_to(outside)}/"
    return [name for name in files if not name.startswith(prefix)]


def _add_class_folders(
    listing: Listing, competition: ListingParams, files: Sequence[str]
) -> set[str]:
    """Add a row for each image; returns the images of folders that are no class."""
    folder = PurePosixPath(competition.source, competition.train_images)
    listing.n_train_listed = len(files)
    unknown: dict[str, set[str]] = {}
    for name in files:
        image_id = _join(competition.train_images, name)
        parts = PurePosixPath(name).parts
        if len(parts) == 1:
            line = "the image stands in no class folder"
            listing.problems.append(Problem(f"{folder}/{name}", None, image_id, line))
        elif parts[0] in competition.classes:
            listing.rows.append(Row(image_id, name, TRAIN, label=parts[0], file=str(folder / name)))
        else:
            unknown.setdefault(parts[0], set()).add(image_id)
    for label, images in sorted(unknown.items()):
        line = f"folder of {len(images)} images: {_explain_label(label, competition.classes)}"
        listing.problems.append(Problem(str(folder / label), None, "", line))
    return set().union(*unknown.values())


def _add_train_csv(
    listing: Listing, root: Path, competition: ListingParams, files: Sequence[str]
) -> None:
    assert competition.train_csv is not None  # the caller's branch
    path = root / competition.source / competition.train_csv
    shown = _shown(root, path)
    resolver = IdResolver(files)
    table = _read_declared(path, shown, competition.csv_header, resolver, "competition.csv_header")
    ids = _column(table, shown, competition.id_column, "id_column")
    labels = _read_labels(table, shown, competition)
    groups = [""] * len(ids)
    listing.n_train_listed = len(ids)
    if competition.group_column is not None:
        column = _column(table, shown, competition.group_column, "group_column")
        groups = [unicodedata.normalize("NFC", cell).strip() for cell in column]
    found: dict[str, list[tuple[Row, str]]] = {}
    for listed_id, label, group, line in zip(ids, labels, groups, table.line_numbers, strict=True):
        name = resolver.resolve(listed_id)
        if name is None:
            listing.problems.append(Problem(shown, line, "", resolver.problem(listed_id)))
            continue
        image_id = _join(competition.train_images, name)
        row = Row(
            image_id,
            listed_id,
            TRAIN,
            label.name,
            group,
            shown,
            line,
            soft_label=label.soft,
        )
        found.setdefault(image_id, []).append((row, label.problem))
        if label.problem:
            text = f"{listed_id!r}: {label.problem}"
            listing.problems.append(Problem(shown, line, image_id, text))
    for image_id, entries in found.items():
        rows = [row for row, _ in entries]
        (first, its_problem), *_ = entries
        agree = len({(row.label, row.soft_label) for row in rows}) == 1
        for row in rows[1:]:
            labels_of = [repr(r.soft_label or r.label) for r in (first, row)]
            with_label = "" if agree else f" with another label ({', '.join(labels_of)})"
            text = f"id {row.listed_id!r} is already on line {first.line}{with_label}"
            listing.problems.append(Problem(shown, row.line, image_id, text))
        # Of rows that agree the first is kept; which of several labels is right, nobody knows.
        if agree and not its_problem:
            listing.rows.append(first)
        elif not agree and not its_problem:
            text = f"id {first.listed_id!r} has several labels"
            listing.problems.append(Problem(shown, first.line, image_id, text))
    listing.problems.sort(key=lambda problem: problem.line or 0)


@dataclass(frozen=True)
class _Label:
    """What a row says of its image's class; `soft` as in the manifest, `problem` a line or ""."""

    name: str
    soft: str = ""
    problem: str = ""


def _read_labels(table: Table, shown: str, competition: ListingParams) -> list[_Label]:
    """The label of each row, from one column or from one per class."""
    classes = competition.classes
    if not competition.label_columns:
        names = _column(table, shown, competition.label_column, "label_column")
        wrong = {name: _explain_label(name, classes) for name in {*names} - {*classes}}
        return [_Label(name, problem=wrong.get(name, "")) for name in names]
    columns = [
        _column(table, shown, column, "label_columns") for column in competition.label_columns
    ]
    labels = []
    for cells in zip(*columns, strict=True):
        problem = find_soft_label_problem(cells)
        labels.append(
            _Label(" ".join(cells), problem=problem)
            if problem
            else _Label(classes[find_likeliest(cells)], format_soft_label(cells))
        )
    return labels


def _add_test(
    listing: Listing,
    root: Path,
    competition: ListingParams,
    files: Sequence[str],
    in_train: set[str],
) -> None:
    folder = competition.test_images
    candidates = [name for name in files if _join(folder, name) not in in_train]
    if competition.sample_submission is None:
        listing.rows += [
            Row(_join(folder, name), name, TEST, file=f"{competition.source}/{_join(folder, name)}")
            for name in candidates
        ]
        return
    path = root / competition.source / competition.sample_submission
    shown = _shown(root, path)
    resolver = IdResolver(files)
    key = "competition.sample_header"
    table = _read_declared(path, shown, competition.sample_header, resolver, key)
    id_column = rank_id_columns(table.frame, resolver.resolve)[0]
    ids = [str(cell) for cell in table.frame[id_column]]
    lines: dict[str, int] = {}
    for listed_id, line in zip(ids, table.line_numbers, strict=True):
        name = resolver.resolve(listed_id)
        image_id = _join(folder, listed_id if name is None else name)
        if image_id in lines:
            raise PodiumError(
                f"{shown}, line {line}: id {listed_id!r} is already on line {lines[image_id]}: "
                "a submission has one row per image"
            )
        lines[image_id] = line
        problem = resolver.problem(listed_id) if name is None else ""
        if problem:
            listing.problems.append(Problem(shown, line, image_id, problem, PRIOR))
        row = Row(image_id, listed_id, TEST, file=shown, line=line, problem=problem)
        listing.rows.append(row)
    for name in candidates:
        image_id = _join(folder, name)
        if image_id not in lines:
            text = f"the test image is not in {competition.sample_submission}"
            where = f"{competition.source}/{image_id}"
            listing.problems.append(Problem(where, None, image_id, text, LEFT_OUT))


def _read_declared(
    path: Path, shown: str, has_header: bool, resolver: IdResolver, key: str
) -> Table:
    table = read_table(path, has_header)
    check_declared_header(Path(shown), table, lambda cell: resolver.resolve(cell) is not None, key)
    return table


def _column(table: Table, shown: str, column: str | int | None, key: str) -> list[str]:
    name = str(column)
    if name not in table.frame.columns:
        has = ", ".join(table.frame.columns)
        raise PodiumError(
            f"{shown} has no column {column!r}{did_you_mean(name, table.frame.columns)}: "
            f"it has {has}; mend competition.{key}"
        )
    return [str(cell) for cell in table.frame[name]]


def _explain_label(label: str, classes: Sequence[str]) -> str:
    """Why `label` is none of `classes`, and which one may be meant."""
    shown = ", ".join(classes[:_CLASSES_SHOWN])
    if len(classes) > _CLASSES_SHOWN:
        shown += f", ... ({len(classes)} classes)"
    if not label.strip():
        return f"the label is missing: expected one of {shown}"
    meant = [name for name in classes if _is_same_word(label, name)]
    hint = f"; did you mean {meant[0]!r}?" if meant else did_you_mean(label, classes)
    return f"label {label!r}: expected one of {shown}{hint}"


def _is_same_word(label: str, name: str) -> bool:
    """Equal but for case and blanks, or as a number (`1.0` and `1`)."""
    if label.strip().casefold() == name.casefold():
        return True
    try:
        return float(label) == float(name)
    except ValueError:
        return False


def _join(folder: str, name: str) -> str:
    """POSIX path below competition.source; `.` and empty folders vanish."""
    return str(PurePosixPath(folder, name))


def _shown(root: Path, path: Path) -> str:
    """The path as messages show it: relative to the repository."""
    return path.relative_to(root).as_posix()


def _list_others(source: Path, folder: str) -> list[str]:
    """Files below the folder that are neither images by name nor hidden, sorted."""
    found = []
    for where, folders, names in os.walk(source / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(where).relative_to(source).as_posix()
        found += [
            _join(relative, name)
            for name in names
            if not is_image_name(name) and not name.startswith(".")
        ]
    return sorted(found)
