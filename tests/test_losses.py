"""Losses of classification, against numbers worked out by hand and their limits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.nn import functional
from scipy.special import log_softmax, softmax

import stages.train
from podium.engine.training import train
from podium.errors import PodiumError
from podium.tasks.classification.data import ClassificationData
from podium.tasks.classification.net import ClassificationNet
from podium.tasks.table import build_net_task
from tests.competition import ROOT, edit
from tests.trainings import params, recipe, toy_job

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3, size=(12, 4)).astype(np.float32)
TARGETS = np.arange(12) % 4


def net(smoothing: float = 0.0, **facts: Any) -> ClassificationNet:
    return ClassificationNet(4, smoothing, **facts)


def value(task: ClassificationNet, logits: Any = LOGITS, targets: Any = TARGETS) -> float:
    return float(task.loss(paddle.to_tensor(logits), paddle.to_tensor(targets)))


# --- focal


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_without_gamma_is_cross_entropy(smoothing: float) -> None:
    focal = net(smoothing, loss_name="focal", focal_gamma=0.0)
    assert value(focal) == pytest.approx(value(net(smoothing)), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 10.0])
def test_focal_is_the_papers_formula(gamma: float) -> None:
    p = softmax(LOGITS.astype(np.float64), axis=1)[np.arange(12), TARGETS]
    expected = (-((1 - p) ** gamma) * np.log(p)).mean()
    focal = net(loss_name="focal", focal_gamma=gamma)
    assert value(focal) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_certain_net_has_finite_slopes(gamma: float) -> None:
    logits = paddle.to_tensor(np.array([[60.0, 0, 0, 0], [0, 60, 0, 0]], np.float32))
    logits.stop_gradient = False
    loss = net(loss_name="focal", focal_gamma=gamma).loss(logits, paddle.to_tensor([0, 0]))
    loss.backward()
    assert float(loss) == pytest.approx(30.0, rel=1e-4)
    assert logits.grad is not None
    assert np.isfinite(logits.grad.numpy()).all()


# --- ordinal


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ordinal_is_sord_with_squared_distances(smoothing: float) -> None:
    """Whatever label smoothing is: these targets are soft already."""
    near = np.exp(-np.array([[1.0, 0, 1, 4]]))
    wanted = near / near.sum()
    expected = -(wanted * log_softmax(LOGITS[:1].astype(np.float64), axis=1)).sum()
    ordinal = net(smoothing, loss_name="ordinal", ordinal=True)
    assert value(ordinal, LOGITS[:1], np.array([1])) == pytest.approx(expected, rel=1e-5)


def test_ordinal_asks_for_little_of_far_grades() -> None:
    """The loss is least where the softmax is the target: there its slope is 0."""
    ordinal = ClassificationNet(7, 0.0, loss_name="ordinal", ordinal=True)
    logits = paddle.to_tensor(-np.square(np.arange(7.0) - 1)[None].astype(np.float32))
    logits.stop_gradient = False
    ordinal.loss(logits, paddle.to_tensor([1])).backward()
    assert logits.grad is not None
    assert np.abs(logits.grad.numpy()).max() < 1e-6
    wanted = functional.softmax(logits).numpy()[0]
    assert wanted.argmax() == 1
    assert wanted[0] == pytest.approx(wanted[2])
    assert wanted[4:].max() < 1e-4


def test_a_near_grade_costs_less_than_a_far_one() -> None:
    ordinal = net(loss_name="ordinal", ordinal=True)
    costs = [value(ordinal, 3 * np.eye(4, dtype=np.float32)[[said]], [0]) for said in range(4)]
    assert costs == sorted(costs)
    assert len(set(costs)) == 4


def test_ordinal_needs_grades() -> None:
    line = (
        r"^train\.loss: ordinal is for grades .* competition\.ordinal is false: set it to true or"
    )
    with pytest.raises(PodiumError, match=line):
        build_net_task(
            ClassificationData(("a", "b"), ordinal=False),
            label_smoothing=0.0,
            loss_name="ordinal",
            ordinal=False,
        )


# --- class weights


def test_weights_are_inverse_frequencies() -> None:
    targets = np.repeat([0, 1, 2, 3], [6, 3, 2, 1])
    weights = net(class_weights="balanced").fit_to(targets).weights
    assert weights == pytest.approx([12 / (4 * n) for n in (6, 3, 2, 1)])


def test_weights_are_inverse_effective_numbers() -> None:
    counts = np.array([4000, 1000, 10, 1])
    weights = np.array(net(class_weights="effective").fit_to(np.repeat(range(4), counts)).weights)
    effective = (1 - 0.999**counts) / (1 - 0.999)
    assert weights / weights[3] == pytest.approx(effective[3] / effective)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)


@pytest.mark.parametrize("how", ["balanced", "effective"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
def test_weights_of_equal_classes_change_nothing(name: Any, smoothing: float, how: Any) -> None:
    """As they are where label shuffling has balanced all."""
    plain = net(smoothing, loss_name=name, ordinal=True)
    weighted = net(smoothing, loss_name=name, ordinal=True, class_weights=how).fit_to(TARGETS)
    assert weighted.weights == pytest.approx([1.0] * 4)
    assert value(weighted) == pytest.approx(value(plain), rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
def test_a_row_weighs_as_its_class(name: Any) -> None:
    """And the parts of a batch add up to the whole, however it is cut."""
    facts: dict[str, Any] = {"loss_name": name, "ordinal": True}
    weighted = net(0.1, **facts, class_weights="balanced").fit_to(np.array([0, 0, 0, 1, 1, 2, 3]))
    each = [value(net(0.1, **facts), LOGITS[[i]], TARGETS[[i]]) for i in range(12)]
    expected = np.mean(np.array(weighted.weights)[TARGETS] * each)
    assert value(weighted) == pytest.approx(expected, rel=1e-5)
    cut = (
        value(weighted, LOGITS[:5], TARGETS[:5]) * 5 + value(weighted, LOGITS[5:], TARGETS[5:]) * 7
    )
    assert cut / 12 == pytest.approx(value(weighted), rel=1e-5)


def test_a_class_that_the_list_lacks_is_weighed_as_one_image() -> None:
    weights = net(class_weights="balanced").fit_to(np.array([0, 0, 1, 1, 2])).weights
    assert weights == pytest.approx([5 / 6, 5 / 6, 5 / 3, 5 / 3])


def test_a_sliver_of_a_rare_class_does_not_rule_the_batch() -> None:
    """A hundredth of one row's soft label is all that there is of the last class."""
    soft = np.eye(4)[np.arange(999) % 3]
    soft = np.vstack([soft, [0.99, 0.0, 0.0, 0.01]])
    weights = np.array(net(class_weights="balanced").fit_to(soft).weights)
    assert weights[3] / weights[0] == pytest.approx(soft[:, 0].sum())  # as if it stood there once
    assert soft[-1] @ weights < 5


