"""Checkpoints: what a killed training goes on from, to the same bits as if it had not been killed.

.podium/checkpoints/KEY/   in the main checkout, so that queued and temporary runs find theirs
  foldK/checkpoint         SHA-256 of the rest, then safetensors: network, optimiser, moving averages,
                           kept weights, the soup's ingredients; what else the loop knows stands in
                           their metadata as JSON
  unfinished.json          there while a training runs: who finds it knows that the last was killed
  written                  there when the stage has written its outputs
  lock                     one training per key

KEY is a hash of the code, the data, the params and the CPU class: whatever would lead to other
bits starts anew. Random numbers need no place in it: every draw is a function of seed and step.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from podium.data.store import main_root
from podium.engine.curves import EpochRow
from podium.engine.memory import LESS_MEMORY, MemoryFacts, read_memory_facts, was_out_of_memory
from podium.engine.weights import State
from podium.files import hold_lock, remove_abandoned, write_bytes, write_json

_MAGIC = b"podium checkpoint 1\n"
_DIGEST_BYTES = 32
_GROUPS = ("network", "optimizer", "averages", "kept", "soup")
# Abandoned trainings keep their checkpoints, the newest first, up to so many bytes in all.
_CAP_BYTES = 3e9


@dataclass
class Progress:
    """How far a training is: with the tensors, all that decides how it goes on.

    Attributes:
        step: optimiser steps done, over all epochs.
        epoch_loss: sum of the losses of the unfinished epoch's rows.
        first_loss: of the very first step; None before it.
        curve: one row per finished epoch.
        kept_epoch, kept_score: of the kept weights; 0 and None before the first epoch's end.
        finished: nothing is left to learn.
        soup: the epochs whose average the kept weights are, once it is made.
    """

    step: int = 0
    epoch_loss: float = 0.0
    first_loss: float | None = None
    curve: list[EpochRow] = field(default_factory=list)
    kept_epoch: int = 0
    kept_score: float | None = None
    finished: bool = False
    soup: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint's content. Tensors of `soup` are named EPOCH/NAME (see podium.engine.soup)."""

    progress: Progress
    network: State
    optimizer: State
    averages: State
    kept: State
    soup: State = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As a file's content, with its hash."""
        groups = {name: getattr(self, name) for name in _GROUPS}
        tensors = {f"{group}/{name}": v for group, s in groups.items() for name, v in s.items()}
        said = json.dumps(asdict(self.progress), allow_nan=False)
        content = safetensors.numpy.save(tensors, metadata={"progress": said})
        return _MAGIC + hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, file: bytes) -> Snapshot:
        """Inverse of `to_bytes`.

        Raises:
            ValueError: cut short, changed, or of another format.
        """
        start = len(_MAGIC) + _DIGEST_BYTES
        digest, content = file[len(_MAGIC) : start], file[start:]
        if not file.startswith(_MAGIC) or hashlib.sha256(content).digest() != digest:
            raise ValueError("cut short or changed")
        try:
            tensors = safetensors.numpy.load(content)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        told: dict[str, Any] = json.loads(header["__metadata__"]["progress"])
        told["curve"] = [EpochRow(**row) for row in told["curve"]]
        groups: dict[str, State] = {group: {} for group in _GROUPS}
        for name, values in tensors.items():
            group, _, own = name.partition("/")
            groups[group][own] = values
        return cls(Progress(**told), **groups)


class Checkpoints:
    """The checkpoint of one model.

    Args:
        folder: its own; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint"

    def save(self, snapshot: Snapshot) -> None:
        """Replace the checkpoint in one step."""
        write_bytes(self.path, snapshot.to_bytes())

    def load(self) -> bytes:
        """The file's content, checked; empty where there is none, or, with a word on stdout, where
        it is damaged."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        try:
            Snapshot.from_bytes(content)
        except ValueError as error:
            print(f"{self.path} is damaged ({error}): training starts anew", flush=True)
            return b""
        return content


class TrainingFolder:
    """What is kept of one training, of one or several folds, while it is not over; see the module.

    Args:
        path: .podium/checkpoints/KEY.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marker = path / "unfinished.json"
        self._written = path / "written"

    def checkpoints(self, fold: int, number: int = 1) -> Checkpoints:
        """Of the model that is judged on `fold`, in the round of that number."""
        later = f"-round{number}" if number > 1 else ""
        return Checkpoints(self.path / f"fold{fold}{later}")

    def note_written(self) -> None:
        """The stage's outputs stand. Checkpoints stay until dvc has recorded them, too."""
        write_bytes(self._written, b"")

    def drop_if_recorded(self, dvc_lock: Path) -> None:
        """Start anew if dvc has written `dvc_lock` since the outputs were: then this run was asked
        for by `--force`. If it has not, it was killed in between, and nothing needs to be trained
        again."""
        if not self._written.exists():
            return
        if dvc_lock.exists() and dvc_lock.stat().st_mtime > self._written.stat().st_mtime:
            for folder in self.path.glob("fold*"):
                shutil.rmtree(folder)
            self._written.unlink()

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """While this lasts, `unfinished.json` is there: it stays if the process is killed."""
        facts = read_memory_facts()
        if self._marker.exists():
            print(_explain_marker(self._marker, facts), flush=True)
        write_json(self._marker, facts)
        try:
            yield
        finally:
            self._marker.unlink(missing_ok=True)


@contextlib.contextmanager
def open_training_folder(key: str) -> Iterator[TrainingFolder]:
    """The folder of the training `key`, locked; what other trainings abandoned is kept within
    bounds.

    Raises:
        PodiumError: the same training runs elsewhere.
    """
    room = main_root() / ".podium" / "checkpoints"
    path = room / key
    busy = "the same training (code, data, params) runs elsewhere: wait for it, then run again"
    with hold_lock(path / "lock", busy):
        for fold in room.glob("*/fold*"):  # of any training: it may never be gone on with
            remove_abandoned(Checkpoints(fold).path)
        _drop_oldest(room, keep=path)
        folder = TrainingFolder(path)
        folder.drop_if_recorded(Path("dvc.lock"))
        with folder.marked():
            yield folder


def _drop_oldest(room: Path, keep: Path) -> None:
    """Remove the oldest trainings beyond the cap, but no living one."""
    folders = sorted(
        (path for path in room.iterdir() if path.is_dir() and path != keep),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    total = 0
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a living training's partial file
                total += path.stat().st_size if path.is_file() else 0
        if total > _CAP_BYTES:
            with (
                contextlib.suppress(FileNotFoundError, BlockingIOError),
                (folder / "lock").open("a") as stream,
            ):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def _explain_marker(path: Path, now: MemoryFacts) -> str:
    """What the marker of a killed run says about it."""
    told = "the last run of this training was killed"
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
        for_memory = was_out_of_memory(then, now)
    except (ValueError, KeyError, TypeError, AttributeError):
        return told  # the marker itself was cut short
    if for_memory:
        return f"{told}, and the kernel has killed for lack of memory since it began. {LESS_MEMORY}"
    return told
