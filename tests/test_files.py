"""Files are whole or absent, locks exclude, the store rebuilds when in doubt."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from podium.data import store
from podium.data.image_cache import load_images, readable_rows
from podium.errors import PodiumError, explain_os_error
from podium.files import (
    hold_lock,
    replace_folder,
    write_bytes,
    write_csv,
    write_json,
    write_metrics,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    write_text(path, "old\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert names(tmp_path) == ["out.csv"], "no stray temporary file"


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    with replace_folder(tmp_path / "models") as folder:
        (folder / "a").write_text("old")

    def fail_halfway() -> None:
        with replace_folder(tmp_path / "models") as folder:
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert (tmp_path / "models" / "a").read_text() == "old"
    with replace_folder(tmp_path / "models") as folder:
        (folder / "b").write_text("new")
    assert names(tmp_path / "models") == ["b"]
    assert names(tmp_path) == ["models"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replace_folder(tmp_path / "models") as folder:
        (folder / "a").write_text("old")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if target.name == "models" and ".old." not in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"), replace_folder(tmp_path / "models"):
        pass
    assert (tmp_path / "models" / "a").read_text() == "old"
    assert names(tmp_path) == ["models"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "m.json", {"accuracy": float("nan")})
    assert not names(tmp_path)


def test_metrics_put_the_headline_where_dvc_looks(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_metrics(path, {"rows": 3, "folds": {"0": 2}, "score": 0.5}, ("score", "rows"))
    assert json.loads(path.read_text()) == {
        "score": 0.5,
        "rows": 3,
        "details": [{"folds": {"0": 2}}],
    }
    write_metrics(path, {"rows": 3}, ("rows",))
    assert json.loads(path.read_text()) == {"rows": 3}


def test_csv_keeps_every_digit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    write_csv(tmp_path / "x.csv", pd.DataFrame({"p": [value]}))
    assert (tmp_path / "x.csv").read_bytes() == b"p\n0.30000000000000004\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk (models/w)"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "no permission (models/w)"),
        (errno.EROFS, "no permission"),
        (errno.EISDIR, "expected a file, got a folder (models/w)"),
        (errno.ENOTDIR, "expected a folder, got a file, within the path (models/w)"),
    ],
)
def test_the_systems_errors_that_are_the_users(number: int, words: str) -> None:
    line = explain_os_error(OSError(number, os.strerror(number), "models/w"))
    assert line is not None
    assert words in line
    assert "\n" not in line


def test_other_system_errors_keep_their_traceback() -> None:
    assert explain_os_error(OSError(errno.EBADF, "bad file descriptor")) is None


HOLD = """
import sys; sys.path.insert(0, "src")
from pathlib import Path
from podium.files import hold_lock
with hold_lock(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_and_dies_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(PodiumError, match="busy"), hold_lock(lock, "busy", patience_s=0.2):
        pass
    holder.kill()
    holder.communicate()
    with hold_lock(lock, "busy", patience_s=5):
        pass


# --- the store


@pytest.fixture
def in_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def keep(path: Path) -> bool:
    return True


def test_store_makes_once_and_again_when_refused(in_tree: Path) -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"x")

    first = store.get_or_make("k", ".bin", make, keep)
    assert store.get_or_make("k", ".bin", make, keep) == first
    assert len(made) == 1
    store.get_or_make("k", ".bin", make, lambda path: False)
    assert len(made) == 2


def test_store_keeps_nothing_half_made(in_tree: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.get_or_make("k", ".bin", fail, keep)
    assert names(store.store_folder()) == ["locks"]


def test_store_drops_what_was_used_longest_ago(
    in_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_STORE_GB", "2.5e-6")  # 2,500 bytes
    for age, key in enumerate("abc"):
        path = store.get_or_make(key, "", lambda path: path.write_bytes(b"x" * 1000) and None, keep)
        os.utime(path, (1000 + age, 1000 + age))
    store.get_or_make("b", "", lambda path: None, keep)  # a use: now the newest
    store.get_or_make("d", "", lambda path: path.write_bytes(b"x" * 1000) and None, keep)
    assert names(store.store_folder()) == ["b", "d", "locks"]


def test_store_minds_what_others_do_meanwhile(
    in_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another process is making stays; one that it drops just now is no error."""
    monkeypatch.setenv("PODIUM_STORE_GB", "0")
    folder = store.store_folder()
    folder.mkdir(parents=True)
    (folder / ".other").write_bytes(b"half")
    (folder / "gone").write_bytes(b"x")
    look = Path.stat

    def drop_first(path: Path, **how: bool) -> os.stat_result:
        if path.name == "gone":
            path.unlink(missing_ok=True)
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", drop_first)
    store.get_or_make("k", "", lambda path: path.write_bytes(b"x") and None, keep)
    assert names(folder) == [".other", "k", "locks"]


def test_store_cap_that_is_no_number(in_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_STORE_GB", "plenty")
    with pytest.raises(PodiumError, match="PODIUM_STORE_GB: expected a number of GB, got 'plenty'"):
        store.get_or_make("k", "", lambda path: path.write_bytes(b"x") and None, keep)


def test_temporary_runs_use_the_main_checkouts_store(tmp_path: Path) -> None:
    main, temporary = tmp_path / "main", tmp_path / "main" / ".dvc" / "tmp" / "exps" / "t"
    (temporary / ".dvc").mkdir(parents=True)
    (temporary / ".dvc" / "config.local").write_text(
        f"[cache]\n    dir = {main / '.dvc' / 'cache'}\n", encoding="utf-8"
    )
    assert store.main_root(temporary) == main
    assert store.main_root(main) == main


# --- decoded images


def make_rows(folder: Path, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        name = f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / name)
        rows.append((f"t/{name}", name, str(i), "train", ""))
    columns = ["image_id", "path", "sha256", "source", "problem"]
    return pd.DataFrame(rows, columns=columns)


def test_decoded_images_come_from_disk_the_second_time(in_tree: Path) -> None:
    rows = make_rows(in_tree, 5)
    images = load_images(rows, 16, "decode")
    assert images.shape == (5, 16, 16, 3)
    for row in rows["path"]:
        Path(row).unlink()
    assert np.array_equal(images, load_images(rows, 16, "decode"))
    with pytest.raises(PodiumError, match="in the manifest but gone"):
        load_images(rows, 32, "decode")


def test_a_damaged_store_is_rebuilt(in_tree: Path) -> None:
    rows = make_rows(in_tree, 3)
    images = np.array(load_images(rows, 16, "decode"))
    (stored,) = store.store_folder().glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:200])
    assert np.array_equal(images, load_images(rows, 16, "decode"))


def test_no_images_is_no_error(in_tree: Path) -> None:
    assert load_images(make_rows(in_tree, 0), 16, "decode").shape == (0, 16, 16, 3)


def test_readable_rows_leave_problems_out() -> None:
    manifest = pd.DataFrame(
        {
            "image_id": list("abc"),
            "source": ["train", "test", "test"],
            "problem": ["", "empty", ""],
        }
    )
    assert readable_rows(manifest, "test")["image_id"].tolist() == ["c"]


def test_two_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(path, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["x"]
