"""What is said of a comparison, in the words and rows that the terminal, Markdown and the page share.

In: two `StoredRun`s with one val set, or one and many. Out: a headline, tables, sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from podium.tasks.protocol import DataTask
from podium.tasks.table import make_data_task
from podium.trust.compare import Change, Comparison, Side, Word, compare, holm
from podium.trust.compare_answers import make_side
from podium.trust.compare_runs import StoredRun
from podium.trust.compare_val_sets import check_same_val_set


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class RunComparison:
    """Two runs and what came out.

    Attributes:
        before, after: the runs; `after` is what is judged.
        task: the baseline's: its primary metric decides.
        comparison: the numbers.
        sides: what both say of the images.
    """

    before: StoredRun
    after: StoredRun
    task: DataTask
    comparison: Comparison
    sides: tuple[Side, Side]

    @property
    def changed_params(self) -> list[tuple[str, str, str]]:
        """Path, value before, value after, of all that led to the predictions."""
        return diff_params(self.before, self.after)

    @property
    def changed_inputs(self) -> list[str]:
        """Code and raw files that the two runs did not share."""
        before, after = self.before.inputs, self.after.inputs
        return [
            path
            for path in sorted(before.keys() | after.keys())
            if before.get(path) != after.get(path)
        ]

    @property
    def headline(self) -> str:
        """Who against whom, the word, and the number behind it."""
        change = self.comparison.primary
        return (
            f"{self.after.name} against {self.before.name}: {self.comparison.word} "
            f"({change.spec.name} {change.difference:+.4f}, {describe_interval(change)})"
        )


def compare_runs(before: StoredRun, after: StoredRun, comparisons: int = 1) -> RunComparison:
    """Compare two runs that were judged on the same val set.

    Args:
        before: the baseline; its primary metric, seed and draws are used.
        after: the one that is judged.
        comparisons: how many p-values are looked at together.

    Raises:
        ProblemsError: the val sets differ.
    """
    check_same_val_set(before, after)
    task = _make_task(before)
    targets = task.training_targets(
        before.rows["label"].tolist(), before.rows["soft_label"].tolist()
    )
    sides = make_side(before, task, targets), make_side(after, _make_task(after), targets)
    comparison = compare(
        task,
        *sides,
        targets,
        before.rows["group_id"].tolist(),
        draws=before.param("evaluate.bootstrap_draws"),
        seed=before.param("seed"),
        comparisons=comparisons,
    )
    return RunComparison(before, after, task, comparison, sides)


def _make_task(run: StoredRun) -> DataTask:
    return make_data_task(
        run.param("competition.task"),
        classes=run.classes,
        ordinal=run.param("competition.ordinal"),
        primary_metric=run.param("evaluate.primary"),
    )


def diff_params(before: StoredRun, after: StoredRun) -> list[tuple[str, str, str]]:
    """Path, value before, value after, of the params that differ."""
    old, new = before.params, after.params
    missing = object()
    return [
        (key, _say(old.get(key, "not there")), _say(new.get(key, "not there")))
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
    ]


def make_metric_table(result: RunComparison) -> Table:
    """A row for each metric, the primary one first."""
    header = ("metric", result.before.name, result.after.name, "difference", "95 %")
    rows = [
        (
            change.spec.name + ("" if change.spec.higher_is_better else " (lower is better)"),
            f"{change.before:.4f}",
            f"{change.after:.4f}",
            f"{change.difference:+.4f}",
            f"{change.low:+.4f} to {change.high:+.4f}"
            if change.spec.can_be_resampled
            else "not known",
        )
        for change in result.comparison.changes
    ]
    return Table(header, rows)


def make_sentences(result: RunComparison) -> list[str]:
    """What changed, how likely that is by luck, what was done differently, what to mind."""
    found = result.comparison
    images = f"{found.n} val images"
    if found.n_groups != found.n:
        images += f" in {found.n_groups} groups"
    lines = [
        f"{images}: {len(found.mended)} turned right, {len(found.broken)} turned wrong "
        f"(McNemar's exact p {describe_p(found.mcnemar_p)}), {len(found.moved)} are wrong with another "
        "answer",
        f"by luck alone {found.primary.spec.name} differs as much with p {describe_p(found.p)} "
        "(runs swapped, group by group)",
    ]
    lines += [f"param {key}: {old} -> {new}" for key, old, new in result.changed_params]
    if result.changed_inputs:
        lines.append(f"not the same code or files: {', '.join(result.changed_inputs)}")
    if not result.changed_params and not result.changed_inputs:
        lines.append("the same params, code and raw files")
    return lines + make_notes([result.before, result.after])


def make_notes(runs: Sequence[StoredRun]) -> list[str]:
    """What a reader should know of the runs themselves."""
    lines = [note for run in runs for note in run.notes]
    fitted = [run.name for run in runs if run.answers.decoder or run.answers.temperature != 1]
    if fitted:
        lines.append(
            f"{', '.join(fitted)}: answers by a decoder or temperature, each image's by one that was "
            "fitted on others"
        )
    return lines


@dataclass(frozen=True)
class Ranking:
    """Many runs against one baseline.

    Attributes:
        baseline: of all comparisons.
        results: best first.
        corrected: p-value of each result, by Holm.
        refused: name and reason of what could not be compared.
    """

    baseline: StoredRun
    results: list[RunComparison]
    corrected: list[float]
    refused: list[tuple[str, str]]

    @property
    def words(self) -> list[Word]:
        """Of each result, at the corrected p."""
        pairs = zip(self.results, self.corrected, strict=True)
        return [result.comparison.primary.judge(p) for result, p in pairs]


def rank(
    baseline: StoredRun, results: Sequence[RunComparison], refused: Sequence[tuple[str, str]]
) -> Ranking:
    """Best first, p-values corrected for their number."""
    ordered = sorted(results, key=lambda one: (-one.comparison.primary.gain, one.after.name))
    corrected = holm([one.comparison.p for one in ordered])
    return Ranking(baseline, ordered, corrected, list(refused))


def make_ranking_table(ranking: Ranking) -> Table:
    """A row for each experiment."""
    primary = ranking.baseline.param("evaluate.primary")
    header = ("run", primary, "difference", "95 %", "right/wrong", "p, Holm", "it is", "params")
    rows = []
    for result, p, word in zip(ranking.results, ranking.corrected, ranking.words, strict=True):
        found, change = result.comparison, result.comparison.primary
        params = [f"{key}={new}" for key, _, new in result.changed_params]
        if result.changed_inputs:
            params.append("other code or files")
        rows.append(
            (
                result.after.name,
                f"{change.after:.4f}",
                f"{change.difference:+.4f}",
                f"{change.low:+.4f} to {change.high:+.4f}",
                f"+{len(found.mended)} -{len(found.broken)}",
                describe_p(p),
                word,
                " ".join(params),
            )
        )
    return Table(header, rows)


def make_ranking_sentences(ranking: Ranking) -> list[str]:
    """The baseline, what the words mean, and what is not in the table."""
    baseline, count = ranking.baseline, len(ranking.results)
    lines = []
    if ranking.results:
        change = ranking.results[0].comparison.primary
        lines += [
            f"baseline {baseline.name}: {change.spec.name} {change.before:.4f} on "
            f"{ranking.results[0].comparison.n} val images",
            f"p is corrected for {count} comparisons (Holm): if none of them made a difference, "
            "the chance of a better or worse in this table would be 5 %; the intervals are of one "
            "comparison each",
        ]
    lines += [f"left out: {name}: {reason}" for name, reason in ranking.refused]
    return lines + make_notes([baseline, *(result.after for result in ranking.results)])


def describe_interval(change: Change) -> str:
    """`95 %: -0.0010 to +0.0200`."""
    return f"95 %: {change.low:+.4f} to {change.high:+.4f}"


def describe_p(p: float) -> str:
    """Two digits that count."""
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1g}"


def make_markdown(headline: str, table: Table, sentences: Sequence[str]) -> str:
    """For a pull request."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rows = [line(table.header), "|" + "---|" * len(table.header), *map(line, table.rows)]
    return "\n".join([f"**{headline}**", "", *rows, "", *(f"- {text}" for text in sentences)])


def _say(value: Any) -> str:
    return "empty" if value is None else str(value)
