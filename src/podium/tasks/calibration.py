"""One temperature for all logits (Guo et al. 2017, arXiv:1706.04599).

In: probabilities, float64 (n, k), of rows that the models have not learned from. Out: a temperature
and whether it is a gain. Dividing logits by it changes how sure a model is, never what it answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from podium.tasks.classification.metrics import calibration_error, reliability, row_losses
from podium.tasks.evidence import Evidence, HardOrSoft, Positions, gain_interval, report_gain

Probabilities = npt.NDArray[np.float64]

_COLDEST, _HOTTEST = 0.05, 20.0


def apply_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Softmax of the logits over the temperature, from the probabilities alone: their logarithms
    are the logits but for a constant per row."""
    from scipy.special import softmax

    return np.asarray(softmax(_log(probabilities) / temperature, axis=1))


def fit_temperature(probabilities: Probabilities, targets: HardOrSoft) -> float:
    """The temperature of least log loss, 0.05 .. 20; of soft labels (n, k) against what they say, not
    their likeliest class, which would make a model surer than its labels are."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits, rows = _log(probabilities), np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        if targets.ndim == 2:
            return float(-(targets * scaled).sum(axis=1).mean())
        return float(-scaled[rows, targets].mean())

    found = minimize_scalar(
        loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def apply_nested_temperature(probabilities: Probabilities, evidence: Evidence) -> Probabilities:
    """Each part's rows with the temperature of the other parts' rows: none is judged by what was fitted
    on it.

    Args:
        probabilities: raw, (n, k).
        evidence: of the same n rows.
    """
    judged = np.empty_like(probabilities)
    for part in np.unique(evidence.parts):
        held = evidence.parts == part
        temperature = fit_temperature(probabilities[~held], evidence.targets[~held])
        judged[held] = apply_temperature(probabilities[held], temperature)
    return judged


def calibrate(probabilities: Probabilities, evidence: Evidence) -> tuple[float, dict[str, Any]]:
    """Fit and judge a temperature.

    Each part's rows are judged with the temperature of the other parts; the one that is kept is
    fitted on all. It is kept where the interval of the gain in log loss lies above 0, and some
    rows are wrong, or unsure of their class: else the log loss has no minimum.

    Args:
        probabilities: raw, (n, k).
        evidence: of the same n rows.

    Returns:
        The temperature, 1 where it is not kept; and the report: temperature (of all rows), adopted,
        log loss before, after and gain with its interval, ECE before and after.
    """
    targets, numbers = evidence.targets, evidence.class_numbers
    judged = apply_nested_temperature(probabilities, evidence)
    temperature = fit_temperature(probabilities, targets)

    losses_before, losses_after = row_losses(targets, probabilities), row_losses(targets, judged)
    gains = losses_before - losses_after

    def gain(rows: Positions) -> float:
        return float(gains[rows].mean())

    interval = gain_interval(gain, evidence, "temperature")
    # Rows that are all right know no limit to how sure a model may be; one wrong test row would.
    answers = probabilities.argmax(axis=1)
    if targets.ndim == 2:
        has_errors = bool((targets[np.arange(len(targets)), answers] < 1).any())
    else:
        has_errors = bool((answers != targets).any())
    adopted = has_errors and interval[0] > 0
    before, after = float(losses_before.mean()), float(losses_after.mean())
    report = {
        "temperature": round(temperature, 6),
        "adopted": adopted,
        "log_loss": report_gain(before, after, before - after, interval),
        "ece_before": round(calibration_error(reliability(numbers, probabilities)), 6),
        "ece_after": round(calibration_error(reliability(numbers, judged)), 6),
    }
    return temperature if adopted else 1.0, report


def _log(probabilities: Probabilities) -> Probabilities:
    return np.log(np.clip(probabilities, np.finfo(np.float64).tiny, 1.0))
