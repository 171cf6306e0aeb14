"""For benchmarks: a fresh clone of HEAD, commands in it, and tables that only scripts write."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from podium.files import write_json

ROOT = Path(__file__).resolve().parents[1]
# In git: what took hours to measure outlives the machine that measured it.
MEASURED = ROOT / "benchmarks" / "measured"
PAGES = tuple(
    ROOT / page
    for page in (
        "docs/audit.md",
        "docs/results.md",
        "docs/training.md",
        "docs/accuracy.md",
        "docs/certificate.md",
        "docs/compression.md",
        "docs/compression_nets.md",
    )
)


@contextlib.contextmanager
def fresh_clone(name: str) -> Iterator[Path]:
    """A clone of HEAD in a temporary folder, removed in the end."""
    with tempfile.TemporaryDirectory(prefix=f"podium-{name}-") as folder:
        run(Path(folder), "git", "clone", "--quiet", str(ROOT), "clone")
        yield Path(folder) / "clone"


def run(folder: Path, *words: str) -> str:
    """Run a command of this environment in `folder`; its output, or its output and the end."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} failed in {folder}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def set_params(clone: Path, changes: Mapping[str, Any]) -> None:
    """Change keys of the clone's params.yaml, named by their path: `train.ema`."""
    path = clone / "params.yaml"
    yaml = YAML()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section[name]
        if last not in section:
            sys.exit(f"{path} has no key {key}")
        section[last] = value
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def load_metrics(clone: Path, name: str) -> dict[str, Any]:
    """metrics/NAME.json of a clone, with what stands under `details` beside the rest."""
    found: dict[str, Any] = json.loads(
        (clone / "metrics" / f"{name}.json").read_text(encoding="utf-8")
    )
    for details in found.pop("details", []):
        found.update(details)
    return found


def read_commit() -> str:
    """HEAD of this repository, short."""
    return run(ROOT, "git", "rev-parse", "--short", "HEAD").strip()


def hash_tracked(*paths: str) -> list[str]:
    """Git's hashes of files and folders at HEAD: the same in all commits that have the same there."""
    return run(ROOT, "git", "rev-parse", *(f"HEAD:{path}" for path in paths)).split()


def load_kept(name: str) -> dict[str, Any]:
    """What `keep` was last given by that name; empty where it never was."""
    path = MEASURED / f"{name}.json"
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def keep(name: str, content: dict[str, Any]) -> None:
    """Keep rows for the next table, so that a part of it can be measured alone, on any day."""
    write_json(MEASURED / f"{name}.json", content)


def write_table(name: str, table: str) -> None:
    """Put `table` between the marks `name: start` and `name: end`, on the pages that have them."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    for page in PAGES:
        before, mark, rest = page.read_text(encoding="utf-8").partition(start)
        if mark:
            after = rest.partition(end)[2]
            page.write_text(f"{before}{start}\n{table}\n{end}{after}", encoding="utf-8")