def test_without_weights_nothing_is_fitted() -> None:
    assert net().fit_to(np.array([0, 0, 1])) == net()


# --- distributions as targets


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
@pytest.mark.parametrize("how", ["none", "balanced"])
def test_certain_distributions_are_class_numbers(name: Any, how: Any) -> None:
    certain = np.eye(4, dtype=np.float32)[TARGETS]
    task = net(0.1, loss_name=name, ordinal=True, class_weights=how)
    listed = TARGETS[:7]
    by_number, by_share = task.fit_to(listed), task.fit_to(np.eye(4)[listed])
    assert by_share.weights == pytest.approx(by_number.weights)
    assert value(by_share, targets=certain) == pytest.approx(value(by_number), rel=1e-6)


def test_a_distribution_is_the_mean_of_its_classes() -> None:
    mixed = np.array([[0.25, 0.75, 0, 0]], np.float32)
    both = value(net(), LOGITS[:1], [0]) * 0.25 + value(net(), LOGITS[:1], [1]) * 0.75
    assert value(net(), LOGITS[:1], mixed) == pytest.approx(both, rel=1e-5)


# --- in the loop


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "ordinal"])
@pytest.mark.parametrize("weights", ["none", "balanced", "effective"])
def test_every_loss_learns(loss: str, weights: str) -> None:
    job = toy_job(recipe(epochs=12, loss=loss, class_weights=weights))
    assert train(job, lambda row: None).score > 0.85


def test_the_stage_hands_over_what_params_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    edits = {
        "  loss: cross_entropy ": "  loss: ordinal ",
        "  focal_gamma: 2.0 ": "  focal_gamma: 3.0 ",
        "  class_weights: none ": "  class_weights: effective ",
        "  label_smoothing: 0.1 ": "  label_smoothing: 0.2 ",
    }
    edit(tmp_path / "params.yaml", edits)
    monkeypatch.chdir(tmp_path)
    handed: dict[str, Any] = {}

    def note(data_task: Any, **facts: Any) -> None:
        handed.update(facts)
        raise InterruptedError

    monkeypatch.setattr(stages.train, "build_net_task", note)
    with pytest.raises(InterruptedError):
        stages.train.main()
    assert handed == {
        "label_smoothing": 0.2,
        "loss_name": "ordinal",
        "focal_gamma": 3.0,
        "class_weights": "effective",
        "ordinal": True,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "hinge"},
        {"focal_gamma": -0.1},
        {"focal_gamma": 10.5},
        {"class_weights": "inverse"},
    ],
)
def test_bad_losses(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        params(**changes)
