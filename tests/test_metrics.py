"""Metrics of classification against sklearn, scipy and values worked out by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from podium.data.params import LOWER_IS_BETTER
from podium.errors import PodiumError
from podium.params import Params
from podium.tasks.classification import metrics as measure
from podium.tasks.classification.data import ClassificationData
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.protocol import DataTask

K = 4


def make_predictions(n: int = 300, seed: int = 0) -> tuple[np.ndarray[Any, Any], Any]:
    """Probabilities that are right about two times in three, and targets."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, K, n)
    logits = draw.normal(size=(n, K)) + 1.8 * np.eye(K)[targets]
    values = np.exp(logits)
    return values / values.sum(axis=1, keepdims=True), targets


@pytest.fixture(scope="module")
def predictions() -> Any:
    return make_predictions()


def make_task(**changes: Any) -> ClassificationData:
    fields: dict[str, Any] = {
        "classes": ("0", "1", "2", "3"),
        "ordinal": True,
        "submission": "label",
    }
    return ClassificationData(**{**fields, **changes})


def test_equal_to_sklearn(predictions: Any) -> None:
    from sklearn import metrics as reference

    values, targets = predictions
    guess = values.argmax(axis=1)
    found = make_task(bootstrap_draws=100).metrics(values, targets, [str(i) for i in targets], 0)
    close = {
        "accuracy": reference.accuracy_score(targets, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, guess),
        "macro_f1": reference.f1_score(targets, guess, average="macro"),
        "log_loss": reference.log_loss(targets, values),
        "qwk": reference.cohen_kappa_score(targets, guess, weights="quadratic"),
    }
    for name, value in close.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    precision, recall, f1, support = reference.precision_recall_fscore_support(targets, guess)
    for c, row in enumerate(found["per_class"]):
        assert row["label"] == str(c)
        assert row["precision"] == pytest.approx(precision[c], abs=1e-6)
        assert row["recall"] == pytest.approx(recall[c], abs=1e-6)
        assert row["f1"] == pytest.approx(f1[c], abs=1e-6)
        assert row["support"] == support[c]


def test_accuracy_interval_is_exact() -> None:
    from scipy.stats import beta

    low, high = measure.accuracy_interval(216, 220)
    assert low == pytest.approx(beta.ppf(0.025, 216, 5))
    assert high == pytest.approx(beta.ppf(0.975, 217, 4))
    assert measure.accuracy_interval(10, 10)[1] == 1
    assert measure.accuracy_interval(10, 10)[0] == pytest.approx(0.025**0.1)
    assert measure.accuracy_interval(0, 10)[0] == 0


