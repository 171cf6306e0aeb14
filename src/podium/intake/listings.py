"""Finds among an organiser's CSVs the training labels and the sample submission.

In: the CSVs of a folder and the files of its training and test images. Out: the two tables, with
the columns that matter. What a table is follows from the images that it names; its own name counts
only where train and test images are named alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from podium.data.ids import IdResolver, list_files
from podium.data.soft_labels import find_likeliest, find_soft_label_problem
from podium.data.table import (
    LIST_SUFFIX,
    PROBE_ROWS,
    Table,
    first_row_is_header,
    rank_id_columns,
    read_table,
)
from podium.errors import PodiumError, ProblemsError, did_you_mean
from podium.intake.choice import NONE, Choice

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
# From so many rows per image on, a row is no image but something in it (a point, a box).
_ROWS_PER_IMAGE = 1.5
_STRAY_SHARE = 0.05  # labels that are no integers, among integers and in fewer rows, are slips
_MANY_LABELS = 10  # so many different labels, in half of the rows or more, are no classes
_LABEL_WORDS = frozenset({"label", "labels", "class", "target", "category", "grade", "y"})
_SAMPLE_NAME = re.compile(r"sample|submi", re.IGNORECASE)
_TEST_NAME = re.compile(r"sample|submi|(?<![a-z])test", re.IGNORECASE)
_TRAIN_NAME = re.compile(r"(?<![a-z])train", re.IGNORECASE)

Role = Literal["train", "test"]


@dataclass(frozen=True)
class Listing:
    """A CSV that names images.

    Attributes:
        name: POSIX path relative to the competition's folder.
        table: its cells, the header recognised.
        role: which images it names.
        id_column: the column that names them.
        matched: rows of the table that name an image of that role.
        id_rivals: columns that name as many such images, but others.
    """

    name: str
    table: Table
    role: Role
    id_column: str
    matched: int
    id_rivals: tuple[str, ...] = ()

    @property
    def other_columns(self) -> list[str]:
        """All columns but that of the ids."""
        return [column for column in self.table.frame.columns if column != self.id_column]

    def describe(self) -> str:
        """Name and form, for a sentence."""
        header = "with" if self.table.has_header else "without"
        return f"{self.name} ({header} header, ids in column {self.id_column!r})"


@dataclass(frozen=True)
class Labels:
    """The labels of a training table: their column, rows per label, and labels that are slips.

    Of soft labels there is a column per class, headed by its name, and a row counts for the
    likeliest one.
    """

    column: str
    counts: Counter[str]
    slips: list[str]
    soft_columns: tuple[str, ...] = ()


def list_tables(base: Path, with_lists: bool = False) -> list[str]:
    """All CSVs below `base`, and .txt files if asked: POSIX paths relative to it, sorted."""
    wanted = TABLE_SUFFIXES | ({LIST_SUFFIX} if with_lists else set())
    return list_files(base, lambda name: PurePosixPath(name).suffix.lower() in wanted)


def read_listings(
    base: Path,
    choice: Choice,
    train_files: Sequence[str],
    test_files: Sequence[str],
    has_class_folders: bool,
) -> tuple[list[Listing], list[str]]:
    """All CSVs below `base` that name images, and the names of those that name none.

    Raises:
        ProblemsError: a CSV that cannot be read (unless the choice passes it over), or a chosen
            one that is not there.
    """
    tables = list_tables(base, with_lists=True)
    problems = [
        f"{flag} {chosen}: no such CSV in {base}{did_you_mean(chosen, tables)}"
        for flag, chosen in (("--train-csv", choice.train_csv), ("--sample", choice.sample))
        if chosen is not None and chosen not in (NONE, *tables)
    ]
    if choice.train_csv is not None and choice.sample is not None:
        tables = [name for name in tables if name in (choice.train_csv, choice.sample)]
    resolvers: dict[Role, IdResolver] = {
        "train": IdResolver(train_files),
        "test": IdResolver(test_files),
    }
    listings, idle = [], []
    for name in tables:
        try:
            table = _read_with_header(base / name, resolvers)
        except PodiumError as error:
            if not _is_list(name) or name in (choice.train_csv, choice.sample):
                problems.append(str(error))
            continue  # a .txt may be any text
        listing = _make_listing(name, table, resolvers, choice, has_class_folders)
        if listing:
            listings.append(listing)
        elif not _is_list(name):
            idle.append(name)
    if problems:
        raise ProblemsError(
            f"{base}: not all tables can be read; mend them, or name those to be read by "
            "--train-csv NAME and --sample NAME (either may be 'none'):",
            problems,
        )
    tabled = {item.role for item in listings if not _is_list(item.name)}
    kept = [
        item
        for item in listings
        if item.role not in tabled
        or not _is_list(item.name)
        or item.name in (choice.train_csv, choice.sample)
    ]
    return kept, idle


def _is_list(name: str) -> bool:
    """A .txt is a table only where it names images, and no CSV does."""
    return PurePosixPath(name).suffix.lower() == LIST_SUFFIX


def _read_with_header(path: Path, resolvers: dict[Role, IdResolver]) -> Table:
    """A table whose header is taken as such where it has one."""

    def exists(cell: str) -> bool:
        return any(resolver.resolve(cell) for resolver in resolvers.values())

    table = read_table(path, has_header=False)
    return read_table(path, has_header=True) if first_row_is_header(table, exists) else table


def _make_listing(
    name: str,
    table: Table,
    resolvers: dict[Role, IdResolver],
    choice: Choice,
    has_class_folders: bool,
) -> Listing | None:
    """The listing in the role of the images that most of its rows name; None: it names none.

    Where train and test images are named alike, the table's own name decides, then the class
    folders (they leave only the sample to be found).
    """
    found: dict[Role, Listing] = {}
    for role, resolver in resolvers.items():
        probe = table.frame.head(PROBE_ROWS)
        id_column, *rivals = rank_id_columns(probe, resolver.resolve)
        matched = sum(resolver.resolve(cell) is not None for cell in table.frame[id_column])
        found[role] = Listing(name, table, role, id_column, matched, tuple(rivals))
    listing = _pick_role(name, found, choice, has_class_folders)
    if listing and listing.id_rivals:
        columns = ", ".join(map(repr, (listing.id_column, *listing.id_rivals)))
        raise PodiumError(
            f"{name}: the columns {columns} name images, and not the same ones in each row: expected "
            "one column of ids; take out what is not the images' (a row number?) and run again"
        )
    return listing


def _pick_role(
    name: str, found: Mapping[Role, Listing], choice: Choice, has_class_folders: bool
) -> Listing | None:
    if name == choice.train_csv:
        return found["train"]
    if name == choice.sample:
        return found["test"]
    likely = [item for item in found.values() if 2 * item.matched > len(item.table.frame)]
    if len(likely) < 2:
        return likely[0] if likely else None
    stem = PurePosixPath(name).stem
    if _TRAIN_NAME.search(stem) or not (has_class_folders or _TEST_NAME.search(stem)):
        return found["train"]
    return found["test"]


def pick_train(
    base: Path,
    listings: Sequence[Listing],
    idle: Sequence[str],
    class_folders: Sequence[str],
    choice: Choice,
) -> Listing | None:
    """The table of the training labels; None: the class folders have them.

    Raises:
        PodiumError: no labels, or a table that is not one row per image.
        ProblemsError: several tables, or a table and folders that say different things.
    """
    found = [listing for listing in listings if listing.role == "train"]
    if choice.train_csv is not None:
        found = [listing for listing in found if listing.name == choice.train_csv]
    if len(found) > 1:
        raise ProblemsError(
            f"{base}: {len(found)} tables name training images; choose by --train-csv NAME:",
            [listing.name for listing in found],
        )
    if not found:
        if len(class_folders) >= 2:
            return None
        hint = f" (none of the cells of {', '.join(idle)} names an image file)" if idle else ""
        raise PodiumError(
            f"{base}: no labels found: expected a CSV of ids and labels, or one folder per class "
            f"below the training images{hint}"
        )
    (train,) = found
    _check_one_row_per_image(train)
    frame = train.table.frame
    if choice.train_csv is None and len(class_folders) >= 2:
        cells = {cell for column in frame.columns for cell in frame[column]}
        if _is_list(train.name) and _says_what_folders_say(train):
            return None
        if not cells.issuperset(class_folders):
            shown = shorten(class_folders)
            raise ProblemsError(
                f"{base}: the labels could be those of a table or the names of folders; choose:",
                [
                    f"--train-csv {train.name}: its rows name {train.matched} training images",
                    f"--train-csv none: {len(class_folders)} folders ({shown})",
                ],
            )
    return train


def _says_what_folders_say(train: Listing) -> bool:
    """Whether its labels part the images as the folders that its ids name do."""
    ids, others = train.table.frame[train.id_column], train.other_columns
    if len(others) != 1:
        return False
    pairs = {
        (PurePosixPath(name).parent, label)
        for name, label in zip(ids, train.table.frame[others[0]], strict=True)
    }
    folders, labels = {folder for folder, _ in pairs}, {label for _, label in pairs}
    return len(pairs) == len(folders) == len(labels)


def _check_one_row_per_image(train: Listing) -> None:
    frame = train.table.frame
    if not train.matched:
        raise PodiumError(
            f"{train.name}: none of its cells names a training image "
            f"(first row: {', '.join(frame.iloc[0])})"
        )
    n_ids = frame[train.id_column].nunique()
    if len(frame) > _ROWS_PER_IMAGE * n_ids:
        raise PodiumError(
            f"{train.name} has {len(frame)} rows for {n_ids} images (columns: "
            f"{', '.join(frame.columns)}), as points for counting have: counting is not supported "
            "yet by this version, only classification (one row per image)"
        )
    if not train.other_columns:
        raise PodiumError(f"{train.name} has one column: expected ids and labels")


def pick_sample(base: Path, listings: Sequence[Listing], choice: Choice) -> Listing | None:
    """The sample submission; None: there is none.

    Raises:
        PodiumError: the chosen one names no test image, or has no column to fill.
        ProblemsError: several tables could be it.
    """
    if choice.sample is not None:
        chosen = next((item for item in listings if item.name == choice.sample), None)
        if chosen and not chosen.matched:
            raise PodiumError(f"{choice.sample}: none of its cells names a test image")
        if chosen and not chosen.other_columns:
            raise PodiumError(f"{choice.sample} has one column: expected ids and predictions")
        return chosen
    found = [item for item in listings if item.role == "test" and item.other_columns]
    # `test.csv` beside `sample_submission.csv`: only one of them calls itself a submission.
    found = [item for item in found if _SAMPLE_NAME.search(item.name)] or found
    if len(found) > 1:
        raise ProblemsError(
            f"{base}: {len(found)} tables could be the sample submission; choose by --sample NAME:",
            [item.name for item in found],
        )
    return found[0] if found else None


def read_labels(train: Listing, sample: Listing | None, choice: Choice) -> Labels:
    """Find the label column, or those of soft labels, and count the labels; empty cells are left
    to the eda stage.

    Raises:
        PodiumError: the chosen column is not there, or its values are no classes.
        ProblemsError: none or several columns could be the label, or labels that look alike.
    """
    soft_columns = _find_soft_columns(train, sample) if choice.label_column is None else []
    if soft_columns:
        cells = train.table.frame[soft_columns].itertuples(index=False, name=None)
        usable = [row for row in cells if not find_soft_label_problem(row)]
        likeliest = Counter(soft_columns[find_likeliest(row)] for row in usable)
        counts = Counter({name: likeliest[name] for name in soft_columns})
        return Labels("", counts, [], tuple(soft_columns))
    column = _find_label_column(train, sample, choice)
    rows = len(train.table.frame)
    counts = Counter(label for label in train.table.frame[column] if label.strip())
    if len(counts) > _MANY_LABELS and 2 * len(counts) > rows:
        raise PodiumError(
            f"{train.name}: column {column!r} has {len(counts)} different values in {rows} rows: "
            "expected classes; this version supports classification only"
        )
    slips = sorted(label for label in counts if not is_integer(label))
    n_slips = sum(counts[label] for label in slips)
    if len(counts) - len(slips) < 2 or n_slips > _STRAY_SHARE * rows:
        slips = []
    for label in slips:
        del counts[label]
    places: dict[str, str] = {}
    for label, line in zip(train.table.frame[column], train.table.line_numbers, strict=True):
        if label in counts:
            places.setdefault(label, f"{train.name}, line {line}")
    check_spellings(places)
    return Labels(column, counts, slips)


def check_spellings(places: Mapping[str, str]) -> None:
    """Refuse labels that nobody can tell apart. Case is no such thing: `A` and `a` are characters.

    Args:
        places: for each label where it stands first.

    Raises:
        ProblemsError: labels that differ only in blanks around them or in how Unicode writes them.
    """
    alike: dict[str, list[str]] = {}
    for label in sorted(places):
        alike.setdefault(unicodedata.normalize("NFC", label).strip(), []).append(label)
    problems = [
        ", ".join(f"{_spell_out(label)} ({places[label]})" for label in labels)
        for labels in alike.values()
        if len(labels) > 1
    ]
    if problems:
        raise ProblemsError(
            "labels that differ only in blanks around them or in their Unicode form (NFC or not): "
            "expected one spelling per class; write those of each line alike and run again:",
            problems,
        )


def _spell_out(label: str) -> str:
    """Its `repr`; escaped where it is not in NFC, which looks the same otherwise."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)


