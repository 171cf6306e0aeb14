"""Greedy soups: no worse than their best ingredient, and the same bits after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from podium.engine.batches import FeatureSource
from podium.engine.checkpoint import Checkpoints, Snapshot
from podium.engine.fit import Fitted, make_train_metrics
from podium.engine.phases import Phase
from podium.engine.soup import Ingredients
from podium.engine.training import Job, Part, Trained, train
from podium.engine.weights import load_state, read_state
from podium.tasks.protocol import MetricSpec
from tests.test_checkpoint import DyingCheckpoints, KilledError
from tests.trainings import recipe, toy_job

PHASES = (Phase(0.0, "head", 32, 1.0), Phase(0.5, "all", 32, 1.0))


def stir(scores: list[float], points: list[float], target: float, size: int = 5) -> Any:
    """A soup of single numbers, judged by how near it comes to a target."""
    kept = Ingredients(size, higher_is_better=False)
    for epoch, point in enumerate(points, 1):
        kept.offer(epoch, lambda p=point: {"w": np.array([p], np.float32)}, scores[:epoch])
    built = {"w": np.zeros(1, np.float32)}
    return kept.stir(built, scores, lambda state: abs(float(state["w"][0]) - target))


def test_greedy_is_the_papers_recipe() -> None:
    """Best first; what makes it worse is passed over, and what comes after it is still tried."""
    points = [5.0, 0.75, 3.25]
    soup, chosen, score = stir([abs(p - 2) for p in points], points, 2.0)
    # 0.75 (1.25 off) is as good as 3.25, and earlier; with 3.25 it is 2; with 5, 3.
    assert (chosen, score) == ([2, 3], 0.0)
    assert soup["w"] == [2.0]
    points = [1.9, 1.7, 2.4]
    soup, chosen, score = stir([abs(p - 2) for p in points], points, 2.0)
    # 1.9 (0.1 off); with 1.7 (1.8) worse; with 2.4 (2.15) worse.
    assert (chosen, score) == ([1], pytest.approx(0.1))
    points = [1.9, 1.7, 2.25]
    soup, chosen, score = stir([0.1, 0.2, 0.3], points, 2.0)
    assert (chosen, score) == ([1, 3], pytest.approx(0.075, abs=1e-6))
    assert soup["w"] == pytest.approx([2.075])


def test_equal_scores_are_averaged_and_earlier_epochs_come_first() -> None:
    soup, chosen, score = stir([1.0, 1.0, 1.0], [1.0, 3.0, 2.0], 2.0)
    assert (chosen, score) == ([1, 2, 3], 0.0)
    assert soup["w"] == [2.0]


def test_only_the_best_are_kept() -> None:
    kept = Ingredients(2, higher_is_better=True)
    scores = [0.5, 0.9, 0.7, 0.9, 0.1]
    for epoch in range(1, 6):
        kept.offer(epoch, lambda e=epoch: {"w": np.array([e])}, scores[:epoch])
    assert sorted(kept.to_state()) == ["2/w", "4/w"]
    again = Ingredients(2, higher_is_better=True)
    again.load(kept.to_state())
    assert again.to_state() == kept.to_state()


def test_no_soup_keeps_nothing() -> None:
    kept = Ingredients(0, higher_is_better=True)
    kept.offer(1, lambda: {"w": np.zeros(1)}, [1.0])
    assert not kept


def test_what_an_early_ingredient_lacks_is_as_built() -> None:
    kept = Ingredients(2, higher_is_better=True)
    kept.offer(1, lambda: {"head": np.array([2.0])}, [0.5])
    kept.offer(2, lambda: {"head": np.array([4.0]), "trunk": np.array([1.0])}, [0.5, 0.6])
    built = {"head": np.array([0.0]), "trunk": np.array([7.0])}
    soup, chosen, _ = kept.stir(built, [0.5, 0.6], lambda state: 1.0)
    assert chosen == [2, 1]
    assert soup == {"head": [3.0], "trunk": [4.0]}


# --- in the loop


class _Pair(nn.Layer):  # type: ignore[misc]
    """A trunk with norm, and a head: what learns in two phases."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(1)
        self.trunk = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1D(8))
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 3))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.trunk(x))


