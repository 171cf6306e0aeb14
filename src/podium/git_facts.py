"""What git knows of a tree: its revision, and what is in no commit.

For metrics/measured/ and messages only: no output of a stage may depend on it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from podium.dag import declared_outputs

# What stages and DVC write in the course of things.
_WRITTEN = (Path("dvc.lock"),)


def run_git(root: Path, *words: str) -> str:
    """What git says in `root`; "" where it fails, or where there is none."""
    try:
        done = subprocess.run(
            # Only to look: a refreshed index would be locked just when dvc or the user commits.
            ["git", "--no-optional-locks", *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def read_revision(root: Path) -> str | None:
    """The commit that the tree stands on; None without git or without a commit."""
    if not (root / ".git").exists():  # a repository further up is another one
        return None
    return run_git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip() or None


def find_changes(root: Path) -> list[str]:
    """Files that differ from the last commit or are in none, and are not ignored; what stages write
    is not counted. Sorted."""
    written = [*_WRITTEN, *(output.path for output in declared_outputs(root))]
    entries = iter(run_git(root, "status", "--porcelain", "-z", "-uall").split("\0"))
    changed = []
    for entry in entries:
        if not entry:
            continue
        if entry[0] in "RC":
            next(entries)  # the old name
        path = Path(entry[3:])
        if not any(path == place or place in path.parents for place in written):
            changed.append(show_name(entry[3:]))
    return sorted(changed)


def show_name(name: str) -> str:
    """A file's name as text that can be printed, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace")
