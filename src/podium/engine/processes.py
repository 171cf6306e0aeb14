"""Training in several processes: who they are, and how they add up their gradients.

In: vectors, the same on every rank but for the numbers in them. Out: their sums, in their place, the
same bits on every rank, whatever the timing: summands are added in the order of the ranks.

Two ways lead from rank to rank:
- on one machine's CPU, shared memory and pipes, made here. `paddle.distributed` could do it, by
  gloo over TCP, but its rendezvous listens on all interfaces, and it was slower
  (docs/training.md);
- on GPUs, or on several machines (`python -m paddle.distributed.launch ... python -m stages.train`),
  `paddle.distributed`: nccl on GPUs, gloo on CPUs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import paddle
from paddle import distributed

from podium.engine.memory import LESS_MEMORY
from podium.errors import PodiumError

Vector = npt.NDArray[np.float32]

_RANK, _FILES = "PODIUM_RANK", "PODIUM_RANK_FILES"
# What one rank can hand over at once. Virtual: memory is taken by what is used.
_SLOT_BYTES = 1 << 30


class Group(Protocol):
    """The processes of one training, seen from one of them."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def sum(self, vectors: Sequence[Vector]) -> None:
        """Put into each vector the sum of the ranks' vectors; on all ranks as many, as long."""

    def broadcast(self, content: bytes) -> bytes:
        """What rank 0 brought; the others' content is not looked at."""

    def barrier(self) -> None:
        """Wait until all ranks are here."""


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum(self, vectors: Sequence[Vector]) -> None:
        """They are it."""

    def broadcast(self, content: bytes) -> bytes:
        """Itself."""
        return content

    def barrier(self) -> None:
        """Nobody to wait for."""


class SharedMemory:
    """Ranks of one machine: a memory of two slots per rank, and pipes.

    Each exchange takes the other slots than the one before: who writes into a slot has passed the
    barrier of the exchange between, which all reach only when they have read that slot. So one
    barrier per exchange does.

    Args:
        rank, size: of this process; size >= 2.
        memory: file descriptor of the shared memory.
        pipes: rank 0: a socket to each other rank, in order; else: one to rank 0.
        followers: rank 0: the processes at their other ends.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        memory: int,
        pipes: Sequence[socket.socket],
        followers: Sequence[subprocess.Popen[bytes]] = (),
    ) -> None:
        self.rank, self.size = rank, size
        self._pipes, self._followers = pipes, followers
        mapped = mmap.mmap(memory, 2 * size * _SLOT_BYTES)
        self._slots = np.frombuffer(mapped, np.uint8).reshape(2, size, _SLOT_BYTES)
        self._turn = 0

    def sum(self, vectors: Sequence[Vector]) -> None:
        """Each rank adds up all slots for itself: for few ranks that is no slower than a share of
        the places each, and one barrier less.

        Raises:
            ValueError: they are more than a slot holds.
        """
        count = sum(map(len, vectors))
        if 4 * count > _SLOT_BYTES:
            raise ValueError(f"{count} numbers are more than a slot holds")
        slots: npt.NDArray[np.float32] = self._next_slots()[:, : 4 * count].view(np.float32)
        np.concatenate(vectors, out=slots[self.rank])
        self.barrier()
        start = 0
        for vector in vectors:
            summands = list(slots[:, start : start + len(vector)])
            if self.rank < 2:  # the first addition may read this rank's numbers where it writes
                summands[self.rank] = vector
            np.add(summands[0], summands[1], out=vector)
            for summand in summands[2:]:
                vector += summand
            start += len(vector)

    def _next_slots(self) -> npt.NDArray[np.uint8]:
        """Of this exchange, (size, bytes)."""
        self._turn = 1 - self._turn
        slots: npt.NDArray[np.uint8] = self._slots[self._turn]
        return slots

    def broadcast(self, content: bytes) -> bytes:
        """By slot-fuls."""
        length = np.array([len(content)], np.int64) if self.rank == 0 else np.zeros(1, np.int64)
        length = np.frombuffer(self._hand_over(length.tobytes(), 8), np.int64)
        total = int(length[0])
        return b"".join(
            self._hand_over(content[at : at + _SLOT_BYTES], min(_SLOT_BYTES, total - at))
            for at in range(0, total, _SLOT_BYTES)
        )

    def barrier(self) -> None:
        """A byte from everyone to rank 0, and one back.

        Raises:
            PodiumError: on rank 0, another rank is gone; the others just end when rank 0 is.
        """
        if self.rank == 0:
            for number, pipe in enumerate(self._pipes):
                if not _receive(pipe):
                    self._explain_loss(number)
            for number, pipe in enumerate(self._pipes):
                if not _send(pipe):
                    self._explain_loss(number)
        elif not _send(self._pipes[0]) or not _receive(self._pipes[0]):
            sys.exit(1)  # rank 0 has said why

    def _hand_over(self, content: bytes, length: int) -> bytes:
        slot = self._next_slots()[0, :length]
        if self.rank == 0:
            slot[:] = np.frombuffer(content, np.uint8)
        self.barrier()
        received: bytes = slot.tobytes()
        return received

    def _explain_loss(self, number: int) -> None:
        code = self._followers[number].wait()
        what = f"training process {number + 1} of {self.size - 1} beside this one"
        if code == -signal.SIGKILL:
            raise PodiumError(
                f"{what} was killed, by hand or by the kernel for lack of memory. {LESS_MEMORY}. "
                "The next run goes on from the last checkpoint"
            )
        raise PodiumError(
            f"{what} ended with code {code}: train.processes: 1 shows why, if nothing above does"
        )


class PaddleDistributed:
    """Ranks that Paddle's launcher started, or that stand on GPUs."""

    def __init__(self) -> None:
        distributed.init_parallel_env()
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, vectors: Sequence[Vector]) -> None:
        """By the backend's all-reduce."""
        tensor = paddle.to_tensor(np.concatenate(vectors))
        distributed.all_reduce(tensor)
        bounds = np.cumsum([len(vector) for vector in vectors[:-1]])
        for vector, total in zip(vectors, np.split(tensor.numpy(), bounds), strict=True):
            vector[:] = total

    def broadcast(self, content: bytes) -> bytes:
        """As bytes."""
        length = paddle.to_tensor([len(content)], "int64")
        distributed.broadcast(length, 0)
        total = int(length[0])
        padded = content if self.rank == 0 else bytes(total)
        tensor = paddle.to_tensor(np.frombuffer(padded, np.uint8))
        if total:
            distributed.broadcast(tensor, 0)
        return bytes(tensor.numpy().tobytes())

    def barrier(self) -> None:
        """The backend's own."""
        distributed.barrier()


