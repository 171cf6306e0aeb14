"""Soft labels: from an organiser's columns to what the net learns from, and what metrics compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.soft_labels import (
    SUM_TOLERANCE,
    find_likeliest,
    find_soft_label_problem,
    format_soft_label,
    parse_soft_label,
)
from podium.engine.scoring import OutOfFold, ValSet
from podium.engine.training import Job, TrainingData, train
from podium.errors import PodiumError, ProblemsError
from podium.files import write_csv
from podium.intake.choice import Choice
from podium.intake.layout import Layout, find_base, recognise_layout
from podium.tasks.calibration import apply_temperature
from podium.tasks.classification.data import ClassificationData
from podium.tasks.classification.net import ClassificationNet
from podium.trust.compare import Side, compare
from stages import evaluate
from tests.test_manifest import Competition
from tests.trainings import recipe, toy_job

SOFT = ["0.9,0.1", "0.25,0.75", "0.5,0.5", "0,1", "1.0,0.0", "0.333,0.667"]
TASK = ClassificationData(("0", "1"), ordinal=False)


@pytest.fixture
def soft(tmp_path: Path) -> Competition:
    """The toy competition, whose training table has a column for each of its two classes."""
    toy = Competition(tmp_path)
    toy.settings |= {"label_column": None, "label_columns": [1, 2]}
    toy.train = [f"a{number}.png,{shares}" for number, shares in enumerate(SOFT)]
    return toy


# --- cells


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["0.5", "0.6"], "probabilities sum to 1.1, expected 1 (within 0.01)"),
        (["0.5", "0.4"], "probabilities sum to 0.9, expected 1 (within 0.01)"),
        (["1.2", "-0.2"], "expected probabilities from 0 to 1, got 1.2"),
        (["-0.2", "1.2"], "expected probabilities from 0 to 1, got -0.2"),
        (["nan", "1"], "expected probabilities from 0 to 1, got nan"),
        (["", "1"], "expected a number in each class's column, got ''"),
        (["high", "1"], "expected a number in each class's column, got 'high'"),
    ],
)
def test_cells_that_are_no_probabilities(cells: list[str], words: str) -> None:
    assert find_soft_label_problem(cells) == words


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda row: sum(row) > 0.01))
def test_shares_survive_the_manifest(weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    cells = [repr(share) for share in shares]
    assert find_soft_label_problem(cells) == ""
    back = parse_soft_label(format_soft_label(cells))
    assert back == pytest.approx(shares)
    assert sum(back) == pytest.approx(1)
    assert shares[find_likeliest(cells)] == max(shares)


def test_rounded_shares_are_scaled_to_one() -> None:
    assert find_soft_label_problem(["0.333"] * 3) == ""
    assert parse_soft_label("0.333 0.333 0.333") == pytest.approx([1 / 3] * 3)
    assert find_soft_label_problem([str(1 - 2 * SUM_TOLERANCE), "0"]) != ""


# --- the manifest


def test_a_row_has_its_likeliest_class_and_its_shares(soft: Competition, tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", soft.assemble().manifest)
    manifest = load_manifest(tmp_path / "m.csv")
    rows = manifest[manifest["source"] == "train"]
    assert rows["label"].tolist() == ["0", "1", "0", "1", "0", "1"]  # of equals the first
    assert rows["soft_label"].iloc[1] == "0.25 0.75"
    assert (manifest.loc[manifest["source"] == "test", "soft_label"] == "").all()
    targets = TASK.training_targets(rows["label"].tolist(), rows["soft_label"].tolist())
    assert targets == pytest.approx(np.array([[float(c) for c in s.split(",")] for s in SOFT]))
    assert np.array_equal(targets.argmax(axis=1), TASK.targets(rows["label"].tolist()))


def test_the_order_is_that_of_the_classes(soft: Competition) -> None:
    soft.settings["label_columns"] = [2, 1]
    manifest = soft.assemble().manifest
    assert manifest["label"].tolist()[:2] == ["1", "0"]
    assert manifest["soft_label"].iloc[0] == "0.1 0.9"


def test_bad_rows_are_named_with_file_and_line(soft: Competition) -> None:
    soft.train[1] = "a1.png,0.5,0.6"
    soft.train[3] = "a3.png,2,-1"
    soft.train += ["a4.png,0.4,0.6"]
    assert soft.problems() == [
        "data/raw/train.csv, line 2: 'a1.png': probabilities sum to 1.1, expected 1 (within 0.01)",
        "data/raw/train.csv, line 4: 'a3.png': expected probabilities from 0 to 1, got 2",
        "data/raw/train.csv, line 5: id 'a4.png' has several labels",
        "data/raw/train.csv, line 7: id 'a4.png' is already on line 5 with another label "
        "('1.0 0.0', '0.4 0.6')",
    ]
    kept = soft.assemble("drop").manifest
    assert (kept["source"] == "train").sum() == 3


def test_a_missing_column_is_named(soft: Competition) -> None:
    soft.settings["label_columns"] = [1, 3]
    with pytest.raises(PodiumError, match=r"no column 3.*mend competition\.label_columns"):
        soft.assemble()


def test_hard_labels_have_no_shares(tmp_path: Path) -> None:
    manifest = Competition(tmp_path).assemble().manifest
    assert (manifest["soft_label"] == "").all()
    labels = manifest.loc[manifest["source"] == "train", "label"].tolist()
    assert TASK.training_targets(labels, [""] * len(labels)).dtype == np.int64


def test_shares_of_other_classes_are_refused() -> None:
    with pytest.raises(PodiumError, match=r"expected 2 numbers in each soft_label.*`dvc repro`"):
        TASK.training_targets(["0", "1"], ["0.5 0.5", "0.2 0.3 0.5"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_column": 1}, "label_column empty where label_columns are given, got 1"),
        ({"label_columns": [1]}, "one of competition.label_columns for each"),
        ({"label_columns": [1, 1]}, "one of competition.label_columns for each"),
        ({"label_columns": ["a", "b"]}, "label_columns to be a column's number from 0"),
        ({"train_csv": None}, "no competition.label_columns without a train_csv"),
        ({"label_columns": []}, "label_column to be a column's number from 0"),
    ],
)
def test_columns_that_cannot_be(soft: Competition, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        CompetitionParams.model_validate({**soft.settings, **changes})


def test_columns_headed_as_the_classes_go_to_no_other_class(soft: Competition) -> None:
    """Who puts grades from low to high moves `classes`, and may miss the list of columns."""
    soft.settings |= {"csv_header": True, "id_column": "id", "classes": ["low", "mid", "high"]}
    rows = ["0.1,0.7,0.2", "0.1,0.2,0.7"] * 3
    soft.train = ["id,low,high,mid", *(f"a{number}.png,{row}" for number, row in enumerate(rows))]
    soft.settings["label_columns"] = ["low", "high", "mid"]
    words = (
        r"competition\.label_columns in the order of competition\.classes, got column 'high' for "
        "class 'mid': bring both lists into one order"
    )
    with pytest.raises(ValueError, match=words):
        soft.assemble()
    soft.settings["label_columns"] = ["low", "mid", "high"]
    train = soft.assemble().manifest.iloc[0]
    assert (train["label"], train["soft_label"]) == ("high", "0.1 0.2 0.7")
    # Other names say nothing about the order.
    soft.settings |= {"label_columns": ["low", "high", "mid"], "classes": ["0", "1", "2"]}
    assert soft.assemble().manifest["label"].iloc[0] == "1"


# --- podium init

TREE = {f"train/{k}.jpg": "" for k in range(4)} | {"test/9.jpg": ""}
SAMPLE = "id,dog,cat\n9,0.5,0.5\n"
ROWS = "0,A,0.9,0.1\n1,A,0.2,0.8\n2,B,1,0\n3,B,0.6,0.4\n"


@pytest.fixture
def recognise(tmp_path: Path) -> Callable[..., Layout]:
    def make(tables: dict[str, str], **choice: str) -> Layout:
        for name, content in {**TREE, **tables}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return recognise_layout(find_base(tmp_path), "pets", "data/raw", Choice(**choice))

    return make


def test_columns_headed_as_the_samples(recognise: Callable[..., Layout]) -> None:
    layout = recognise({"train.csv": f"id,farm,cat,dog\n{ROWS}", "sample.csv": SAMPLE})
    found = layout.params
    assert (found.label_column, found.label_columns) == (None, ("cat", "dog"))
    assert (found.classes, found.submission) == (("cat", "dog"), "probability")
    assert "2 classes: cat (3 images), dog (1 images)" in layout.lines
    assert any("probabilities of the classes in columns headed by them" in x for x in layout.lines)
    assert any("more columns in train.csv: 'farm'" in line for line in layout.lines)


def test_all_columns_sum_to_one(recognise: Callable[..., Layout]) -> None:
    rows = ROWS.replace(",A,", ",").replace(",B,", ",").replace("0.9", "0.8")
    found = recognise({"train.csv": f"id,cat,dog\n{rows}"}).params
    assert (found.label_columns, found.classes) == (("cat", "dog"), ("cat", "dog"))


def test_all_numbers_sum_to_one(recognise: Callable[..., Layout]) -> None:
    """Without a sample: `farm` is no label, though it repeats. Flags beside a `label` are none."""
    found = recognise({"train.csv": f"id,farm,cat,dog\n{ROWS}"}).params
    assert (found.label_column, found.label_columns) == (None, ("cat", "dog"))
    flags = recognise({"train.csv": "id,label,old,new\n0,A,1,0\n1,A,0,1\n2,B,1,0\n3,B,0,1\n"})
    assert (flags.params.label_column, flags.params.label_columns) == ("label", ())


def test_a_chosen_label_column_is_taken(recognise: Callable[..., Layout]) -> None:
    tables = {"train.csv": f"id,farm,cat,dog\n{ROWS}", "sample.csv": "id,farm\n9,A\n"}
    found = recognise(tables, label_column="farm").params
    assert (found.label_column, found.label_columns, found.classes) == ("farm", (), ("A", "B"))


def test_numbers_that_are_no_shares_are_no_labels(recognise: Callable[..., Layout]) -> None:
    rows = "0,5.1,3\n1,4.9,2\n2,4.7,7\n3,1.1,9\n"
    with pytest.raises(ProblemsError, match="could be the label; choose by --label-column"):
        recognise({"train.csv": f"id,length,width\n{rows}"})


# --- learning


def test_a_net_learns_the_shares_and_is_judged_by_the_likeliest_class() -> None:
    """Of images that all look alike it learns how often each class is meant."""
    toy = toy_job(recipe(epochs=60, optimizer="adam", lr=0.1, schedule="cosine"), dropout=0.0)
    task = ClassificationData(("a", "b", "c"), ordinal=False)
    n = len(toy.data.targets)
    shares = task.training_targets(["b"] * n, ["0.2 0.7 0.1"] * n)
    toy.build(toy.plan[0]).source.plain[:] = 0  # type: ignore[attr-defined]
    data = TrainingData(
        toy.data.image_ids,
        shares,
        toy.data.train_rows,
        toy.data.val_rows,
        lambda outputs, targets: task.score(task.predictions(outputs), targets),
    )
    net = ClassificationNet(3, 0.0)
    trained = train(Job(toy.build, toy.plan, net, data, toy.recipe, toy.metric), lambda row: None)
    assert trained.score == 1.0
    entropy = -sum(p * np.log(p) for p in (0.2, 0.7, 0.1))
    assert trained.curve[-1].val_loss == pytest.approx(entropy, rel=1e-3)


def test_metrics_take_shares_as_their_likeliest_class() -> None:
    task = ClassificationData(("a", "b", "c"), ordinal=True, primary_metric="qwk")
    rng = np.random.default_rng(0)
    predictions, shares = rng.dirichlet(np.ones(3), 50), rng.dirichlet(np.ones(3), 50)
    assert task.score(predictions, shares) == task.score(predictions, shares.argmax(axis=1))


def test_log_loss_is_against_the_shares_and_the_rest_against_the_likeliest_class() -> None:
    task = ClassificationData(("a", "b", "c"), ordinal=True, primary_metric="log_loss")
    rng = np.random.default_rng(0)
    predictions, shares = rng.dirichlet(np.ones(3), 80), rng.dirichlet(np.ones(3), 80)
    expected = -(shares * np.log(predictions)).sum(axis=1).mean()
    assert task.score(predictions, shares) == pytest.approx(expected)
    groups = [str(row) for row in range(80)]
    found = task.metrics(predictions, shares, groups, 0)
    by_class = task.metrics(predictions, shares.argmax(axis=1), groups, 0)
    assert found["log_loss"] == pytest.approx(expected, abs=1e-6)
    assert found["log_loss_low"] < expected < found["log_loss_high"]
    differ = {key for key in found if found[key] != by_class[key]}
    assert differ == {"log_loss", "log_loss_low", "log_loss_high"}
    plots = task.plots(predictions, shares)
    for name, frame in task.plots(predictions, shares.argmax(axis=1)).items():
        assert frame.equals(plots[name])


def test_the_best_log_loss_is_that_of_the_shares_themselves() -> None:
    """Of all answers; against the likeliest class it was that of a net as sure as can be."""
    task = ClassificationData(("a", "b", "c"), ordinal=False, primary_metric="log_loss")
    shares = np.random.default_rng(1).dirichlet(np.ones(3), 40)
    surer = apply_temperature(shares, 0.5)
    assert task.score(shares, shares) < task.score(surer, shares)
    sides = [Side(values, values.argmax(axis=1)) for values in (surer, shares)]
    groups = [str(row) for row in range(40)]
    found = compare(task, *sides, shares, groups, draws=200, seed=0)
    assert found.primary.difference < 0
    assert (len(found.mended), len(found.broken), len(found.moved)) == (0, 0, 0)


def test_the_evaluate_stage_reads_the_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = (Path(__file__).resolve().parents[1] / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(4), 12)
    ids = [f"{row:02d}" for row in range(12)]
    train = pd.DataFrame(
        {
            "image_id": ids,
            "label": [str(number) for number in shares.argmax(axis=1)],
            "soft_label": [" ".join(map(repr, row)) for row in shares.tolist()],
            "group_id": ids,
        }
    )
    found = OutOfFold(ValSet(train, np.arange(12)), [0] * 12, rng.dirichlet(np.ones(4), 12))
    monkeypatch.setattr(evaluate, "load_manifest", lambda path: train)
    monkeypatch.setattr(evaluate, "load_splits", lambda path: None)
    monkeypatch.setattr(evaluate, "settle_tta", lambda *given: "none")
    monkeypatch.setattr(evaluate, "predict_out_of_fold", lambda *given: found)
    evaluate.main()
    said = json.loads((tmp_path / "metrics/evaluate.json").read_text(encoding="utf-8"))
    expected = -(shares * np.log(found.probabilities)).sum(axis=1).mean()
    assert said["log_loss"] == pytest.approx(expected, abs=1e-6)


def test_the_loss_takes_the_targets_as_they_come() -> None:
    targets = TASK.training_targets(["0", "1"], ["0.9 0.1", "0.25 0.75"])
    logits = np.array([[1.0, -1.0], [0.5, 0.0]], np.float32)
    loss = ClassificationNet(2, 0.0).loss(paddle.to_tensor(logits), paddle.to_tensor(targets))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert float(loss) == pytest.approx(-(targets * log_p).sum(axis=1).mean(), rel=1e-5)
