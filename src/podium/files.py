"""Files that are either whole or absent: atomic writes, folder swaps and locks.

Everything a stage writes goes through here, so that a kill at any instant leaves either the old
content or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.errors import PodiumError

if TYPE_CHECKING:
    import pandas as pd


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_text(path: Path, content: str) -> None:
    """Replace `path` by UTF-8 text, newlines as they are in `content`."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by JSON in the order given. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Replace `path` by the frame's columns (no index), LF lines, shortest exact floats."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield fresh
        os.chmod(fresh, 0o755)
        if path.exists():
            old = fresh.with_name(fresh.name + ".old")
            path.rename(old)
            fresh.rename(path)
            shutil.rmtree(old)
        else:
            fresh.rename(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


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
