"""`podium doctor`: each planted trouble is found and named; a healthy tree has none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podium.doctor import doctor as doctor_module
from podium.doctor.doctor import examine
from podium.doctor.findings import FAIL, OK, WARN, Finding
from podium.doctor.installation import (
    Mismatch,
    find_mismatches,
    hash_packages,
    installed_packages,
    locked_packages,
)
from podium.doctor.machine import (
    check_cores,
    check_disk,
    check_math,
    check_memory,
    check_path,
    check_versions,
    read_cpu_quota,
    read_free_memory_gb,
)
from podium.doctor.repository import (
    DvcStatus,
    check_data,
    check_git,
    check_inputs,
    check_notes,
    check_params,
    check_running,
    describe_status,
)
from podium.errors import PodiumError
from podium.files import hold_lock

ROOT = Path(__file__).resolve().parents[1]


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed repository whose stages read code, weights and raw data."""
    root = tmp_path / "repository"
    (root / "src").mkdir(parents=True)
    (root / "data/raw").mkdir(parents=True)
    (root / "data/weights").mkdir()
    for name in ("params.yaml", "requirements.lock", ".gitignore", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    (root / "dvc.yaml").write_text(
        "stages:\n  eda:\n    cmd: exec true\n    outs: [data/manifest.csv]\n"
        "    deps: ['${competition.source}', data/weights, src, requirements.lock]\n"
    )
    (root / "src/code.py").write_text("")
    (root / "data/weights/.gitkeep").write_text("")
    (root / "data/raw/1.jpg").write_text("")
    (root / "data/raw.dvc").write_text("outs: []\n")
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "Test")
    git(root, "config", "user.email", "t@example.com")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "state")
    return root


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def only(findings: list[Finding], level: str) -> Finding:
    """The one finding, which must be of that level."""
    (finding,) = findings
    assert finding.level == level, finding
    assert bool(finding.advice) == (level != OK)
    return finding


def test_packages_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(
        "Some_Package==1.0 \\\n    --hash=sha256:aa\n"
        'onlythere==2.0 ; sys_platform == "plan9" \\\n    --hash=sha256:bb\nother==3.1\n'
    )
    locked = locked_packages(tmp_path)
    assert locked == {"some-package": "1.0", "other": "3.1"}
    assert find_mismatches(locked, {"some-package": "1.0", "other": "3.1", "more": "9"}) == []
    assert find_mismatches(locked, {"other": "3.0"}) == [
        Mismatch("other", "3.1", "3.0"),
        Mismatch("some-package", "1.0", None),
    ]
    (tmp_path / "requirements.lock").write_text("a==1\nb>=2\n")
    with pytest.raises(PodiumError, match=r"line 2: expected `name==version`, got 'b>=2'"):
        locked_packages(tmp_path)
    (tmp_path / "requirements.lock").unlink()
    with pytest.raises(PodiumError, match="requirements.lock is missing"):
        locked_packages(tmp_path)
    assert hash_packages({"a": "1"}) != hash_packages({"a": "2"})
    assert "paddlepaddle" in installed_packages()


def test_an_environment_that_is_not_the_lock(tree: Path) -> None:
    assert levels(check_versions(tree)) == [OK, OK]
    path = tree / "requirements.lock"
    path.write_text(path.read_text().replace("numpy==", "numpy==0.0.") + "nosuchpackage==1.0\n")
    finding = check_versions(tree)[1]
    assert finding.level == FAIL
    assert finding.said.startswith("2 of ")
    assert "nosuchpackage missing (lock: 1.0)" in finding.said
    assert "numpy 2." in finding.said


