"""The doctor's look at the repository: git, DVC, params, what a queued experiment would not see."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from podium.commands.dvc_notes import RWLOCK, find_cut_notes
from podium.dag import DAG_FILE, declared_inputs, look_up
from podium.doctor.findings import FAIL, OK, WARN, Finding
from podium.git_facts import find_changes, read_revision, run_git, show_name
from podium.params import PARAMS_FILE, load_params, read_yaml
from podium.stage import LOCKS

_SHOWN = 8
_IGNORED = (".pyc", ".DS_Store")


def check_params(root: Path) -> list[Finding]:
    """All of params.yaml against its schema.

    Raises:
        PodiumError: as `podium check`.
    """
    from podium.schema import AllParams

    params = load_params(AllParams, root / PARAMS_FILE)
    return [
        Finding(OK, "params", f"all keys known, all values in range ({params.competition.name})")
    ]


def check_git(root: Path) -> list[Finding]:
    """Whether experiments can be recorded; what is in no commit."""
    if not (root / ".git").exists():
        advice = "repro and predict work; dvc exp and certify need `git init` and a commit"
        return [Finding(WARN, "git", "no repository here", advice)]
    revision = read_revision(root)
    if revision is None:
        return [Finding(FAIL, "git", "no commit, or no git", "`git add --all && git commit`")]
    findings = []
    conflicts = run_git(root, "diff", "--name-only", "--diff-filter=U").split("\n")[:-1]
    if conflicts:
        advice = "settle them, then `git add`"
        findings.append(Finding(FAIL, "git", f"merge conflicts in {_list(conflicts)}", advice))
    if not run_git(root, "config", "user.email").strip() and not os.environ.get("GIT_AUTHOR_EMAIL"):
        advice = "experiments are commits: `git config user.name ...`, `git config user.email ...`"
        findings.append(Finding(WARN, "git author", "none is set", advice))
    changed = find_changes(root)
    said = f"revision {revision[:12]}"
    if changed:
        said += f", not committed: {_list(changed)}"
    return [Finding(OK, "git", said), *findings]


def check_inputs(root: Path) -> list[Finding]:
    """Inputs of stages that git and DVC do not know: `dvc repro` reads them, but a queued or temporary
    experiment runs in a copy that lacks them."""
    if read_revision(root) is None:
        return []
    places = [*declared_inputs(root), DAG_FILE, PARAMS_FILE]
    source = Path(find_source(root) or ".")  # `check_data` speaks of it
    missing = [str(path) for path in places if path != source and not (root / path).exists()]
    found = []
    if missing:
        advice = "`podium run` brings data in; the rest `git checkout`"
        found.append(Finding(FAIL, "inputs", f"missing: {_list(missing)}", advice))
    outside = [
        str(path)
        for path in places
        if path.is_absolute() or root.resolve() not in (root / path).resolve().parents
    ]
    if outside:
        advice = "breaks queued and temporary experiments: `podium init PATH` copies files in"
        found.append(
            Finding(WARN, "inputs", f"links, or outside the repository: {_list(outside)}", advice)
        )
    unseen = find_unseen_inputs(root, [path for path in places if str(path) not in outside])
    if unseen:
        advice = "`git add` them, or `dvc add` what is big, and commit"
        files = "1 file" if len(unseen) == 1 else f"{len(unseen)} files"
        said = f"a queued experiment would miss {files}: {_list(unseen)}"
        found.append(Finding(WARN, "inputs", said, advice))
    return found or [Finding(OK, "inputs", "git and DVC know all that stages read")]


def find_unseen_inputs(root: Path, places: Iterable[Path]) -> list[str]:
    """Files below `places` that are neither in git's index nor tracked by DVC; of what DVC tracks the
    .dvc file, where git does not know that; sorted."""
    known = set(run_git(root, "ls-files", "-z").split("\0"))
    unseen = set()
    for place in places:
        top = root / place
        tracked = top.is_file() or _find_pointer(root, place)
        for path in [top] if tracked else [path for path in top.rglob("*") if path.is_file()]:
            name = path.relative_to(root).as_posix()
            if name in known or name.endswith(_IGNORED):
                continue
            pointer = _find_pointer(root, Path(name))
            if pointer not in known:
                unseen.add(pointer or name)
    return sorted(unseen)


def _find_pointer(root: Path, place: Path) -> str | None:
    """The .dvc file of a place, or of a folder that it is in; None where DVC does not track it."""
    names = (f"{part.as_posix()}.dvc" for part in (place, *place.parents[:-1]))
    return next((name for name in names if (root / name).is_file()), None)


class DvcStatus:
    """`dvc status` while the other checks run: it takes seconds.

    Args:
        root: of the repository.
    """

    def __init__(self, root: Path) -> None:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "DVC_NO_ANALYTICS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "status", "--json"],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def findings(self, patience_s: float) -> list[Finding]:
        """What it said; it is ended if it takes longer than `patience_s` from now."""
        try:
            said, complaint = self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            advice = "`dvc status` reads all data once after a checkout: let it finish by itself"
            return [Finding(WARN, "dvc", "its status takes long", advice)]
        if self._process.returncode:
            lines = [line for line in complaint.splitlines() if line.startswith("ERROR")]
            first = (lines or complaint.splitlines()[-1:] or ["no message"])[0]
            if "lock" in first.lower():
                return [Finding(WARN, "dvc", "another dvc is at work here", "wait for it")]
            return [Finding(FAIL, "dvc", first.removeprefix("ERROR: "), "mend it first")]
        return describe_status(json.loads(said))


def describe_status(status: dict[str, Any]) -> list[Finding]:
    """What `dvc status --json` means: stages that would run, data that is not as added."""
    findings = []
    data = [name.removesuffix(".dvc") for name in status if name.endswith(".dvc")]
    if data:
        advice = "`dvc add` it and commit, or `dvc checkout` brings the old one back"
        said = (
            f"{_list(data)} is not what DVC recorded: a queued experiment would see the old files"
        )
        findings.append(Finding(WARN, "data", said, advice))
    stages = [name for name in status if not name.endswith(".dvc")]
    said = f"`dvc repro` would run {', '.join(stages)}" if stages else "all stages are up to date"
    return [Finding(OK, "dvc", said), *findings]


def check_notes(root: Path) -> list[Finding]:
    """DVC's notes: whole, or cut short by a kill."""
    cut = find_cut_notes(root)
    if cut:
        advice = "`podium run` mends it; by hand: `git checkout dvc.lock`, `rm .dvc/tmp/rwlock`"
        return [Finding(FAIL, "notes", f"cut short by a kill: {_list(map(str, cut))}", advice)]
    dead = find_dead_holders(root)
    if dead:
        said = f".dvc/tmp/rwlock names {dead[0]}, which is no more"
        return [Finding(WARN, "notes", said, "nothing to do: the next dvc clears it")]
    return [Finding(OK, "notes", "dvc.lock and .dvc/tmp/rwlock are whole")]


