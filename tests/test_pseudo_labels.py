"""A second round with confident test images: which are taken, what stays out, and kills in it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from podium.data.rules import check_pseudo_labels
from podium.engine import pseudo_labels
from podium.engine.fit import FitJob, Fitted, TrainingInputs
from podium.engine.processes import Alone
from podium.engine.pseudo_labels import (
    PseudoLabels,
    add_rows,
    choose_confident,
    find_val_copies,
    fit_rounds,
)
from podium.engine.runs import Run
from podium.engine.training import Trained
from podium.errors import PodiumError
from podium.models.params import ModelParams
from podium.tasks.classification.net import ClassificationNet
from tests.competition import (
    copy_clone,
    edit,
    error_lines,
    metrics,
    run,
    run_any,
    running,
)
from tests.trainings import TASK, params, recipe

CLASSES = ("a", "b", "c")


def test_the_mean_decides_and_the_folds_agreement_is_counted() -> None:
    one = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]])
    two = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4], [0.0, 1.0, 0.0]])
    chosen = choose_confident([one, two], ["w", "x", "y", "z"], CLASSES, 0.7)
    assert chosen.image_ids == ["w", "x", "z"]  # means 0.8, 0.7, 0.5, 0.75
    assert chosen.labels == ["a", "a", "b"]
    assert chosen.test_images == 4
    assert chosen.folds_agree == pytest.approx(1 / 3)  # x: b and a; z: a (of equals) and b
    none = choose_confident([one, two], ["w", "x", "y", "z"], CLASSES, 0.9)
    assert none == PseudoLabels([], [], 4, None)


def test_taken_images_are_learned_from_and_never_judged_by() -> None:
    manifest = pd.DataFrame(
        {
            "image_id": ["t1", "t2", "x1", "x2"],
            "label": ["a", "b", "", ""],
            "soft_label": ["", "", "", ""],
            "source": ["train", "train", "test", "test"],
        }
    )
    splits = pd.DataFrame({"image_id": ["t1", "t2"], "fold": [0, 1]})
    inputs = TrainingInputs(manifest, splits, {0: ["t2", "t2"], 1: ["t1"]}, Path("features"))
    more = add_rows(inputs, PseudoLabels(["x2"], ["b"], 2, 1.0), {0: [], 1: []}, CLASSES)
    assert more.train_lists == {0: ["t2", "t2", "x2"], 1: ["t1", "x2"]}
    assert more.splits is splits  # what is judged by stays
    assert more.manifest["source"].tolist() == ["train", "train", "test", "train"]
    assert more.manifest["label"].tolist() == ["a", "b", "", "b"]
    assert more.manifest["soft_label"].tolist() == ["", "", "", ""]
    assert manifest["source"].tolist() == ["train", "train", "test", "test"]


def test_a_copy_of_a_val_image_is_not_learned_from_where_that_image_judges() -> None:
    manifest = pd.DataFrame(
        {
            "image_id": ["t1", "t2", "x1", "x2", "x3"],
            "pixel_hash": ["one", "two", "two", "one", "other"],
            "label": ["a", "b", "", "", ""],
            "soft_label": ["", "", "", "", ""],
            "source": ["train", "train", "test", "test", "test"],
        }
    )
    splits = pd.DataFrame({"image_id": ["t1", "t2"], "fold": [0, 1]})
    inputs = TrainingInputs(manifest, splits, {0: ["t2"], 1: ["t1"]}, Path("features"))
    chosen = PseudoLabels(["x1", "x2", "x3"], ["b", "a", "a"], 3, 1.0)
    copies = find_val_copies(inputs, chosen.image_ids)
    assert copies == {0: ["x2"], 1: ["x1"]}
    more = add_rows(inputs, chosen, copies, CLASSES)
    assert more.train_lists == {0: ["t2", "x1", "x3"], 1: ["t1", "x2", "x3"]}


def test_round_two_learns_from_no_copy_of_a_val_image_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pd.DataFrame(
        {
            "image_id": ["t1", "t2", "x1", "x2"],
            "pixel_hash": ["one", "two", "one", "other"],
            "label": ["a", "b", "", ""],
            "soft_label": "",
            "source": ["train", "train", "test", "test"],
            "problem": "",
        }
    )
    splits = pd.DataFrame({"image_id": ["t1", "t2"], "fold": [0, 1]})
    inputs = TrainingInputs(manifest, splits, {0: ["t2"]}, Path("features"))
    model = ModelParams(
        name="resnet18",
        pretrained=False,
        weights=None,
        allow_download=False,
        freeze="none",
        top_layers=6,
        dropout=0.0,
    )
    how = recipe(pseudo_threshold=0.9)
    job = FitJob(inputs, model, how, 32, TASK, ClassificationNet(3, 0.0))
    taught = []

    def fit_folds(job: FitJob, run: Any) -> dict[int, Fitted]:
        taught.append(job.inputs.train_lists)
        return {0: Fitted({}, {}, Trained({}, 1, 0.5, []))}

    sure = np.tile([[0.95, 0.05, 0.0]], (2, 1))
    monkeypatch.setattr(pseudo_labels, "fit_folds", fit_folds)
    monkeypatch.setattr(pseudo_labels, "_predict_test", lambda *given: [sure])
    run = SimpleNamespace(group=Alone(), next_round=lambda: None)
    _, report = fit_rounds(job, cast(Run, run))
    assert taught == [{0: ["t2"]}, {0: ["t2", "x2"]}]
    assert report["pseudo_labels"][0]["taken"] == 2
    assert report["pseudo_labels"][0]["left_out_as_val"] == {"0": 1}
    assert "fold 0: 1 of these are pixel-identical to val images" in capsys.readouterr().out


def test_beside_soft_labels_a_taken_images_label_is_certain() -> None:
    manifest = pd.DataFrame(
        {
            "image_id": ["t1", "x1"],
            "label": ["a", ""],
            "soft_label": ["0.5 0.25 0.25", ""],
            "source": ["train", "test"],
        }
    )
    splits = pd.DataFrame({"image_id": ["t1"], "fold": [0]})
    inputs = TrainingInputs(manifest, splits, {0: []}, Path("features"))
    more = add_rows(inputs, PseudoLabels(["x1"], ["b"], 1, 1.0), {0: []}, CLASSES)
    assert more.manifest["soft_label"].tolist() == ["0.5 0.25 0.25", "0.0 1.0 0.0"]


def test_forbidden_pseudo_labels_are_refused_in_one_line() -> None:
    with pytest.raises(PodiumError) as caught:
        check_pseudo_labels(0.9, is_allowed=False)
    said = str(caught.value)
    assert "\n" not in said
    assert "competition.rules.pseudo_labels is false, got 0.9" in said
    check_pseudo_labels(0, is_allowed=False)
    check_pseudo_labels(0.9, is_allowed=True)


@pytest.mark.parametrize("threshold", [0.3, -1, 1.01])
def test_a_threshold_without_sense_is_refused(threshold: float) -> None:
    assert params(pseudo_threshold=0.5).pseudo_threshold == 0.5
    with pytest.raises(ValidationError):
        params(pseudo_threshold=threshold)


# --- through dvc

TWO_ROUNDS = {
    "epochs: 2 ": "epochs: 8 ",
    "batch_size: 32 ": "batch_size: 16 ",
    "  freeze: all": "  freeze: none",
    "  pseudo_threshold: 0 ": "  pseudo_threshold: 0.5 ",
    "  checkpoint_every: 0": "  checkpoint_every: 2",
}


@pytest.fixture(scope="module")
def prepared(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds wanted, not trained yet."""
    clone = copy_clone(plain, tmp_path_factory.mktemp("pseudo") / "prepared")
    edit(clone / "params.yaml", TWO_ROUNDS)
    shutil.rmtree(clone / ".podium/checkpoints")  # of the plain run
    return clone


