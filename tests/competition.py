"""A whole Podium repository in miniature: for tests that run the DAG as its user does.

In: the files of this tree that git would commit. Out: a git clone with a small demo competition,
tracked by DVC and committed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from podium.files import PARTIAL, hold_lock

ROOT = Path(__file__).resolve().parents[1]
RAW = Path("data/raw")

# What every clone starts from, whatever the user's own params.yaml says; short to run.
BASE = {
    "seed": "0",
    "lr": "3e-3",
    "epochs": "2",
    "batch_size": "32",
    "image_size": "32",
    "subset": "1.0",
    "on_problem": "stop",
    "folds": "5",
    "val_fold": "0",
    "name": "efficientnet_lite0",
    "pretrained": "true",
    "freeze": "all",
    "flip": "none",
    "views": "0",
    "ema": "0.0",
    "primary": "accuracy",
    "bootstrap_draws": "100",
    "pseudo_threshold": "0",
    "tta": "none",
    "calibrate": "false",
    "decoder": "argmax",
    "precisions": "[float32]",
    "formats": "[paddle]",
    "max_drop": "0.02",
}
DEMO = ("--demo-train", "96", "--demo-test", "16", "--demo-size", "48")


def make_clone(
    folder: Path,
    demo: Sequence[str] = DEMO,
    root: Path = ROOT,
) -> Path:
    """A committed repository in `folder` with the files of `root` and a demo competition.

    Args:
        folder: does not exist yet.
        demo: what `podium init --demo` is told.
        root: the tree to copy: tracked files and new ones, nothing that git ignores.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in listed:
        source = root / name
        # A deleted file is still listed; a committed run of the big demo is not this one's.
        if not source.is_file() or name == "dvc.lock" or name.endswith(".dvc"):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    _reset_params(folder / "params.yaml")
    run(folder, "git", "init", "--quiet")
    # Experiments are commits, and a commit needs an author.
    for key, value in {"name": "Test", "email": "test@example.com"}.items():
        run(folder, "git", "config", f"user.{key}", value)
    run(folder, "git", "config", "commit.gpgsign", "false")
    run(folder, sys.executable, "-m", "podium.cli", "init", "--demo", *demo)
    commit(folder)
    return folder


def make_plain_run(folder: Path) -> tuple[str, Path]:
    """What dvc said of the first `dvc repro` of a clone, and the clone, in `folder`, committed; without
    a network, where that can be had. Of several processes that ask, one makes it."""
    with hold_lock(folder.with_suffix(".lock"), f"{folder} is being made by a dead process", 600):
        said = folder.with_suffix(".said")
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            clone = make_clone(folder)
            words = run(clone, *offline_prefix(), sys.executable, "-m", "dvc", "repro")
            commit(clone)
            said.write_text(words, encoding="utf-8")
        return said.read_text(encoding="utf-8"), folder


def copy_clone(clone: Path, folder: Path) -> Path:
    """`clone` with its cache and outputs, as `folder`; a running queue is not copied."""
    subprocess.run(["cp", "-a", str(clone), str(folder)], check=True)
    return folder


def _reset_params(path: Path) -> None:
    """Set `BASE`, and drop the competition block: `podium init --demo` writes it anew."""
    text = re.sub(r"(?m)^competition:\n(?:[ \t]+.*\n)*", "", path.read_text(encoding="utf-8"))
    for key, value in BASE.items():
        text, found = re.subn(rf"(?m)^( *{key}:) (?:\[.*?\]|\S+)", rf"\g<1> {value}", text)
        assert found == 1, f"{path} has {found} keys named {key}"
    path.write_text(text, encoding="utf-8")


def edit(path: Path, edits: Mapping[str, str]) -> None:
    """Replace pieces of a text, each of which must be there."""
    text = path.read_text(encoding="utf-8")
    for old, new in edits.items():
        assert old in text, f"{path} has no {old!r}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def commit(clone: Path, message: str = "state") -> None:
    """Commit all that git does not ignore."""
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--allow-empty", "-m", message)


def environment(clone: Path) -> dict[str, str]:
    """What commands see: this interpreter's programs first on PATH, DVC's scratch beside the clone.

    The place of the scratch follows from the clone, so that no two clones share one.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    kept.pop("PYTHONPATH", None)  # the clone runs its own code
    scratch = clone.parent / f"{clone.name}.dvc-scratch"
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_SITE_CACHE_DIR": str(scratch),
        "DVC_GLOBAL_CONFIG_DIR": str(scratch / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(scratch / "system"),
        "DVC_NO_ANALYTICS": "1",
    }


def offline_prefix() -> list[str]:
    """Words that run a command in a network namespace with no way out; empty where there is none."""
    words = ["unshare", "--map-root-user", "--net"]
    tried = shutil.which(words[0]) and subprocess.run([*words, "true"], capture_output=True)
    return words if tried and tried.returncode == 0 else []


@contextlib.contextmanager
def running(clone: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command started in the clone, stdout and stderr in one pipe; it ends with the block, and
    so does what it started, also when a test fails in between. `dvc` is this environment's."""
    command = [sys.executable, "-m", *words] if words[0] == "dvc" else list(words)
    process = subprocess.Popen(
        command,
        cwd=clone,
        env=environment(clone),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_any(clone: Path, *words: str) -> tuple[int, str]:
    """Run a command to its end; its exit code and all that it said."""
    with running(clone, *words) as process:
        said, _ = process.communicate(timeout=240)
        return process.returncode, said


def run(clone: Path, *words: str) -> str:
    """Run a command that must succeed; what it said."""
    code, said = run_any(clone, *words)
    assert code == 0, f"{' '.join(words)} ended with {code}:\n{said}"
    return said


def stages_run(said: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` started, in order."""
    lines = (line.strip() for line in said.splitlines())
    return [line.split("'")[1] for line in lines if line.startswith("Running stage '")]


def error_lines(said: str) -> list[str]:
    """The lines that stages and `podium` complain with."""
    return [line for line in said.splitlines() if line.startswith("error: ")]


def half_written(clone: Path) -> list[str]:
    """Leftovers of writing, anywhere."""
    return sorted(str(path.relative_to(clone)) for path in clone.rglob(f"*{PARTIAL}"))


def metrics(clone: Path, stage: str) -> Any:
    """What metrics/`stage`.json holds."""
    return json.loads((clone / "metrics" / f"{stage}.json").read_text(encoding="utf-8"))