def test_programs_on_path(tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    only(check_path({"PATH": f"{programs}:/usr/bin"}), OK)
    assert "dvc on PATH is missing" in only(check_path({"PATH": str(tmp_path)}), WARN).said


def test_math() -> None:
    assert only(check_math("AuthenticAMD/avx512f"), OK).said.endswith("MKL path 7")
    assert only(check_math("AuthenticAMD/avx2"), OK).said.endswith("MKL path 5")
    only(check_math("GenuineIntel/avx2"), OK)
    only(check_math("AuthenticAMD/avx"), WARN)
    only(check_math("unknown/baseline"), WARN)


def test_cores_and_memory_of_a_container(tmp_path: Path, tree: Path) -> None:
    assert read_cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert read_cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert read_cpu_quota(tmp_path) == 1.5
    finding = only(check_cores(tree, 0.5), WARN)
    assert "a quota of 0.5; train.processes is 2" in finding.said
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert read_free_memory_gb(tmp_path) == pytest.approx(2.0)
    assert [only(check_memory(gb), level).level for gb, level in
            ((0.5, FAIL), (2.0, WARN), (9.0, OK))] == [FAIL, WARN, OK]  # fmt: skip


def test_disk(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tree)
    for free, level in ((5e8, FAIL), (2e9, WARN), (9e9, OK)):
        small = usage._replace(free=int(free))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, small=small: small)
        assert levels(check_disk(tree)) == [level, level]
    monkeypatch.setenv("PODIUM_STORE_GB", "ten")
    assert check_disk(tree)[-1].level == FAIL


def test_a_healthy_tree_has_nothing_to_mend(tree: Path) -> None:
    for check in (check_params, check_git, check_inputs, check_notes, check_running):
        only(check(tree), OK)
    assert check_data(tree) == []


def test_uncommitted_inputs_that_a_queued_experiment_would_miss(tree: Path) -> None:
    (tree / "data/weights/mine.safetensors").write_text("w")
    (tree / "src/new.py").write_text("")
    (tree / "src/code.py").write_text("changed, but known: the queue takes it along")
    (tree / "src/__pycache__").mkdir()
    (tree / "src/__pycache__/code.pyc").write_text("")
    (tree / "notes.txt").write_text("no stage reads it")
    finding = only(check_inputs(tree), WARN)
    assert finding.said == (
        "a queued experiment would miss 2 files: data/weights/mine.safetensors, src/new.py"
    )
    git(tree, "add", "src/new.py", "data/weights/mine.safetensors")
    only(check_inputs(tree), OK)
    git(tree, "rm", "--cached", "--quiet", "data/raw.dvc")
    assert only(check_inputs(tree), WARN).said.endswith("miss 1 file: data/raw.dvc")


def test_what_dvc_tracks_below_an_input_is_no_miss(tree: Path) -> None:
    """`dvc add data/weights/other.safetensors`, and a folder, both ignored by git."""
    (tree / "data/weights/many").mkdir()
    for name in ("other.safetensors", "many/1.bin", "many/2.bin"):
        (tree / "data/weights" / name).write_text("")
    for name in ("other.safetensors", "many"):
        (tree / f"data/weights/{name}.dvc").write_text("outs: []\n")
    (tree / "data/weights/.gitignore").write_text("/other.safetensors\n/many\n")
    git(tree, "add", "data/weights/.gitignore")
    said = only(check_inputs(tree), WARN).said
    assert said.endswith("miss 2 files: data/weights/many.dvc, data/weights/other.safetensors.dvc")
    git(tree, "add", "data/weights")
    only(check_inputs(tree), OK)


def test_ignored_inputs_are_missed_too(tree: Path) -> None:
    (tree / ".gitignore").write_text("/src/secret.py\n")
    (tree / "src/secret.py").write_text("")
    assert "src/secret.py" in only(check_inputs(tree), WARN).said


def test_missing_and_linked_inputs(tree: Path) -> None:
    shutil.rmtree(tree / "data/weights")
    (tree / "data/weights").symlink_to(tree.parent)
    (tree / "requirements.lock").unlink()
    found = check_inputs(tree)
    assert levels(found) == [FAIL, WARN]
    assert found[0].said == "missing: requirements.lock"
    assert "data/weights" in found[1].said
    shutil.rmtree(tree / "data/raw")
    assert "data/raw is missing" in only(check_data(tree), WARN).said


