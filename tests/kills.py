"""Kills at any time of a training, and what must hold after each: for tests and benchmarks.

In: a prepared clone, in which `dvc repro train` has only the training to do. Out: the kills, the
moments that they hit, and everything that was not as promised: each run goes on from the last
checkpoint, and the one that is left alone ends with the bytes of a training that nobody killed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import operator
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from podium.engine.checkpoint import Progress, Snapshot
from podium.files import PARTIAL
from tests.competition import commit, copy_clone, error_lines, half_written, run, running

Params = Mapping[str, Any]

_ALL = {
    "batch_size": 16,
    "model.freeze": "none",
    "model.dropout": 0.2,
    "train.optimizer": "adamw",
    "train.augment": "light",
    "train.processes": 2,
    "train.patience": 0,
    "train.checkpoint_every": 2,
    "evaluate.primary": "log_loss",
}
# In both the last epoch is the best, so that the weights show what came of all steps.
SCENARIOS: dict[str, Params] = {
    # The whole net learns, on pictures that grow.
    "sizes": {
        **_ALL,
        "seed": 3,
        "lr": 2e-3,
        "epochs": 7,
        "image_size": 48,
        "model.name": "mobilenet_v3_small",
        "model.pretrained": False,
        "train.size_schedule": [[0, 32], [0.5, 48]],
    },
    # The head learns, then more and more of the net; of its moving averages two are averaged.
    "parts": {
        **_ALL,
        "seed": 2,
        "lr": 1e-3,
        "epochs": 5,
        "image_size": 32,
        "train.unfreeze": [[0, "head"], [0.3, "top"], [0.6, "all"]],
        "train.views": 2,
        "train.ema": 0.8,
        "train.soup": 2,
    },
}

OUTPUTS = (
    "models/**/*",
    "reports/train/curve.csv",
    "reports/train/inputs.png",
    "metrics/train.json",
)
PYTHON, HELPER, DVC, GROUP = "python", "helper", "dvc", "group"
TARGETS = (PYTHON, HELPER, DVC, GROUP)

BEFORE_STAGE = "before the stage"
IMPORTS = "imports"
BEFORE_EPOCH = "before an epoch"
IN_EPOCH = "in an epoch"
WRITING = "writing a checkpoint"
AFTER = "after the last epoch"
DVC_WRITING = "dvc writing its notes"
PHASES = (BEFORE_STAGE, IMPORTS, BEFORE_EPOCH, IN_EPOCH, WRITING, AFTER, DVC_WRITING)

_FACTS = "reference.json"
HELPER_KILLED = "error: train: training process 1 of 1 beside this one was killed"
WAS_KILLED = "the last run of this training was killed"
# What dies by the kernel's hand is gone at once; dvc, when only its stage was killed, tidies up.
_SECONDS_TO_DIE = 5.0
_SECONDS_TO_TIDY = 60.0


@dataclass(frozen=True)
class Reference:
    """A clone in which all but the training is done, and what the training makes undisturbed.

    Attributes:
        prepared: the clone.
        finished: a copy after the training.
        seconds: of `dvc repro train`.
        epochs, steps: of the training; steps of one epoch.
    """

    prepared: Path
    finished: Path
    seconds: float
    epochs: int
    steps: int

    def going_on_line(self, progress: Progress) -> str:
        """What a run that goes on from there says."""
        done = len(progress.curve)
        step = progress.step - done * self.steps
        return f"going on after epoch {done}/{self.epochs}" + (f", step {step}" if step else "")

    def differences(self, clone: Path) -> list[str]:
        """The outputs that differ, and leftovers of writing."""
        there, wanted = hash_outputs(clone), hash_outputs(self.finished)
        differ = [name for name in there | wanted if there.get(name) != wanted.get(name)]
        return [f"{name} differs" for name in differ] + [
            f"{name} is left" for name in half_written(clone)
        ]


@dataclass(frozen=True)
class Place:
    """What a clone keeps of a training: where the next run must go on.

    Attributes:
        progress: the checkpoint's; None: there is none, or dvc has recorded the training.
        is_marked: unfinished.json is there.
        partials: unfinished checkpoints.
    """

    progress: Progress | None
    is_marked: bool
    partials: frozenset[Path]


@dataclass(frozen=True)
class Kill:
    """One of them: whom, when, and at what. The epoch is the one that was being learned."""

    target: str
    seconds: float
    phase: str
    epoch: int | None


@dataclass(frozen=True)
class Attempt:
    """One `dvc repro train`.

    Attributes:
        code: dvc's exit code.
        said: its output.
        kill: None: it ended before its time came.
        left: what it left in the clone.
        problems: what was not as promised.
    """

    code: int
    said: str
    kill: Kill | None
    left: Place
    problems: list[str]


@dataclass
class Report:
    """The outcome of many kills; `identical` counts trainings with the reference's bytes."""

    kills: list[Kill] = field(default_factory=list)
    ended: int = 0
    identical: int = 0
    problems: list[str] = field(default_factory=list)