@pytest.fixture(scope="module")
def finished(prepared: Path) -> tuple[Path, str]:
    """After an undisturbed training, and what it said."""
    clone = copy_clone(prepared, prepared.parent / "finished")
    return clone, run(clone, "dvc", "repro", "train")


def outputs(clone: Path) -> dict[str, bytes]:
    files = [*(clone / "models").rglob("*.*"), clone / "metrics/train.json"]
    return {str(path.relative_to(clone)): path.read_bytes() for path in files if path.is_file()}


@pytest.mark.dag
def test_two_rounds_in_one_repro(finished: tuple[Path, str]) -> None:
    clone, said = finished
    (report,) = metrics(clone, "train")["pseudo_labels"]
    assert report["test_images"] == 16
    assert 0 < report["taken"] == sum(report["taken_per_class"].values()) <= 16
    assert report["left_out_as_val"] == {"0": 0}
    assert report["folds_agree"] == 1  # of one fold
    assert 0 <= report["rounds_agree"] <= 1
    line = f"round 1 is sure (>= 0.5) of {report['taken']} of 16 test images"
    assert said.count(line) == 1
    assert said.count("epoch 8/8:") == 2
    card = json.loads((clone / "models/fold0/card.json").read_text())
    assert card["params"]["train"]["pseudo_threshold"] == 0.5
    assert "up to date" in run(clone, "dvc", "repro", "train")


@pytest.mark.slow
@pytest.mark.dag
@pytest.mark.parametrize("place", ["fold0", "fold0-round2"])
def test_a_kill_in_either_round_changes_no_byte(
    prepared: Path, finished: tuple[Path, str], tmp_path: Path, place: str
) -> None:
    clone = copy_clone(prepared, tmp_path / "clone")
    with running(clone, "dvc", "repro", "train"):
        deadline = time.monotonic() + 200
        while not list((clone / ".podium/checkpoints").glob(f"*/{place}/checkpoint")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not list((clone / ".podium/checkpoints").glob("*/written"))
    said = run(clone, "dvc", "repro", "train")
    assert "the last run of this training was killed" in said
    assert "going on after" in said
    assert outputs(clone) == outputs(finished[0])


@pytest.mark.dag
def test_what_cannot_be_is_one_line(prepared: Path, tmp_path: Path) -> None:
    clone = copy_clone(prepared, tmp_path / "clone")
    edit(clone / "params.yaml", {"  freeze: none": "  freeze: trunk"})
    code, said = run_any(clone, sys.executable, "-m", "stages.train")
    assert code == 2
    (line,) = error_lines(said)
    assert "expected 0 while a part of the net is frozen (model.freeze trunk)" in line
    edit(clone / "params.yaml", {"    pseudo_labels: true": "    pseudo_labels: false"})
    code, said = run_any(clone, sys.executable, "-m", "stages.train")
    assert code == 2
    (line,) = error_lines(said)
    assert "expected 0, since competition.rules.pseudo_labels is false" in line