def find_dead_holders(root: Path) -> list[str]:
    """Commands that DVC's list of locks names and whose process is gone."""
    path = root / RWLOCK
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    holders = []
    for entry in json.loads(text or "{}").values():
        for found in entry.values():
            holders += found if isinstance(found, list) else [found]
    dead = [one for one in holders if "pid" in one and not psutil.pid_exists(int(one["pid"]))]
    return [f"`{one.get('cmd', 'dvc')}` (pid {one['pid']})" for one in dead]


def check_running(root: Path) -> list[Finding]:
    """Stages that run now, and trainings that were killed."""
    findings = []
    for name, pid in find_running_stages(root).items():
        who = f" (pid {pid})" if pid else ""
        advice = "a second `dvc repro` waits for it or is refused"
        findings.append(Finding(WARN, "running", f"stage {name}{who}", advice))
    for marker in sorted((root / ".podium" / "checkpoints").glob("*/unfinished.json")):
        if not _is_held(marker.with_name("lock")):
            said = f"a training was killed ({marker.parent.name[:8]})"
            advice = (
                "`dvc repro` goes on from its last checkpoint, if code, data and params are its"
            )
            findings.append(Finding(WARN, "killed", said, advice))
    return findings or [Finding(OK, "running", "no stage, and no training was killed")]


def find_running_stages(root: Path) -> dict[str, int | None]:
    """Stage -> process id, where it can be known, of the stages that hold their lock."""
    holders = _read_flocks(Path("/proc/locks"))
    return {
        path.stem: holders.get(path.stat().st_ino)
        for path in sorted((root / LOCKS).glob("*.lock"))
        if _is_held(path)
    }


def _is_held(path: Path) -> bool:
    """Whether a living process holds this lock; a lock file by itself means nothing."""
    if not path.exists():
        return False
    with path.open("r") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _read_flocks(path: Path) -> dict[int, int]:
    """Inode -> process id of Linux's table of locks; empty elsewhere."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK":
            found[int(words[5].rpartition(":")[2])] = int(words[4])
    return found


def check_data(root: Path) -> list[Finding]:
    """Whether the competition's files are here."""
    source = find_source(root)
    if source and not (root / source).is_dir():
        advice = "`podium run` brings it from DVC's cache or renders the demo; else `podium init`"
        return [Finding(WARN, "data", f"{source} is missing", advice)]
    return []


def find_source(root: Path) -> str | None:
    """`competition.source`; None where params.yaml has none."""
    source = look_up(read_yaml(root / PARAMS_FILE), "competition.source")
    return source if isinstance(source, str) else None


def _list(names: Iterable[str]) -> str:
    known = [show_name(name) for name in names]
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more
