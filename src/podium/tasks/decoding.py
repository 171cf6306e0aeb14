"""From probabilities to labels, where the most probable class is not what the metric rewards.

In: probabilities, float64 (n, k); targets, int64 (n,); a score of labels, higher is better. Out: a
fitted decoder, and whether it is a gain over the most probable class. A task names the ways that
make sense for its primary metric (`DataTask.decoders`); `FITS` holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from podium.tasks.evidence import Evidence, Positions, Targets, gain_interval, report_gain

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# (labels (m,), targets (m,)) -> the primary metric, higher is better
Score = Callable[[Labels, Targets], float]

# Natural logarithms of the weights that a class may get: e^-2 .. e^2, no weight among them.
_LOG_WEIGHTS = np.linspace(-2, 2, 21)
_CUTS_TRIED = 64
_ROUNDS = 10


class Decoder(Protocol):
    """A fitted way from probabilities to labels."""

    def decode(self, probabilities: Probabilities) -> Labels:
        """(n, k) -> class numbers (n,)."""

    def to_json(self) -> dict[str, Any]:
        """What `parse_decoder` reads."""


@dataclass(frozen=True)
class GradeThresholds:
    """The expected grade cut into grades.

    Attributes:
        cuts: k - 1 values in units of grades, not falling. Cut number i parts grade i from i + 1.
    """

    cuts: tuple[float, ...]

    def decode(self, probabilities: Probabilities) -> Labels:
        """The number of cuts at or below the expected grade."""
        return _cut(_expected_grade(probabilities), np.array(self.cuts))

    def to_json(self) -> dict[str, Any]:
        """The cuts."""
        return {"kind": "grade_thresholds", "cuts": list(self.cuts)}


@dataclass(frozen=True)
class ClassWeights:
    """The most probable class after each class's probability was weighted.

    Attributes:
        log_weights: k natural logarithms.
    """

    log_weights: tuple[float, ...]

    def decode(self, probabilities: Probabilities) -> Labels:
        """Of equals the first."""
        weighted = _log(probabilities) + np.array(self.log_weights)
        return _top(weighted)

    def to_json(self) -> dict[str, Any]:
        """The logarithms."""
        return {"kind": "class_weights", "log_weights": list(self.log_weights)}


def parse_decoder(content: dict[str, Any]) -> Decoder:
    """Inverse of `to_json`.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if content["kind"] == "grade_thresholds":
        return GradeThresholds(tuple(float(value) for value in content["cuts"]))
    if content["kind"] == "class_weights":
        return ClassWeights(tuple(float(value) for value in content["log_weights"]))
    raise ValueError(f"unknown kind {content['kind']!r}")


def fit_grade_variance(
    probabilities: Probabilities, targets: Targets, score: Score
) -> GradeThresholds:
    """Cuts that give the expected grade the mean and the variance of the targets, then round it.

    An expected grade is drawn to the middle: it varies less than the grades do. The kappa with
    quadratic weights is 2 r s t / (s^2 + t^2 + d^2) for a correlation r, deviations s and t and a
    distance of the means d: at a given r it is largest for s = t and d = 0. Two numbers are fitted,
    whatever the score.
    """
    grades = _expected_grade(probabilities)
    k = probabilities.shape[1]
    spread, wanted = float(grades.std()), float(targets.std())
    # Without a spread on one side there is nothing to match.
    shrink = spread / wanted if spread > 0 and wanted > 0 else 1.0
    halves = np.arange(k - 1) + 0.5
    cuts = grades.mean() + (halves - targets.mean()) * shrink
    return GradeThresholds(tuple(float(value) for value in cuts))


