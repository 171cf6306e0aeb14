"""The `podium` command: words in, one line and an exit code out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from podium.cli import find_root, main
from podium.commands.clean import clean
from podium.errors import PodiumError
from tests.competition import make_clone, run_any

ROOT = Path(__file__).resolve().parents[1]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else -1), captured.out, captured.err


def test_root_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_root(deep) == tmp_path
    with pytest.raises(PodiumError, match="in no Podium repository"):
        find_root(Path("/"))


def test_check_passes_on_the_shipped_params(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "check")
    assert code == 0
    assert "all keys known" in out


@pytest.mark.parametrize("words", [("no-such-command",), (), ("init",), ("predict",)])
def test_wrong_words_exit_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "usage: podium" in err


def test_nobody_reads_on() -> None:
    """`podium check | true`: no traceback, and the exit code of a program that a closed pipe ends."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "podium.cli", "check"]
    done = subprocess.run(words, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141
    assert "Error" not in done.stderr


def test_score_outside_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, "score", "submission.csv")
    assert code == 2
    assert err.startswith("error: data/raw is not the demo competition")
    assert err.count("\n") == 1


def test_init_of_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "init", "/no/such/folder")
    assert code == 2
    assert err.startswith("error: /no/such/folder is missing")


def test_clean_says_what_it_frees_and_spares_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".podium/store").mkdir(parents=True)
    (tmp_path / ".podium/store/x.npy").write_bytes(b"x" * 2_000_000)
    names = ("models/w", "deploy/m", "data/raw/a.jpg", ".dvc/cache/c")
    waiting = (".podium/checkpoints/x/fold0", ".dvc/tmp/exps/celery/task")
    kept = [tmp_path / name for name in (*names, *waiting)]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 1_000_000)
    clean(tmp_path)
    out = capsys.readouterr().out
    assert "store: 2.0 MB removed" in out
    assert "2.0 MB freed" in out
    assert ".dvc/cache: 1.0 MB kept" in out
    assert not (tmp_path / ".podium/store").exists()
    assert all(path.exists() for path in kept)


def test_a_deleted_block_is_written_anew(tmp_path: Path) -> None:
    """The message about an edited block says: delete it and run init again. dvc must not mind."""
    clone = make_clone(tmp_path / "clone")
    assert "checksum" in (clone / "params.yaml").read_text()
    assert (clone / "data/raw.dvc").exists()


def test_without_git_init_and_check_work_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = make_clone(tmp_path / "an archive")
    shutil.rmtree(clone / ".git")
    shutil.rmtree(clone / "data/raw")
    code, said = run_any(
        clone, "podium", "init", "--demo", "--demo-train", "20", "--demo-test", "4",
        "--demo-size", "32",
    )  # fmt: skip
    assert code == 0, said
    assert "no .git here" in said
    assert (clone / "data/raw/train_images/train_0019.jpg").exists()
    assert run_any(clone, "dvc", "status")[0] == 0