def is_follower() -> bool:
    """Whether this process is a rank other than 0, and so writes nothing and says nothing."""
    rank = os.environ.get(_RANK) or os.environ.get("PADDLE_TRAINER_ID") or "0"
    return rank != "0"


@contextlib.contextmanager
def join_group(size: int, device: str, command: Sequence[str]) -> Iterator[Group]:
    """The group of `size` processes that this one belongs to.

    Rank 0 starts the others on this machine with `command`, which must lead back here; they end
    with the block. Under Paddle's launcher all ranks are there already.

    Args:
        size: `train.processes`.
        device: cpu or gpu.
        command: of one more process.

    Raises:
        PodiumError: the launcher started another number; not as many GPUs.
    """
    launched = os.environ.get("PADDLE_TRAINERS_NUM")
    if launched is not None:
        if int(launched) != size:
            raise PodiumError(
                f"the launcher started {launched} processes, train.processes is {size}: the number "
                "changes the result, so both must say the same"
            )
        yield PaddleDistributed() if size > 1 else Alone()
    elif size == 1:
        yield Alone()
    elif _RANK in os.environ:
        memory, pipe = (int(number) for number in os.environ[_FILES].split(","))
        yield SharedMemory(int(os.environ[_RANK]), size, memory, [socket.socket(fileno=pipe)])
    elif device == "gpu":
        with _started(_paddle_environments(size), command):
            yield PaddleDistributed()
    else:
        with _share_memory(size, command) as group:
            yield group


@contextlib.contextmanager
def _share_memory(size: int, command: Sequence[str]) -> Iterator[SharedMemory]:
    with contextlib.ExitStack() as stack:
        memory = _open_memory(2 * size * _SLOT_BYTES)
        stack.callback(os.close, memory)
        pairs = [socket.socketpair() for _ in range(1, size)]
        for pair in pairs:
            for end in pair:
                stack.callback(end.close)
        environments = [
            {_RANK: str(rank), _FILES: f"{memory},{theirs.fileno()}"}
            for rank, (_, theirs) in enumerate(pairs, start=1)
        ]
        files = [(memory, theirs.fileno()) for _, theirs in pairs]
        followers = stack.enter_context(_started(environments, command, files))
        for _, theirs in pairs:
            theirs.close()  # so that a dead follower is the end of the stream
        yield SharedMemory(0, size, memory, [ours for ours, _ in pairs], followers)


@contextlib.contextmanager
def _started(
    environments: Sequence[Mapping[str, str]],
    command: Sequence[str],
    files: Sequence[Sequence[int]] = (),
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The other ranks, one per environment; the first of these is rank 0's own on GPUs."""
    followers: list[subprocess.Popen[bytes]] = []
    try:
        for number, changes in enumerate(environments):
            if changes.get("PADDLE_TRAINER_ID") == "0":
                os.environ.update(changes)
                continue
            # Ctrl-C reaches all processes of a terminal: only rank 0 answers, for all.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                followers.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **changes},
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        pass_fds=files[number] if files else (),
                    )
                )
            finally:
                signal.signal(signal.SIGINT, before)
        yield followers
        for follower in followers:
            follower.wait()
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()


def _paddle_environments(size: int) -> list[dict[str, str]]:
    """What Paddle's launcher would set, for GPUs 0 .. size - 1 of this machine."""
    there = paddle.device.cuda.device_count()
    if there < size:
        raise PodiumError(
            f"train.processes is {size}, and {there} GPUs are here: with runtime.device gpu each "
            "process needs its own"
        )
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(size):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return [
        {
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(size),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
            "PADDLE_RANK_IN_NODE": str(rank),
            "FLAGS_selected_gpus": str(rank),
        }
        for rank in range(size)
    ]


def _open_memory(size_bytes: int) -> int:
    """A file descriptor of zeros that only this process and its children see."""
    if sys.platform == "linux":
        handle = os.memfd_create("podium-gradients")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size_bytes)
    return handle


def _receive(pipe: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return bool(pipe.recv(1))
    return False


def _send(pipe: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        pipe.sendall(b"\0")
        return True
    return False
