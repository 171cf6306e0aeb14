"""What a stored run would submit for its val images, each answered by what was fitted on others.

In: raw probabilities, and the decoder and temperature of predictions/decoder.json. Out: a side of a
comparison. Both were fitted on these very images: applied as they are, they would gain points on
them that test images do not have. So each part of the rows is answered by a fit on the other parts,
as evaluate judges them (podium.tasks.answers). What no fit on these rows gives was not fitted on
them, and is applied as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.tasks.answers import Answers
from podium.tasks.calibration import (
    apply_nested_temperature,
    apply_temperature,
    fit_temperature,
)
from podium.tasks.decoding import FITS, decode_nested
from podium.tasks.evidence import Evidence, find_class_numbers, make_parts
from podium.tasks.protocol import DataTask
from podium.trust.compare import Side
from podium.trust.compare_runs import StoredRun

# Fits agree to that on CPUs that round differently.
_SAME = 1e-6


def make_side(run: StoredRun, task: DataTask, targets: npt.NDArray[Any]) -> Side:
    """As the run would be submitted: calibrated probabilities, decoded labels.

    Args:
        run: its probabilities, groups, folds and seed.
        task: with the run's own primary metric, by which its decoder was chosen.
        targets: of its rows, as `task.training_targets` has them.
    """
    answers, raw = run.answers, run.probabilities
    if answers == Answers():
        return Side(raw, raw.argmax(axis=1).astype(np.int64))
    groups, folds = run.rows["group_id"].tolist(), run.rows["fold"].tolist()
    seed = run.param("seed")
    parts = make_parts(find_class_numbers(targets), groups, folds, seed)
    evidence = Evidence(targets, groups, parts, draws=0, seed=seed)
    return Side(_calibrate(answers, raw, evidence), _decode(answers, raw, evidence, task))


def _calibrate(
    answers: Answers, raw: npt.NDArray[np.float64], evidence: Evidence
) -> npt.NDArray[np.float64]:
    targets = evidence.targets
    if answers.temperature == 1:
        return raw
    if not math.isclose(fit_temperature(raw, targets), answers.temperature, rel_tol=_SAME):
        return apply_temperature(raw, answers.temperature)
    return apply_nested_temperature(raw, evidence)


def _decode(
    answers: Answers, raw: npt.NDArray[np.float64], evidence: Evidence, task: DataTask
) -> npt.NDArray[np.int64]:
    if answers.decoder is None:
        return np.asarray(raw.argmax(axis=1), np.int64)
    for name in task.decoders:
        fitted = FITS[name](raw, evidence.class_numbers, task.score_labels)
        if fitted == answers.decoder:
            return decode_nested(raw, evidence, FITS[name], task.score_labels)
    labels: npt.NDArray[np.int64] = answers.decoder.decode(raw)
    return labels
