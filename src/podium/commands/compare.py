"""`podium compare`: is a run better than another one, or is that noise?"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from podium.errors import PodiumError, ProblemsError
from podium.files import write_text
from podium.progress import track
from podium.trust.compare_page import make_page
from podium.trust.compare_report import (
    Ranking,
    Table,
    compare_runs,
    make_markdown,
    make_metric_table,
    make_ranking_sentences,
    make_ranking_table,
    make_sentences,
    rank,
)
from podium.trust.compare_runs import Runs

PAGES = Path(".podium/compare")
EXIT_WORSE = 1
_WIDTH = 110


def compare_two(
    root: Path, before: str, after: str, markdown: bool, page: Path | None, fail_if_worse: bool
) -> int:
    """Compare two runs, print it, and write the page of the images that changed.

    Args:
        root: the repository's top folder.
        before, after: git revisions, experiments or `workspace`; `after` is judged.
        markdown: for a pull request, in place of the table for a terminal.
        page: where the page goes; None: `.podium/compare/`.
        fail_if_worse: whether a `worse` is a failure.

    Returns:
        The exit code: 0, or `EXIT_WORSE`.

    Raises:
        PodiumError: a run cannot be read, the val sets differ, or the page cannot be written.
    """
    if page is not None and page.is_dir():
        raise PodiumError(f"--html {page}: expected the path of a file, got a folder")
    runs = Runs(root)
    result = compare_runs(runs.load(before), runs.load(after))
    if page is None:
        page = root / PAGES / f"{_as_file_name(before)}..{_as_file_name(after)}.html"
    write_text(page, make_page(result, root))
    sentences = make_sentences(result)
    if not markdown:
        sentences.append(f"the images: {os.path.relpath(page)}")
    _print(result.headline, make_metric_table(result), sentences, markdown)
    return EXIT_WORSE if fail_if_worse and result.comparison.word == "worse" else 0


def compare_all(root: Path, baseline: str, markdown: bool, fail_if_worse: bool) -> int:
    """Compare every experiment that DVC keeps with one baseline; one table.

    Args:
        root: the repository's top folder.
        baseline: a git revision, an experiment or `workspace`.
        markdown, fail_if_worse: as in `compare_two`; any `worse` in the table counts.

    Returns:
        The exit code: 0, or `EXIT_WORSE`.

    Raises:
        PodiumError: the baseline cannot be read, or there is no experiment.
    """
    runs = Runs(root)
    commit = runs.resolve(baseline)
    found = [(name, sha) for name, sha in runs.experiments() if sha != commit]
    if not found:
        raise PodiumError(
            f"no experiments to compare with {baseline}: `dvc exp run -S KEY=VALUE` makes one"
        )
    ranking = _rank(runs, baseline, found)
    headline = f"{len(ranking.results)} of {len(found)} experiments against {baseline}"
    _print(headline, make_ranking_table(ranking), make_ranking_sentences(ranking), markdown)
    return EXIT_WORSE if fail_if_worse and "worse" in ranking.words else 0


def _rank(runs: Runs, baseline: str, experiments: Sequence[tuple[str, str]]) -> Ranking:
    before = runs.load(baseline)
    results, refused = [], []
    for name, commit in track(experiments, len(experiments), "compare"):
        try:
            results.append(compare_runs(before, runs.load(name, commit), len(experiments)))
        except ProblemsError as error:
            refused.append((name, f"another val set: {error.problems[0]}"))
        except PodiumError as error:
            refused.append((name, str(error).removeprefix(f"{name}: ")))
    return rank(before, results, refused)


def _print(headline: str, table: Table, sentences: Sequence[str], markdown: bool) -> None:
    if markdown:
        print(make_markdown(headline, table, sentences))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(table.header):
        # Numbers stand under each other; names and words begin on the left.
        is_number = bool(table.rows) and table.rows[0][number][:1] in "+-0123456789"
        side: Literal["left", "right"] = "right" if number and is_number else "left"
        shown.add_column(Text(name), justify=side, overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    print(headline)
    if table.rows:
        Console(width=_WIDTH, highlight=False).print(shown)
    print("\n".join(sentences))


def _as_file_name(run: str) -> str:
    return re.sub(r"[^\w.~^-]+", "_", run)
