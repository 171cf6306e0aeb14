"""All metrics of any choice of rows, for bootstraps: what a row contributes is worked out once.

In: probabilities (n, k), labels (n,), targets (n,). Out: a function from positions of rows to a
value for each metric. The values are those of `metrics`; a kappa that is not defined counts as 0,
as in `ClassificationData.score`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from podium.tasks.classification import metrics as measure
from podium.tasks.evidence import HardOrSoft, find_class_numbers

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class ClassificationScorer:
    """See the module.

    Args:
        names: of the metrics wanted, in their order: accuracy, balanced_accuracy, macro_f1, qwk,
            log_loss, ece. The first four judge the labels, the others the probabilities.
        probabilities: float64 (n, k).
        labels: int64 (n,), 0..k-1.
        targets: likewise, or soft labels (n, k): log_loss is against them, the others against their
            likeliest class.
    """

    def __init__(
        self, names: Sequence[str], probabilities: Floats, labels: Positions, targets: HardOrSoft
    ) -> None:
        numbers = find_class_numbers(targets)
        self._names = tuple(names)
        self._needs_confusion = any(name in _OF_CONFUSION for name in names)
        self._k = probabilities.shape[1]
        self._hits = labels == numbers
        self._cells = numbers * self._k + labels
        self._losses = measure.row_losses(targets, probabilities)
        confidence = probabilities.max(axis=1)
        self._bins = measure.confidence_bins(confidence)
        self._excess = confidence - (probabilities.argmax(axis=1) == numbers)

    def __call__(self, rows: Positions) -> Floats:
        """float64, a value for each name, of the rows at these positions, which may repeat."""
        k = self._k
        counted = rows if self._needs_confusion else rows[:0]
        confusion = np.bincount(self._cells[counted], minlength=k * k).reshape(k, k)
        return np.array([self._value(name, rows, confusion) for name in self._names])

    def _value(self, name: str, rows: Positions, confusion: npt.NDArray[np.int64]) -> float:
        if name == "accuracy":
            return float(np.count_nonzero(self._hits[rows]) / len(rows))
        if name == "log_loss":
            return float(self._losses[rows].sum() / len(rows))
        if name == "ece":
            # sum over bins of count / n * |accuracy - confidence|
            by_bin = np.bincount(self._bins[rows], self._excess[rows])
            return float(np.abs(by_bin).sum() / len(rows))
        return _OF_CONFUSION[name](confusion)


def _defined_kappa(confusion: npt.NDArray[np.int64]) -> float:
    return measure.weighted_kappa(confusion) or 0.0


_OF_CONFUSION = {
    "balanced_accuracy": measure.balanced_accuracy,
    "macro_f1": measure.macro_f1,
    "qwk": _defined_kappa,
}
