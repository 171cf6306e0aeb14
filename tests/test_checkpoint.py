"""Checkpoints: whole or refused, within bounds, and a training that goes on to the same bits.

Kills of real processes are in tests/test_resume.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from podium.engine import checkpoint as checkpoint_module
from podium.engine.checkpoint import (
    Checkpoints,
    Progress,
    Snapshot,
    TrainingFolder,
    open_training_folder,
)
from podium.engine.curves import EpochRow
from podium.engine.memory import (
    explain_out_of_memory,
    read_memory_facts,
    was_out_of_memory,
)
from podium.engine.phases import Phase
from podium.engine.runs import make_training_key
from podium.engine.training import Interrupted, Job, Trained, train
from podium.errors import PodiumError
from tests.trainings import params, recipe, toy_job

SNAPSHOT = Snapshot(
    Progress(7, 0.1 + 0.2, 1.5, [EpochRow(1, 1 / 3, 0.25, 0.5, 1e-3)], 1, 0.5),
    {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
    {"w_moment": np.ones(3, np.float32)},
    {"w": np.full((2, 3), 0.5, np.float32)},
    {"w": np.zeros((2, 3), np.float32)},
)


class KilledError(Exception):
    """In place of a kill."""


class DyingCheckpoints(Checkpoints):
    """Dies right after its n-th save."""

    def __init__(self, folder: Path, saves: int) -> None:
        super().__init__(folder)
        self.left = saves

    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        self.left -= 1
        if not self.left:
            raise KilledError


def same(one: Trained, other: Trained) -> bool:
    return one.curve == other.curve and all(
        np.array_equal(values, other.state[name]) for name, values in one.state.items()
    )


# --- the file


def test_a_snapshot_survives_exactly() -> None:
    back = Snapshot.from_bytes(SNAPSHOT.to_bytes())
    assert back.progress == SNAPSHOT.progress
    for group in ("network", "optimizer", "averages", "kept"):
        (name,) = getattr(SNAPSHOT, group)
        assert np.array_equal(getattr(back, group)[name], getattr(SNAPSHOT, group)[name])


@pytest.mark.parametrize("how", ["cut", "changed", "foreign", "empty"])
def test_a_damaged_checkpoint_is_named_and_not_used(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = Checkpoints(tmp_path)
    content = bytearray(SNAPSHOT.to_bytes())
    if how == "changed":
        content[-1] ^= 1
    damaged = {"cut": content[:-5], "foreign": b"PK\3\4" + content, "empty": b""}
    places.path.write_bytes(bytes(damaged.get(how, content)))
    assert places.load() == b""
    assert "is damaged (cut short or changed): training starts anew" in capsys.readouterr().out


def test_a_written_training_is_used_only_until_dvc_has_recorded_it(tmp_path: Path) -> None:
    folder, lock = TrainingFolder(tmp_path / "c"), tmp_path / "dvc.lock"
    places = folder.checkpoints(0)
    places.save(SNAPSHOT)
    lock.write_text("stages: ...")
    folder.drop_if_recorded(lock)
    assert places.load(), "killed in training: however new dvc.lock is"
    folder.note_written()
    written = (folder.path / "written").stat().st_mtime
    os.utime(lock, (written - 5, written - 5))
    folder.drop_if_recorded(lock)
    assert places.load(), "killed before dvc recorded it"
    os.utime(lock, (written + 5, written + 5))
    folder.drop_if_recorded(lock)
    assert places.load() == b""
    places.save(SNAPSHOT)
    folder.drop_if_recorded(lock)
    assert places.load(), "a new training, killed"


def test_abandoned_checkpoints_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for age, key in enumerate(("newest", "newer", "older", "oldest")):
        with open_training_folder(key) as folder:
            folder.checkpoints(0).save(SNAPSHOT)
        os.utime(folder.path, (1e9 - age, 1e9 - age))
    size = folder.checkpoints(0).path.stat().st_size
    monkeypatch.setattr(checkpoint_module, "_CAP_BYTES", 1.5 * size)
    with open_training_folder("older"):
        os.utime(tmp_path / ".podium/checkpoints/older", (1e9 - 2, 1e9 - 2))
        with open_training_folder("oldest"):
            room = tmp_path / ".podium" / "checkpoints"
            # What runs is not touched; of the others the newest stays.
            assert sorted(path.name for path in room.iterdir()) == ["newest", "older", "oldest"]


def test_the_same_training_twice_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("podium.files.time.monotonic", iter(range(0, 1000, 20)).__next__)
    with (
        open_training_folder("k"),
        pytest.raises(PodiumError, match="the same training .* runs elsewhere"),
        open_training_folder("k"),
    ):
        pass


# --- going on


TWO_PHASES = (Phase(0.0, "all", 32, 1.0), Phase(0.5, "all", 64, 1.0))


def job(**changes: Any) -> Job:
    """Norm, dropout, a changing best epoch, and a phase that begins in the middle."""
    how = recipe(epochs=4, batch_size=16, **changes)
    made = toy_job(how, dropout=0.3, norm=True)
    return Job(made.build, TWO_PHASES, made.task, made.data, made.recipe, made.metric)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("saves", [1, 2, 3, 5, 6, 8])
def test_killed_after_any_checkpoint_the_bits_are_the_same(
    optimizer: str, saves: int, tmp_path: Path
) -> None:
    """Checkpoints within epochs, at their ends, at the change of the phase and at the very end."""
    task = job(optimizer=optimizer, checkpoint_every=3, ema=0.9)
    undisturbed = train(task, lambda row: None)
    with pytest.raises(KilledError):
        train(task, lambda row: None, checkpoints=DyingCheckpoints(tmp_path, saves))
    rows: list[EpochRow] = []
    resumed = train(task, rows.append, checkpoints=Checkpoints(tmp_path))
    assert same(undisturbed, resumed)
    assert rows == undisturbed.curve, "curves hold the epochs before the kill, too"


def test_patience_and_the_best_epoch_survive(tmp_path: Path) -> None:
    task = toy_job(recipe(epochs=50, patience=3), dropout=0.0)
    undisturbed = train(task, lambda row: None)
    assert len(undisturbed.curve) < 50
    for saves in (1, undisturbed.epoch + 1, len(undisturbed.curve) - 1):
        folder = tmp_path / str(saves)
        with pytest.raises(KilledError):
            train(task, lambda row: None, checkpoints=DyingCheckpoints(folder, saves))
        assert same(undisturbed, train(task, lambda row: None, checkpoints=Checkpoints(folder)))


def test_checkpoints_do_not_change_the_bits(tmp_path: Path) -> None:
    without = train(job(), lambda row: None)
    places = Checkpoints(tmp_path)
    assert same(without, train(job(checkpoint_every=1), lambda row: None, checkpoints=places))


def test_ctrl_c_leaves_a_checkpoint(tmp_path: Path) -> None:
    import signal

    task = toy_job(recipe(epochs=6))
    undisturbed = train(task, lambda row: None)

    def interrupt(row: EpochRow) -> None:
        if row.epoch == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(
        Interrupted, match=r"^stopped by Ctrl-C after epoch 3/6, step 1; `dvc repro` goes on"
    ):
        train(task, interrupt, checkpoints=Checkpoints(tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same(undisturbed, train(task, lambda row: None, checkpoints=Checkpoints(tmp_path)))


def test_ctrl_c_in_the_last_epoch_begins_no_other_fold(tmp_path: Path) -> None:
    """What is done stays done: the next run finds it finished."""
    import signal

    task = toy_job(recipe(epochs=2))

    def interrupt(row: EpochRow) -> None:
        if row.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"^stopped by Ctrl-C after epoch 2/2"):
        train(task, interrupt, checkpoints=Checkpoints(tmp_path))
    undisturbed = train(task, lambda row: None)
    rows: list[EpochRow] = []
    assert same(undisturbed, train(task, rows.append, checkpoints=Checkpoints(tmp_path)))
    assert [row.epoch for row in rows] == [1, 2]


def test_after_an_explosion_the_last_good_weights_stay(tmp_path: Path) -> None:
    task = toy_job(recipe(epochs=4, optimizer="sgd", batch_size=60))
    train_rows, targets = task.data.train_rows, task.data.targets
    places = Checkpoints(tmp_path)

    def poison(row: EpochRow) -> None:
        if row.epoch == 2:
            source = task.build(task.plan[0]).source
            source.plain[train_rows] = np.nan  # type: ignore[attr-defined]

    with pytest.raises(PodiumError, match=r"the loss became nan in epoch 3, step 1") as caught:
        train(task, poison, checkpoints=places)
    assert f"The weights up to epoch 2 stay in {places.path}" in str(caught.value)
    kept = Snapshot.from_bytes(places.path.read_bytes())
    assert len(kept.progress.curve) == 2
    assert all(np.isfinite(values).all() for values in kept.network.values())
    assert len(targets)


def test_outputs_that_are_no_numbers_stop_it_too(tmp_path: Path) -> None:
    """The loss was finite, and the step after it was not."""
    task = toy_job(recipe(epochs=4, optimizer="sgd"))
    val_rows, places = task.data.val_rows, Checkpoints(tmp_path)

    def poison(row: EpochRow) -> None:
        task.build(task.plan[0]).source.plain[val_rows] = np.inf  # type: ignore[attr-defined]

    with pytest.raises(
        PodiumError, match=r"after epoch 2 .* no numbers: try .* up to epoch 1 stay"
    ):
        train(task, poison, checkpoints=places)


# --- what a key holds


def test_code_data_and_params_are_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    files = [tmp_path / "code" / "a.py", tmp_path / "data.csv"]
    for file in files:
        file.write_text("1")

    def key(lr: float = 1.0, **changes: Any) -> str:
        read = {"lr": lr, "train": params(**changes).model_dump(mode="json")}
        return make_training_key(read, [tmp_path / "code"], [files[1], tmp_path / "missing"])

    first = key()
    assert first == key()
    assert first == key(checkpoint_every=5), "it changes no bit"
    assert key(2.0) != first
    assert key(optimizer="sgd") != first
    for file in files:
        file.write_text("2")
        assert key() != first
        file.write_text("1")
    (tmp_path / "code" / "b.py").write_text("")
    assert key() != first


# --- killed, and why


def test_a_marker_tells_of_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = TrainingFolder(tmp_path)
    with folder.marked():
        assert (tmp_path / "unfinished.json").exists()
        with folder.marked():
            pass
    said = capsys.readouterr().out
    assert said == "the last run of this training was killed\n"
    with folder.marked():
        pass
    assert capsys.readouterr().out == ""
    (tmp_path / "unfinished.json").write_text('{"boot"')
    with folder.marked():
        pass
    assert "was killed" in capsys.readouterr().out


def test_the_kernels_kills_are_told_apart() -> None:
    then = {"boot": "a", "oom_kills": {"/proc/vmstat": 1}}
    assert was_out_of_memory(then, {"boot": "a", "oom_kills": {"/proc/vmstat": 2}})
    assert not was_out_of_memory(then, {"boot": "a", "oom_kills": {"/proc/vmstat": 1}})
    assert not was_out_of_memory(then, {"boot": "b", "oom_kills": {"/proc/vmstat": 2}})
    assert set(read_memory_facts()) == {"boot", "oom_kills"}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("(External) ResourceExhaustedError: Out of memory on GPU 0")],
)
def test_out_of_memory_names_what_to_lower(error: Exception) -> None:
    with (
        pytest.raises(PodiumError, match=r"out of memory\. .*train\.accumulate.*batch_size"),
        explain_out_of_memory(),
    ):
        raise error
    with pytest.raises(RuntimeError, match="a bug"), explain_out_of_memory():
        raise RuntimeError("a bug")
