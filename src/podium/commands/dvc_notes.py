"""DVC's own notes after a kill: it writes them in place, so that one in the wrong 50 ms cuts them
short, and the next `dvc repro` refuses to start."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def mend_dvc_notes(root: Path) -> list[str]:
    """Put back what a kill cut short; a line for each note that was mended.

    dvc.lock becomes git's last version of it, or goes where git has none: stages that it no longer
    knows are taken from DVC's run cache. `.dvc/tmp/rwlock` holds nothing that outlives its process.
    """
    said = []
    cut = find_cut_notes(root)
    lock, rwlock = root / LOCK, root / RWLOCK
    if LOCK in cut:
        kept = subprocess.run(
            ["git", "show", "HEAD:./dvc.lock"], cwd=root, capture_output=True, check=False
        )
        if kept.returncode == 0:
            lock.write_bytes(kept.stdout)
        else:
            lock.unlink()
        said.append("dvc.lock was cut short by a kill: git's version is back in its place")
    if RWLOCK in cut:
        rwlock.unlink()
        said.append(".dvc/tmp/rwlock was cut short by a kill: removed")
    return said


def find_cut_notes(root: Path) -> list[Path]:
    """Which of DVC's two notes a kill cut short."""
    readers = {LOCK: _is_lock, RWLOCK: _is_json}
    return [
        path
        for path, is_whole in readers.items()
        if (root / path).exists() and not is_whole(root / path)
    ]


def _is_lock(path: Path) -> bool:
    """Whether it is whole, or cut where DVC goes on without a word: what stood behind an entry is then
    taken from the run cache. YAML that ends in the middle of a line may be YAML all the same."""
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError):
        return False
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not text.endswith("\n"):
        return False
    return all(_is_stage(stage) for stage in stages.values())


def _is_stage(stage: Any) -> bool:
    """Whether DVC would read it: its LOCK_FILE_STAGE_SCHEMA (dvc.schema), and hashes that are there."""
    if not isinstance(stage, dict) or not stage.get("cmd"):
        return False
    params, parts = stage.get("params", {}), [stage.get(key, []) for key in ("deps", "outs")]
    if not isinstance(params, dict) or not all(isinstance(part, list) for part in parts):
        return False
    return all(isinstance(part, dict) for part in params.values()) and all(
        isinstance(file, dict) and len(file) > 1 and file.get("hash", "path") in file
        for part in parts
        for file in part
    )


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8") or "{}"), dict)
    except ValueError:
        return False