def _find_soft_columns(train: Listing, sample: Listing | None) -> list[str]:
    """The columns of soft labels, [] where labels are hard.

    They are headed as the sample's columns are, or they are all but the ids, or, where no column is
    called a label, all that are numbers from 0 to 1; and in most rows they sum to 1.
    """
    if not train.table.has_header:
        return []  # nothing would say which column is which class
    if _find_asked_column(train, sample):
        return []
    asked = sample.other_columns if sample and sample.table.has_header else []
    numbers = [name for name in train.other_columns if _may_be_probabilities(train, name)]
    if any(map(_is_called_label, train.other_columns)):
        numbers = []
    for columns in (asked, train.other_columns, numbers):
        if len(columns) < 2 or not {*columns} <= {*train.other_columns}:
            continue
        cells = train.table.frame[columns].itertuples(index=False, name=None)
        problems = [find_soft_label_problem(row) for row in cells]
        if 2 * problems.count("") > len(problems):
            return columns
    return []


def _find_asked_column(train: Listing, sample: Listing | None) -> str:
    """The one column that the sample wants filled, where the training table has it; else ""."""
    if not (sample and sample.table.has_header and train.table.has_header):
        return ""
    asked = sample.other_columns
    return asked[0] if len(asked) == 1 and asked[0] in train.other_columns else ""