def soup_job(**changes: Any) -> Job:
    """Judged by its log loss, so that scores differ; the trunk learns from the middle on."""
    how = recipe(epochs=6, lr=0.1, schedule="constant", **changes)
    toy = toy_job(how)
    source = toy.build(toy.plan[0]).source

    def build(phase: Phase) -> Part:
        network = _Pair()
        if phase.part == "all":
            return Part(network, network, lambda name: 0, source)
        network.eval()
        with paddle.no_grad():
            features = network.trunk(paddle.to_tensor(source.plain_inputs(range(len(source)))))
        return Part(network, network.head, lambda name: 0, FeatureSource(features.numpy()))

    def score(outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
        logits, wanted = paddle.to_tensor(outputs), paddle.to_tensor(targets)
        return float(nn.functional.cross_entropy(logits, wanted))

    data = type(toy.data)(
        toy.data.image_ids, toy.data.targets, toy.data.train_rows, toy.data.val_rows, score
    )
    metric = MetricSpec("log_loss", higher_is_better=False)
    return Job(build, PHASES, toy.task, data, how, metric)


def judge(job: Job, state: dict[str, Any]) -> float:
    """The score of saved weights in a fresh net."""
    part = job.build(PHASES[1])
    load_state(part.network, {**read_state(part.network), **state})
    part.network.eval()
    rows = job.data.val_rows
    with paddle.no_grad():
        outputs = part.network(paddle.to_tensor(part.source.plain_inputs(rows))).numpy()
    return job.data.score(outputs, job.data.targets[rows])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_soup_is_no_worse_than_its_best_ingredient(ema: float) -> None:
    job = soup_job(soup=6, ema=ema)
    plain = train(soup_job(ema=ema), lambda row: None)
    trained = train(job, lambda row: None)
    assert trained.curve == plain.curve
    assert trained.epoch == plain.epoch == trained.soup[0]
    assert trained.score <= plain.score
    assert judge(job, trained.state) == pytest.approx(trained.score, rel=1e-5)
    assert len(trained.soup) == 1 or trained.score < plain.score


def test_a_soup_of_one_is_the_best_epoch() -> None:
    plain, trained = (train(soup_job(soup=size), lambda row: None) for size in (0, 1))
    assert (trained.score, len(trained.soup)) == (plain.score, 1)
    assert all(np.array_equal(v, trained.state[n]) for n, v in plain.state.items())


@pytest.mark.parametrize("saves", range(1, 14))
def test_killed_after_any_checkpoint_the_soup_is_the_same(saves: int, tmp_path: Path) -> None:
    """In both phases, between the last epoch and the soup, and after it."""
    job = soup_job(soup=3, ema=0.5, checkpoint_every=3, patience=5)
    undisturbed = train(job, lambda row: None)
    places = Checkpoints(tmp_path)
    with pytest.raises(KilledError):
        train(job, lambda row: None, checkpoints=DyingCheckpoints(tmp_path, saves))
    left = Snapshot.from_bytes(places.load())
    assert len({name.partition("/")[0] for name in left.soup}) <= 3
    resumed = train(job, lambda row: None, checkpoints=places)
    assert same(undisturbed, resumed)
    over = Snapshot.from_bytes(places.load())
    assert (over.soup, tuple(over.progress.soup)) == ({}, resumed.soup)


def same(one: Trained, other: Trained) -> bool:
    return (
        (one.curve, one.soup, one.score) == (other.curve, other.soup, other.score)
        and one.state.keys() == other.state.keys()
        and all(np.array_equal(v, other.state[name]) for name, v in one.state.items())
    )


def test_metrics_say_how_many_went_in() -> None:
    trained = train(soup_job(soup=4), lambda row: None)
    metrics = make_train_metrics({0: Fitted({}, {}, trained)})
    assert metrics["soup_epochs"] == len(trained.soup) >= 1
    plain = train(soup_job(), lambda row: None)
    assert "soup_epochs" not in make_train_metrics({0: Fitted({}, {}, plain)})
