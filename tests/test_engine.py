"""The training loop, its batches and the fast way through a net."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.data.augment import make_augment
from podium.engine.batches import ImageSource, count_steps, epoch_batches
from podium.engine.curves import EpochRow, make_curve
from podium.engine.inference import ExportedModel, Predictor, export, load_predictor
from podium.engine.optimization import build_optimizer, learning_rate
from podium.engine.processes import Alone
from podium.engine.session import Pass, Session
from podium.engine.training import Job, Recipe, Trained, train
from podium.engine.weights import load_state, read_state
from podium.errors import PodiumError
from podium.models.networks import build_network, make_preprocessing
from podium.tasks.classification.net import ClassificationNet
from tests.trainings import ONE_PHASE, params, recipe, toy_job

ROOT = Path(__file__).resolve().parents[1]


# --- batches


@given(
    rows=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    batch_size=st.integers(1, 17),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_uses_every_row_once(
    rows: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = list(epoch_batches(np.array(rows, np.int64), batch_size, seed, epoch))
    assert Counter(row for batch, _ in batches for row in batch) == Counter(rows)
    assert len(batches) == count_steps(len(rows), batch_size)
    uses = [(row, use) for batch, counts in batches for row, use in zip(batch, counts, strict=True)]
    assert len(set(uses)) == len(uses), "two uses of an image must draw different augmentations"


def test_epochs_differ_and_repeat() -> None:
    rows = np.arange(50)
    first = [b for b, _ in epoch_batches(rows, 8, 0, 1)]
    assert first == [b for b, _ in epoch_batches(rows, 8, 0, 1)]
    assert first != [b for b, _ in epoch_batches(rows, 8, 0, 2)]
    assert first != [b for b, _ in epoch_batches(rows, 8, 1, 1)]


def test_augmentation_is_a_function_of_its_four_arguments() -> None:
    augment = make_augment("light", "none", seed=0)
    assert augment is not None
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    first = augment(image, 1, "a", 0)
    for other in ((2, "a", 0), (1, "b", 0), (1, "a", 1)):
        assert not np.array_equal(first, augment(image, *other))
    assert np.array_equal(first, augment(image, 1, "a", 0))
    other_seed = make_augment("light", "none", seed=1)
    assert other_seed is not None
    assert not np.array_equal(first, other_seed(image, 1, "a", 0))
    assert make_augment("none", "none", 0) is None


@pytest.mark.parametrize(("flip", "views"), [("horizontal", 2), ("both", 4)])
def test_flips_mirror_and_do_nothing_else(flip: str, views: int) -> None:
    augment = make_augment("none", flip, seed=0)
    assert augment is not None
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    seen = {augment(image, epoch, "a", 0).tobytes() for epoch in range(40)}
    mirrored = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]][:views]
    assert seen == {view.tobytes() for view in mirrored}


def test_judging_sees_no_augmentation() -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    preprocessing = make_preprocessing("resnet18", 16)
    augment = make_augment("light", "none", 0)
    source = ImageSource(images, images, list("abcd"), preprocessing, augment)
    assert np.array_equal(source.plain_inputs([1, 3]), preprocessing.apply(images[[1, 3]]))
    assert not np.array_equal(
        source.training_inputs([1, 3], [0, 0], 1), source.plain_inputs([1, 3])
    )


# --- schedule and optimiser


def test_cosine_with_warm_up() -> None:
    lrs = [learning_rate(params(), 1.0, step, 100, 10) for step in range(100)]
    assert lrs[:10] == pytest.approx(np.linspace(0.1, 1.0, 10))
    assert lrs[10] == 1.0
    assert lrs[55] == pytest.approx(0.5)
    assert 0 < lrs[99] < 0.001
    assert learning_rate(params(schedule="constant"), 1.0, 99, 100, 10) == 1.0


def test_linear_and_steps_end_where_they_should() -> None:
    linear = params(schedule="linear")
    assert learning_rate(linear, 1.0, 10, 100, 10) == 1.0
    assert learning_rate(linear, 1.0, 55, 100, 10) == pytest.approx(0.5)
    assert learning_rate(linear, 1.0, 99, 100, 10) == pytest.approx(1 / 90)
    falls = params(schedule="step", step_epochs=[0.5, 0.75], step_factor=0.2)
    lrs = [learning_rate(falls, 1.0, step, 100, 2) for step in range(100)]
    assert lrs[:2] == [0.5, 1.0]
    assert lrs[2:50] == [1.0] * 48
    assert lrs[50:75] == [0.2] * 25
    assert lrs[75:] == pytest.approx([0.04] * 25)


def test_one_cycle_is_pytorchs() -> None:
    """The values of torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=100), by its formula;
    a warm-up of ours has no say."""
    cycle = params(schedule="one_cycle")
    lrs = [learning_rate(cycle, 1.0, step, 100, 10) for step in range(100)]
    assert lrs[0] == pytest.approx(1 / 25)
    assert lrs[29] == max(lrs) == 1.0
    assert lrs[99] == pytest.approx(1 / 25 / 1e4)
    assert lrs[10] == pytest.approx(1 + (0.04 - 1) / 2 * (1 + np.cos(np.pi * 10 / 29)))
    assert lrs[64] == pytest.approx((1 + 4e-6) / 2)
    for total in (1, 2, 3, 4):
        few = [learning_rate(cycle, 1.0, step, total, 0) for step in range(total)]
        assert max(few) <= 1.0
        assert min(few) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "stepwise"},
        {"schedule": "step"},
        {"step_epochs": [0.0]},
        {"step_epochs": [1.0]},
        {"step_epochs": [0.8, 0.5]},
        {"step_factor": 1.0},
        {"clip_norm": -1.0},
        {"soup": 21},
    ],
)
def test_bad_schedules(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        params(**changes)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_decay_spares_norm_and_bias(name: str) -> None:
    """With a zero gradient only weight decay moves a parameter."""
    paddle.seed(0)
    network = paddle.nn.Sequential(paddle.nn.Linear(3, 3), paddle.nn.BatchNorm1D(3))
    network[0].bias.set_value(paddle.ones([3]))
    before = read_state(network)
    optimizer = build_optimizer(
        network, params(optimizer=name, weight_decay=0.5), 0.1, lambda name: 0
    )
    for parameter in network.parameters():
        parameter.grad = paddle.zeros_like(parameter)
    optimizer.step()
    after = read_state(network)
    assert not np.array_equal(before["0.weight"], after["0.weight"])
    for spared in ("0.bias", "1.weight", "1.bias"):
        assert np.array_equal(before[spared], after[spared])


# --- the loop


def run_toy(how: Recipe) -> tuple[Job, Trained]:
    job = toy_job(how)
    return job, train(job, lambda row: None)


def test_keeps_the_last_epoch_whatever_its_score() -> None:
    best, last = (run_toy(recipe(lr=0.3, epochs=12, keep=keep))[1] for keep in ("best", "last"))
    assert best.curve == last.curve
    assert last.epoch == 12 > best.epoch
    assert last.score == last.curve[-1].val_score < best.score
    assert not all(np.array_equal(values, best.state[name]) for name, values in last.state.items())


@pytest.mark.parametrize("looks", ["soup", "patience"])
def test_what_looks_for_the_best_epochs_wants_to_keep_them(looks: str) -> None:
    with pytest.raises(ValidationError, match=rf"{looks}\n.* 0 unless train\.keep is best"):
        params(keep="last", **{looks: 3})


def test_learns_and_keeps_the_best_epoch() -> None:
    job, trained = run_toy(recipe(epochs=12))
    scores = [row.val_score for row in trained.curve]
    assert trained.score == max(scores) > 0.85
    assert scores.index(max(scores)) + 1 == trained.epoch
    part = job.build(ONE_PHASE[0])
    load_state(part.network, trained.state)
    part.network.eval()
    outputs = np.array(part.network(paddle.to_tensor(part.source.plain_inputs(job.data.val_rows))))
    assert job.data.score(outputs, job.data.targets[job.data.val_rows]) == trained.score


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_same_seed_same_bits(optimizer: str) -> None:
    how = recipe(optimizer=optimizer, label_smoothing=0.1)
    first, second = (run_toy(how)[1].state for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_patience_stops_early() -> None:
    _, trained = run_toy(recipe(epochs=50, patience=2))
    assert len(trained.curve) == trained.epoch + 2 < 50


def test_patience_waits_for_the_last_phase() -> None:
    """A head that has learned all it can is what `train.unfreeze` waits for."""
    how = recipe(epochs=10, patience=2, lr=1e-9)
    plan = (replace(ONE_PHASE[0], strength=0.5), replace(ONE_PHASE[0], start=0.6))
    trained = train(replace(toy_job(how), plan=plan), lambda row: None)
    assert len(trained.curve) == 8, "six epochs of the first phase, two without a better one"


def test_a_single_row_joins_the_batch_before() -> None:
    """Batch norm learns nothing on one image."""
    rows = np.arange(33)
    assert [len(batch) for batch, _ in epoch_batches(rows, 16, 0, 1)] == [16, 17]
    assert [len(batch) for batch, _ in epoch_batches(rows[:1], 16, 0, 1)] == [1]
    assert [len(batch) for batch, _ in epoch_batches(rows[:3], 1, 0, 1)] == [1, 1, 1]
    assert [len(batch) for batch, _ in epoch_batches(rows, 31, 0, 1)] == [31, 2]


def test_a_loss_that_explodes_stops_with_what_to_try() -> None:
    how = recipe(lr=1e38, optimizer="sgd", warmup_epochs=0.0)
    with pytest.raises(
        PodiumError,
        match=r"the loss became .* epoch 1, step \d, at lr .*e\+3\d, on images row\d+, .* and 8 "
        r"more: try a tenth of lr",
    ):
        run_toy(how)


def test_the_moving_average_is_judged_and_kept() -> None:
    """Three steps of a session, averaged by hand, batch-norm statistics are the net's own."""
    job = toy_job(recipe(), dropout=0.0, norm=True)
    part = job.build(ONE_PHASE[0])
    optimizer = build_optimizer(part.trainee, params(optimizer="sgd"), 0.5, lambda name: 0)
    session = Session(part.network, part.trainee, optimizer, job.task, Alone(), False, ema=0.15)
    rows = job.data.train_rows
    batch = Pass(part.source.plain_inputs(rows), job.data.targets[rows], 1.0)
    average = session.network_state()
    for step in range(3):
        session.add_gradients([batch], lambda number: 0)
        session.update(0.5, step)
        decay = min(0.15, (1 + step) / (10 + step))
        learned = session.network_state()
        average = {n: average[n] * decay + learned[n] * (1 - decay) for n in learned}
        average |= {n: v for n, v in learned.items() if n.endswith(("._mean", "._variance"))}
    judged = session.judged_state()
    for name, values in average.items():
        assert judged[name] == pytest.approx(values, rel=1e-5)
        assert np.array_equal(judged[name], learned[name]) == name.endswith(("_mean", "_variance"))
    outputs = session.outputs(job.data.val_rows, part.source.plain_inputs)
    assert all(np.array_equal(learned[n], v) for n, v in session.network_state().items())
    load_state(part.network, judged)
    part.network.eval()
    expected = part.network(paddle.to_tensor(part.source.plain_inputs(job.data.val_rows))).numpy()
    assert outputs == pytest.approx(expected, rel=1e-5)


