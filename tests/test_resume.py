"""A training that was killed goes on, and ends with the bytes of one that nobody killed.

At random times, and at chosen ones: while a checkpoint is written, between two phases, after the
outputs and before dvc's note of them. `benchmarks/kills.py` does the same for longer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from podium.files import hold_lock
from tests import kills
from tests.competition import copy_clone, error_lines, run, run_any, running
from tests.kills import (
    DVC,
    GROUP,
    HELPER,
    PYTHON,
    WAS_KILLED,
    Moment,
    Reference,
    Report,
    as_soon_as,
    going_on,
    has_epochs,
)


@pytest.fixture(scope="session")
def references(plain: Path, shared_folder: Path) -> Callable[[str], Reference]:
    """The undisturbed training of a scenario, made when first asked for, by one test process."""

    def get(name: str) -> Reference:
        folder = shared_folder / f"resume {name}"
        with hold_lock(folder.with_suffix(".lock"), f"{folder} is being made: by whom?", 600):
            if not kills.is_reference(folder):
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                kills.make_reference(plain, folder, kills.SCENARIOS[name])
        return kills.load_reference(folder)

    return get


@pytest.fixture
def reference(references: Callable[[str], Reference]) -> Reference:
    """That of pictures that grow."""
    return references("sizes")


@pytest.fixture
def clone(reference: Reference, tmp_path: Path) -> Path:
    """A clone in which only the training is left to do."""
    return copy_clone(reference.prepared, tmp_path / "clone")


@pytest.fixture(scope="session")
def half_trained(
    references: Callable[[str], Reference], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A clone whose training was killed, with all of dvc, after two epochs or more."""
    reference = references("sizes")
    folder = copy_clone(reference.prepared, tmp_path_factory.mktemp("half") / "clone")
    done = kills.attempt(reference, folder, has_epochs(2), lambda _: GROUP)
    assert done.problems == []
    assert done.left.is_marked
    return folder


@pytest.fixture
def half(half_trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return copy_clone(half_trained, tmp_path / "half")


def whom(target: str) -> Callable[[object], str]:
    """The choice of that target, come what may."""
    return lambda _: target


def writes_after(step: int) -> Moment:
    """The moment when the checkpoint that follows on that step's is half written."""

    def wait(dvc: subprocess.Popen[str], clone: Path) -> None:
        known = kills.look(clone).partials
        as_soon_as(lambda _: is_at(step, clone))(dvc, clone)
        as_soon_as(lambda _: bool(kills.find_partials(clone) - known))(dvc, clone)

    return wait


def is_at(step: int, clone: Path) -> bool:
    """Whether the checkpoint is at that step, or after it."""
    progress = kills.read_progress(clone)
    return (progress.step if progress else 0) >= step


def has_outputs(clone: Path) -> bool:
    """Whether the stage has written its last output."""
    return any((clone / ".podium" / "checkpoints").glob("*/written"))


def finish(reference: Reference, clone: Path) -> str:
    """The rest of a training, whose outputs must be the reference's; what it said."""
    said = run(clone, "dvc", "repro", "train")
    assert reference.differences(clone) == []
    return said


@pytest.mark.dag
@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("sizes", 10), ("parts", 10)])
def test_killed_at_random_times(
    name: str, count: int, references: Callable[[str], Reference], tmp_path: Path
) -> None:
    report = kills.kill_often(references(name), tmp_path, count, seed=1)
    assert report.problems == []
    assert len(report.kills) == count
    assert report.identical == report.ended


@pytest.mark.dag
def test_killed_at_chosen_times(reference: Reference, clone: Path) -> None:
    report = Report()
    for moment, target in (
        (writes_after(0), PYTHON),
        (writes_after(4), DVC),  # of the first epoch's six; its line is printed by then
        (has_epochs(2), HELPER),
        (writes_after(14), GROUP),
        (has_epochs(4), GROUP),  # the pictures grow after it
        (as_soon_as(has_outputs), DVC),
    ):
        done = kills.attempt(reference, clone, moment, whom(target))
        assert kills.note(report, done), done.said
        # A lost helper is told of in a line: the run itself was not killed.
        assert not (target == HELPER and done.left.is_marked)
    assert report.problems == []
    assert done.left.progress
    assert done.left.progress.finished
    said = finish(reference, clone)
    assert going_on(said) == ["going on after epoch 7/7"]
    assert "\nphase: " not in said
    assert "didn't change, skipping" in run(clone, "dvc", "repro", "train").splitlines()[-2]


