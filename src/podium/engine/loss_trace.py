"""The loss of every step in a file, where the environment asks for it: PODIUM_LOSS_TRACE=FOLDER.

`podium certify` asks, to name the first step at which two trainings part. The numbers are there
anyway, so nothing is computed for it and no bit changes. It is no DVC output: a training that goes
on from a checkpoint writes the steps since then once more.

FOLDER/foldK.csv           epoch,epochs,step,loss: the step counts from 0 over all epochs, the loss
FOLDER/foldK-round2.csv    is a hexadecimal float, exact
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PODIUM_LOSS_TRACE"
_LONGEST_LINES = 200  # bytes that hold at least one whole line


@dataclass(frozen=True)
class StepLoss:
    """One optimiser step: epoch (from 1) of how many, number over all epochs (from 0), mean loss."""

    epoch: int
    epochs: int
    step: int
    loss: float


OnStep = Callable[[StepLoss], None]


@contextlib.contextmanager
def open_loss_trace(name: str) -> Iterator[OnStep]:
    """Where the model `name` notes its steps; nowhere, unless the environment names a folder."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        yield lambda row: None
        return
    path = Path(folder) / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as stream:  # one system call a line: a kill cuts none short

        def note(row: StepLoss) -> None:
            loss = float(row.loss).hex()
            stream.write(f"{row.epoch},{row.epochs},{row.step},{loss}\n".encode())

        yield note


def read_loss_traces(folder: Path) -> dict[str, list[StepLoss]]:
    """All of a folder's traces by name, each in the order of writing; empty where there are none.

    In the order of training: fold0, fold1, ..., fold10, then the second round's.
    """
    paths = sorted(folder.glob("*.csv"), key=lambda path: (len(path.stem), path.stem))
    return {path.stem: _read(path) for path in paths}


def read_last_step(folder: Path) -> StepLoss | None:
    """What was written last, cheaply: to be asked often while a training writes."""
    paths = [path for path in folder.glob("*.csv") if path.stat().st_size]
    if not paths:
        return None
    path = max(paths, key=lambda path: path.stat().st_mtime_ns)
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _LONGEST_LINES))
        return _parse(stream.read().decode("utf-8").rstrip("\n").rpartition("\n")[2])


def _parse(line: str) -> StepLoss:
    epoch, epochs, step, loss = line.split(",")
    return StepLoss(int(epoch), int(epochs), int(step), float.fromhex(loss))


def _read(path: Path) -> list[StepLoss]:
    return [_parse(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_same_loss(first: float, second: float) -> bool:
    """Whether two losses are the same number; not-a-number is the same as itself."""
    return first == second or (math.isnan(first) and math.isnan(second))
