"""A decoder or temperature gains nothing from the images that it was fitted on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.tasks.answers import Answers
from podium.tasks.calibration import apply_temperature, fit_temperature
from podium.tasks.classification.data import ClassificationData
from podium.tasks.decoding import ClassWeights, fit_class_weights
from podium.trust.compare_answers import make_side
from podium.trust.compare_runs import StoredRun

N, CLASSES = 120, ("a", "b", "c", "d")
TASK = ClassificationData(CLASSES, ordinal=False)


def stored(probabilities: np.ndarray, answers: Answers, folds: int = 1) -> StoredRun:
    rows = pd.DataFrame(
        {"group_id": [str(k) for k in range(N)], "fold": [k % folds for k in range(N)]}
    )
    return StoredRun("run", {"seed": 0}, {}, rows, CLASSES, probabilities, answers, ())


@pytest.fixture
def noise() -> tuple[np.ndarray, np.ndarray]:
    """A model that knows nothing, of which a search still finds lucky weights."""
    rng = np.random.default_rng(1)
    return rng.dirichlet(np.ones(4), N), rng.integers(0, 4, N)


@pytest.mark.parametrize("folds", [1, 3])
def test_luck_of_the_fit_is_not_in_the_labels(
    noise: tuple[np.ndarray, np.ndarray], folds: int
) -> None:
    probabilities, targets = noise
    decoder = fit_class_weights(probabilities, targets, TASK.score_labels)
    lucky = (decoder.decode(probabilities) == targets).mean()
    plain = (probabilities.argmax(axis=1) == targets).mean()
    assert lucky > plain + 0.03
    run = stored(probabilities, Answers(decoder=decoder), folds)
    fair = (make_side(run, TASK, targets).labels == targets).mean()
    assert fair < plain + 0.02


def test_a_part_is_calibrated_by_the_others(noise: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, targets = noise
    temperature = fit_temperature(probabilities, targets)
    run = stored(probabilities, Answers(temperature=temperature), folds=3)
    side = make_side(run, TASK, targets)
    held = np.arange(N) % 3 == 1
    others = fit_temperature(probabilities[~held], targets[~held])
    assert others != temperature
    assert np.array_equal(side.probabilities[held], apply_temperature(probabilities[held], others))
    assert side.labels.tolist() == probabilities.argmax(axis=1).tolist()


def test_what_was_fitted_elsewhere_is_applied_as_it_is(
    noise: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, targets = noise
    answers = Answers(temperature=3.0, decoder=ClassWeights((0.0, 9.0, 0.0, 0.0)))
    side = make_side(stored(probabilities, answers), TASK, targets)
    assert set(side.labels) == {1}
    assert np.array_equal(side.probabilities, apply_temperature(probabilities, 3.0))
