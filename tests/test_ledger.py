"""The ledger: only what the contract proved, once, in order, and never half a row."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from podium.cli import main
from podium.commands.log_score import log_score, parse_time, plot_ledger
from podium.errors import PodiumError
from podium.trust.contract.verdict import hash_submission
from podium.trust.ledger import (
    COLUMNS,
    LEDGER_FILE,
    Entry,
    append_entry,
    check_new,
    comparable,
    describe_correlation,
    describe_shake_up,
    format_entry,
    load_ledger,
    parse_ledger,
)
from podium.trust.origin import find_origin

ROOT = Path(__file__).resolve().parents[1]
ENTRY = Entry(
    handed_in="2026-11-26T10:00:00Z",
    sha256="a" * 64,
    file="submission.csv",
    revision="b" * 40,
    experiment="",
    dirty=False,
    metric="accuracy",
    val=0.9,
    val_low=0.85,
    val_high=0.94,
    public=0.91,
)


def entry(number: int, **changes: Any) -> Entry:
    return replace(ENTRY, sha256=f"{number:064x}", **changes)


# --- rows


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9)
scores = st.floats(0, 1)


@given(
    st.lists(
        st.builds(
            Entry,
            handed_in=st.just("2026-11-26T10:00:00Z"),
            sha256=texts,
            file=texts,
            revision=texts,
            experiment=texts | st.sampled_from(['a,"b"', "x\ny"]),
            dirty=st.booleans(),
            metric=texts,
            val=st.none() | scores,
            val_low=st.none() | scores,
            val_high=st.none() | scores,
            public=scores,
        ),
        max_size=4,
    )
)
def test_rows_come_back_as_they_were(entries: list[Entry]) -> None:
    text = ",".join(COLUMNS) + "\n" + b"".join(map(format_entry, entries)).decode()
    assert parse_ledger(text) == entries


def test_rows_are_only_added(tmp_path: Path) -> None:
    path, lock = tmp_path / LEDGER_FILE, tmp_path / "lock"
    assert load_ledger(path) == []
    before = b""
    for number in range(3):
        append_entry(path, lock, entry(number), None)
        now = path.read_bytes()
        assert now.startswith(before)
        before = now
    assert load_ledger(path) == [entry(number) for number in range(3)]
    assert sorted(file.name for file in path.parent.iterdir()) == [LEDGER_FILE.name]


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / LEDGER_FILE
    threads = [
        threading.Thread(target=append_entry, args=(path, tmp_path / "lock", entry(number), None))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.sha256 for row in load_ledger(path)} == {entry(n).sha256 for n in range(6)}


def test_duplicates_and_full_days_are_refused() -> None:
    entries = [entry(1), entry(2)]
    with pytest.raises(PodiumError, match=r"has these bytes already: submission.csv of bbbbbbb"):
        check_new(entries, entry(2, public=0.5), None)
    check_new(entries, entry(3), 3)
    with pytest.raises(PodiumError) as caught:
        check_new(entries, entry(3), 2)
    assert "has 2 submissions of 2026-11-26 (UTC)" in str(caught.value)
    assert "max_submissions_per_day is 2" in str(caught.value)
    check_new(entries, entry(3, handed_in="2026-11-25T23:59:59Z"), 2)


@pytest.mark.parametrize(
    ("metric", "public", "is_possible"),
    [
        ("accuracy", 0.0, True),
        ("accuracy", 98.1, False),
        ("accuracy", float("nan"), False),
        ("qwk", -0.5, True),
        ("qwk", -1.5, False),
        ("log_loss", 3.5, True),
        ("log_loss", float("inf"), False),
    ],
)
def test_scores_that_cannot_be(metric: str, public: float, is_possible: bool) -> None:
    row = entry(1, metric=metric, public=public)
    if is_possible:
        check_new([], row, None)
        return
    with pytest.raises(PodiumError, match=f"the public score: expected {metric} from"):
        check_new([], row, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "cut short"),
        (lambda text: text[:-1], "cut short"),
        (lambda text: text.replace("public", "lb", 1), "row 1: expected handed_in,sha256"),
        (lambda text: text + "a,b\n", "row 3: expected 11 cells, got 2"),
        (lambda text: text.replace("false", "no"), "row 2: dirty: expected true or false"),
        (lambda text: text.replace("0.91", "high"), "row 2: could not convert"),
        (lambda text: text.replace("T10", " 10"), "row 2: time data"),
    ],
)
def test_a_damaged_ledger_is_one_line_and_stays(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / LEDGER_FILE
    append_entry(path, tmp_path / "lock", ENTRY, None)
    damaged = change(path.read_text())
    path.write_text(damaged)
    with pytest.raises(PodiumError) as caught:
        append_entry(path, tmp_path / "lock", entry(1), None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == damaged


# --- what it says


def test_shake_up_is_said() -> None:
    assert describe_shake_up(ENTRY) == "public 0.9100 is within the val interval, 0.8500 to 0.9400"
    assert describe_shake_up(entry(1, public=0.94)).startswith("public 0.9400 is within")
    assert describe_shake_up(entry(1, public=0.8)).startswith("SHAKE-UP: public 0.8000 is below")
    assert describe_shake_up(entry(1, public=0.95)).startswith("SHAKE-UP: public 0.9500 is above")
    assert "nothing can be said" in describe_shake_up(entry(1, val_low=None, val_high=None))


def test_correlation_needs_points_and_finds_the_order() -> None:
    rows = [entry(n, val=0.8 + n / 100, public=0.7 + n / 50) for n in range(5)]
    assert describe_correlation(rows[:4]) == "rank correlation: from 5 submissions on, there are 4"
    # Of 5! orders one is the same and one the reverse: p = 2 / 120.
    assert "tau): 1.00, p 0.0167, n 5" in describe_correlation(rows)
    backwards = [replace(row, public=1 - row.public) for row in rows]
    assert "tau): -1.00, p 0.0167, n 5" in describe_correlation(backwards)
    assert "not defined" in describe_correlation([replace(row, val=0.9) for row in rows])


def test_metrics_are_not_mixed() -> None:
    rows = [entry(1, metric="qwk"), entry(2), entry(3, val=None), entry(4)]
    assert [row.sha256 for row in comparable(rows)] == [rows[1].sha256, rows[3].sha256]
    assert comparable([]) == []


def test_files_are_not_mixed() -> None:
    """The val scores of the two submissions may be of different images."""
    rows = [entry(1), entry(2, file="submission_compressed.csv"), entry(3)]
    assert [row.sha256 for row in comparable(rows)] == [rows[0].sha256, rows[2].sha256]


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_score_that_is_no_number_is_refused(number: str) -> None:
    text = ",".join(COLUMNS) + "\n" + format_entry(ENTRY).decode().replace("0.91", number)
    with pytest.raises(ValueError, match=f"row 2: expected a finite number, got {number}"):
        parse_ledger(text)


@pytest.mark.parametrize("count", [1, 14])
def test_the_picture(tmp_path: Path, count: int) -> None:
    for number in range(count):
        row = entry(number, val=0.88 + number / 500, public=0.8 + number / 100)
        append_entry(tmp_path / LEDGER_FILE, tmp_path / "lock", row, None)
    plot_ledger(tmp_path)
    first = (tmp_path / "submissions/ledger.png").read_bytes()
    with Image.open(tmp_path / "submissions/ledger.png") as image:
        assert image.size == (1120, 960)
    plot_ledger(tmp_path)
    assert (tmp_path / "submissions/ledger.png").read_bytes() == first


def test_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="has no scores to plot"):
        plot_ledger(tmp_path)


def test_times() -> None:
    now = datetime(2026, 11, 26, 10, 0, 0, 999, tzinfo=UTC)
    assert parse_time(None, now) == "2026-11-26T10:00:00Z"
    assert parse_time("2026-11-25", now) == "2026-11-25T00:00:00Z"
    assert parse_time("2026-11-26T08:30+09:00", now) == "2026-11-25T23:30:00Z"
    for wrong in ("yesterday", "", "2026-11-26T10:00:01", "2026-13-01"):
        with pytest.raises(PodiumError, match="--at: expected a time"):
            parse_time(wrong, now)


# --- where a submission comes from


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with params.yaml, no commit yet."""
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "Test")
        monkeypatch.setenv(f"{name}_EMAIL", "test@example.com")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "commit.gpgsign", "false")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".gitignore").write_text("submission.csv\n.podium\n")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "state")
    return git(folder, "rev-parse", "HEAD")


