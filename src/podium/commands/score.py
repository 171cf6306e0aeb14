"""`podium score submission.csv`: the true score on the demo competition.

Its test labels are in no file: they are computed again from the seed and each photo's number.
"""

from __future__ import annotations

from pathlib import Path

from podium.errors import PodiumError
from podium.intake.demo.score import score_submission
from podium.intake.demo.spec import SPEC_FILE, load_spec
from podium.intake.init import RAW


def score(submission: Path, root: Path) -> None:
    """Print accuracy, macro F1 and weighted kappa of a submission to the demo competition.

    Raises:
        PodiumError: data/raw is no demo competition, or the submission is not legal.
    """
    if not (root / RAW / SPEC_FILE).exists():
        raise PodiumError(
            f"{RAW} is not the demo competition (no {SPEC_FILE}): only its organiser can score this"
        )
    found = score_submission(submission, load_spec(root / RAW))
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))
