"""Scores a submission to the demo competition: the truth is recomputed, no file holds it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from podium.errors import PodiumError, ProblemsError
from podium.intake.demo.plan import GRADES, true_label
from podium.intake.demo.spec import DemoSpec, load_spec
from podium.intake.demo.write import photo_name

_NAMED = 3  # missing ids that a message spells out


def load_truth(raw: Path) -> dict[str, str]:
    """File name -> true grade of all test photos of the demo in the folder `raw`."""
    spec = load_spec(raw)
    return {photo_name("test", i): str(true_label(spec, "test", i)) for i in range(spec.test)}


def score_submission(path: Path, spec: DemoSpec) -> dict[str, float]:
    """Compare a submission with the true grades of the test photos.

    Args:
        path: CSV without a header, `file,label`, one row for each test photo, in any order.
        spec: what the competition was made from (`load_spec`).

    Returns:
        n (rows), accuracy (0..1), macro_f1 (0..1, over the four grades that occur) and
        quadratic_weighted_kappa (-1..1; Cohen, Psychological Bulletin 70, 1968).

    Raises:
        PodiumError: the file is missing, empty or not UTF-8.
        ProblemsError: missing, repeated or unknown ids, or labels that are no grade.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    names = [photo_name("test", index) for index in range(spec.test)]
    submitted = _load_grades(path, names)
    target = [true_label(spec, "test", index) for index in range(spec.test)]
    predicted = [submitted[name] for name in names]
    hits = sum(a == b for a, b in zip(target, predicted, strict=True))
    # Kappa is 0 / 0 when both sides are one and the same grade throughout: full agreement.
    constant = len({*target, *predicted}) == 1
    return {
        "n": spec.test,
        "accuracy": hits / spec.test,
        "macro_f1": float(f1_score(target, predicted, average="macro", zero_division=0)),
        "quadratic_weighted_kappa": 1.0
        if constant
        else float(cohen_kappa_score(target, predicted, weights="quadratic")),
    }


def _load_grades(path: Path, names: list[str]) -> dict[str, int]:
    """File name -> submitted grade, complete and checked."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run the DAG (`make run`) first") from None
    except UnicodeDecodeError:
        raise PodiumError(f"{path} is not UTF-8 text: write it again as plain CSV") from None
    if not text.strip():
        raise PodiumError(f"{path} is empty: expected {len(names)} rows `file,label`")
    known = set(names)
    grades = {str(grade): grade for grade in GRADES}
    first_row: dict[str, int] = {}
    submitted: dict[str, int] = {}
    problems = []
    for row, cells in enumerate(csv.reader(io.StringIO(text)), start=1):
        if len(cells) != 2:
            count = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
            problems.append(f"row {row}: expected `file,label`, got {count}")
            first_row.update({cell: row for cell in cells[:1] if cell in known})
            continue
        name, label = cells
        if name not in known:
            problems.append(f"row {row}: unknown id {name!r}")
            continue
        if name in first_row:
            problems.append(f"row {row}: id {name!r} was given in row {first_row[name]} already")
            continue
        first_row[name] = row
        if label not in grades:
            problems.append(f"row {row}: expected a grade of {', '.join(grades)}, got {label!r}")
            continue
        submitted[name] = grades[label]
    missing = [name for name in names if name not in first_row]
    if missing:
        more = ", ..." if len(missing) > _NAMED else ""
        count = "1 test photo has" if len(missing) == 1 else f"{len(missing)} test photos have"
        problems.append(f"{count} no row: {', '.join(missing[:_NAMED])}{more}")
    if problems:
        raise ProblemsError(f"{path} is no legal submission; mend it and score again:", problems)
    return submitted
