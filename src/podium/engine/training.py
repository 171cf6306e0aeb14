"""The one training loop. It asks the task for a loss and a score, and knows nothing else of it.

In: how to build the net, sources of inputs, row numbers, targets. Out: the weights of the
last epoch or of the one with the best val score. It can be killed at any time: a new call goes on
from the last checkpoint, to the same bits.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.engine.batches import (
    Rows,
    Source,
    count_steps,
    epoch_batches,
    prefetch,
    split_batch,
)
from podium.engine.checkpoint import Checkpoints, Progress, Snapshot
from podium.engine.curves import EpochRow
from podium.engine.loss_trace import OnStep, StepLoss
from podium.engine.mixing import Mix, draw_mix, read_mixed
from podium.engine.optimization import build_optimizer, learning_rate
from podium.engine.params import RuntimeParams, TrainParams
from podium.engine.phases import ALL, Phase, count_augmented_epochs, phase_of
from podium.engine.processes import Alone, Group
from podium.engine.session import Pass, Session
from podium.engine.soup import Ingredients
from podium.engine.weights import State
from podium.errors import PodiumError
from podium.progress import EpochBar
from podium.runtime import available_cores, data_workers, derive_seed
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import MetricSpec

# A loss so many times the first one will not come back.
_EXPLODED = 1000.0
_TRY = "try a tenth of lr, or more train.warmup_epochs"
_LINE_EVERY_S = 2.0


@dataclass(frozen=True)
class Recipe:
    """How to train: the params that the loop reads."""

    params: TrainParams
    runtime: RuntimeParams
    lr: float
    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Part:
    """What learns in a phase.

    Attributes:
        network: the whole net.
        trainee: the part of it that runs on the source's inputs.
        depth_of: parameter name of the trainee -> its layer's distance from the head.
        source: the trainee's inputs by row number.
    """

    network: nn.Layer
    trainee: nn.Layer
    depth_of: Callable[[str], int]
    source: Source


@dataclass(frozen=True)
class TrainingData:
    """What to learn from and what to judge by, as row numbers that all sources share.

    Attributes:
        image_ids: name of each row, for messages.
        targets: one entry per row.
        train_rows: the training list; repeats allowed.
        val_rows: each once.
        score: outputs (n, k) and targets -> the primary metric.
    """

    image_ids: Sequence[str]
    targets: npt.NDArray[Any]
    train_rows: Rows
    val_rows: Sequence[int]
    score: Callable[[npt.NDArray[np.float32], npt.NDArray[Any]], float]


@dataclass(frozen=True)
class Trained:
    """The outcome: weights and score of the epoch (from 1) that is kept, and one row per epoch run.

    Of the weights only what learned is named; all others are as the net was built. With
    `train.soup` weights and score are the soup's, and `soup` its epochs, the best one first.
    """

    state: State
    epoch: int
    score: float
    curve: list[EpochRow]
    soup: tuple[int, ...] = ()


def mix_of_step(
    recipe: Recipe, plan: tuple[Phase, ...], epoch: int, step: int, n_rows: int
) -> Mix | None:
    """How a step's batch is mixed; None: not at all.

    Args:
        epoch: from 1.
        step: from 0 over all epochs.
        n_rows: of the step's batch.
    """
    params = recipe.params
    if epoch > count_augmented_epochs(params.augment_until, recipe.epochs):
        return None
    sees_images = phase_of(plan, epoch, recipe.epochs).part == ALL
    cutmix = params.recipes.cutmix if sees_images else 0.0
    return draw_mix(params.recipes.mixup, cutmix, recipe.seed, step, n_rows)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after a checkpoint; the message says where it stands."""


@dataclass(frozen=True)
class Job:
    """A training, whole.

    Attributes:
        build: the net as it is before training, fresh at each call, for one phase.
        plan: phases in order.
        task: gives the loss.
        metric: what `data.score` computes.
    """

    build: Callable[[Phase], Part]
    plan: tuple[Phase, ...]
    task: NetTask
    data: TrainingData
    recipe: Recipe
    metric: MetricSpec


