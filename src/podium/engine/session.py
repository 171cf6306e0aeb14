"""One phase at work: a net of which some part learns, its optimiser, and a step shared by all ranks.

After every step all ranks hold the same bits, batch-norm statistics included: gradients, those
statistics and the loss travel together. Each pass normalises by its own rows, as data-parallel
training does everywhere; the running statistics, by which the net is judged, are the mean over the
ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.engine.batches import Inputs
from podium.engine.processes import Group, Vector
from podium.engine.weights import State, load_state, read_state
from podium.tasks.net_protocol import NetTask

_JUDGED_AT_ONCE = 32
# The second is Paddle's older layer, which DenseNet uses: no relative of the first.
_BATCH_NORMS = (nn.layer.norm._BatchNormBase, nn.BatchNorm)


@dataclass(frozen=True)
class Pass:
    """A part of a step's batch.

    Attributes:
        inputs, targets: (n, ...).
        share: of the batch's rows, > 0 .. 1.
        mixed_in: the targets of what is mixed into the inputs; None: nothing is.
        kept: the weight of the loss against `targets`, 0..1; the rest is that of `mixed_in`.
    """

    inputs: Inputs
    targets: npt.NDArray[Any]
    share: float
    mixed_in: npt.NDArray[Any] | None = None
    kept: float = 1.0


class Session:
    """The net and its optimiser in one phase.

    Args:
        network: the whole net, freshly built: every phase has its own.
        trainee: the part of it that runs on the phase's inputs.
        optimizer: Paddle's, over the parameters that learn.
        task: gives the loss.
        group: the ranks.
        amp: float16 where it is safe, with loss scaling; on GPUs.
        ema: decay of the moving average of the weights, by which the net is judged and kept; 0:
            none. It starts low, min(ema, (1 + step) / (10 + step)), as in TensorFlow.
        clip_norm: the greatest norm of all gradients together; 0: any.
    """

    def __init__(
        self,
        network: nn.Layer,
        trainee: nn.Layer,
        optimizer: Any,
        task: NetTask,
        group: Group,
        amp: bool,
        ema: float = 0.0,
        clip_norm: float = 0.0,
    ) -> None:
        self._network, self._trainee, self._task, self._group = network, trainee, task, group
        self._optimizer = optimizer
        self._amp = amp
        self._scaler = paddle.amp.GradScaler(enable=amp)
        self._learning = [p for p in trainee.parameters() if not p.stop_gradient]
        self._statistics = [
            tensor
            for layer in trainee.sublayers(include_self=True)
            if isinstance(layer, _BATCH_NORMS) and not layer.weight.stop_gradient
            for tensor in (layer._mean, layer._variance)
        ]
        learned = {tensor.name for tensor in (*self._learning, *self._statistics)}
        self._learned = [n for n, t in network.state_dict().items() if t.name in learned]
        self._decay, self._clip_norm = ema, clip_norm
        own = network.state_dict()
        # Not batch-norm statistics: averaged with the weights they did no better (docs/training.md).
        names = {parameter.name for parameter in self._learning}
        self._averages = {
            name: own[name].clone().detach()
            for name in (self._learned if ema else ())
            if own[name].name in names
        }

    def load(self, network: State, optimizer: State, averages: State) -> None:
        """Go on from there; an optimiser without a state starts fresh, and so does the average of
        what did not learn before."""
        load_state(self._network, {**read_state(self._network), **network})
        own = self._network.state_dict()
        for name, average in self._averages.items():
            average.set_value(averages.get(name, own[name]))
        if optimizer:
            scaler = {n.partition("/")[2]: v for n, v in optimizer.items() if n[:7] == "scaler/"}
            own = {n: paddle.to_tensor(v) for n, v in optimizer.items() if n[:7] != "scaler/"}
            # Paddle wants a state for every parameter; one that begins to learn has none yet.
            block = paddle.base.framework.default_main_program().global_block()
            self._optimizer._create_accumulators(block, self._learning)
            fresh = {
                name: value
                for name, value in self._optimizer.state_dict().items()
                if isinstance(value, paddle.Tensor)
            }
            self._optimizer.set_state_dict({**fresh, **own})
            if scaler:
                self._scaler.load_state_dict({name: v.item() for name, v in scaler.items()})

    def network_state(self) -> State:
        """A copy of what learns of the net, by name; the rest is as it was built."""
        own = self._network.state_dict()
        return {name: np.array(own[name]) for name in self._learned}

    def average_state(self) -> State:
        """A copy of the moving averages, by name; empty without."""
        return {name: np.array(average) for name, average in self._averages.items()}

    def judged_state(self) -> State:
        """What learns of the net, as it is judged and kept."""
        return {**self.network_state(), **self.average_state()}

    def optimizer_state(self) -> State:
        """A copy of what the optimiser remembers of each parameter, by Paddle's names."""
        state = {
            name: np.array(value)
            for name, value in self._optimizer.state_dict().items()
            if isinstance(value, paddle.Tensor)
        }
        if self._amp:
            scaler = self._scaler.state_dict()
            state |= {f"scaler/{name}": np.array(value) for name, value in scaler.items()}
        return state

    def add_gradients(self, passes: Sequence[Pass], seed: Callable[[int], int]) -> float:
        """Run this rank's passes of a step; gradients stay in the parameters.

        Args:
            passes: may be empty, when the batch is small.
            seed: of the random numbers of pass i (dropout).

        Returns:
            this rank's share of the batch's mean loss.
        """
        self._trainee.train()
        total = 0.0
        for number, part in enumerate(passes):
            paddle.seed(seed(number))
            with paddle.amp.auto_cast(enable=self._amp):
                outputs = self._trainee(paddle.to_tensor(part.inputs))
            loss = self._loss_of(part, outputs.astype("float32")) * part.share
            self._scaler.scale(loss).backward()
            total += float(loss)
        return total

    def _loss_of(self, part: Pass, outputs: paddle.Tensor) -> paddle.Tensor:
        loss = self._task.loss(outputs, paddle.to_tensor(part.targets))
        if part.mixed_in is None:
            return loss
        other = self._task.loss(outputs, paddle.to_tensor(part.mixed_in))
        return part.kept * loss + (1 - part.kept) * other

    def exchange(self, loss: float, stop: bool) -> tuple[float, bool]:
        """Add up gradients and loss over the ranks, and average batch-norm statistics.

        Returns:
            the batch's mean loss; whether any rank wants to stop.
        """
        if self._group.size == 1:
            return loss, stop
        for parameter in self._learning:
            if parameter.grad is None:  # this rank had no pass, or none that needs it
                parameter.grad = paddle.zeros_like(parameter)
        tensors = [*(parameter.grad for parameter in self._learning), *self._statistics]
        vectors = [_numbers(tensor) for tensor in tensors]
        tail = np.array([loss, stop], np.float32)
        self._group.sum([*vectors, tail])
        for vector in vectors[len(self._learning) :]:
            vector /= np.float32(self._group.size)
        for tensor, vector in zip(tensors, vectors, strict=True):
            if not tensor.place.is_cpu_place():
                tensor.set_value(vector.reshape(tensor.shape))
        return float(tail[0]), bool(tail[1])

    def update(self, lr: float, step: int) -> None:
        """The optimiser's step number `step`, from 0 over all epochs.

        Gradients are clipped to `clip_norm` by their common norm (Pascanu et al.,
        arXiv:1211.5063) after `exchange`, whose sums are the same bits on every rank: so is the
        factor. Not by the optimiser: Paddle's takes a norm for each of its groups.
        """
        self._optimizer.set_lr(lr)
        if self._clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._learning, self._clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # Dropped, not zeroed: the next pass hands its gradients over, instead of adding them to zeros.
        self._optimizer.clear_grad(set_to_zero=False)
        decay = min(self._decay, (1 + step) / (10 + step))
        own = self._network.state_dict()
        with paddle.no_grad():
            for name, average in self._averages.items():
                average.scale_(decay)
                average.add_(own[name] * (1 - decay))

    @contextlib.contextmanager
    def _holding(self, values: Mapping[str, Any]) -> Iterator[None]:
        """With these tensors or arrays in the net's place."""
        own = self._network.state_dict()
        kept = {name: own[name].clone() for name in values}
        for name, value in values.items():
            own[name].set_value(value)
        try:
            yield
        finally:
            for name, before in kept.items():
                own[name].set_value(before)

    def outputs(
        self,
        rows: Sequence[int],
        read: Callable[[Sequence[int]], Inputs],
        state: State | None = None,
    ) -> npt.NDArray[np.float32]:
        """What the net says of `rows` in evaluation mode, (n, k); the ranks share the batches.

        A batch holds the same rows for any number of ranks.

        Args:
            rows: which.
            read: their inputs.
            state: of what learns, by name, to judge in place of the net's own.
        """
        self._trainee.eval()
        outputs = np.zeros((len(rows), self._task.outputs), np.float32)
        starts = range(0, len(rows), _JUDGED_AT_ONCE)
        with paddle.no_grad(), self._holding(self._averages if state is None else state):
            for start in starts[self._group.rank :: self._group.size]:
                part = slice(start, start + _JUDGED_AT_ONCE)
                outputs[part] = self._trainee(paddle.to_tensor(read(rows[part]))).numpy()
        if self._group.size > 1:  # all other ranks hold 0 there: the sum is exact
            self._group.sum([outputs.reshape(-1)])
        return outputs

    def loss(self, outputs: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> float:
        """The task's loss of outputs (n, k), without learning from it."""
        with paddle.no_grad():
            return float(self._task.loss(paddle.to_tensor(outputs), paddle.to_tensor(targets)))


def _numbers(tensor: paddle.Tensor) -> Vector:
    """The numbers of a dense float32 tensor, flat; on a CPU the tensor's own memory."""
    if not tensor.place.is_cpu_place():
        copied: Vector = tensor.numpy().reshape(-1)
        return copied
    own: npt.NDArray[Any] = np.from_dlpack(tensor.detach())
    return own.reshape(-1, copy=False)