# Returns when it is time to kill, or when the process has ended.
Moment = Callable[["subprocess.Popen[str]", Path], None]


def set_params(clone: Path, changes: Params) -> None:
    """Set params by their dotted names."""
    path, yaml = clone / "params.yaml", YAML()
    params = yaml.load(path)
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = functools.reduce(operator.getitem, sections, params)
        assert name in section, f"params.yaml has no {key}"
        section[name] = value
    yaml.dump(params, path)


def make_reference(plain: Path, folder: Path, params: Params) -> Reference:
    """Prepare a copy of the clone `plain` for these params, and train once undisturbed.

    Args:
        plain: a clone after a whole run.
        folder: new; for the prepared clone and the finished one.
        params: of the training.
    """
    folder.mkdir(parents=True)
    prepared = copy_clone(plain, folder / "prepared")
    set_params(prepared, params)
    run(prepared, "dvc", "repro", "features")
    shutil.rmtree(prepared / ".podium" / "checkpoints")  # of another training
    commit(prepared)
    finished = copy_clone(prepared, folder / "finished")
    start = time.monotonic()
    run(finished, "dvc", "repro", "train")
    seconds = time.monotonic() - start
    end = read_progress(finished)
    assert end
    assert end.kept_epoch == len(end.curve), "the weights would not show what came of all steps"
    facts = {"seconds": seconds, "epochs": len(end.curve), "steps": end.step // len(end.curve)}
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    return load_reference(folder)


def is_reference(folder: Path) -> bool:
    """Whether `make_reference` has come to its end there."""
    return (folder / _FACTS).exists()


def load_reference(folder: Path) -> Reference:
    """What `make_reference` left there."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return Reference(folder / "prepared", folder / "finished", **facts)


def hash_outputs(clone: Path) -> dict[str, str]:
    """SHA-256 of all files that the training makes, by name."""
    files = [path for pattern in OUTPUTS for path in clone.glob(pattern) if path.is_file()]
    return {
        str(path.relative_to(clone)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def checkpoint_of(clone: Path) -> Path | None:
    """The checkpoint of the clone's only training."""
    found = list((clone / ".podium" / "checkpoints").glob("*/fold*/checkpoint"))
    assert len(found) <= 1, found
    return found[0] if found else None


def read_progress(clone: Path) -> Progress | None:
    """How far the clone's checkpoint is; None without one."""
    path = checkpoint_of(clone)
    return Snapshot.from_bytes(path.read_bytes()).progress if path else None


def look(clone: Path) -> Place:
    """The place of the clone's training."""
    room = clone / ".podium" / "checkpoints"
    recorded = (clone / "dvc.lock").stat().st_mtime
    is_over = any(path.stat().st_mtime < recorded for path in room.glob("*/written"))
    return Place(
        None if is_over else read_progress(clone),
        any(room.glob("*/unfinished.json")),
        find_partials(clone),
    )


def find_partials(clone: Path) -> frozenset[Path]:
    """The clone's unfinished checkpoints, those that a kill left among them."""
    room = clone / ".podium" / "checkpoints"
    return frozenset(room.glob(f"*/fold*/.checkpoint.*{PARTIAL}"))


def after_seconds(seconds: float) -> Moment:
    """The moment so long after the start."""

    def wait(dvc: subprocess.Popen[str], _: Path) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            dvc.wait(None if math.isinf(seconds) else seconds)

    return wait


def as_soon_as(condition: Callable[[Path], bool]) -> Moment:
    """The moment when the clone first looks so."""

    def wait(dvc: subprocess.Popen[str], clone: Path) -> None:
        while dvc.poll() is None and not condition(clone):
            time.sleep(0.001)

    return wait


def has_epochs(count: int) -> Moment:
    """The moment when the checkpoint holds so many epochs."""

    def is_there(clone: Path) -> bool:
        progress = read_progress(clone)
        return progress is not None and len(progress.curve) >= count

    return as_soon_as(is_there)


def attempt(
    reference: Reference, clone: Path, moment: Moment, choose: Callable[[Sequence[str]], str]
) -> Attempt:
    """`dvc repro train`, killed at that moment, and nothing of it alive afterwards.

    Args:
        reference: the same training undisturbed.
        clone: a copy of its prepared one, perhaps after other attempts.
        moment: of the kill.
        choose: whom, of the targets that live then.
    """
    before, start = look(clone), time.monotonic()
    target, seconds = None, 0.0
    with running(clone, "dvc", "repro", "train") as dvc:
        moment(dvc, clone)
        alive = find_targets(dvc)
        if alive and dvc.poll() is None:
            seconds, target = time.monotonic() - start, choose(list(alive))
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                os.killpg(dvc.pid, signal.SIGKILL) if target == GROUP else alive[target].kill()
        problems = end_session(
            dvc, _SECONDS_TO_DIE if target in (DVC, GROUP) else _SECONDS_TO_TIDY, target
        )
        said, _ = dvc.communicate(timeout=60)
    was_mended = _mend_dvc(clone)
    left = look(clone)
    kill = None
    if target:
        phase, epoch = _name_phase(said, before, left, was_mended)
        kill = Kill(target, seconds, phase, epoch)
    problems += _check_run(reference, said, before) + _check_end(dvc.returncode, said, kill)
    if not was_mended:
        problems += _check_promise(said, left)
    return Attempt(dvc.returncode, said, kill, left, problems)


def find_targets(dvc: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """What can be killed of a running `dvc repro train`, by name."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(dvc.pid)
        found[DVC] = found[GROUP] = parent
        for name in (PYTHON, HELPER):
            stages = [child for child in parent.children() if _is_stage(child)]
            if not stages:
                break
            found[name] = parent = stages[0]
    return {name: found[name] for name in TARGETS if name in found}


def end_session(dvc: subprocess.Popen[str], seconds: float, target: str | None = None) -> list[str]:
    """Wait until nothing that `dvc` started is alive; what survives is a problem, and is killed.

    Args:
        dvc: leads its session.
        seconds: how long to wait when something was killed.
        target: what; None: nothing, so there is no limit.
    """
    deadline = time.monotonic() + seconds
    while left := _session_members(dvc.pid):
        if target and time.monotonic() > deadline:
            problem = f"{seconds:.0f} s after the kill of {target} there was still {left}"
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return [problem]
        time.sleep(0.02)
    return []


def kill_often(reference: Reference, folder: Path, kills: int, seed: int) -> Report:
    """Kill trainings at random times until there are so many kills, and let each come to its end.

    A time is uniform between 0 and what an undisturbed run takes; whom it hits is drawn among
    those who live then.
    """
    drawn, report = random.Random(seed), Report()
    while len(report.kills) < kills:
        clone = copy_clone(reference.prepared, folder / f"training {report.ended}")
        while True:
            is_enough = len(report.kills) >= kills
            seconds = math.inf if is_enough else drawn.uniform(0, reference.seconds)
            done = attempt(reference, clone, after_seconds(seconds), drawn.choice)
            if not note(report, done):
                break
        close(report, reference, clone)
        shutil.rmtree(clone)
    return report


def note(report: Report, done: Attempt) -> bool:
    """Put an attempt into the report; whether the training must be started once more."""
    if done.kill:
        report.kills.append(done.kill)
    report.problems += [f"{problem}\n{done.kill}\n{done.said}" for problem in done.problems]
    return done.code != 0 and done.kill is not None


def close(report: Report, reference: Reference, clone: Path) -> None:
    """Compare a training that has come to its end."""
    report.ended += 1
    differences = reference.differences(clone)
    report.identical += not differences
    report.problems += differences


def going_on(said: str) -> list[str]:
    """The lines that say where a run goes on."""
    return [line for line in said.splitlines() if line.startswith("going on ")]


def last_epoch(said: str) -> int:
    """The last epoch that a line told of; 0: none."""
    return max((int(number) for number in re.findall(r"(?m)^epoch (\d+)/", said)), default=0)


def _is_stage(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # zombies are among these
        return "stages.train" in process.cmdline()
    return False


def _session_members(session: int) -> list[psutil.Process]:
    """The living processes of a session: whatever was started in it, orphans too."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
    return members


def _mend_dvc(clone: Path) -> bool:
    """Do what a user does when the kill hit dvc while it wrote its own notes, which it does in
    place: take dvc.lock from git, remove its list of locks. Whether there was a need."""
    lock, table = clone / "dvc.lock", clone / ".dvc" / "tmp" / "rwlock"
    committed = run(clone, "git", "show", "HEAD:dvc.lock")
    # Of all stages only train changes, and it is not the last one.
    is_cut = not lock.read_text(encoding="utf-8").endswith(committed[-500:])
    if is_cut:
        run(clone, "git", "checkout", "dvc.lock")
    try:
        if table.exists():
            json.loads(table.read_text(encoding="utf-8"))
    except ValueError:
        table.unlink()
        return True
    return is_cut


def _name_phase(said: str, before: Place, left: Place, was_mended: bool) -> tuple[str, int | None]:
    """What the kill hit, and in which epoch."""
    if was_mended:
        return DVC_WRITING, None
    if "Running stage 'train'" not in said:
        return BEFORE_STAGE, None
    if "\non cpu: " not in said:
        return IMPORTS, None
    progress = left.progress
    epoch = len(progress.curve) + 1 if progress else 1
    if left.partials - before.partials:
        return WRITING, epoch
    if "\ntrain: best val" in said or (progress and progress.finished):
        return AFTER, None
    return (IN_EPOCH, epoch) if "\nphase: " in said else (BEFORE_EPOCH, epoch)


def _check_run(reference: Reference, said: str, before: Place) -> list[str]:
    """Whether a run went on from where the one before it was."""
    problems = [line for line in said.splitlines() if "damaged" in line or "Traceback" in line]
    if "\nphase: " not in said and not going_on(said):
        return problems  # it did not come so far
    expected = [reference.going_on_line(before.progress)] if before.progress else []
    if going_on(said) != expected:
        problems.append(f"expected {expected}, got {going_on(said)}")
    if (WAS_KILLED in said) != before.is_marked:
        problems.append(f"unfinished.json: {before.is_marked}, but not so the line of it")
    return problems


def _check_end(code: int, said: str, kill: Kill | None) -> list[str]:
    """Whether a run ended as what was killed of it lets expect."""
    if code == 0:
        return []  # undisturbed, or all the work was done
    if not kill:
        return [f"nothing was killed, and it ended with {code}"]
    errors = error_lines(said)
    if kill.target == HELPER:
        is_told = len(errors) == 1 and errors[0].startswith(HELPER_KILLED)
        return [] if is_told and "exited with 2" in said else [f"after the helper: {errors}"]
    return [f"complained: {errors}"] if errors else []


def _check_promise(said: str, left: Place) -> list[str]:
    """Whether the checkpoint keeps what the output told of."""
    told, kept = last_epoch(said), len(left.progress.curve) if left.progress else 0
    if told <= kept or "\ntrain: best val" in said:
        return []
    return [f"a line told of epoch {told}, the checkpoint is after epoch {kept}"]
