"""What stops a run from outside: kills, Ctrl-C, a second run beside it, a full disk, no permission.

After each of them the next `dvc repro` ends well, finished stages are kept, and nothing
half-written is left. What a killed or stopped training goes on with: tests/test_resume.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML

from podium import files
from podium.commands.dvc_notes import find_cut_notes, mend_dvc_notes
from podium.files import PARTIAL, replace_folder, write_text
from podium.stage import run_stage
from tests.competition import (
    copy_clone,
    edit,
    error_lines,
    half_written,
    run,
    run_any,
    running,
    stages_run,
)

LONG_TRAINING = {"epochs: 2 ": "epochs: 10000 "}
# A change that makes the stage, and none before it, run again.
CHANGES = {
    "eda": {"name: demo": "name: another"},
    "compress": {"max_drop: 0.02 ": "max_drop: 0.03 "},
}


def wait_for_stage(dvc: subprocess.Popen[str], name: str) -> psutil.Process:
    """The process of stage `name` below `dvc`, as soon as it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(dvc.pid).children():
                if f"stages.{name}" in child.cmdline():
                    return child
        assert dvc.poll() is None, f"dvc ended before {name} began:\n{dvc.communicate()[0]}"
        time.sleep(0.01)
    raise AssertionError(f"{name} did not begin")


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    """Read what it says up to a line with that beginning."""
    assert process.stdout
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line {beginning!r} in:\n{''.join(said)}")


def _lives(process: psutil.Process) -> bool:
    """What is dead, and only not yet asked for by a busy machine, does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for_end(process: psutil.Process, seconds: float) -> None:
    """Fail unless it is gone by then."""
    deadline = time.monotonic() + seconds
    while _lives(process):
        assert time.monotonic() < deadline, f"{process} outlived its parent by {seconds} s"
        time.sleep(0.01)


@pytest.mark.dag
def test_dvc_killed_while_a_stage_still_imports(copy: Path) -> None:
    edit(copy / "params.yaml", LONG_TRAINING)
    with running(copy, "dvc", "repro", "train") as dvc:
        trainer = wait_for_stage(dvc, "train")
        time.sleep(0.4)  # Python is up, Paddle's import takes more than a second
        dvc.kill()
        wait_for_end(trainer, seconds=2)


@pytest.mark.dag
def test_killed_dvc_takes_its_trainer_along(copy: Path) -> None:
    edit(copy / "params.yaml", LONG_TRAINING)
    with running(copy, "dvc", "repro", "train") as dvc:
        trainer = wait_for_stage(dvc, "train")
        wait_for_line(dvc, "epoch 1/")
        dvc.kill()
        wait_for_end(trainer, seconds=2)


@pytest.mark.dag
@pytest.mark.parametrize("name", ["eda", "compress"])
def test_killed_in_another_stage(copy: Path, name: str) -> None:
    edit(copy / "params.yaml", CHANGES[name])
    for seconds in (0.2, 0.8, 1.6):
        with running(copy, "dvc", "repro", name) as dvc:
            stage = wait_for_stage(dvc, name)
            time.sleep(seconds)
            if not stage.is_running():
                break
            stage.kill()
            said, _ = dvc.communicate(timeout=60)
            assert dvc.returncode != 0
            assert stages_run(said) == [name]
    run(copy, "dvc", "repro", name)
    assert half_written(copy) == []
    assert "up to date" in run(copy, "dvc", "repro", name)


@pytest.mark.dag
def test_two_at_once(copy: Path) -> None:
    edit(copy / "params.yaml", {"epochs: 2 ": "epochs: 30 "})
    with running(copy, "dvc", "repro", "train") as first:
        trainer = wait_for_stage(first, "train")
        wait_for_line(first, "epoch 1/")
        trainer.suspend()  # however slow the machine is, it is still there for what follows
        with running(copy, "python", "-m", "stages.train") as by_hand:
            code, said = run_any(copy, "dvc", "repro")
            assert code != 0
            assert "is busy, it is being blocked by" in said
            assert f"(PID {first.pid})" in said
            assert stages_run(said) == []
            said, _ = by_hand.communicate(timeout=60)
            assert by_hand.returncode == 2
            assert error_lines(said) == [
                "error: train: another process is still writing stage 'train': "
                "wait for it or end it, then run again"
            ]
        trainer.resume()
        first.communicate(timeout=120)
        assert first.returncode == 0
    assert "up to date" in run(copy, "dvc", "repro", "train")


@pytest.mark.dag
@pytest.mark.parametrize("left", [0, 100, 700])
def test_dvcs_own_notes_cut_short(copy: Path, left: int) -> None:
    """DVC writes them in place; `make run` mends what a kill then leaves, and runs nothing again."""
    lock, whole = copy / "dvc.lock", (copy / "dvc.lock").read_bytes()
    lock.write_bytes(whole[:left])
    (copy / ".dvc/tmp/rwlock").write_text('{"data/raw": {"rea')
    said = run(copy, "podium", "run")
    assert "dvc.lock was cut short by a kill: git's version is back" in said
    assert ".dvc/tmp/rwlock was cut short by a kill: removed" in said
    assert stages_run(said) == []
    assert lock.read_bytes() == whole


LOCK = """\
schema: '2.0'
stages:
  eda:
    cmd: exec true
    deps:
    - path: data/raw
      hash: md5
      md5: 0f1af1b80fb0f965849a0198c65627f7.dir
      size: 7594456
    params:
      params.yaml:
        competition.classes:
        - low
        seed: 0
    outs:
    - path: data/manifest.csv
      hash: md5
      md5: a53a5cce7be0d5e5f2099948ea951ac6
      size: 222296