@pytest.mark.dag
def test_damaged_checkpoint(reference: Reference, half: Path) -> None:
    path = kills.checkpoint_of(half)
    assert path
    os.truncate(path, path.stat().st_size - 1)
    said = finish(reference, half)
    assert said.count("is damaged (cut short or changed): training starts anew") == 1
    assert said.count(WAS_KILLED) == 1
    assert going_on(said) == []


@pytest.mark.dag
def test_ctrl_c_and_sigterm(reference: Reference, clone: Path) -> None:
    said = signalled(clone, has_epochs(1), lambda dvc: os.killpg(dvc.pid, signal.SIGINT))
    assert said.count("stopped by Ctrl-C") == said.count("stopped by Ctrl-C after epoch ") == 1
    stopped = said.partition("stopped by Ctrl-C ")[2].partition(";")[0]
    said = signalled(
        clone,
        has_epochs(4),
        lambda dvc: kills.find_targets(dvc)[PYTHON].terminate(),
    )
    assert going_on(said) == [f"going on {stopped}"]
    assert said.count("stopped by SIGTERM after epoch ") == 1
    assert WAS_KILLED not in said
    stopped = said.partition("stopped by SIGTERM ")[2].partition(";")[0]
    assert going_on(finish(reference, clone)) == [f"going on {stopped}"]


def signalled(clone: Path, moment: Moment, send: Callable[[subprocess.Popen[str]], None]) -> str:
    """What a training says that gets a signal then, and ends by it."""
    with running(clone, "dvc", "repro", "train") as dvc:
        moment(dvc, clone)
        assert dvc.poll() is None
        send(dvc)
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode != 0
    assert "Traceback" not in said
    assert error_lines(said) == []
    return said


@pytest.mark.dag
def test_ctrl_c_while_a_second_process_starts(clone: Path) -> None:
    said = signalled(
        clone,
        lambda dvc, _: wait_for_helper(dvc),
        lambda dvc: os.killpg(dvc.pid, signal.SIGINT),
    )
    assert said.count("stopped by Ctrl-C") == 1


def wait_for_helper(dvc: subprocess.Popen[str]) -> None:
    """Return when the helper imports Paddle: it will be at it for a second or so."""
    while dvc.poll() is None:
        helper = kills.find_targets(dvc).get(HELPER)
        with contextlib.suppress(psutil.NoSuchProcess):
            if helper and any("paddle" in file.path for file in helper.memory_maps()):
                return


@pytest.mark.dag
def test_dvc_killed_when_its_stage_is_just_born(reference: Reference, clone: Path) -> None:
    def wait(dvc: subprocess.Popen[str], _: Path) -> None:
        while dvc.poll() is None and PYTHON not in kills.find_targets(dvc):
            pass

    assert kills.attempt(reference, clone, wait, whom(DVC)).problems == []


@pytest.mark.dag
def test_another_lr_starts_anew(half: Path) -> None:
    old = kills.checkpoint_of(half)
    assert old
    kills.set_params(half, {"lr": 1e-3})

    def has_another(clone: Path) -> bool:
        found = (clone / ".podium" / "checkpoints").glob("*/fold*/checkpoint")
        return any(path != old for path in found)

    with running(half, "dvc", "repro", "train") as dvc:
        as_soon_as(has_another)(dvc, half)
        os.killpg(dvc.pid, signal.SIGKILL)
        said, _ = dvc.communicate(timeout=60)
    assert "\nphase: all at 32 px" in said
    assert going_on(said) == []
    assert WAS_KILLED not in said


@pytest.mark.dag
def test_forced_training_starts_anew(reference: Reference, tmp_path: Path) -> None:
    clone = copy_clone(reference.finished, tmp_path / "clone")
    said = run(clone, "dvc", "repro", "--force", "--single-item", "train")
    assert reference.differences(clone) == []
    assert going_on(said) == []
    assert "\nphase: all at 32 px" in said


@pytest.mark.dag
def test_the_same_training_from_a_queue(clone: Path) -> None:
    queued = clone / ".dvc" / "tmp" / "exps" / "of-a-queue"
    queued.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(clone, queued, symlinks=True, ignore=shutil.ignore_patterns(".podium", "tmp"))
    with running(clone, "python", "-m", "stages.train") as first:
        has_epochs(1)(first, clone)
        os.killpg(first.pid, signal.SIGSTOP)  # it is there for what follows, however slow that is
        code, said = run_any(queued, "python", "-m", "stages.train")
    assert code == 2
    assert error_lines(said) == [
        "error: train: the same training (code, data, params) runs elsewhere: wait for it, then "
        "run again"
    ]