def test_git(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "notes.txt").write_text("")
    assert only(check_git(tree), OK).said.endswith("not committed: notes.txt")
    Path(os.fsdecode(os.fsencode(tree) + b"/odd \xff.txt")).write_text("")
    assert only(check_git(tree), OK).said.endswith("notes.txt, odd \ufffd.txt")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delenv("GIT_AUTHOR_EMAIL", raising=False)
    git(tree, "config", "--unset", "user.email")
    assert [one.subject for one in check_git(tree)] == ["git", "git author"]
    shutil.rmtree(tree / ".git")
    only(check_git(tree), WARN)
    git(tree, "init", "--quiet")
    only(check_git(tree), FAIL)


def test_merge_conflict(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "other")
    (tree / "src/code.py").write_text("one")
    git(tree, "commit", "--quiet", "-am", "one")
    git(tree, "checkout", "--quiet", "-")
    (tree / "src/code.py").write_text("two")
    git(tree, "commit", "--quiet", "-am", "two")
    subprocess.run(["git", "merge", "--quiet", "other"], cwd=tree, capture_output=True)
    finding = check_git(tree)[1]
    assert (finding.level, finding.said) == (FAIL, "merge conflicts in src/code.py")


def test_notes_cut_short(tree: Path) -> None:
    (tree / "dvc.lock").write_text("schema: '2.0'\nstages:\n  eda:\n    cm")
    assert only(check_notes(tree), FAIL).said == "cut short by a kill: dvc.lock"
    (tree / "dvc.lock").write_text("stages:\n  eda:\n")  # at a line's end
    assert only(check_notes(tree), FAIL).said == "cut short by a kill: dvc.lock"
    (tree / "dvc.lock").unlink()
    rwlock = tree / ".dvc/tmp/rwlock"
    rwlock.parent.mkdir(parents=True)
    rwlock.write_text('{"a": {"re')
    only(check_notes(tree), FAIL)
    rwlock.write_text("")
    only(check_notes(tree), OK)
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder = {"pid": ended.pid, "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"models": {"write": holder, "read": [holder]}}))
    assert f"`dvc repro` (pid {ended.pid})" in only(check_notes(tree), WARN).said


def test_running_stage_and_killed_training(tree: Path) -> None:
    locks = tree / ".podium/locks"
    with hold_lock(locks / "train.lock", "busy"):
        finding = only(check_running(tree), WARN)
        assert finding.said.startswith("stage train")
    only(check_running(tree), OK)  # the lock file stays; nobody holds it
    training = tree / ".podium/checkpoints/abcdef0123"
    training.mkdir(parents=True)
    (training / "unfinished.json").write_text("{}")
    assert only(check_running(tree), WARN).said == "a training was killed (abcdef01)"
    with hold_lock(training / "lock", "busy"):
        only(check_running(tree), OK)  # it runs


def test_status_of_dvc() -> None:
    assert only(describe_status({}), OK).said == "all stages are up to date"
    found = describe_status({"data/raw.dvc": [{}], "train": [{}], "evaluate": [{}]})
    assert levels(found) == [OK, WARN]
    assert found[0].said == "`dvc repro` would run train, evaluate"
    assert found[1].said.startswith("data/raw is not what DVC recorded")


def test_dvc_that_takes_too_long_or_complains(tree: Path) -> None:
    status = DvcStatus(tree)
    assert only(status.findings(0.01), WARN).said == "its status takes long"
    assert only(DvcStatus(tree).findings(60), FAIL).said.startswith("you are not inside of a DVC")


def test_exit_code_and_wrong_params(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (tree / "params.yaml").read_text()
    (tree / "params.yaml").write_text(text.replace("lr: 5e-3", "lr: -1"))
    findings = examine(tree, time.monotonic())
    (params,) = [one for one in findings if one.subject == "params"]
    assert params.level == FAIL
    assert "lr: expected" in params.said
    monkeypatch.setattr(doctor_module, "examine", lambda root, deadline: findings)
    assert doctor_module.doctor(tree) == 1
    assert "to mend" in capsys.readouterr().out.splitlines()[-1]
    fine = [one for one in findings if one.level != FAIL]
    monkeypatch.setattr(doctor_module, "examine", lambda root, deadline: fine)
    assert doctor_module.doctor(tree) == 0
