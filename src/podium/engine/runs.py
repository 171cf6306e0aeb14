"""A training's surroundings: its processes, its checkpoints, its curves.

In: params and the files that decide the outcome. Out: what the loop needs, on every rank.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import paddle

from podium.engine.checkpoint import Checkpoints, TrainingFolder, open_training_folder
from podium.engine.curves import EpochRow, VisualDLCurves, visualdl_folder
from podium.engine.loss_trace import OnStep, open_loss_trace
from podium.engine.memory import explain_out_of_memory
from podium.engine.params import RuntimeParams
from podium.engine.processes import Group, is_follower, join_group
from podium.errors import PodiumError
from podium.runtime import cpu_class, describe_math, keep_freed_memory


class Run:
    """What one rank of a training works with.

    Args:
        group: the ranks.
        folder: of the checkpoints; rank 0's alone.
        n_folds: how many models are trained.
        number: of the round, from 1: each has checkpoints and curves of its own.
    """

    def __init__(
        self, group: Group, folder: TrainingFolder | None, n_folds: int, number: int = 1
    ) -> None:
        self.group, self._folder, self._n_folds, self._number = group, folder, n_folds, number

    def next_round(self) -> Run:
        """The same surroundings for a training of the same folds that follows on this one."""
        return Run(self.group, self._folder, self._n_folds, self._number + 1)

    @contextlib.contextmanager
    def fold(self, fold: int) -> Iterator[tuple[Callable[[EpochRow], None], Checkpoints | None]]:
        """Where the model judged on `fold` notes its epochs, and its checkpoints."""
        if self._folder is None:
            yield (lambda row: None), None
            return
        logs = visualdl_folder()
        if self._number > 1:
            logs /= f"round{self._number}"
        with VisualDLCurves(logs / f"fold{fold}" if self._n_folds > 1 else logs) as curves:
            yield curves.add, self._folder.checkpoints(fold, self._number)

    @contextlib.contextmanager
    def steps(self, fold: int) -> Iterator[OnStep | None]:
        """Where the model judged on `fold` notes the loss of each step; rank 0 does."""
        if self._folder is None:
            yield None
            return
        later = f"-round{self._number}" if self._number > 1 else ""
        with open_loss_trace(f"fold{fold}{later}") as on_step:
            yield on_step

    def note_written(self) -> None:
        """The outputs stand."""
        if self._folder:
            self._folder.note_written()


@contextlib.contextmanager
def open_run(
    processes: int, runtime: RuntimeParams, command: Sequence[str], key: str, n_folds: int
) -> Iterator[Run]:
    """The surroundings of the training `key`, for as long as the block lasts.

    Args:
        processes: how many share the work.
        runtime: the device.
        command: starts one more of them.
        key: from `make_training_key`.
        n_folds: how many models are trained.

    Raises:
        PodiumError: no such device; the same training runs elsewhere; out of memory.
    """
    set_device(runtime)
    keep_freed_memory()
    with contextlib.ExitStack() as stack:
        stack.enter_context(explain_out_of_memory())
        folder = None
        if not is_follower():
            print(f"on {runtime.device}: processes {processes}, {describe_math()}", flush=True)
            folder = stack.enter_context(open_training_folder(key))
        group = stack.enter_context(join_group(processes, runtime.device, command))
        yield Run(group, folder, n_folds)


def set_device(runtime: RuntimeParams) -> None:
    """Make `runtime.device` Paddle's place for new tensors.

    Raises:
        PodiumError: this Paddle or this machine has none.
    """
    if runtime.device == "cpu":
        paddle.set_device("cpu")
        return
    if not paddle.is_compiled_with_cuda():
        raise PodiumError(
            "runtime.device gpu: the installed Paddle runs on CPUs only: install paddlepaddle-gpu "
            "into .venv, or set runtime.device: cpu"
        )
    if not paddle.device.cuda.device_count():
        raise PodiumError("runtime.device gpu: no GPU is visible here: set runtime.device: cpu")
    paddle.set_device("gpu")
    paddle.set_flags({"FLAGS_cudnn_deterministic": True})


def make_training_key(params: Mapping[str, Any], code: Iterable[Path], data: Iterable[Path]) -> str:
    """A name for what decides a training's bits: 32 hex digits.

    Args:
        params: those that the stage declares, as `podium.dag.declared_params` has them: what else
            is edited while a training is down leaves it its checkpoint.
        code: files, and folders: of these Python and YAML count.
        data: files; one that is missing has no content.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = [
        file for path in (*code, *data) for file in (_code_in(path) if path.is_dir() else [path])
    ]
    train = {key: value for key, value in params["train"].items() if key != "checkpoint_every"}
    said = json.dumps({**params, "train": train}, sort_keys=True)
    parts = [said.encode("utf-8"), cpu_class().encode(), paddle.__version__.encode()]
    for file in files:
        parts += [file.as_posix().encode("utf-8"), file.read_bytes() if file.exists() else b""]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _code_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".yaml"))