def fit_grade_thresholds(
    probabilities: Probabilities, targets: Targets, score: Score
) -> GradeThresholds:
    """Cuts of the expected grade of best score: one after another, until none moves.

    Starts from `fit_grade_variance`. A cut moves between its neighbours, and only for a better
    score; of equally good places it takes the middle one.
    """
    grades = _expected_grade(probabilities)
    cuts = np.array(fit_grade_variance(probabilities, targets, score).cuts)
    known = np.unique(grades)
    between = (known[1:] + known[:-1]) / 2
    best = score(_cut(grades, cuts), targets)
    for _ in range(_ROUNDS):
        start = best
        for number in range(len(cuts)):
            low = cuts[number - 1] if number else -np.inf
            high = cuts[number + 1] if number + 1 < len(cuts) else np.inf
            places = between[(between > low) & (between < high)]
            if len(places) > _CUTS_TRIED:
                places = places[np.linspace(0, len(places) - 1, _CUTS_TRIED).round().astype(int)]
            scores = []
            for place in places:
                tried = cuts.copy()
                tried[number] = place
                scores.append(score(_cut(grades, tried), targets))
            if scores and max(scores) > best:
                best = max(scores)
                winners = np.flatnonzero(np.array(scores) == best)
                cuts[number] = places[winners[len(winners) // 2]]
        if best <= start:
            break
    return GradeThresholds(tuple(float(value) for value in cuts))


def fit_class_weights(probabilities: Probabilities, targets: Targets, score: Score) -> ClassWeights:
    """Log-weights of best score: class after class, until none moves.

    A weight moves only for a better score; of equally good ones it takes the one nearest to none.
    """
    log_probabilities = _log(probabilities)
    k = probabilities.shape[1]
    weights = np.zeros(k)
    best = score(_top(log_probabilities), targets)
    gentle = _LOG_WEIGHTS[np.argsort(np.abs(_LOG_WEIGHTS), kind="stable")]
    for _ in range(_ROUNDS):
        start = best
        for c in range(k):
            # What this class must beat does not depend on its own weight.
            others = log_probabilities + weights
            others[:, c] = -np.inf
            rival = _top(others)
            needed = others.max(axis=1) - log_probabilities[:, c]
            for weight in gentle:
                wins = (weight > needed) | ((weight == needed) & (c < rival))
                found = score(np.where(wins, c, rival), targets)
                if found > best:
                    best, weights[c] = found, weight
        if best <= start:
            break
    return ClassWeights(tuple(float(value) for value in weights))


Fit = Callable[[Probabilities, Targets, Score], Decoder]
FITS: dict[str, Fit] = {
    "grade_variance": fit_grade_variance,
    "grade_thresholds": fit_grade_thresholds,
    "class_weights": fit_class_weights,
}


def decode_nested(
    probabilities: Probabilities, evidence: Evidence, fit: Fit, score: Score
) -> Labels:
    """Labels of each part by the decoder that was fitted on the other parts."""
    labels = np.empty(len(probabilities), dtype=np.int64)
    for part in np.unique(evidence.parts):
        held = evidence.parts == part
        decoder = fit(probabilities[~held], evidence.class_numbers[~held], score)
        labels[held] = decoder.decode(probabilities[held])
    return labels


def choose_decoder(
    probabilities: Probabilities, evidence: Evidence, names: tuple[str, ...], score: Score
) -> tuple[Decoder | None, list[dict[str, Any]]]:
    """Judge the named ways, and fit the best on all rows if it is a gain for sure.

    Args:
        probabilities: raw, (n, k).
        evidence: of the same n rows.
        names: keys of `FITS`.
        score: the primary metric of labels.

    Returns:
        The decoder, or None where none has the lower end of its gain's interval above 0; and a
        report for each name: name, the score of the most probable class (before) and of the
        decoder (after), gain with its interval, adopted.
    """
    targets, plain = evidence.class_numbers, _top(probabilities)
    reports = []
    for name in names:
        labels = decode_nested(probabilities, evidence, FITS[name], score)

        def gain(rows: Positions, labels: Labels = labels) -> float:
            chosen = targets[rows]
            return score(labels[rows], chosen) - score(plain[rows], chosen)

        interval = gain_interval(gain, evidence, f"decoder {name}", len(names))
        before, after = score(plain, targets), score(labels, targets)
        reports.append({"name": name, **report_gain(before, after, after - before, interval)})
    sure = [report for report in reports if report["gain_low"] > 0]
    best = max(sure, key=lambda report: report["gain"]) if sure else None
    for report in reports:
        report["adopted"] = report is best
    if best is None:
        return None, reports
    return FITS[best["name"]](probabilities, targets, score), reports


def _expected_grade(probabilities: Probabilities) -> Probabilities:
    """(n, k) -> (n,), 0 .. k - 1."""
    grades: Probabilities = probabilities @ np.arange(probabilities.shape[1], dtype=np.float64)
    return grades


def _cut(grades: Probabilities, cuts: Probabilities) -> Labels:
    return np.searchsorted(cuts, grades, side="right").astype(np.int64)


def _top(values: Probabilities) -> Labels:
    """Of equals the first."""
    labels: Labels = values.argmax(axis=1).astype(np.int64)
    return labels


def _log(probabilities: Probabilities) -> Probabilities:
    return np.log(np.clip(probabilities, np.finfo(np.float64).tiny, 1.0))