def submit(folder: Path, content: bytes, is_legal: bool = True) -> Path:
    """What `dvc repro` leaves of a submission."""
    val = {"metric": "accuracy", "score": 0.9, "low": 0.85, "high": 0.94, "n": 100}
    facts = {"sha256": hash_submission(content) if is_legal else None, "val": val, "rules": {}}
    contract = json.dumps({"format": 1, "submissions": {"submission.csv": facts}}).encode()
    (folder / "contract.json").write_bytes(contract)
    (folder / "dvc.lock").write_text(f"md5: {hashlib.md5(contract).hexdigest()}\n")
    path = folder / "submission.csv"
    path.write_bytes(content)
    return path


def test_a_committed_run(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = submit(repository, b"one")
    revision = commit(repository)
    log_score(repository, path, 0.7, "2026-01-01")
    (row,) = load_ledger(repository / LEDGER_FILE)
    assert row == replace(
        ENTRY,
        handed_in="2026-01-01T00:00:00Z",
        sha256=hash_submission(b"one"),
        revision=revision,
        public=0.7,
    )
    said = capsys.readouterr().out
    assert "SHAKE-UP" in said
    assert "submissions/ledger.csv: 1 row;" in said
    with pytest.raises(PodiumError, match="has these bytes already"):
        log_score(repository, path, 0.71, None)


def test_an_uncommitted_run_is_dirty(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit(repository, b"one")
    revision = commit(repository)
    path = submit(repository, b"two")
    log_score(repository, path, 0.9, None)
    (row,) = load_ledger(repository / LEDGER_FILE)
    assert (row.revision, row.dirty) == (revision, True)
    assert "no commit and no experiment holds the run" in capsys.readouterr().out


def test_a_commit_with_another_lock_does_not_hold_the_run(repository: Path) -> None:
    submit(repository, b"one")
    (repository / "dvc.lock").write_text("md5: another\n")
    commit(repository)
    assert find_origin(repository, hash_submission(b"one")).dirty


def test_experiments_and_older_commits_are_found_by_the_hash(repository: Path) -> None:
    """The workspace has gone on; the file was kept somewhere."""
    submit(repository, b"one")
    first = commit(repository)
    submit(repository, b"two")
    second = commit(repository)
    submit(repository, b"three")
    experiment = commit(repository)
    git(repository, "update-ref", f"refs/exps/{second[:2]}/{second[2:]}/rough-owl", experiment)
    git(repository, "update-ref", "refs/exps/exec/EXEC_HEAD", experiment)
    git(repository, "reset", "--quiet", "--hard", second)
    found = {
        content: find_origin(repository, hash_submission(content))
        for content in (b"one", b"two", b"three")
    }
    assert [(one.revision, one.experiment, one.dirty) for one in found.values()] == [
        (first, "", False),
        (second, "", False),
        (experiment, "rough-owl", False),
    ]


def test_what_no_contract_knows_is_refused(repository: Path) -> None:
    with pytest.raises(PodiumError, match=r"no contract\.json holds this file"):
        find_origin(repository, hash_submission(b"one"))
    path = submit(repository, b"one", is_legal=False)
    commit(repository)
    with pytest.raises(PodiumError, match=r"no contract\.json holds this file"):
        log_score(repository, path, 0.9, None)
    path = submit(repository, b"one")
    path.write_bytes(b"one, edited")
    with pytest.raises(PodiumError, match=r"no contract\.json holds this file"):
        log_score(repository, path, 0.9, None)
    assert not (repository / LEDGER_FILE).exists()


def test_without_git(tmp_path: Path) -> None:
    submit(tmp_path, b"one")
    origin = find_origin(tmp_path, hash_submission(b"one"))
    assert (origin.revision, origin.dirty) == ("", True)


def test_committed_rows_must_stay(repository: Path) -> None:
    path = submit(repository, b"one")
    commit(repository)
    log_score(repository, path, 0.9, None)
    commit(repository)
    ledger = repository / LEDGER_FILE
    whole = ledger.read_text()
    path = submit(repository, b"two")
    for lost in (whole.replace("0.9\n", "0.99\n"), whole.splitlines(keepends=True)[0]):
        ledger.write_text(lost)
        with pytest.raises(PodiumError, match="rows of the last commit were changed or removed"):
            log_score(repository, path, 0.9, None)
        assert ledger.read_text() == lost
    ledger.unlink()
    with pytest.raises(PodiumError, match="rows of the last commit"):
        log_score(repository, path, 0.9, None)
    ledger.write_text(whole)
    log_score(repository, path, 0.9, None)
    assert len(load_ledger(ledger)) == 2


def test_the_daily_limit_is_the_competitions(repository: Path) -> None:
    params = repository / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("max_submissions_per_day:", "max_submissions_per_day: 1"))
    log_score(repository, submit(repository, b"one"), 0.9, "2026-01-01T10:00")
    path = submit(repository, b"two")
    with pytest.raises(PodiumError, match="max_submissions_per_day is 1"):
        log_score(repository, path, 0.9, "2026-01-01T23:00")
    log_score(repository, path, 0.9, "2026-01-02")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["log-score"], 2, "expected FILE and its public SCORE, or --plot alone"),
        (["log-score", "submission.csv"], 2, "expected FILE and its public SCORE"),
        (["log-score", "none.csv", "0.9"], 2, "none.csv is missing"),
        (["log-score", ".", "0.9"], 2, ". is a folder"),
        (["log-score", "submission.csv", "0.9", "--plot"], 0, ""),
    ],
)
def test_the_command(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    submit(repository, b"one")
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == code
    assert said in capsys.readouterr().err
    assert (repository / "submissions/ledger.png").exists() == (code == 0)


def test_another_trees_command_is_known(tmp_path: Path) -> None:
    """An environment serves several clones: a clone's own words are parsed by its own code."""
    package = tmp_path / "src/podium"
    package.mkdir(parents=True)
    (tmp_path / "dvc.yaml").touch()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("print('parsed here')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "podium.cli", "a-word-of-tomorrow"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "parsed here\n"
