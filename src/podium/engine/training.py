"""The one training loop. It asks the task for a loss and a score, and knows nothing else of it.

In: a network, a source of inputs, row numbers, targets. Out: the state with the best val score.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.engine.batches import Rows, Source, count_steps, epoch_batches, plain_batches
from podium.engine.curves import EpochRow
from podium.engine.optimization import build_optimizer, learning_rate
from podium.engine.params import TrainParams
from podium.engine.weights import State, load_state, read_state
from podium.errors import PodiumError
from podium.progress import EpochBar
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import MetricSpec

_VAL_BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """How to train: the params that the loop reads."""

    params: TrainParams
    lr: float
    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class TrainingData:
    """What to learn from and what to judge by, as rows of one source.

    Attributes:
        source: inputs by row number.
        targets: one entry per row of the source.
        train_rows: the training list; repeats allowed.
        val_rows: each once.
        score: outputs (n, k) and targets -> the primary metric.
    """

    source: Source
    targets: npt.NDArray[Any]
    train_rows: Rows
    val_rows: Sequence[int]
    score: Callable[[npt.NDArray[np.float32], npt.NDArray[Any]], float]


@dataclass(frozen=True)
class Trained:
    """The outcome: state and score of the best epoch (from 1), and one row per epoch run."""

    best_state: State
    best_epoch: int
    best_score: float
    curve: list[EpochRow]


def train(
    network: nn.Layer,
    task: NetTask,
    data: TrainingData,
    recipe: Recipe,
    metric: MetricSpec,
    on_epoch: Callable[[EpochRow], None],
) -> Trained:
    """Train `network` in place and return its best state on the val rows.

    Best: the earliest epoch with the best primary score. With `patience` p > 0, training stops
    after p epochs without a better one.

    Raises:
        PodiumError: the loss is no longer a finite number.
    """
    params = recipe.params
    steps = count_steps(len(data.train_rows), recipe.batch_size)
    total_steps = steps * recipe.epochs
    warmup_steps = min(round(params.warmup_epochs * steps), total_steps)
    optimizer = build_optimizer(network, params, recipe.lr)
    best_state: State = {}
    best_epoch, best_score = 0, math.nan
    curve: list[EpochRow] = []
    start = time.monotonic()
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        loss_sum = 0.0
        with EpochBar(f"epoch {epoch}/{recipe.epochs}", len(data.train_rows)) as bar:
            batches = epoch_batches(data.train_rows, recipe.batch_size, recipe.seed, epoch)
            for number, (rows, occurrences) in enumerate(batches):
                step = (epoch - 1) * steps + number
                lr = learning_rate(recipe.lr, step, total_steps, warmup_steps, params.schedule)
                optimizer.set_lr(lr)
                inputs = paddle.to_tensor(data.source.training_inputs(rows, occurrences, epoch))
                loss = task.loss(network(inputs), paddle.to_tensor(data.targets[rows]))
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
                value = float(loss)
                _check_finite(value, epoch, number + 1, lr)
                loss_sum += value * len(rows)
                bar.advance(len(rows), loss=value, lr=lr)
        val_loss, val_score = evaluate(network, task, data)
        row = EpochRow(epoch, loss_sum / len(data.train_rows), val_loss, val_score, lr)
        curve.append(row)
        on_epoch(row)
        if not best_epoch or _is_better(val_score, best_score, metric):
            best_epoch, best_score, best_state = epoch, val_score, read_state(network)
        _say(row, recipe.epochs, metric, best_epoch, start)
        if params.patience and epoch - best_epoch >= params.patience:
            print(f"stopped early: no better {metric.name} for {params.patience} epochs")
            break
    load_state(network, best_state)
    return Trained(best_state, best_epoch, best_score, curve)


def evaluate(network: nn.Layer, task: NetTask, data: TrainingData) -> tuple[float, float]:
    """Mean loss and primary score on the val rows, in evaluation mode."""
    network.eval()
    with paddle.no_grad():
        outputs = np.concatenate(
            [
                network(paddle.to_tensor(inputs)).numpy()
                for inputs in plain_batches(data.source, data.val_rows, _VAL_BATCH)
            ]
        )
        targets = data.targets[data.val_rows]
        loss = float(task.loss(paddle.to_tensor(outputs), paddle.to_tensor(targets)))
    return loss, data.score(outputs, targets)


def _is_better(score: float, best: float, metric: MetricSpec) -> bool:
    return score > best if metric.higher_is_better else score < best


def _check_finite(loss: float, epoch: int, step: int, lr: float) -> None:
    if not math.isfinite(loss):
        raise PodiumError(
            f"the loss became {loss} in epoch {epoch}, step {step}, at lr {lr:.3g}: "
            "try a tenth of lr, or more train.warmup_epochs"
        )


def _say(row: EpochRow, epochs: int, metric: MetricSpec, best_epoch: int, start: float) -> None:
    """One line per epoch; few of them when the epochs fly by."""
    few = max(1, epochs // 10)
    if row.epoch % few and row.epoch not in (1, epochs):
        return
    left_s = (time.monotonic() - start) / row.epoch * (epochs - row.epoch)
    print(
        f"epoch {row.epoch}/{epochs}: train loss {row.train_loss:.4f}, val loss {row.val_loss:.4f}, "
        f"val {metric.name} {row.val_score:.4f} (best: epoch {best_epoch}), {left_s:.0f} s left",
        flush=True,
    )
