"""Classification without tensors: targets, metrics, plots and submission cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.predictions import SUM_TOLERANCE
from podium.data.soft_labels import parse_soft_label
from podium.errors import PodiumError, did_you_mean
from podium.tasks.classification import metrics as measure
from podium.tasks.classification.params import PrimaryMetric
from podium.tasks.classification.scorer import ClassificationScorer
from podium.tasks.evidence import Evidence, HardOrSoft, find_class_numbers, gain_interval
from podium.tasks.protocol import MetricSpec

Probabilities = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]


_SPECS = {
    spec.name: spec
    for spec in (
        MetricSpec("accuracy", higher_is_better=True, counts_right=True),
        MetricSpec("balanced_accuracy", higher_is_better=True),
        MetricSpec("macro_f1", higher_is_better=True),
        MetricSpec("qwk", higher_is_better=True),
        MetricSpec("log_loss", higher_is_better=False),
        # A mean of absolute values, which are larger in every resample: 95 % intervals of its
        # difference held the truth in 84 % of 500 pairs in one simulation, 99.8 % in another.
        MetricSpec("ece", higher_is_better=False, can_be_resampled=False),
    )
}


@dataclass(frozen=True)
class ClassificationData:
    """The data half of a classification task (see `podium.tasks.protocol.DataTask`).

    Attributes:
        classes: names, in the order of the net's outputs; of ordinal grades from low to high.
        ordinal: whether the classes are grades in order.
        submission: label: the class name in one column; probability: one column for each class.
        primary_metric: qwk needs `ordinal`.
        bootstrap_draws: repetitions for the kappa's interval.

    Raises:
        PodiumError: qwk for classes without an order.
    """

    classes: tuple[str, ...]
    ordinal: bool
    submission: Literal["label", "probability"] = "label"
    primary_metric: PrimaryMetric = "accuracy"
    bootstrap_draws: int = 2000

    def __post_init__(self) -> None:
        if self.primary_metric == "qwk" and not self.ordinal:
            raise PodiumError(
                "evaluate.primary: qwk is for grades in order, but competition.ordinal is false: "
                "set it to true or choose another"
            )

    @property
    def name(self) -> str:
        """`classification`."""
        return "classification"

    @property
    def primary(self) -> MetricSpec:
        """The primary metric with its direction."""
        return _SPECS[self.primary_metric]

    def targets(self, labels: Sequence[str]) -> Targets:
        """Class numbers, int64 (n,).

        Raises:
            PodiumError: a label that is no class.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        for label in labels:
            if label not in numbers:
                raise PodiumError(
                    f"label {label!r} is not in competition.classes"
                    f"{did_you_mean(label, self.classes)}: mend the label or add the class"
                )
        return np.array([numbers[label] for label in labels], dtype=np.int64)

    def training_targets(
        self, labels: Sequence[str], soft_labels: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Class numbers, int64 (n,); with soft labels distributions, float64 (n, k), which sum to 1.

        Raises:
            PodiumError: a label that is no class; a soft label of another number of classes.
        """
        if not any(soft_labels):
            return self.targets(labels)
        rows = [parse_soft_label(text) for text in soft_labels]
        if {len(row) for row in rows} != {len(self.classes)}:
            raise PodiumError(
                f"data/manifest.csv: expected {len(self.classes)} numbers in each soft_label, one "
                "for each of competition.classes: run `dvc repro`"
            )
        return np.array(rows, dtype=np.float64)

    def predictions(self, outputs: npt.NDArray[np.float32]) -> Probabilities:
        """Softmax of the logits, in float64."""
        from scipy.special import softmax

        return np.asarray(softmax(outputs.astype(np.float64), axis=1))

    def score(self, predictions: Probabilities, targets: HardOrSoft) -> float:
        """The primary metric. A kappa that is not defined (one class only) counts as 0, chance.

        Log loss is against soft labels (n, k) as they are; for the others the likeliest class
        counts, of equals the first.
        """
        if self.primary_metric == "log_loss":
            return measure.log_loss(targets, predictions)
        return self.score_labels(predictions.argmax(axis=1), find_class_numbers(targets))

    @property
    def decoders(self) -> tuple[str, ...]:
        """Cuts of the expected grade for the kappa, class weights for accuracy and macro F1."""
        if self.primary_metric == "log_loss" or self.submission == "probability":
            return ()
        if self.primary_metric == "qwk":
            return ("grade_variance", "grade_thresholds")
        return ("class_weights",)

    def score_labels(self, labels: Targets, targets: Targets) -> float:
        """The primary metric of class numbers; a kappa that is not defined counts as 0.

        Raises:
            ValueError: the primary metric judges probabilities.
        """
        if self.primary_metric == "log_loss":
            raise ValueError("log_loss judges probabilities, not labels")
        if self.primary_metric == "accuracy":
            return measure.accuracy(targets, labels)
        confusion = measure.make_confusion(targets, labels, len(self.classes))
        if self.primary_metric == "balanced_accuracy":
            return measure.balanced_accuracy(confusion)
        if self.primary_metric == "macro_f1":
            return measure.macro_f1(confusion)
        return measure.weighted_kappa(confusion) or 0.0

    def metrics(
        self, predictions: Probabilities, targets: HardOrSoft, groups: Sequence[str], seed: int
    ) -> dict[str, Any]:
        """All metrics, rounded to 6 decimals; of soft labels (n, k) as `score` takes them.

        Returns:
            n, accuracy with accuracy_low and accuracy_high (95 %, exact, by group), balanced_accuracy,
            macro_f1, log_loss, ece;
            for ordinal classes qwk with qwk_low and qwk_high (95 %, bootstrap by group); the
            interval of the primary metric likewise, whichever it is; per_class
            (list of label, precision, recall, f1, support). None where a value is not defined.
        """
        k = len(self.classes)
        predicted, numbers = predictions.argmax(axis=1), find_class_numbers(targets)
        confusion = measure.make_confusion(numbers, predicted, k)
        low, high = measure.grouped_accuracy_interval(numbers == predicted, groups)
        found: dict[str, Any] = {
            "n": len(targets),
            "accuracy": measure.accuracy(numbers, predicted),
            "accuracy_low": low,
            "accuracy_high": high,
            "balanced_accuracy": measure.balanced_accuracy(confusion),
            "macro_f1": measure.macro_f1(confusion),
            "log_loss": measure.log_loss(targets, predictions),
            "ece": measure.calibration_error(measure.reliability(numbers, predictions)),
        }
        if self.ordinal:
            interval = measure.weighted_kappa_interval(
                numbers, predicted, groups, k, self.bootstrap_draws, seed
            )
            found["qwk"] = measure.weighted_kappa(confusion)
            found["qwk_low"], found["qwk_high"] = interval or (None, None)
        if f"{self.primary_metric}_low" not in found:
            low, high = self._score_interval(predictions, targets, groups, seed)
            found[f"{self.primary_metric}_low"], found[f"{self.primary_metric}_high"] = low, high
        table = measure.class_table(confusion, self.classes)
        return {**_rounded(found), "per_class": [_rounded(row) for row in table]}

    @property
    def compared(self) -> tuple[MetricSpec, ...]:
        """Accuracy, balanced accuracy, macro F1, kappa (ordinal), log loss, ECE; the primary first."""
        others = [
            spec
            for name, spec in _SPECS.items()
            if name != self.primary_metric and (self.ordinal or name != "qwk")
        ]
        return (self.primary, *others)

    def make_scorer(
        self, names: Sequence[str], predictions: Probabilities, labels: Targets, targets: HardOrSoft
    ) -> ClassificationScorer:
        """Labels give accuracy, balanced accuracy, macro F1 and kappa, probabilities the rest."""
        return ClassificationScorer(names, predictions, labels, targets)

    def _score_interval(
        self, predictions: Probabilities, targets: HardOrSoft, groups: Sequence[str], seed: int
    ) -> tuple[float, float]:
        """Of the primary metric: 95 %, percentiles of a bootstrap that draws whole groups."""
        evidence = Evidence(
            targets, groups, np.zeros(len(targets), np.int64), self.bootstrap_draws, seed
        )
        labels = predictions.argmax(axis=1)
        score = self.make_scorer([self.primary_metric], predictions, labels, targets)
        subject = f"score/{self.primary_metric}"
        return gain_interval(lambda rows: float(score(rows)[0]), evidence, subject)

    def summary(self, metrics: dict[str, Any]) -> str:
        """The accuracy with its interval, and the primary metric where it is another one."""
        low, high = metrics["accuracy_low"], metrics["accuracy_high"]
        text = f"accuracy {metrics['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f})"
        if self.primary_metric != "accuracy":
            text += f", {self.primary_metric} {metrics[self.primary_metric]:.4f}"
        return text

    def plots(self, predictions: Probabilities, targets: HardOrSoft) -> dict[str, pd.DataFrame]:
        """confusion (actual, predicted: class names, a row for each image: what DVC's `confusion`
        template counts), precision_recall and reliability; of soft labels by the likeliest class."""
        targets = find_class_numbers(targets)
        names = np.array(self.classes, dtype=object)
        return {
            "confusion": pd.DataFrame(
                {"actual": names[targets], "predicted": names[predictions.argmax(axis=1)]}
            ),
            "precision_recall": measure.precision_recall(targets, predictions, self.classes),
            "reliability": measure.reliability(targets, predictions).round(measure.DECIMALS),
        }

    def fallback_prediction(self, targets: HardOrSoft) -> Probabilities:
        """The class prior, float64 (k,): each class's share; where probabilities are submitted, the mean
        of soft labels."""
        if targets.ndim == 2 and self.submission == "probability":
            return np.asarray(targets.mean(axis=0))
        numbers = find_class_numbers(targets)
        return np.bincount(numbers, minlength=len(self.classes)) / len(numbers)

    @property
    def submission_columns(self) -> tuple[str, ...]:
        """`label`, or the class names."""
        return ("label",) if self.submission == "label" else self.classes

    def submission_cells(self, predictions: Probabilities) -> list[list[str]]:
        """The most probable class's name, or the probabilities as shortest exact decimals."""
        if self.submission == "label":
            return [[self.classes[number]] for number in predictions.argmax(axis=1)]
        return [[repr(value) for value in row] for row in predictions.tolist()]

    def submission_cell_problem(self, cells: Sequence[str]) -> str:
        """A label that is no class; a probability that is none, or a sum that is not 1."""
        if self.submission == "label":
            label = cells[0]
            if label in self.classes:
                return ""
            return (
                f"label {label!r} is not in competition.classes{did_you_mean(label, self.classes)}"
            )
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            return f"expected a number in each class's column, got {', '.join(cells)}"
        if not all(0 <= value <= 1 for value in values):
            return f"expected probabilities from 0 to 1, got {', '.join(cells)}"
        if abs(sum(values) - 1) > SUM_TOLERANCE:
            return f"probabilities sum to {sum(values):.4f}, expected 1"
        return ""


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, measure.DECIMALS) if isinstance(value, float) else value
        for key, value in values.items()
    }
