"""Clean clones of the committed state, with their own cache and the raw data.

In: a repository with a commit, and changes to params. Out: a folder in which nothing has run yet.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from podium.commands.init import make_demo
from podium.dag import declared_outputs
from podium.errors import PodiumError, did_you_mean
from podium.git_facts import read_revision, run_git
from podium.intake.init import run_dvc
from podium.models.params import WEIGHTS_FOLDER
from podium.params import PARAMS_FILE, load_params, read_yaml
from podium.schema import AllParams


def check_committed(root: Path) -> str:
    """The last commit of `root`.

    Raises:
        PodiumError: it is no git repository with a commit.
    """
    revision = read_revision(root)
    if revision is None:
        raise PodiumError(
            f"certify clones the last commit, and {root} has none: git init, git add, git commit"
        )
    return revision


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as params by dotted name; values as YAML reads them.

    Raises:
        PodiumError: a word of another form.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        try:
            parsed: Any = YAML(typ="safe", pure=True).load(value)
        except YAMLError:
            equals = ""
        if not key or not equals:
            raise PodiumError(f"--set: expected KEY=VALUE as in epochs=4, got {word!r}")
        found[key] = parsed
    return found


def make_clone(
    root: Path,
    clone: Path,
    overrides: Mapping[str, Any],
    revision: str,
    earlier: Path | None = None,
) -> None:
    """Clone a commit of `root` to `clone`, bring the data in and change params.

    Args:
        root: a git repository with a commit.
        clone: does not exist yet.
        overrides: params by dotted name.
        revision: the commit; the same for all clones, though a user commits in the meantime.
        earlier: another such clone; its data is taken where `root` has none.

    Raises:
        PodiumError: no data, other data than the commit's, or params that are not as they must be.
    """
    clone.parent.mkdir(parents=True, exist_ok=True)
    for words in (
        ["clone", "--quiet", "--no-hardlinks", "--no-checkout", str(root), str(clone)],
        ["-C", str(clone), "checkout", "--quiet", "--detach", revision],
    ):
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PodiumError(f"git clone of {root} failed: {' '.join(done.stderr.split())}")
    # Also where the committed config or a shared setting names another cache.
    (clone / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n", encoding="utf-8")
    set_params(clone / PARAMS_FILE, overrides)
    competition = load_params(AllParams, clone / PARAMS_FILE).competition
    # What git holds of an earlier run proves nothing.
    (clone / "dvc.lock").unlink(missing_ok=True)
    for output in declared_outputs(clone):
        (clone / output.path).unlink(missing_ok=True)
    _bring_data(root, earlier or root, clone, competition.source, competition.name)


def set_params(path: Path, changes: Mapping[str, Any]) -> None:
    """Set params by dotted name; comments stay.

    Raises:
        PodiumError: no such key.
    """
    if not changes:
        return
    yaml = YAML()
    tree: Any = yaml.load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = tree
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            known = _names(read_yaml(path))
            raise PodiumError(f"--set: params.yaml has no {name}{did_you_mean(name, known)}")
        section[last] = value
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def _names(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in tree.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += _names(value, f"{prefix}{key}.")
    return names


def _bring_data(root: Path, earlier: Path, clone: Path, source: str, name: str) -> None:
    """Raw data is in no commit: copied from the checkout, or rendered anew where it is the demo; nor
    need the user's weights be. Of files that git holds, the commit's stay."""
    recorded = run_git(clone, "ls-files", "-z", "--", "*.dvc").split("\0")[:-1]
    if (root / WEIGHTS_FOLDER).is_dir():
        _copy_missing(root / WEIGHTS_FOLDER, clone / WEIGHTS_FOLDER)
    there = [place / source for place in (root, earlier) if (place / source).is_dir()]
    if there:
        _copy_missing(there[0], clone / source)
        _check_recorded(clone, recorded)
        if not (clone / f"{source}.dvc").exists():
            run_dvc(clone, "add", source)
    elif name == "demo":
        make_demo(clone)
    else:
        raise PodiumError(f"{source} is missing: `dvc pull` or `podium init PATH`")


def _copy_missing(source: Path, target: Path) -> None:
    """Copy the files below `source` that `target` has not."""

    def copy(one: str, other: str) -> None:
        if not Path(other).exists():
            shutil.copy2(one, other)

    shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)


def _check_recorded(clone: Path, recorded: list[str]) -> None:
    """Whether the data that was copied is the commit's.

    Args:
        recorded: the commit's .dvc files.

    Raises:
        PodiumError: it is not: the certificate would name a commit whose data nobody used.
    """
    from dvc.repo import Repo

    if not recorded:
        return
    # Not `dvc status`: in a clone, whose cache is empty, it says of everything that the cache lacks it.
    with Repo(str(clone)) as repo:
        for pointer in recorded:
            stages = repo.stage.load_file(str(clone / pointer))
            outs = [out for stage in stages for out in stage.outs]
            changed = [out for out in outs if out.exists and out.changed_checksum()]
            if changed:
                path = changed[0].fs_path
                name = Path(path).relative_to(clone.resolve()).as_posix()
                raise PodiumError(
                    f"{name} is not what {pointer} of the last commit records, so the certificate would "
                    f"name a commit whose data it did not use: `dvc add {name}` and commit, or bring "
                    f"the old files back by `dvc checkout {pointer}`"
                )


def hash_folder(folder: Path) -> dict[str, Any]:
    """`files`, `bytes` and the SHA-256 of all names and contents below a folder."""
    digest, size, count = hashlib.sha256(), 0, 0
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix().encode("utf-8")
            digest.update(f"{len(name)} {len(content)} ".encode() + name + content)
            size, count = size + len(content), count + 1
    return {"files": count, "bytes": size, "sha256": digest.hexdigest()}
