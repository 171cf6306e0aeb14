"""Files that are either whole or absent: atomic writes, folder swaps and locks.

Everything a stage writes goes through here, so that a kill at any instant leaves either the old
content or the new one; between the two renames of a folder, for an instant, neither. What a killed
writer left beside the file (`.NAME.*.partial`) is removed by the next writer of that file; a living
writer holds a lock on its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.errors import PodiumError

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"  # how unfinished files and folders end


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    partial, handle = _make_partial(path, folder=False)
    try:
        with os.fdopen(handle, "wb") as stream:  # open, and so locked, until the file has its name
            stream.write(content)
            stream.flush()
            os.fsync(handle)
            os.chmod(partial, 0o644)
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Replace `path` by UTF-8 text, newlines as they are in `content`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by JSON in the order given. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_metrics(path: Path, report: Mapping[str, Any], headline: Iterable[str]) -> None:
    """Replace a metrics/NAME.json: `headline` keys in front, all others under `details`.

    `dvc exp show` gives every number in a metrics file a column, but passes lists over: `details`
    is a list of one, so that the table keeps to what experiments are compared by.
    """
    front = {key: report[key] for key in headline}
    details = {key: value for key, value in report.items() if key not in front}
    write_json(path, {**front, "details": [details]} if details else front)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Replace `path` by the frame's columns (no index), LF lines, shortest exact floats."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    fresh, handle = _make_partial(path, folder=True)
    try:
        yield fresh
        os.chmod(fresh, 0o755)
        if path.exists():
            old = fresh.with_name(f".{path.name}.old{fresh.name.removeprefix(f'.{path.name}')}")
            path.rename(old)
            try:
                fresh.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)  # else the next writer does it
        else:
            fresh.rename(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _make_partial(path: Path, folder: bool) -> tuple[Path, int]:
    """An unfinished file or folder beside `path`, and the descriptor whose lock says that its
    writer lives: to be closed when it is finished."""
    prefix = f".{path.name}."
    while True:
        if folder:
            name = tempfile.mkdtemp(PARTIAL, prefix, path.parent)
            try:
                handle = os.open(name, os.O_RDONLY)
            except FileNotFoundError:
                continue  # another writer took it for abandoned before we could lock it
        else:
            handle, name = tempfile.mkstemp(PARTIAL, prefix, path.parent)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.lexists(name):
            return Path(name), handle
        os.close(handle)  # likewise


def remove_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` left: what nobody holds a lock on."""
    for left in sorted(path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}")):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def hold_lock(path: Path, busy: str, patience_s: float = 10.0) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when the process dies.

    Args:
        path: lock file, made when missing and never removed (removing would race).
        busy: message for the user when someone else still holds it after `patience_s`.

    Raises:
        PodiumError: `busy`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PodiumError(busy) from None
                time.sleep(0.1)
        yield
