"""Which commit or experiment made a submission: the one whose contract.json holds its hash.

In: a hash; git. Out: revision, experiment, and the verdict that was written when it was made. So a
file may be logged long after the workspace went on.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import PodiumError
from podium.trust.contract.verdict import CONTRACT_FILE, load_contract, parse_contract

# Where DVC keeps experiments: refs/exps/<2 digits>/<38 digits>/<name>, named by their baseline.
_EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(?P<name>.+)")


@dataclass(frozen=True)
class Origin:
    """Where a submission comes from.

    Attributes:
        file: its name in the contract.
        val: as in the contract.
        revision: of the commit, "" without git.
        experiment: DVC's name, "" where the commit is none.
        dirty: whether no commit holds the run: `revision` is then the one that was checked out.
    """

    file: str
    val: dict[str, Any]
    revision: str
    experiment: str
    dirty: bool


def find_origin(root: Path, sha256: str) -> Origin:
    """Look for a hash in the contracts of HEAD, of all experiments, of older commits, and last in the
    workspace's.

    Raises:
        PodiumError: none knows it as legal; or the workspace's contract is damaged.
    """
    for revision, experiment in _list_revisions(root):
        content = _git_bytes(root, "show", f"{revision}:{CONTRACT_FILE}")
        # A commit whose dvc.lock names another contract does not hold the run.
        if content is None or not _is_locked(root, revision, content):
            continue
        found = _find(_parse(content), sha256)
        if found:
            return Origin(*found, revision, experiment, dirty=False)
    workspace = root / CONTRACT_FILE
    found = _find(load_contract(workspace), sha256) if workspace.exists() else None
    if found:
        return Origin(*found, _git(root, "rev-parse", "-q", "--verify", "HEAD"), "", dirty=True)
    raise PodiumError(
        f"no {CONTRACT_FILE} holds this file as one that may be handed in, neither here nor in a "
        "commit or experiment: expected submission.csv or submission_compressed.csv, byte for byte "
        "as `dvc repro` wrote it"
    )


def read_committed(root: Path, path: Path) -> bytes:
    """What HEAD holds of `path`; nothing where it has none."""
    return _git_bytes(root, "show", f"HEAD:{path.as_posix()}") or b""


def _find(submissions: dict[str, Any], sha256: str) -> tuple[str, dict[str, Any]] | None:
    for name, facts in submissions.items():
        if facts["sha256"] == sha256:
            return name, dict(facts["val"])
    return None


def _parse(content: bytes) -> dict[str, Any]:
    """A contract in git's history may be of another format, which knows no hash of ours."""
    try:
        return parse_contract(content)
    except ValueError:
        return {}


def _is_locked(root: Path, revision: str, content: bytes) -> bool:
    lock = _git_bytes(root, "show", f"{revision}:dvc.lock") or b""
    return hashlib.md5(content, usedforsecurity=False).hexdigest().encode() in lock


def _list_revisions(root: Path) -> Iterator[tuple[str, str]]:
    """(commit, experiment's name): HEAD, the experiments, and what changed the contract."""
    head = _git(root, "rev-parse", "-q", "--verify", "HEAD")
    if not head:
        return
    yield head, ""
    listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    for line in listed.splitlines():
        revision, _, reference = line.partition(" ")
        match = _EXPERIMENT.fullmatch(reference)
        if match:
            yield revision, match["name"]
    history = _git(root, "log", "--format=%H", "--", CONTRACT_FILE.as_posix())
    yield from ((revision, "") for revision in history.splitlines() if revision != head)


def _git(root: Path, *words: str) -> str:
    """What git says, "" where it fails."""
    return (_git_bytes(root, *words) or b"").decode("utf-8", errors="replace").strip()


def _git_bytes(root: Path, *words: str) -> bytes | None:
    """What git writes; None where it fails, or there is no git here."""
    if not (root / ".git").exists():
        return None
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
