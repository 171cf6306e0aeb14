"""Views, temperature and decoder through the whole DAG, in a clone with a small competition."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from podium.data.predictions import load_predictions
from podium.tasks.answers import Answers, load_answers, write_answers
from podium.tasks.decoding import ClassWeights
from tests.competition import edit, error_lines, metrics, run, run_any
from tests.competition import stages_run as stages_of

pytestmark = pytest.mark.dag

CLASSES = ["0", "1", "2", "3"]


def submitted(clone: Path, name: str) -> dict[str, str]:
    """id -> label."""
    rows = pd.read_csv(clone / name, header=None, dtype=str)
    return dict(zip(rows[0], rows[1], strict=True))


def raw_test(clone: Path) -> tuple[list[str], np.ndarray]:
    """The ids that a submission lists, and the raw probabilities."""
    manifest = pd.read_csv(clone / "data/manifest.csv", dtype=str, keep_default_na=False)
    test = manifest[manifest["source"] == "test"]
    path = clone / "predictions/test.csv"
    return test["listed_id"].tolist(), load_predictions(path, test["image_id"].tolist(), CLASSES)


def test_off_is_off(plain: Path) -> None:
    assert load_answers(plain / "predictions/decoder.json") == Answers()
    assert not {"calibration", "decoder"} & set(metrics(plain, "evaluate"))
    ids, probabilities = raw_test(plain)
    plain_labels = [CLASSES[number] for number in probabilities.argmax(axis=1)]
    assert submitted(plain, "submission.csv") == dict(zip(ids, plain_labels, strict=True))


def test_all_of_it_on_out_of_fold_rows(copy: Path) -> None:
    edit(
        copy / "params.yaml",
        {
            "  val_fold: 0": "  val_fold: all",
            "  primary: accuracy": "  primary: qwk",
            "  tta: none": "  tta: horizontal",
            "  calibrate: false": "  calibrate: true",
            "  decoder: argmax": "  decoder: auto",
        },
    )
    said = run(copy, "dvc", "repro", "submit")
    assert "tta horizontal: 2 views of each image, 2 times the work" in said
    found = metrics(copy, "evaluate")
    (calibration,) = found["calibration"]
    assert calibration["log_loss"]["before"] == found["log_loss"]
    assert calibration["ece_before"] == found["ece"]
    assert [row["name"] for row in found["decoder"]] == ["grade_variance", "grade_thresholds"]
    assert all(row["before"] == found["qwk"] for row in found["decoder"])
    answers = load_answers(copy / "predictions/decoder.json")
    assert (answers.temperature != 1) == calibration["adopted"]
    assert (answers.decoder is not None) == any(row["adopted"] for row in found["decoder"])
    assert json.loads((copy / "deploy/card.json").read_text())["tta"] == "horizontal"
    ids, probabilities = raw_test(copy)
    labels = [CLASSES[number] for number in answers.apply(probabilities).argmax(axis=1)]
    assert submitted(copy, "submission.csv") == dict(zip(ids, labels, strict=True))

    # Calibration and decoder are found again without a new training or compression.
    edit(copy / "params.yaml", {"  calibrate: true": "  calibrate: false"})
    assert stages_of(run(copy, "dvc", "repro", "evaluate")) == ["evaluate"]
    assert "calibration" not in metrics(copy, "evaluate")


def test_submit_obeys_the_decoder(copy: Path) -> None:
    raw = (copy / "predictions/test.csv").read_bytes()
    write_answers(
        copy / "predictions/decoder.json", Answers(decoder=ClassWeights((0.0, 0.0, 900.0, 0.0)))
    )
    run(copy, sys.executable, "-m", "stages.submit")
    for name in ("submission.csv", "submission_compressed.csv"):
        assert set(submitted(copy, name).values()) == {"2"}
    assert (copy / "predictions/test.csv").read_bytes() == raw
    assert metrics(copy, "submit")["answers_changed_by_compression"] == 0


def test_submit_obeys_the_temperature(copy: Path) -> None:
    """A submission of probabilities: the raw ones, made less sure."""
    edit(
        copy / "params.yaml",
        {
            "  submission: label": "  submission: probability",
            "  sample_submission: sample_submit.csv": "  sample_submission:",
        },
    )
    write_answers(copy / "predictions/decoder.json", Answers(temperature=2.0))
    run(copy, sys.executable, "-m", "stages.submit")
    ids, probabilities = raw_test(copy)
    rows = pd.read_csv(copy / "submission.csv", dtype={"id": str}).set_index("id")
    expected = np.sqrt(probabilities) / np.sqrt(probabilities).sum(axis=1, keepdims=True)
    assert rows.loc[ids, CLASSES].to_numpy() == pytest.approx(expected)


def test_forbidden_views_stop_before_the_work(copy: Path) -> None:
    edit(
        copy / "params.yaml",
        {"  tta: none": "  tta: dihedral", "    tta: true": "    tta: false"},
    )
    expected = "evaluate.tta: expected none, since competition.rules.tta is false, got dihedral"
    code, said = run_any(copy, sys.executable, "-m", "podium.cli", "run")
    assert code == 2
    assert stages_of(said) == []
    assert [expected in line for line in error_lines(said)] == [True]
    for stage in ("evaluate", "compress", "submit"):
        code, said = run_any(copy, sys.executable, "-m", f"stages.{stage}")
        assert code == 2
        assert [expected in line for line in error_lines(said)] == [True]