def test_accuracy_interval_knows_groups() -> None:
    right = np.random.default_rng(0).random(100) < 0.8
    hits = int(right.sum())
    alone = measure.grouped_accuracy_interval(right, [str(row) for row in range(100)])
    assert alone == measure.accuracy_interval(hits, 100)
    # Ten copies of each row are worth no more than the row; the t quantiles differ by 1 % there.
    copies = [str(row // 10) for row in range(1000)]
    together = measure.grouped_accuracy_interval(right.repeat(10), copies)
    assert together == pytest.approx(alone, abs=0.003)
    # Rows that happen to share a group are worth nearly as much as single ones, never more.
    mixed = measure.grouped_accuracy_interval(right, [str(row % 50) for row in range(100)])
    assert 1 <= (mixed[1] - mixed[0]) / (alone[1] - alone[0]) < 1.25
    # Five groups without an error: one group more or less could have had one.
    few = measure.grouped_accuracy_interval(
        np.full(200, True), [str(row % 5) for row in range(200)]
    )
    assert few[1] == 1 > measure.accuracy_interval(200, 200)[0] > few[0] > 0.9
    assert measure.grouped_accuracy_interval(right, ["one"] * 100) == pytest.approx(
        measure.accuracy_interval(hits / 100, 1)
    )


@pytest.mark.parametrize("accuracy", [0.7, 0.95])
def test_grouped_interval_covers(accuracy: float) -> None:
    """Forty groups of eight, each with its own accuracy: 95 % of the intervals hold their mean."""
    draw = np.random.default_rng(0)
    groups = [str(row // 8) for row in range(320)]
    covered = {"by group": 0, "by row": 0}
    for _ in range(400):
        own = draw.beta(2 * accuracy, 2 * (1 - accuracy), 40)
        right = draw.random(320) < own.repeat(8)
        low, high = measure.grouped_accuracy_interval(right, groups)
        covered["by group"] += low <= accuracy <= high
        low, high = measure.accuracy_interval(int(right.sum()), 320)
        covered["by row"] += low <= accuracy <= high
    assert covered["by group"] >= 0.91 * 400 > 0.85 * 400 > covered["by row"]


def test_calibration_by_hand() -> None:
    # Top probabilities 0.9 (right), 0.9 (wrong), 0.6 (right), and one on a bin's edge: 10 / 15.
    values = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1 / 3, 10 / 15]])
    bins = measure.reliability(np.array([0, 1, 1, 1]), values)
    assert bins["count"].tolist() == [1, 1, 2]
    assert bins["bin_high"].tolist() == pytest.approx([9 / 15, 10 / 15, 14 / 15])
    assert bins["accuracy"].tolist() == [1, 1, 0.5]
    expected = (1 * 0.4 + 1 * (1 / 3) + 2 * 0.4) / 4
    assert measure.calibration_error(bins) == pytest.approx(expected)
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert measure.calibration_error(measure.reliability(np.array([0, 0]), sure)) == 0


def test_kappa_by_hand() -> None:
    # Cohen 1968's formula: two classes, unweighted and quadratic kappa are the same: 0.4.
    assert measure.weighted_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert measure.weighted_kappa(np.eye(3, dtype=np.int64)) == 1
    assert measure.weighted_kappa(np.array([[5, 0], [0, 0]])) is None


def test_kappa_interval_equals_a_plain_bootstrap(predictions: Any) -> None:
    from sklearn.metrics import cohen_kappa_score

    values, targets = predictions
    guess = values.argmax(axis=1)
    groups = [f"g{number // 3}" for number in range(len(targets))]
    low, high = measure.weighted_kappa_interval(targets, guess, groups, K, 2000, 0) or (0, 0)
    draw = np.random.default_rng(1)
    members = [np.flatnonzero(np.array(groups) == name) for name in sorted(set(groups))]
    kappas = []
    for _ in range(300):
        rows = np.concatenate([members[g] for g in draw.integers(0, len(members), len(members))])
        kappas.append(cohen_kappa_score(targets[rows], guess[rows], weights="quadratic"))
    assert low == pytest.approx(np.quantile(kappas, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(kappas, 0.975), abs=0.02)


def test_kappa_interval_widens_with_groups_and_is_seeded() -> None:
    values, targets = make_predictions(60)
    values, targets = np.repeat(values, 10, axis=0), np.repeat(targets, 10)
    guess = values.argmax(axis=1)

    def width(groups: list[str], seed: int = 0) -> float:
        low, high = measure.weighted_kappa_interval(targets, guess, groups, K, 500, seed) or (0, 0)
        return high - low

    copies_together = [f"g{number // 10}" for number in range(600)]
    alone = [f"g{number}" for number in range(600)]
    assert width(copies_together) > 2 * width(alone)
    assert width(alone) == width(alone) != width(alone, seed=1)


def test_kappa_interval_in_blocks_is_the_same(
    predictions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, targets = predictions
    groups = [str(number) for number in range(len(targets))]
    arguments = (targets, values.argmax(axis=1), groups, K, 250, 0)
    whole = measure.weighted_kappa_interval(*arguments)
    monkeypatch.setattr(measure, "_BLOCK", 100 * len(targets))
    assert measure.weighted_kappa_interval(*arguments) == whole


def test_kappa_interval_is_fast() -> None:
    values, targets = make_predictions(2000)
    start = time.perf_counter()
    groups = [str(number) for number in range(2000)]
    measure.weighted_kappa_interval(targets, values.argmax(axis=1), groups, K, 2000, 0)
    assert time.perf_counter() - start < 1


def test_precision_recall_equals_sklearn(predictions: Any) -> None:
    from sklearn.metrics import precision_recall_curve

    values, targets = predictions
    values = values.round(2)  # ties
    curves = measure.precision_recall(targets[:150], values[:150], ["a", "b", "c", "d"])
    for c, label in enumerate("abcd"):
        ours = curves[curves["label"] == label]
        assert ours.iloc[0][["recall", "precision"]].tolist() == [0, 1]
        assert ours["recall"].is_monotonic_increasing
        assert ours.iloc[-1]["recall"] == 1
        precision, recall, _ = precision_recall_curve(targets[:150] == c, values[:150, c])
        theirs = {(round(r, 6), round(p, 6)) for r, p in zip(recall, precision, strict=True)}
        points = set(zip(ours["recall"], ours["precision"], strict=True))
        assert points <= theirs
        # sklearn goes on behind the first point of full recall, and only there.
        assert {recall for recall, _ in theirs - points} <= {1}


def test_precision_recall_is_thinned_and_skips_absent_classes() -> None:
    values, targets = make_predictions(3000)
    targets[targets == 3] = 2
    curves = measure.precision_recall(targets, values, ["a", "b", "c", "d"])
    assert curves.groupby("label").size().to_dict() == {"a": 200, "b": 200, "c": 200}
    assert curves.groupby("label")["recall"].max().tolist() == [1, 1, 1]


def test_class_without_support_is_null() -> None:
    values = np.array([[0.8, 0.1, 0.05, 0.05], [0.2, 0.7, 0.05, 0.05]])
    found = make_task(bootstrap_draws=100).metrics(values, np.array([0, 0]), ["a", "b"], 0)
    text = json.dumps(found, allow_nan=False)
    rows = json.loads(text)["per_class"]
    assert rows[0] == {"label": "0", "precision": 1, "recall": 0.5, "f1": 0.666667, "support": 2}
    assert rows[1] == {"label": "1", "precision": 0, "recall": None, "f1": 0, "support": 0}
    assert rows[2] == {"label": "2", "precision": None, "recall": None, "f1": None, "support": 0}
    assert found["macro_f1"] == 0.333333


def test_undefined_kappa_is_null() -> None:
    values = np.array([[0.9, 0.1, 0, 0]] * 3)
    task = make_task(bootstrap_draws=100, primary_metric="qwk")
    found = task.metrics(values, np.zeros(3, dtype=np.int64), ["a", "b", "c"], 0)
    assert (found["qwk"], found["qwk_low"], found["qwk_high"]) == (None, None, None)
    assert task.score(values, np.zeros(3, dtype=np.int64)) == 0


def test_impossible_probability_of_zero_is_finite() -> None:
    loss = measure.log_loss(np.array([1]), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(-np.log(np.finfo(np.float64).eps))


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("accuracy", True),
        ("balanced_accuracy", True),
        ("macro_f1", True),
        ("qwk", True),
        ("log_loss", False),
    ],
)
def test_primary_metric_is_the_reported_one(name: Any, higher: bool, predictions: Any) -> None:
    values, targets = predictions
    task: DataTask = make_task(primary_metric=name, bootstrap_draws=100)
    assert (task.primary.name, task.primary.higher_is_better) == (name, higher)
    found = task.metrics(values, targets, [str(number) for number in range(len(targets))], 0)
    assert task.score(values, targets) == pytest.approx(found[name], abs=1e-6)


def test_qwk_needs_an_order() -> None:
    with pytest.raises(PodiumError, match=r"evaluate.primary: qwk .* competition.ordinal"):
        make_task(ordinal=False, primary_metric="qwk")
    assert "qwk" not in make_task(ordinal=False).metrics(*make_predictions(), ["a"] * 300, 0)


def test_plots(predictions: Any) -> None:
    values, targets = predictions
    plots = make_task(classes=("best", "good", "fair", "out")).plots(values, targets)
    assert sorted(plots) == ["confusion", "precision_recall", "reliability"]
    confusion = plots["confusion"]
    assert len(confusion) == len(targets)
    counted = pd.crosstab(confusion["actual"], confusion["predicted"]).loc["best", "good"]
    assert counted == ((targets == 0) & (values.argmax(axis=1) == 1)).sum()
    assert plots["reliability"]["count"].sum() == len(targets)


def test_targets_and_prior() -> None:
    task = make_task()
    assert task.targets(["3", "0"]).tolist() == [3, 0]
    assert task.targets(["3"]).dtype == np.int64
    assert task.fallback_prediction(np.array([0, 0, 1, 2])).tolist() == [0.5, 0.25, 0.25, 0]
    unsure = np.array([[0.6, 0.4, 0, 0], [0.2, 0.8, 0, 0]])
    assert task.fallback_prediction(unsure).tolist() == [0.5, 0.5, 0, 0]
    of_probabilities = make_task(submission="probability")
    assert of_probabilities.fallback_prediction(unsure) == pytest.approx([0.4, 0.6, 0, 0])
    named = make_task(classes=("good", "bad"))
    with pytest.raises(PodiumError, match=r"'god' is not in .*did you mean 'good'"):
        named.targets(["good", "god"])


def test_params_are_strict() -> None:
    class View(Params):
        evaluate: EvaluateParams

    good = {
        "primary": "qwk",
        "bootstrap_draws": 2000,
        "tta": "none",
        "calibrate": False,
        "decoder": "argmax",
    }
    assert View.model_validate({"evaluate": good}).evaluate.primary == "qwk"
    for change in ({"primary": "f1"}, {"bootstrap_draws": 99}, {"tta": "x"}, {"draws": 1}):
        with pytest.raises(ValidationError):
            View.model_validate({"evaluate": {**good, **change}})


def test_organisers_and_tasks_agree_on_the_direction() -> None:
    """`competition.rules` is read where no task is at hand."""
    compared = ClassificationData(("a", "b"), ordinal=True).compared
    lower = {spec.name for spec in compared if not spec.higher_is_better}
    assert lower - {"ece"} == set(LOWER_IS_BETTER)
