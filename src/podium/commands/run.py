"""`podium run`: from whatever stands here to a checked submission, then a table of what came out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from podium.commands.dvc_notes import mend_dvc_notes
from podium.commands.init import make_demo
from podium.commands.summary import print_summary
from podium.data.params import CompetitionParams
from podium.errors import PodiumError
from podium.params import load_params
from podium.schema import AllParams, check_rules

# A run of the demo needs 0.1 GB, a real competition what its images need, decoded, and once more
# in DVC's cache.
_FREE_GB_NEEDED = 1.0


def run(root: Path) -> int:
    """Check params and disk, bring the data in where it is missing, `dvc repro`, summary.

    Returns:
        dvc's exit code.

    Raises:
        PodiumError: params, disk or data are not as needed.
    """
    params = load_params(AllParams)
    for line in check_rules(params):  # not after hours of training
        print(line, flush=True)
    free_gb = shutil.disk_usage(root).free / 1e9
    if free_gb < _FREE_GB_NEEDED:
        raise PodiumError(
            f"{free_gb:.1f} GB free on this disk, {_FREE_GB_NEEDED:g} GB needed: `make clean` "
            "removes decoded images and logs"
        )
    if not Path(params.competition.source).is_dir():
        _bring_data(root, params.competition)
    for line in mend_dvc_notes(root):
        print(line, flush=True)
    code = call_dvc(root, "repro")
    if code == 0:
        print_summary(root)
    return code


def call_dvc(root: Path, *arguments: str) -> int:
    """Run dvc in `root` with this interpreter's programs first on PATH; returns its exit code."""
    programs = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": programs + os.pathsep + os.environ.get("PATH", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=False
    ).returncode


def _bring_data(root: Path, competition: CompetitionParams) -> None:
    """From DVC's cache where it holds the data; the demo is rendered; else the user must init."""
    source = competition.source
    tracked = root / f"{source}.dvc"
    if tracked.exists() and call_dvc(root, "checkout", "--quiet", str(tracked)) == 0:
        return
    if competition.name == "demo":
        for line in make_demo(root):
            print(line, flush=True)  # before what dvc prints
        return
    raise PodiumError(
        f"{source} is missing, and DVC's cache does not hold it: `dvc pull`, or bring the files in "
        "with `podium init PATH`"
    )
