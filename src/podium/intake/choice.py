"""What the user decides where a competition's folder leaves more than one answer."""

from __future__ import annotations

from dataclasses import dataclass

NONE = "none"


@dataclass(frozen=True)
class Choice:
    """Answers of the user; None: find it.

    Paths are relative to the competition's folder (the one inside the zip, where there is one).
    `train_csv` (labels are the class folders) and `sample` may be "none".
    """

    train_csv: str | None = None
    sample: str | None = None
    train_images: str | None = None
    test_images: str | None = None
    label_column: str | None = None