def train(
    job: Job,
    on_epoch: Callable[[EpochRow], None],
    group: Group | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: OnStep | None = None,
) -> Trained:
    """Train what `job` says and return the weights of the epoch that `keep` names.

    Best: the earliest epoch with the best primary score on the val rows. With `patience` p > 0,
    training stops after p epochs without a better one. With `soup` > 0, the average that the best
    epochs' weights make is returned instead (see podium.engine.soup).

    Args:
        job: what and how.
        on_epoch: told of each finished epoch, also of those before a resumption.
        group: the processes that share each batch; all call this alike. None: this one.
        checkpoints: where to go on from and to note progress; rank 0's alone is used.
        on_step: told of each step's loss, the mean over all ranks' rows.

    Raises:
        PodiumError: the loss exploded or is no longer a number.
        Interrupted: Ctrl-C or SIGTERM.
    """
    with StopRequest() as stop:
        return _Loop(job, on_epoch, group or Alone(), checkpoints, stop, on_step).run()


class StopRequest:
    """Ctrl-C and SIGTERM as a wish that the loop looks at after each step. A second one ends it.

    Attributes:
        signal: the one that came; None so far.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


class _Loop:
    def __init__(
        self,
        job: Job,
        on_epoch: Callable[[EpochRow], None],
        group: Group,
        checkpoints: Checkpoints | None,
        stop: StopRequest,
        on_step: OnStep | None,
    ) -> None:
        self._job, self._on_epoch, self._group = job, on_epoch, group
        self._on_step = on_step
        self._checkpoints, self._stop = checkpoints, stop
        self._speaks = group.rank == 0
        self._steps = count_steps(len(job.data.train_rows), job.recipe.batch_size)
        self._progress = Progress()
        self._kept: State = {}
        size, higher = job.recipe.params.soup, job.metric.higher_is_better
        self._ingredients = Ingredients(size, higher)
        self._as_built: State = {}  # what learns in this phase; for the soup
        self._all_stop = False  # what all ranks agreed on in the last step
        self._said_at = -math.inf

    def run(self) -> Trained:
        """All epochs that are left."""
        start = self._resume()
        job, progress, epochs = self._job, self._progress, self._job.recipe.epochs
        phase, part, session = None, None, None
        began = time.monotonic(), len(progress.curve)
        while not progress.finished:
            epoch = len(progress.curve) + 1
            if phase_of(job.plan, epoch, epochs) != phase:
                if session:
                    start = self._snapshot(session)
                phase = phase_of(job.plan, epoch, epochs)
                part, session = self._begin(phase, start)
            assert part is not None
            assert session is not None
            row = self._run_epoch(epoch, part, session)
            progress.curve.append(row)
            progress.epoch_loss = 0.0
            self._on_epoch(row)
            if self._is_to_keep(row.val_score):
                progress.kept_epoch, progress.kept_score = epoch, row.val_score
                self._kept = session.judged_state()
            self._ingredients.offer(epoch, session.judged_state, self._scores())
            progress.finished = epoch == epochs or self._is_impatient()
            self._save(session)
            self._say(row, began)
            if self._all_stop and not progress.finished:
                raise self._interrupted()
        if self._ingredients:
            self._make_soup(part, session)
        # Asked after the last step: the next fold shall not begin. This one is done, and stored.
        asked = self._stop.signal is not None and self._checkpoints is not None
        if self._group.broadcast(b"1" if asked else b""):
            raise self._interrupted()
        assert progress.kept_score is not None
        return Trained(
            self._kept,
            progress.kept_epoch,
            progress.kept_score,
            progress.curve,
            tuple(progress.soup),
        )

    def _make_soup(self, part: Part | None, session: Session | None) -> None:
        """Put the soup in the kept weights' place. A run that was killed here finds all epochs
        done, and begins this anew."""
        job, progress = self._job, self._progress
        if part is None or session is None:
            phase = phase_of(job.plan, len(progress.curve), job.recipe.epochs)
            part, session = self._begin(phase, None)
        judged, source = session, part.source

        def judge(state: State) -> float:
            rows = job.data.val_rows
            outputs = judged.outputs(rows, source.plain_inputs, state)
            return job.data.score(outputs, job.data.targets[rows])

        before, scores = progress.kept_score, self._scores()
        soup = self._ingredients.stir(self._as_built, scores, judge)
        self._kept, progress.soup, progress.kept_score = soup
        self._ingredients = Ingredients(0, job.metric.higher_is_better)
        self._save(session)
        if self._speaks:
            print(
                f"soup of the epochs {', '.join(map(str, progress.soup))}: val {job.metric.name} "
                f"{before:.4f} -> {progress.kept_score:.4f}",
                flush=True,
            )

    def _scores(self) -> list[float]:
        return [row.val_score for row in self._progress.curve]

    def _resume(self) -> Snapshot | None:
        """Take up the checkpoint that rank 0 has, if any."""
        content = self._checkpoints.load() if self._checkpoints else b""
        content = self._group.broadcast(content)
        if not content:
            return None
        snapshot = Snapshot.from_bytes(content)
        self._progress, self._kept = snapshot.progress, snapshot.kept
        self._ingredients.load(snapshot.soup)
        for row in self._progress.curve:
            self._on_epoch(row)
        if self._speaks:
            print(f"going on {self._where()}", flush=True)
        return snapshot

    def _snapshot(self, session: Session) -> Snapshot:
        return Snapshot(
            replace(self._progress),
            session.network_state(),
            session.optimizer_state(),
            session.average_state(),
            self._kept,
            self._ingredients.to_state(),
        )

    def _begin(self, phase: Phase, start: Snapshot | None) -> tuple[Part, Session]:
        recipe = self._job.recipe
        # A fresh counter: the optimiser's state goes by the parameters' generated names.
        paddle.utils.unique_name.switch()
        part = self._job.build(phase)
        optimizer_of_part = build_optimizer(part.trainee, recipe.params, recipe.lr, part.depth_of)
        session = Session(
            part.network,
            part.trainee,
            optimizer_of_part,
            self._job.task,
            self._group,
            recipe.runtime.amp,
            recipe.params.ema,
            recipe.params.clip_norm,
        )
        self._as_built = session.network_state() if recipe.params.soup else {}
        if start:
            session.load(start.network, start.optimizer, start.averages)
        if self._speaks and len(self._job.plan) > 1:
            print(f"phase: {phase.part} at {phase.image_size_px} px", flush=True)
        return part, session

    def _run_epoch(self, epoch: int, part: Part, session: Session) -> EpochRow:
        recipe, progress, data = self._job.recipe, self._progress, self._job.data
        params = recipe.params
        done = progress.step - (epoch - 1) * self._steps  # more than 0 after a resumption
        total_steps = self._steps * recipe.epochs
        warmup_steps = round(params.warmup_epochs * self._steps)
        lr = recipe.lr
        label, n_rows = f"epoch {epoch}/{recipe.epochs}", len(data.train_rows)
        n_done = min(n_rows, done * recipe.batch_size)
        with EpochBar(label, n_rows, n_done, self._speaks) as bar:
            for rows, passes in self._batches(part.source, epoch, done):
                step = progress.step
                lr = learning_rate(params, recipe.lr, step, total_steps, warmup_steps)
                loss = session.add_gradients(passes, partial(self._seed, step))
                loss, self._all_stop = session.exchange(loss, self._stop.signal is not None)
                if self._on_step:
                    self._on_step(StepLoss(epoch, recipe.epochs, step, loss))
                self._check_loss(loss, epoch, lr, rows)
                session.update(lr, step)
                progress.step += 1
                progress.epoch_loss += loss * len(rows)
                bar.advance(len(rows), loss=loss, lr=lr)
                in_epoch = progress.step - (epoch - 1) * self._steps
                if in_epoch == self._steps:
                    break
                if self._all_stop:
                    self._save(session)
                    raise self._interrupted()
                if params.checkpoint_every and progress.step % params.checkpoint_every == 0:
                    self._save(session)
        outputs = session.outputs(data.val_rows, part.source.plain_inputs)
        targets = data.targets[data.val_rows]
        if not np.isfinite(outputs).all():
            raise PodiumError(
                f"after epoch {epoch} the net's outputs on the val images are no numbers: "
                f"{_TRY}.{self._where_kept()}"
            )
        val_loss, score = session.loss(outputs, targets), data.score(outputs, targets)
        return EpochRow(epoch, progress.epoch_loss / n_rows, val_loss, score, lr)

    def _batches(
        self, source: Source, epoch: int, skip: int
    ) -> Iterator[tuple[list[int], list[Pass]]]:
        """The epoch's batches after the first `skip`: all rows, and this rank's passes."""
        recipe, group, data = self._job.recipe, self._group, self._job.data
        per_rank = recipe.params.accumulate

        def make(
            batch: tuple[int, tuple[list[int], list[int]]],
        ) -> tuple[list[int], list[Pass]]:
            number, (rows, occurrences) = batch
            step = (epoch - 1) * self._steps + number
            mix = mix_of_step(recipe, self._job.plan, epoch, step, len(rows))
            parts = split_batch(len(rows), per_rank * group.size)
            passes = []
            for part in parts[group.rank * per_rank : (group.rank + 1) * per_rank]:
                mixed = read_mixed(source, rows, occurrences, epoch, part, mix)
                targets = data.targets[rows[part.start : part.stop]]
                mixed_in = None if mixed.partners is None else data.targets[mixed.partners]
                share = len(part) / len(rows)
                passes.append(Pass(mixed.inputs, targets, share, mixed_in, mixed.kept))
            return rows, passes

        batches = list(
            enumerate(epoch_batches(data.train_rows, recipe.batch_size, recipe.seed, epoch))
        )
        threads = 1 if recipe.runtime.device == "cpu" else min(8, available_cores())
        return prefetch(batches[skip:], make, data_workers(threads))

    def _seed(self, step: int, number: int) -> int:
        """Of the random numbers of a step's pass on this rank."""
        return derive_seed(self._job.recipe.seed, "step", step, self._group.rank, number)

    def _is_to_keep(self, score: float) -> bool:
        kept = self._progress.kept_score
        if kept is None or self._job.recipe.params.keep == "last":
            return True
        return score > kept if self._job.metric.higher_is_better else score < kept

    def _is_impatient(self) -> bool:
        """Whether the last phase has gone on for so long without a better epoch: a head that has
        learned all it can is what `train.unfreeze` waits for."""
        patience, progress = self._job.recipe.params.patience, self._progress
        plan, epochs, epoch = self._job.plan, self._job.recipe.epochs, len(progress.curve)
        before = sum(phase_of(plan, past, epochs) != plan[-1] for past in range(1, epoch + 1))
        if not patience or epoch - max(before, progress.kept_epoch) < patience:
            return False
        if self._speaks:
            print(f"stopped early: no better {self._job.metric.name} for {patience} epochs")
        return True

    def _save(self, session: Session) -> None:
        if not self._checkpoints or self._group.rank:
            return
        if self._progress.finished:  # only the kept weights are wanted any more, and the soup's
            soup = self._ingredients.to_state()
            self._checkpoints.save(Snapshot(self._progress, {}, {}, {}, self._kept, soup))
        else:
            self._checkpoints.save(self._snapshot(session))

    def _check_loss(self, loss: float, epoch: int, lr: float, rows: list[int]) -> None:
        progress = self._progress
        if progress.first_loss is None and math.isfinite(loss):
            progress.first_loss = loss
        limit = _EXPLODED * max(1.0, progress.first_loss or 1.0)
        if math.isfinite(loss) and loss <= limit:
            return
        ids = ", ".join(dict.fromkeys(self._job.data.image_ids[row] for row in rows[:8]))
        more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
        raise PodiumError(
            f"the loss became {loss:.4g} in epoch {epoch}, step "
            f"{progress.step - (epoch - 1) * self._steps + 1}, at lr {lr:.3g}, on images {ids}{more}: "
            f"{_TRY}.{self._where_kept()}"
        )

    def _where_kept(self) -> str:
        """Where the last good weights are, if anywhere."""
        epochs = len(self._progress.curve)
        if not self._checkpoints or not epochs:
            return ""
        return f" The weights up to epoch {epochs} stay in {self._checkpoints.path}."

    def _where(self) -> str:
        progress = self._progress
        epoch = len(progress.curve)
        step = progress.step - epoch * self._steps
        return f"after epoch {epoch}/{self._job.recipe.epochs}" + (f", step {step}" if step else "")

    def _interrupted(self) -> Interrupted:
        by = "SIGTERM" if self._stop.signal == signal.SIGTERM else "Ctrl-C"
        kept = "; `dvc repro` goes on from there" if self._checkpoints else ""
        return Interrupted(f"stopped by {by} {self._where()}{kept}")

    def _say(self, row: EpochRow, began: tuple[float, int]) -> None:
        """A line per epoch, and not more than one in two seconds."""
        now, epochs = time.monotonic(), self._job.recipe.epochs
        is_due = now - self._said_at >= _LINE_EVERY_S or self._progress.finished
        if not (self._speaks and is_due):
            return
        self._said_at = now
        start, first = began
        left_s = (now - start) / (row.epoch - first) * (epochs - row.epoch)
        keeps_best = self._job.recipe.params.keep == "best"
        best = f" (best: epoch {self._progress.kept_epoch})" if keeps_best else ""
        print(
            f"epoch {row.epoch}/{epochs}: train loss {row.train_loss:.4f}, "
            f"val loss {row.val_loss:.4f}, val {self._job.metric.name} {row.val_score:.4f}"
            f"{best}, {left_s:.0f} s left",
            flush=True,
        )
