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


def test_each_folds_own_model_decides_and_the_folds_agreement_is_counted() -> None:
    one = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]])
    two = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4], [0.0, 1.0, 0.0]])
    first, second = choose_confident([one, two], ["w", "x", "y", "z"], CLASSES, 0.7)
    assert first == PseudoLabels(["w", "x"], ["a", "b"], 4, 1 / 2)  # x: b and a
    assert second.image_ids == ["w", "x", "z"]
    assert second.labels == ["a", "a", "b"]
    assert second.folds_agree == pytest.approx(1 / 3)  # z: a (of equals) and b
    none, _ = choose_confident([one, two], ["w", "x", "y", "z"], CLASSES, 0.95)
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
    more = add_rows(inputs, 0, PseudoLabels(["x2"], ["b"], 2, 1.0), [], CLASSES)
    assert more.train_lists == {0: ["t2", "t2", "x2"]}
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
    for fold, copy, taught in (0, "x2", ["t2", "x1", "x3"]), (1, "x1", ["t1", "x2", "x3"]):
        copies = find_val_copies(inputs, fold, chosen.image_ids)
        assert copies == [copy]
        more = add_rows(inputs, fold, chosen, copies, CLASSES)
        assert more.train_lists == {fold: taught}
        assert more.manifest.set_index("image_id").loc[copy, "source"] == "test"


def two_rounds(
    monkeypatch: pytest.MonkeyPatch, folds: dict[int, Any], group: Any = None
) -> tuple[list[TrainingInputs], dict[int, Fitted], list[dict[str, Any]]]:
    """What trainings were given, the models and the report, without a training.

    Args:
        folds: for each fold that is held out, what its first model says of x1 and x2, (2, 3). x1
            shows the same picture as t1, which fold 0 holds.
        group: the ranks.
    """
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
    lists = {fold: [["t2"], ["t1"], ["t1", "t2"]][fold] for fold in folds}
    inputs = TrainingInputs(manifest, splits, lists, Path("features"))
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
    taught: list[TrainingInputs] = []

    def fit_folds(job: FitJob, run: Any) -> dict[int, Fitted]:
        taught.append(job.inputs)
        trained = Trained({}, 1, 0.5, [])
        cards = {fold: {"fold": fold, "round": run.number} for fold in job.inputs.train_lists}
        return {fold: Fitted({}, card, trained) for fold, card in cards.items()}

    def predict(fitted: Fitted, *given: Any) -> Any:
        return np.array(folds[fitted.card["fold"]])

    monkeypatch.setattr(pseudo_labels, "fit_folds", fit_folds)
    monkeypatch.setattr(pseudo_labels, "_predict_test", predict)
    later = SimpleNamespace(number=2)
    run = SimpleNamespace(group=group or Alone(), number=1, next_round=lambda: later)
    fitted, report = fit_rounds(job, cast(Run, run))
    return taught, fitted, report["pseudo_labels"]


A, B, UNSURE = [0.95, 0.05, 0.0], [0.04, 0.96, 0.0], [0.5, 0.3, 0.2]


def test_round_two_learns_from_no_copy_of_a_val_image_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taught, _, (report,) = two_rounds(monkeypatch, {0: [A, A]})
    assert [one.train_lists for one in taught] == [{0: ["t2"]}, {0: ["t2", "x2"]}]
    assert report["taken"] == 2
    assert report["left_out_as_val"] == 1
    assert "folds_agree" not in report  # of one fold
    assert "fold 0: 1 of these are pixel-identical to val images" in capsys.readouterr().out


def test_no_fold_learns_what_another_folds_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    taught, fitted, reports = two_rounds(monkeypatch, {0: [B, A], 1: [A, B], 2: [A, UNSURE]})
    lists = [one.train_lists for one in taught[1:]]
    assert lists == [{0: ["t2", "x2"]}, {1: ["t1", "x1", "x2"]}, {2: ["t1", "t2", "x1"]}]
    labels = [one.manifest["label"].tolist()[2:] for one in taught[1:]]
    assert labels == [["", "a"], ["a", "b"], ["a", ""]]
    assert [one.card["round"] for one in fitted.values()] == [2, 2, 2]
    assert list(fitted) == [report["fold"] for report in reports] == [0, 1, 2]
    assert [report["folds_agree"] for report in reports] == [0, 0, 0]
    assert [report["taken_per_class"] for report in reports] == [
        {"a": 1, "b": 1, "c": 0},
        {"a": 1, "b": 1, "c": 0},
        {"a": 1, "b": 0, "c": 0},
    ]


def test_a_fold_without_test_images_to_learn_from_keeps_its_first_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = {0: [A, UNSURE], 1: [UNSURE, A], 2: [UNSURE, UNSURE]}  # fold 0: only a val image's copy
    taught, fitted, reports = two_rounds(monkeypatch, folds)
    assert [one.train_lists for one in taught[1:]] == [{1: ["t1", "x2"]}]
    assert {fold: one.card["round"] for fold, one in fitted.items()} == {0: 1, 1: 2, 2: 1}
    assert [report["taken"] for report in reports] == [1, 1, 0]
    assert [report["rounds_agree"] for report in reports] == [None, 1, None]
    assert [report["folds_agree"] for report in reports] == [1, 1, None]
    said = capsys.readouterr().out
    assert "fold 0: round 1 is sure (>= 0.9) of 1 of 2 test images: no second round" in said
    assert "fold 1: round 1 is sure (>= 0.9) of 1 of 2 test images: a second round" in said
    assert "fold 2: round 1 is sure (>= 0.9) of 0 of 2 test images: no second round" in said


def test_another_rank_learns_what_rank_0_chose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handed = []

    def note(content: bytes) -> bytes:
        handed.append(content)
        return content

    speaker = SimpleNamespace(rank=0, broadcast=note)
    there = two_rounds(monkeypatch, {0: [B, A], 1: [A, B]}, speaker)[0]
    capsys.readouterr()
    follower = SimpleNamespace(rank=1, broadcast=lambda content: handed[0])
    here = two_rounds(monkeypatch, {0: [], 1: []}, follower)[0]
    assert len(handed) == 1
    assert [one.train_lists for one in here] == [one.train_lists for one in there]
    for mine, theirs in zip(here, there, strict=True):
        pd.testing.assert_frame_equal(mine.manifest, theirs.manifest)
    assert capsys.readouterr().out == ""


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
    more = add_rows(inputs, 0, PseudoLabels(["x1"], ["b"], 1, 1.0), [], CLASSES)
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
    assert report["left_out_as_val"] == 0
    assert "folds_agree" not in report  # of one fold
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