"""


def test_a_lock_cut_at_a_line_end_is_found_where_dvc_would_not_read_it(tmp_path: Path) -> None:
    lines = LOCK.splitlines(keepends=True)
    cut = []
    for count in range(1, len(lines) + 1):
        text = "".join(lines[:count])
        (tmp_path / "dvc.lock").write_text(text)
        if find_cut_notes(tmp_path):
            cut.append(lines[count - 1].strip())
        else:
            COMPILED_LOCKFILE_SCHEMA(
                YAML(typ="safe", pure=True).load(text)
            )  # raises where it does not fit
    assert cut == [
        *("stages:", "eda:", "deps:", "- path: data/raw", "hash: md5", "params:", "params.yaml:"),
        *("outs:", "- path: data/manifest.csv", "hash: md5"),
    ]


def test_whole_notes_are_left_alone(tmp_path: Path) -> None:
    assert mend_dvc_notes(tmp_path) == []
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  eda:\n    cmd: x\n")
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    for content in ("", "{}", '{"a": {"read": []}}'):
        (tmp_path / ".dvc/tmp/rwlock").write_text(content)
        assert mend_dvc_notes(tmp_path) == []
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  eda:\n    cm")
    assert len(mend_dvc_notes(tmp_path)) == 1
    assert not (tmp_path / "dvc.lock").exists(), "no git here that has another"


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own, mounted on `folder`."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int) -> None:
    """Leave that much space on the folder's disk."""
    free = shutil.disk_usage(folder).free
    with (folder / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, free - leave_bytes))


@pytest.mark.dag
def test_full_disk(plain: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 500) as disk:
        clone = copy_clone(plain, disk / "clone")
        (disk / "tmp").mkdir()
        shutil.rmtree(clone / ".podium/store")
        fill(disk, leave_bytes=8192)
        before = (clone / "features/features.json").read_bytes()
        for name in ("eda", "features", "train", "compress"):
            code, said = run_any(
                clone, "env", f"TMPDIR={disk / 'tmp'}", "python", "-m", f"stages.{name}"
            )
            assert code == 2, said
            (line,) = error_lines(said)
            assert line.startswith(f"error: {name}: no space left on the disk")
            assert "Traceback" not in said
        assert (clone / "features/features.json").read_bytes() == before
        assert half_written(clone) == []
        (disk / "ballast").unlink()
        run(clone, "dvc", "repro", "features")


@pytest.mark.dag
def test_read_only_disk(plain: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 500) as disk:
        clone = copy_clone(plain, disk / "clone")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("split", "train"):
            code, said = run_any(clone, "python", "-m", f"stages.{name}")
            assert code == 2, said
            (line,) = error_lines(said)
            assert line.startswith(f"error: {name}: no permission")


@pytest.mark.dag
def test_folder_without_write_permission(copy: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (copy / "data").chmod(0o555)
    try:
        code, said = run_any(copy, "python", "-m", "stages.split")
    finally:
        (copy / "data").chmod(0o755)
    assert code == 2
    (line,) = error_lines(said)
    assert line.startswith("error: split: no permission (data/")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
    ],
)
def test_os_error_is_one_line(
    number: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "data" / "splits.csv"
    write_text(target, "old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(SystemExit) as end:
        run_stage("split", lambda: write_text(target, "new"))
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: split: {words}")
    assert [path.name for path in target.parent.iterdir()] == ["splits.csv"]
    assert target.read_text() == "old"


def test_next_writer_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    left_file = tmp_path / f".splits.csv.abc{PARTIAL}"
    left_file.write_text("half")
    left_folder = tmp_path / f".models.abc{PARTIAL}"
    (left_folder / "inner").mkdir(parents=True)
    others = tmp_path / f".other.abc{PARTIAL}", tmp_path / ".models.backup"
    for path in others:
        path.write_text("not theirs")
    write_text(tmp_path / "splits.csv", "whole")
    with replace_folder(tmp_path / "models") as folder:
        write_text(folder / "card.json", "{}")
        # A living writer's work is not touched by a second one.
        with replace_folder(tmp_path / "models") as second:
            assert folder.is_dir()
            write_text(second / "card.json", "{}")
    assert not left_file.exists()
    assert not left_folder.exists()
    assert all(path.exists() for path in others)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "models",
        "splits.csv",
    ]