def test_warm_up_rises_in_the_loop() -> None:
    """Over two of four epochs; a row has the rate of the epoch's last step."""
    how = recipe(lr=0.1, epochs=4, optimizer="sgd", warmup_epochs=2.0, schedule="constant")
    _, trained = run_toy(how)
    assert [row.lr for row in trained.curve] == pytest.approx([0.05, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_momentum_goes_on_where_the_last_step_went(momentum: float) -> None:
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    how = params(optimizer="sgd", momentum=momentum, weight_decay=0.0)
    optimizer = build_optimizer(layer, how, 0.1, lambda name: 0)
    before = layer.weight.numpy()
    for _ in range(2):
        layer(paddle.ones([1, 2])).backward()
        optimizer.step()
        optimizer.clear_grad()
    assert before - layer.weight.numpy() == pytest.approx(0.1 * (1 + 1 + momentum), rel=1e-5)


@pytest.mark.parametrize("limit", [0.05, 1000.0])
def test_clipping_is_by_the_norm_of_all_gradients(limit: float) -> None:
    """By what SGD has moved, over two groups of parameters: those that decay and those that do not."""
    job = toy_job(recipe(), dropout=0.0)
    part = job.build(ONE_PHASE[0])
    how = params(optimizer="sgd", momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer(part.trainee, how, 1.0, lambda name: 0)
    session = Session(
        part.network, part.trainee, optimizer, job.task, Alone(), False, clip_norm=limit
    )
    rows = job.data.train_rows
    before = session.network_state()
    session.add_gradients(
        [Pass(part.source.plain_inputs(rows), job.data.targets[rows], 1.0)], lambda number: 0
    )
    gradients = {name: p.grad.numpy().copy() for name, p in part.network.named_parameters()}
    norm = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
    assert norm > 0.05
    session.update(1.0, 0)
    after = session.network_state()
    moved = {name: before[name] - after[name] for name in before}
    assert np.sqrt(sum(np.square(m).sum() for m in moved.values())) == pytest.approx(
        min(norm, limit), rel=1e-4
    )
    for name, gradient in gradients.items():
        assert moved[name] == pytest.approx(gradient * min(1, limit / norm), rel=1e-3, abs=1e-6)


def test_label_smoothing_is_the_papers_formula() -> None:
    logits = paddle.to_tensor(np.array([[2.0, -1.0, 0.5]], np.float32))
    log_p = np.log(np.exp([2.0, -1.0, 0.5]) / np.exp([2.0, -1.0, 0.5]).sum())
    target = np.array([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])
    loss = ClassificationNet(3, 0.1).loss(logits, paddle.to_tensor([1]))
    assert float(loss) == pytest.approx(-(target * log_p).sum(), rel=1e-5)
    hard = ClassificationNet(3, 0.0).loss(logits, paddle.to_tensor([1]))
    assert float(hard) == pytest.approx(-log_p[1], rel=1e-5)


def test_curve_is_rounded_for_git() -> None:
    frame = make_curve({0: [EpochRow(1, 1 / 3, 2 / 3, 0.5, 1e-7 / 3)]})
    assert frame.iloc[0].tolist() == [1, 0.333333, 0.666667, 0.5, 3.33333e-08]


def test_curve_of_several_folds_is_their_mean() -> None:
    rows = {fold: [EpochRow(1, fold, 0.0, 0.0, 1.0)] for fold in (0, 1, 2)}
    rows[1].append(EpochRow(2, 5.0, 0.0, 0.0, 1.0))
    frame = make_curve(rows)
    assert frame["train_loss"].tolist() == [1.0, 5.0]
    assert frame["epoch"].tolist() == [1, 2]


# --- inference


@pytest.fixture(scope="module", params=["efficientnet_lite0", "resnet18"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[paddle.nn.Layer, ExportedModel, np.ndarray]:
    paddle.seed(0)
    network = build_network(request.param, False, outputs=3, dropout=0.3)
    network.eval()
    inputs = np.random.default_rng(0).normal(size=(9, 3, 64, 64)).astype(np.float32)
    return network, export(network, 64, tmp_path_factory.mktemp("export")), inputs


def test_exported_equals_eager(exported: tuple[paddle.nn.Layer, ExportedModel, np.ndarray]) -> None:
    network, model, inputs = exported
    with paddle.no_grad():
        eager = np.array(network(paddle.to_tensor(inputs)))
    assert Predictor(model).run(inputs) == pytest.approx(eager, rel=1e-3, abs=1e-4)


def test_threads_and_batch_size_do_not_change_bits(
    exported: tuple[paddle.nn.Layer, ExportedModel, np.ndarray],
) -> None:
    _, model, inputs = exported
    one = Predictor(model, threads=1).run(inputs)
    assert np.array_equal(one, Predictor(model, threads=2).run(inputs))
    single = Predictor(model, threads=1)
    assert np.array_equal(one, np.concatenate([single.run(inputs[i : i + 1]) for i in range(9)]))


def test_export_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """A network is exported after training and may train on."""
    paddle.seed(0)
    network = build_network("mobilenet_v3_small", False, outputs=3, dropout=0.0)
    inputs = paddle.to_tensor(np.zeros((2, 3, 32, 32), np.float32))
    network.eval()
    before = np.array(network(inputs))
    export(network, 32, tmp_path)
    assert np.array_equal(before, np.array(network(inputs)))
    (tmp_path / "again").mkdir()
    export(network, 32, tmp_path / "again")
    names = ("model.pdmodel", "model.pdiparams")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted(names)
    for name in names:
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert str(ROOT).encode() not in (tmp_path / "model.pdmodel").read_bytes()
    network.train()
    network(inputs).sum().backward()
    assert network.head[1].weight.grad is not None


def test_a_predictor_has_a_row_per_image() -> None:
    paddle.seed(0)
    network = build_network("mobilenet_v3_small", False, outputs=3, dropout=0.0)
    images = np.random.default_rng(0).integers(0, 255, (33, 32, 32, 3), dtype=np.uint8)
    preprocessing = make_preprocessing("mobilenet_v3_small", 32)
    outputs = load_predictor(network, 32).run_images(images, preprocessing, "test")
    assert outputs.shape == (33, 3)


TRAIN_BRIEFLY = """
import sys; sys.path.insert(0, "src")
from podium.runtime import configure_math; configure_math()
import hashlib, numpy as np, paddle
from podium.models.networks import build_network
from podium.engine.optimization import build_optimizer
from podium.engine.weights import read_state
from tests.trainings import params
paddle.seed(0)
network = build_network("resnet18", False, 3, 0.2)
optimizer = build_optimizer(network, params(), 1e-3, lambda name: 0)
x = paddle.to_tensor(np.random.default_rng(0).normal(size=(16, 3, 48, 48)).astype("float32"))
y = paddle.to_tensor(np.arange(16) % 3)
for _ in range(3):
    loss = paddle.nn.functional.cross_entropy(network(x), y)
    loss.backward(); optimizer.step(); optimizer.clear_grad()
digest = hashlib.sha256()
for name, values in read_state(network).items():
    digest.update(name.encode() + values.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be withheld here")
def test_training_bits_do_not_depend_on_the_core_count() -> None:
    """The same steps on all cores and on one, in fresh processes."""
    hashes = set()
    for cores in (os.sched_getaffinity(0), {min(os.sched_getaffinity(0))}):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_BRIEFLY],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),  # type: ignore[misc]
        )
        hashes.add(done.stdout.strip().splitlines()[-1])
    assert len(hashes) == 1
    assert len(hashes.pop()) == hashlib.sha256().digest_size * 2
