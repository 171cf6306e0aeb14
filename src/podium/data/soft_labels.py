"""Soft labels: a probability for each class instead of one class, as several raters give them.

In: an organiser's cells, one per class. Out: a line that says what is wrong with them, or the
manifest's `soft_label`: the numbers with a space between, in the order of `competition.classes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# A sum of rounded shares may be off by so much: ten classes with three decimals each, twice over.
SUM_TOLERANCE = 0.01


def find_soft_label_problem(cells: Sequence[str]) -> str:
    """What keeps `cells` from being probabilities, "" where nothing does."""
    values = []
    for cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            return f"expected a number in each class's column, got {cell!r}"
    for value, cell in zip(values, cells, strict=True):
        if not 0 <= value <= 1:  # nor for NaN
            return f"expected probabilities from 0 to 1, got {cell}"
    total = math.fsum(values)
    if abs(total - 1) > SUM_TOLERANCE:
        return f"probabilities sum to {total:.4g}, expected 1 (within {SUM_TOLERANCE:g})"
    return ""


def find_likeliest(cells: Sequence[str]) -> int:
    """The number of the class with the greatest probability, of equals the first."""
    values = [float(cell) for cell in cells]
    return values.index(max(values))


def format_soft_label(cells: Sequence[str]) -> str:
    """Checked cells as the manifest holds them: each number in its shortest exact form."""
    return " ".join(repr(float(cell)) for cell in cells)


def parse_soft_label(text: str) -> list[float]:
    """Inverse of `format_soft_label`, scaled to a sum of 1."""
    values = [float(word) for word in text.split(" ")]
    total = math.fsum(values)
    return [value / total for value in values]
