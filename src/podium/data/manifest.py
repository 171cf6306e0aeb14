"""data/manifest.csv: one checked row per image, from which every later stage starts.

In: the listing (what is said about the images) and the inspection (what the files hold). Out: the
manifest, and the problems with what was done about each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from podium.data.duplicates import make_group_ids
from podium.data.inspection import ImageFacts
from podium.data.listing import DROPPED, PRIOR, TEST, TRAIN, Listing, Problem, Row
from podium.errors import PodiumError, ProblemsError

MANIFEST = Path("data/manifest.csv")
COLUMNS = (
    "image_id",
    "listed_id",
    "path",
    "sha256",
    "pixel_hash",
    "width",
    "height",
    "label",
    "soft_label",
    "group_id",
    "source",
    "problem",
)
PROBLEM_COLUMNS = ("file", "row", "image_id", "problem", "action")
_INTEGERS = ("width", "height")


@dataclass(frozen=True)
class Assembly:
    """The manifest and what it took.

    Attributes:
        manifest: `COLUMNS`; train first, then by image_id.
        facts: of the manifest's rows, in its order.
        problems: all that were found, in the order listed, then unreadable files.
        n_train_dropped: listed training rows that are not in the manifest.
    """

    manifest: pd.DataFrame
    facts: list[ImageFacts]
    problems: list[Problem]
    n_train_dropped: int


def make_manifest(
    listing: Listing,
    facts: Sequence[ImageFacts],
    source: str,
    on_problem: Literal["stop", "drop"],
) -> Assembly:
    """Join what is listed with what was seen.

    Args:
        listing: its rows are the manifest's candidates.
        facts: of `listing.rows`, in their order.
        source: competition.source, to which image_ids are relative.
        on_problem: `stop` raises for any problem; `drop` leaves bad training rows out and keeps
            bad test rows with `problem` filled.

    Raises:
        ProblemsError: with `stop`, all problems at once.
        PodiumError: dropping leaves no training image, or one class only.
    """
    problems = list(listing.problems)
    kept: list[tuple[Row, ImageFacts, str]] = []
    for row, fact in zip(listing.rows, facts, strict=True):
        problem = row.problem or fact.problem
        if fact.problem and not row.problem:
            action = DROPPED if row.source == TRAIN else PRIOR
            where = f"{source}/{row.image_id}"
            problems.append(Problem(where, None, row.image_id, fact.problem, action))
        if not problem or row.source == TEST:
            kept.append((row, fact, problem))
    if problems and on_problem == "stop":
        raise ProblemsError(
            f"{count_problems(len(problems))} in the data; mend the data, or set `eda.on_problem: drop` "
            "(bad training rows are then left out and recorded, test rows get the class prior, what the "
            "sample does not list is left out):",
            [str(problem) for problem in problems],
        )
    kept.sort(key=lambda entry: (entry[0].source != TRAIN, entry[0].image_id))
    manifest = pd.DataFrame(
        [
            (
                row.image_id,
                row.listed_id,
                f"{source}/{row.image_id}",
                fact.sha256,
                fact.pixel_hash,
                fact.width,
                fact.height,
                row.label,
                row.soft_label,
                "",
                row.source,
                problem,
            )
            for row, fact, problem in kept
        ],
        columns=list(COLUMNS),
    )
    # A fold is a matter of one source: test files must not change how training images are split.
    sources = [row.source for row, _, _ in kept]
    hashes = [fact.pixel_hash for _, fact, _ in kept]
    groups = [row.group for row, _, _ in kept]
    manifest["group_id"] = make_group_ids(
        list(manifest["image_id"]),
        [
            [value and f"{where}:{value}" for where, value in zip(sources, values, strict=True)]
            for values in (hashes, groups)
        ],
    )
    labels = set(manifest.loc[manifest["source"] == TRAIN, "label"])
    if len(labels) < 2:
        raise PodiumError(
            f"{count_problems(len(problems))}: what is left are training images of "
            f"{len(labels)} classes: expected at least 2; mend the data "
            "(`eda.on_problem: stop` lists what is wrong)"
            if problems
            else f"all training images are of class {min(labels)!r}: expected at least 2 classes"
        )
    dropped = listing.n_train_listed - sources.count(TRAIN)
    return Assembly(manifest, [fact for _, fact, _ in kept], problems, dropped)


def count_problems(number: int) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} problem{'' if number == 1 else 's'}"


def make_problem_table(problems: Sequence[Problem]) -> pd.DataFrame:
    """data/problems.csv: `PROBLEM_COLUMNS`, all str; `row` is the CSV's line, "" where none."""
    return pd.DataFrame(
        [
            (p.file, "" if p.line is None else str(p.line), p.image_id, p.problem, p.action)
            for p in problems
        ],
        columns=list(PROBLEM_COLUMNS),
        dtype=str,
    )


def load_manifest(path: Path = MANIFEST) -> pd.DataFrame:
    """Read and check the manifest: str columns ("" where empty), `width` and `height` int64.

    Raises:
        PodiumError: missing, or not what the eda stage writes.
    """
    try:
        manifest = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro eda`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PodiumError(f"{path} is damaged ({error}): run `dvc repro --force eda`") from None
    again = "run `dvc repro --force eda`"
    if tuple(manifest.columns) != COLUMNS:
        raise PodiumError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, "
            f"got {', '.join(manifest.columns)}: {again}"
        )
    for column in _INTEGERS:
        wrong = manifest.loc[~manifest[column].str.fullmatch(r"[0-9]+"), column]
        if len(wrong):
            line = int(wrong.index[0]) + 2
            raise PodiumError(
                f"{path}, line {line}: {column}: expected a whole number, "
                f"got {wrong.iloc[0]!r}: {again}"
            )
        manifest[column] = manifest[column].astype("int64")
    if not manifest["image_id"].is_unique:
        twice = manifest.loc[manifest["image_id"].duplicated(), "image_id"].iloc[0]
        raise PodiumError(f"{path}: image_id {twice!r} occurs twice: {again}")
    if not set(manifest["source"]) <= {TRAIN, TEST}:
        raise PodiumError(f"{path}: source: expected {TRAIN} or {TEST} in each row: {again}")
    return manifest
