"""`podium clean`: remove what can be made again, and say what that frees."""

from __future__ import annotations

import shutil
from pathlib import Path

# Never data/raw, models/, deploy/, submissions or DVC's cache, which may hold the only copy; nor the
# checkpoints of killed trainings or .dvc/tmp, where queued experiments wait.
REMOVABLE = (
    Path(".podium/store"),
    Path(".podium/visualdl"),
    Path(".podium/compare"),
    Path(".mypy_cache"),
    Path(".ruff_cache"),
    Path(".hypothesis"),
)


def clean(root: Path) -> None:
    """Remove the store, logs and tool caches; show what stays in DVC's cache."""
    freed = 0
    for relative in REMOVABLE:
        size = folder_bytes(root / relative)
        if size:
            print(f"{relative}: {size / 1e6:.1f} MB removed")
            shutil.rmtree(root / relative)
            freed += size
    print(f"{freed / 1e6:.1f} MB freed")
    cache = folder_bytes(root / ".dvc" / "cache")
    print(
        f".dvc/cache: {cache / 1e6:.1f} MB kept; `dvc gc --workspace` drops old versions of outputs"
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
