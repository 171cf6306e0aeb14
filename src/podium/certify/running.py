"""`dvc repro` in a clone as one trial sees it, with its kills.

In: a clone and a trial. Out: what was said and done; the outputs stand in the clone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from podium.certify.trials import DVC, GROUP, PYTHON, Trial
from podium.engine.loss_trace import VARIABLE, StepLoss, read_last_step, read_loss_traces
from podium.errors import PodiumError
from podium.runtime import available_cores

# Ends with its parent: a killed certify leaves no dvc behind, and dvc no stage.
_DVC = (
    sys.executable,
    "-c",
    "import runpy; from podium.stage import die_with_parent; die_with_parent(); "
    "runpy.run_module('dvc', run_name='__main__', alter_sys=True)",
)
_TRAINING = "stages.train"
_LOOK_EVERY_S = 0.003
_SECONDS_TO_DIE = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        target: python, dvc or group.
        epoch, step: of the last step that was noted before it.
        went_on: what the next run said of where it began: `after epoch 1/4`; empty: from the start.
    """

    target: str
    epoch: int
    step: int
    went_on: str


@dataclass
class Running:
    """What became of a trial.

    Attributes:
        cores: that it could use.
        seconds: with all kills.
        kills: that landed.
        losses: of each model's steps, repeated ones too.
    """

    cores: int
    seconds: float = 0.0
    kills: list[Kill] = field(default_factory=list)
    losses: dict[str, list[StepLoss]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Attempt:
    """One `dvc repro`: its exit code, its last lines, what it went on from, where it was killed."""

    code: int
    tail: str
    went_on: str
    killed_at: StepLoss | None


def run_trial(clone: Path, trial: Trial, say: Say, stop: threading.Event) -> Running:
    """Run all stages by force; after a kill go on, as a user would, with `dvc repro`.

    Args:
        clone: nothing has run in it yet.
        trial: what it sees.
        say: told of each stage and each kill.
        stop: set by another thread: end at once.

    Raises:
        PodiumError: a run failed, or a training was over before it could be killed.
    """
    start = time.monotonic()
    cores = min(trial.cores or available_cores(), available_cores())
    done = Running(cores)
    killed: list[tuple[str, StepLoss]] = []
    told: list[str] = []
    for number, target in enumerate((*trial.kills, None)):
        attempt = _repro(clone, trial, cores, number, target, say, stop)
        told.append(attempt.went_on)
        if target is None:
            if attempt.code:
                raise PodiumError(f"{trial.name}: dvc repro failed in {clone}:\n{attempt.tail}")
        elif attempt.killed_at:
            say(f"kill -9 of {target} in epoch {attempt.killed_at.epoch}")
            killed.append((target, attempt.killed_at))
        elif attempt.code:
            raise PodiumError(f"{trial.name}: dvc repro failed in {clone}:\n{attempt.tail}")
        else:
            raise PodiumError(
                f"{trial.name}: the training was over before {target} could be killed: give it more "
                "to do, as with --set epochs=8"
            )
    done.kills = [
        Kill(target, at.epoch, at.step, went_on)
        for (target, at), went_on in zip(killed, told[1:], strict=True)
    ]
    done.losses = read_loss_traces(trace_folder(clone))
    done.seconds = time.monotonic() - start
    return done


def trace_folder(clone: Path) -> Path:
    """Where a clone's training notes the loss of each step."""
    return clone.resolve() / ".podium" / "losses"


def _repro(
    clone: Path,
    trial: Trial,
    cores: int,
    number: int,
    target: str | None,
    say: Say,
    stop: threading.Event,
) -> _Attempt:
    words = [*_DVC, "repro", *(["--force"] if number == 0 else [])]
    noted = _count_noted(clone)
    last: deque[str] = deque(maxlen=30)
    went_on: list[str] = []
    with _started(words, clone, _environment(clone, trial), cores) as dvc:

        def read() -> None:
            assert dvc.stdout
            for line in dvc.stdout:
                last.append(line)
                if line.startswith("Running stage '"):
                    say(line.split("'")[1])
                if line.startswith("going on after "):
                    went_on.append(line.removeprefix("going on ").strip())

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        killed_at = None
        while dvc.poll() is None:
            if stop.is_set():
                raise PodiumError(f"{trial.name}: stopped")
            at = _due(clone, noted, number) if target and killed_at is None else None
            if target and at and _kill(dvc, target):
                killed_at = at
            time.sleep(_LOOK_EVERY_S)
        _wait_for_end(dvc.pid)
        reader.join(_SECONDS_TO_DIE)
    return _Attempt(dvc.returncode, "".join(last), "; ".join(went_on), killed_at)


def _due(clone: Path, noted: int, number: int) -> StepLoss | None:
    """The training's last step if it is time for kill `number` (from 0): in the epoch after that of
    the kill before, the second at first, so that there is a checkpoint; in the last one at the
    latest. A run that goes on must have done a step of its own."""
    if _count_noted(clone) == noted:
        return None
    row = read_last_step(trace_folder(clone))
    return row if row and row.epoch >= min(number + 2, row.epochs) else None


def _count_noted(clone: Path) -> int:
    """Bytes of the clone's loss traces."""
    return sum(path.stat().st_size for path in trace_folder(clone).glob("*.csv"))


def _kill(dvc: subprocess.Popen[str], target: str) -> bool:
    """SIGKILL, if the training lives."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        trainers = [
            child
            for child in psutil.Process(dvc.pid).children()
            if _TRAINING in " ".join(child.cmdline())
        ]
        if not trainers:
            return False
        if target == PYTHON:
            trainers[0].kill()
        elif target == DVC:
            dvc.kill()
        else:
            assert target == GROUP
            os.killpg(dvc.pid, signal.SIGKILL)
        return True
    return False


@contextlib.contextmanager
def _started(
    words: Sequence[str], clone: Path, environment: dict[str, str], cores: int
) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own, of which nothing outlives the block."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if allowed:
        os.sched_setaffinity(0, allowed[:cores])  # of this thread; what it starts inherits it
    try:
        process = subprocess.Popen(
            words,
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _environment(clone: Path, trial: Trial) -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DVC_")},
        **trial.environment,
        "PATH": programs + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_NO_ANALYTICS": "1",
        # DVC remembers hashes and locks here: private as well.
        "DVC_SITE_CACHE_DIR": str(clone.resolve() / ".dvc" / "tmp" / "site"),
        VARIABLE: str(trace_folder(clone)),
    }
    environment.pop("PYTHONPATH", None)  # the clone's stages run the clone's code
    environment.pop("PODIUM_WORKERS", None)
    if trial.workers:
        environment["PODIUM_WORKERS"] = str(trial.workers)
    return environment


def _wait_for_end(session: int) -> None:
    """Wait until nothing of the session is alive: what a kill leaves must die by itself.

    Raises:
        PodiumError: something did not.
    """
    deadline = time.monotonic() + _SECONDS_TO_DIE
    while left := _members(session):
        if time.monotonic() > deadline:
            raise PodiumError(
                f"after a kill there was still {left[0]}: a second writer could start"
            )
        time.sleep(0.02)


def _members(session: int) -> list[psutil.Process]:
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session and pid != session:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
    return members


def describe_kill(kill: Kill) -> str:
    """One line of a page."""
    place = kill.went_on or "from the start"
    return f"{kill.target} in epoch {kill.epoch}, step {kill.step}; went on {place}"
