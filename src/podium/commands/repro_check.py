"""`podium repro-check`: the DAG run twice from the committed state, every declared output compared.

In: the repository's last commit and the raw data. Out: one line per file, same or DIFFERENT.

The two clones differ in all that must not matter: the length of their path, the number of cores,
locale, time zone, hash seed and the thread counts that the environment asks for. Each has a cache
of its own, and nothing is taken from a run cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.commands.init import make_demo
from podium.errors import PodiumError
from podium.intake.init import run_dvc
from podium.models.params import WEIGHTS_FOLDER
from podium.params import PARAMS_FILE, load_params, read_yaml
from podium.runtime import available_cores, cpu_class
from podium.schema import AllParams

MISSING = "missing"


@dataclass(frozen=True)
class Surroundings:
    """What one of the two runs sees.

    Attributes:
        folder: of the clone, below the scratch folder.
        cores: how many it may use; None: all there are.
        environment: variables that must not matter.
    """

    folder: str
    cores: int | None
    environment: Mapping[str, str]


SURROUNDINGS = (
    Surroundings("a", None, {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}),
    Surroundings(
        "a folder with a longer name/and one more",
        1,
        {
            "LC_ALL": "C",
            "TZ": "Pacific/Kiritimati",
            "PYTHONHASHSEED": "4242",
            "OMP_NUM_THREADS": "3",
            "MKL_NUM_THREADS": "3",
        },
    ),
)


def repro_check(root: Path, subset: float, keep: bool) -> int:
    """Run the committed DAG in two clean clones on a share of the data; print the comparison.

    Args:
        root: a git repository with at least one commit.
        subset: value of `data.subset` in both clones.
        keep: leave the clones, and say where.

    Returns:
        0 when all declared outputs are the same, else 1.

    Raises:
        PodiumError: no commit, no data, or a run that failed.
    """
    start = time.monotonic()
    if not 0 < subset <= 1:
        raise PodiumError(f"--subset: expected > 0 and at most 1, got {subset:g}")
    _check_committed(root)
    scratch = Path(tempfile.mkdtemp(prefix="podium-repro-check-"))
    try:
        clones = [
            _run_clone(root, scratch / where.folder, where, subset, number)
            for number, where in enumerate(SURROUNDINGS, start=1)
        ]
        first, second = (hash_outputs(clone) for clone in clones)
        code = print_comparison(first, second)
    finally:
        if keep:
            print(f"the clones are in {scratch}")
        else:
            shutil.rmtree(scratch)
    print(f"{time.monotonic() - start:.0f} s in all, CPU class {cpu_class()}")
    return code


def declared_outputs(root: Path) -> list[tuple[str, Path]]:
    """(stage, path) of every out, metric and plot in dvc.yaml, in its order, which is the DAG's."""
    found = []
    for name, stage in read_yaml(root / "dvc.yaml")["stages"].items():
        for kind in ("outs", "metrics", "plots"):
            for entry in stage.get(kind, []):
                paths = entry if isinstance(entry, dict) else [entry]
                found += [(name, Path(path)) for path in paths]
    return found


def hash_outputs(root: Path) -> dict[tuple[str, str], str]:
    """(stage, file) -> sha256 of its content, in the DAG's order; folders file by file."""
    hashes = {}
    for stage, output in declared_outputs(root):
        path = root / output
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            content = file.read_bytes() if file.is_file() else None
            digest = MISSING if content is None else hashlib.sha256(content).hexdigest()
            hashes[stage, file.relative_to(root).as_posix()] = digest
    return hashes


def print_comparison(
    first: Mapping[tuple[str, str], str], second: Mapping[tuple[str, str], str]
) -> int:
    """One line per file and a verdict; returns 1 when a file differs or is missing, else 0."""
    different = []
    for stage, file in dict.fromkeys([*first, *second]):
        ours, theirs = first.get((stage, file), MISSING), second.get((stage, file), MISSING)
        same = ours == theirs != MISSING
        verdict = "same     " if same else "DIFFERENT"
        shown = ours[:16] if same else f"{ours[:16]} {theirs[:16]}"
        print(f"{verdict}  {shown:<16}  {file}")
        if not same:
            different.append(f"{stage}: {file}")
    if not different:
        print(f"all {len(first)} files of the declared outputs are the same")
        return 0
    print(f"{len(different)} files differ; the first in the order of the DAG is {different[0]}")
    return 1


def _check_committed(root: Path) -> None:
    """Needs a commit; says what is not in it."""
    if not (root / ".git").exists() or _git(root, "rev-parse", "--verify", "-q", "HEAD") == "":
        raise PodiumError(
            f"repro-check clones the last commit, and {root} has none: git init, git add, git commit"
        )
    changed = [line[3:] for line in _git(root, "status", "--porcelain").splitlines()]
    if changed:
        print(f"not in the check, because not committed: {', '.join(changed)}")


def _run_clone(root: Path, clone: Path, where: Surroundings, subset: float, number: int) -> Path:
    cores = min(where.cores or available_cores(), available_cores())
    wishes = ", ".join(f"{name}={value}" for name, value in where.environment.items())
    print(f"run {number} of {len(SURROUNDINGS)}: {cores} of {available_cores()} cores, {wishes}")
    clone.parent.mkdir(parents=True, exist_ok=True)
    _git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
    # Also where the committed config or a shared setting names another cache.
    (clone / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
    _set_subset(clone / PARAMS_FILE, subset)
    for _, output in declared_outputs(clone):  # what git holds of an earlier run proves nothing
        (clone / output).unlink(missing_ok=True)
    _bring_data(root, clone)
    _repro(clone, where, cores)
    return clone


def _set_subset(path: Path, subset: float) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    tree: Any = yaml.load(path.read_text(encoding="utf-8"))
    tree["data"]["subset"] = subset
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def _bring_data(root: Path, clone: Path) -> None:
    """Raw data is in no commit: copied from the checkout, or rendered anew where it is the demo; nor
    need the user's weights be."""
    shutil.copytree(root / WEIGHTS_FOLDER, clone / WEIGHTS_FOLDER, dirs_exist_ok=True)
    competition = load_params(AllParams, clone / PARAMS_FILE).competition
    source = root / competition.source
    if source.is_dir():
        shutil.copytree(source, clone / competition.source)
        if not (clone / f"{competition.source}.dvc").exists():
            run_dvc(clone, "add", competition.source)
    elif competition.name == "demo":
        make_demo(clone)
    else:
        raise PodiumError(f"{competition.source} is missing: `dvc pull` or `podium init PATH`")


def _repro(clone: Path, where: Surroundings, cores: int) -> None:
    """`dvc repro --force`, showing one line per stage."""
    programs = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        **where.environment,
        "PATH": programs + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
        # DVC remembers hashes and locks here: private as well.
        "DVC_SITE_CACHE_DIR": str(clone / ".dvc" / "tmp" / "site"),
    }
    environment.pop("PYTHONPATH", None)  # the clone's stages run the clone's code
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    last: deque[str] = deque(maxlen=20)
    if allowed:
        os.sched_setaffinity(0, allowed[:cores])  # what is started inherits it
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--force"],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
    with process:
        assert process.stdout
        for line in process.stdout:
            last.append(line)
            if line.startswith("Running stage '"):
                print(f"  {line.split(chr(39))[1]}", flush=True)
    if process.returncode != 0:
        raise PodiumError(f"dvc repro failed in {clone}:\n{''.join(last)}")


def _git(root: Path, *words: str) -> str:
    """What git says, "" where it fails."""
    done = subprocess.run(
        ["git", *words], cwd=root, capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout
