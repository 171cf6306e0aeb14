"""Test images: the mean of the models, what is submitted of it, and what cannot be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from podium.engine import scoring
from podium.engine.scoring import predict_test
from podium.tasks.answers import Answers
from podium.tasks.calibration import apply_temperature
from podium.tasks.table import make_data_task

MANIFEST = pd.DataFrame(
    [
        ("train", "a", "0.7 0.3", ""),
        ("train", "b", "0.1 0.9", ""),
        ("test", "", "", ""),
        ("test", "", "", "truncated"),
        ("test", "", "", ""),
    ],
    columns=["source", "label", "soft_label", "problem"],
)
OUTPUTS = [np.array([[3.0, 0], [0, 1]], np.float32), np.array([[0, 2], [0, 5.0]], np.float32)]


@pytest.mark.parametrize(
    ("submission", "prior"), [("probability", [0.4, 0.6]), ("label", [0.5, 0.5])]
)
def test_raw_and_submitted_probabilities(
    submission: str, prior: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_images", lambda rows, size_px, label: np.zeros(len(rows)))
    task = make_data_task(
        "classification", classes=("a", "b"), ordinal=False, submission=submission
    )
    found = predict_test(MANIFEST, 32, lambda _: OUTPUTS, task, Answers(temperature=2.0))
    each = [task.predictions(outputs) for outputs in OUTPUTS]
    submitted = np.mean([apply_temperature(one, 2.0) for one in each], axis=0)
    assert np.array_equal(found.raw[[0, 2]], np.mean(each, axis=0))
    assert np.array_equal(found.submitted[[0, 2]], submitted)
    assert not np.allclose(submitted, apply_temperature(np.mean(each, axis=0), 2.0))
    assert found.raw[1] == pytest.approx(prior)
    assert found.submitted[1] == pytest.approx(prior)


def test_no_readable_test_image() -> None:
    task = make_data_task("classification", classes=("a", "b"), ordinal=False)
    manifest = MANIFEST.assign(problem="gone")
    found = predict_test(manifest, 32, lambda _: pytest.fail("nothing to run"), task, Answers(2.0))
    assert found.submitted.tolist() == [[0.5, 0.5]] * 3