def _is_called_label(column: str) -> bool:
    return column.strip().lower() in _LABEL_WORDS


def _may_be_probabilities(train: Listing, column: str) -> bool:
    """Whether most of its cells are numbers from 0 to 1."""
    numbers = pd.to_numeric(train.table.frame[column], errors="coerce")
    return bool(numbers.between(0, 1).mean() > 0.5)


def _find_label_column(train: Listing, sample: Listing | None, choice: Choice) -> str:
    frame, others = train.table.frame, train.other_columns
    if choice.label_column is not None:
        if choice.label_column not in others:
            raise PodiumError(
                f"--label-column {choice.label_column}: {train.name} has the columns "
                f"{', '.join(others)}{did_you_mean(choice.label_column, others)}"
            )
        return choice.label_column
    if len(others) == 1:
        return others[0]
    if asked := _find_asked_column(train, sample):
        return asked
    # Ids, row numbers and remarks hardly repeat; a label does.
    candidates = [name for name in others if 2 <= frame[name].nunique() <= len(frame) / 2]
    named = list(filter(_is_called_label, candidates))
    if len(named) == 1:
        return named[0]
    if len(candidates) == 1:
        return candidates[0]
    raise ProblemsError(
        f"{train.name}: {len(candidates) or 'none'} of its columns could be the label; choose by "
        "--label-column NAME:",
        candidates or others,
    )


def find_submission(
    sample: Listing, classes: Sequence[str]
) -> tuple[Literal["label", "probability"], list[str]]:
    """What the sample's columns ask for, and values of it that are no class.

    Raises:
        PodiumError: neither one label column nor one column per class.
    """
    others = sample.other_columns
    if len(others) == 1:
        strange = set(sample.table.frame[others[0]]) - set(classes) - {""}
        return "label", sorted(strange)
    if sample.table.has_header and set(others) == set(classes):
        return "probability", []
    raise PodiumError(
        f"{sample.name}: expected ids and a label, or ids and one column headed by each class "
        f"({shorten(classes)}), got the columns {shorten(list(sample.table.frame.columns))}; "
        "choose another by --sample NAME or --sample none"
    )


def is_integer(text: str) -> bool:
    """Whether a label is an integer in plain digits."""
    return re.fullmatch(r"-?[0-9]+", text) is not None


def shorten(words: Sequence[str]) -> str:
    """The first eight, and how many more."""
    shown = ", ".join(words[:8])
    return shown + (f", ... {len(words) - 8} more" if len(words) > 8 else "")
