"""The store: content-addressed files that can be made again at any time.

It holds what is too big or too short-lived for DVC (decoded images). It stands in the main
checkout: queued and temporary experiments run in folders that go away, and share that store.

Environment: PODIUM_STORE_GB caps its size (default 10); nothing in it changes a result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from podium.errors import PodiumError
from podium.files import hold_lock

_DEFAULT_CAP_GB = 10.0


def main_root(tree: Path = Path()) -> Path:
    """The checkout that `tree` belongs to: `tree` itself, except in queue and temp runs.

    DVC makes the folders of those below .dvc/tmp/exps of the checkout they were started in.
    """
    resolved = tree.resolve()
    for folder in resolved.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return resolved


def store_folder() -> Path:
    """Where the store of this checkout stands."""
    return main_root() / ".podium" / "store"


def make_key(*parts: str) -> str:
    """A name for content that is a pure function of `parts`: 32 hex digits."""
    return hashlib.blake2b("\x1f".join(parts).encode("utf-8"), digest_size=16).hexdigest()


def get_or_make(
    key: str, suffix: str, make: Callable[[Path], None], check: Callable[[Path], bool]
) -> Path:
    """The stored file for `key`; made by `make(path)` when missing or when `check` refuses it.

    One process makes it while others wait. It appears under its name only when whole.
    """
    folder = store_folder()
    path = folder / f"{key}{suffix}"
    busy = f"another process has been making {path.name} for an hour: end it, then run again"
    with hold_lock(folder / "locks" / f"{key}.lock", busy, patience_s=3600):
        if path.exists() and check(path):
            os.utime(path)  # the newest use: what is dropped first is what was used longest ago
            return path
        fresh = (
            folder / f".{key}{suffix}"
        )  # ours alone by the lock; a killed maker's is overwritten
        try:
            make(fresh)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    _drop_oldest(folder, keep=path)
    return path


def _drop_oldest(folder: Path, keep: Path) -> None:
    """Until the whole files fit; other processes may be making and dropping some meanwhile."""
    cap = _cap_bytes()
    files = []
    for path in folder.iterdir():
        if not path.name.startswith("."):  # unfinished: another's, who holds its lock
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if stat.S_ISREG(found.st_mode):
                    files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= cap:
            return
        if path != keep:
            total -= size
            path.unlink(missing_ok=True)


def _cap_bytes() -> float:
    text = os.environ.get("PODIUM_STORE_GB", str(_DEFAULT_CAP_GB))
    try:
        return float(text) * 1e9
    except ValueError:
        raise PodiumError(f"PODIUM_STORE_GB: expected a number of GB, got {text!r}") from None
