"""Views, temperature and decoder through the whole DAG, in a clone with a small competition."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.data.predictions import load_predictions
from podium.tasks.answers import Answers, load_answers, write_answers
from podium.tasks.decoding import ClassWeights
from podium.trust.contract.verdict import CONTRACT_FILE, load_contract
from tests.competition import copy_clone, edit, error_lines, metrics, run, run_any
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


@pytest.fixture(scope="module")
def averaged(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy after one run with a model per fold and all that is done with answers, and what dvc
    said; what `auto` finds in the images, of 48 px, it finds."""
    clone = copy_clone(plain, tmp_path_factory.mktemp("averaged") / "clone")
    edit(
        clone / "params.yaml",
        {
            "epochs: 2": "epochs: 1",
            "image_size: 32": "image_size: auto",
            "  val_fold: 0": "  val_fold: all",
            "  flip: none": "  flip: auto",
            "  primary: accuracy": "  primary: qwk",
            "  tta: none": "  tta: auto",
            "  calibrate: false": "  calibrate: true",
            "  decoder: argmax": "  decoder: auto",
        },
    )
    return clone, run(clone, "dvc", "repro", "submit")


def test_all_folds_give_out_of_fold_predictions(averaged: tuple[Path, str]) -> None:
    """A model per fold, each judged on its own fold, their mean handed in."""
    clone, said = averaged
    assert stages_of(said) == [
        *("label_shuffle", "features", "train", "evaluate", "compress", "submit")
    ]
    val = pd.read_csv(clone / "predictions/val.csv", dtype={"image_id": str}).set_index("image_id")
    splits = pd.read_csv(clone / "data/splits.csv", dtype={"image_id": str}).set_index("image_id")
    assert val["fold"].to_dict() == splits["fold"].to_dict()
    assert metrics(clone, "evaluate")["n"] == len(splits) == 96
    folds = metrics(clone, "train")["folds"]
    assert [row["fold"] for row in folds] == [0, 1, 2, 3, 4]
    means = [row["val_score"] for row in folds]
    assert metrics(clone, "train")["val_score"] == pytest.approx(sum(means) / 5, abs=1e-5)
    cards = load_cards(clone)
    assert len({card["weights"]["sha256"] for card in cards}) == 5
    size = metrics(clone, "submit")["details"][0]["submission.csv"]["model_mb"]
    assert size == pytest.approx(sum(card["weights"]["bytes"] for card in cards) / 1e6, abs=0.001)
    assert len((clone / "submission.csv").read_text().splitlines()) == 16


def test_all_stages_do_what_auto_finds(averaged: tuple[Path, str]) -> None:
    """The size, the mirrors of training, the views that are averaged."""
    clone, said = averaged
    noted = json.loads((clone / "features/features.json").read_text())
    assert noted["mirrors"]["n_images"] == 96
    assert f"train.flip auto is {noted['flip']}: of 96 images" in said
    assert {card["params"]["train"]["flip"] for card in load_cards(clone)} == {noted["flip"]}
    assert {name.split("-")[1] for name in noted["arrays"]} == {"64"}
    deployed = json.loads((clone / "deploy/card.json").read_text())
    assert deployed["tta"] == noted["flip"]
    assert deployed["preprocessing"]["image_size_px"] == 64
    views = {"none": 1, "horizontal": 2, "both": 4}[noted["flip"]]
    line = f"tta {noted['flip']}: {views} views of each image, {views} times the work"
    assert (line in said) == (views > 1)


def load_cards(clone: Path) -> list[dict[str, Any]]:
    """Those of the five models."""
    return [json.loads((clone / f"models/fold{n}/card.json").read_text()) for n in range(5)]


def test_all_of_it_on_out_of_fold_rows(averaged: tuple[Path, str], tmp_path: Path) -> None:
    clone = copy_clone(averaged[0], tmp_path / "clone")
    found = metrics(clone, "evaluate")
    (calibration,) = found["calibration"]
    assert calibration["log_loss"]["before"] == found["log_loss"]
    assert calibration["ece_before"] == found["ece"]
    assert [row["name"] for row in found["decoder"]] == ["grade_variance", "grade_thresholds"]
    assert all(row["before"] == found["qwk"] for row in found["decoder"])
    answers = load_answers(clone / "predictions/decoder.json")
    assert (answers.temperature != 1) == calibration["adopted"]
    assert (answers.decoder is not None) == any(row["adopted"] for row in found["decoder"])
    ids, probabilities = raw_test(clone)
    labels = [CLASSES[number] for number in answers.apply([probabilities]).argmax(axis=1)]
    assert submitted(clone, "submission.csv") == dict(zip(ids, labels, strict=True))

    # Calibration and decoder are found again without a new training or compression.
    edit(clone / "params.yaml", {"  calibrate: true": "  calibrate: false"})
    assert stages_of(run(clone, "dvc", "repro", "evaluate")) == ["evaluate"]
    assert "calibration" not in metrics(clone, "evaluate")


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
    # Put there by hand, so that no val score of it is known; that of the raw answers is not it.
    contract = load_contract(copy / CONTRACT_FILE)
    assert {facts["val"]["score"] for facts in contract.values()} == {None}


def test_a_student_is_not_decoded_by_what_was_fitted_on_its_parent(copy: Path) -> None:
    write_answers(
        copy / "predictions/decoder.json", Answers(decoder=ClassWeights((0.0, 0.0, 900.0, 0.0)))
    )
    card = json.loads((copy / "deploy/card.json").read_text())
    _, precision, runtime = card["candidate"].split("-")
    card["candidate"] = f"student-{precision}-{runtime}"
    (copy / "deploy/card.json").write_text(json.dumps(card))
    before = submitted(copy, "submission_compressed.csv")
    said = run(copy, sys.executable, "-m", "stages.submit")
    assert "submission_compressed.csv is of another net" in said
    assert set(submitted(copy, "submission.csv").values()) == {"2"}
    assert submitted(copy, "submission_compressed.csv") == before
    val = load_contract(copy / CONTRACT_FILE)["submission_compressed.csv"]["val"]
    assert val["score"] == card["measured"]["accuracy"]


def test_unreadable_images_get_the_prior_whatever_the_temperature(copy: Path) -> None:
    edit(
        copy / "params.yaml",
        {
            "  submission: label": "  submission: probability",
            "  sample_submission: sample_submit.csv": "  sample_submission:",
        },
    )
    manifest = pd.read_csv(copy / "data/manifest.csv", dtype=str, keep_default_na=False)
    row = manifest.index[manifest["source"] == "test"][3]
    manifest.loc[row, "problem"] = "cannot be decoded"
    manifest.to_csv(copy / "data/manifest.csv", index=False)
    write_answers(copy / "predictions/decoder.json", Answers(temperature=0.4))
    run(copy, sys.executable, "-m", "stages.submit")
    raw = pd.read_csv(copy / "predictions/test.csv", dtype={"image_id": str})
    raw = raw.set_index("image_id").loc[manifest["image_id"][row]]
    shares = manifest.loc[manifest["source"] == "train", "label"].value_counts(normalize=True)
    handed_in = pd.read_csv(copy / "submission.csv", dtype={"id": str}).set_index("id")
    handed_in = handed_in.loc[manifest["listed_id"][row]]
    assert handed_in[CLASSES].tolist() == pytest.approx(raw[[f"p_{c}" for c in CLASSES]].tolist())
    assert handed_in[CLASSES].tolist() == pytest.approx(shares[CLASSES].tolist(), abs=1e-5)


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
