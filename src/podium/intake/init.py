"""`podium init PATH`: brings a competition into the repository.

In: a folder or a zip. Out: data/raw (tracked by data/raw.dvc) and the `competition:` block of
params.yaml. Either all of it is there afterwards or nothing has changed.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.data.ids import list_files
from podium.data.packed_times import PACKED_TIMES, write_packed_times
from podium.data.params import CompetitionParams
from podium.errors import PodiumError
from podium.files import hold_lock, write_bytes
from podium.intake.archive import extract_archive, list_members
from podium.intake.choice import Choice
from podium.intake.competition_block import (
    check_block_replaceable,
    write_competition_block,
)
from podium.intake.demo.spec import SPEC_FILE
from podium.intake.layout import describe_others, find_base, recognise_layout
from podium.progress import track

RAW = "data/raw"
# What a hard link may fail with where a copy works: other disk, not allowed, too many links.
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP})


@dataclass(frozen=True)
class Intake:
    """What `init_competition` did: the section it wrote, and lines to print."""

    params: CompetitionParams
    lines: list[str]


def init_competition(
    source: Path, root: Path, choice: Choice | None = None, link: bool = True
) -> Intake:
    """Recognise the competition in `source`, bring it into `root` and write it down.

    Args:
        source: folder or .zip; not changed.
        root: top folder of the repository, with params.yaml and .dvc.
        choice: what the user decided where several answers are possible.
        link: hard links instead of copies where the disk and DVC's settings allow.

    Raises:
        PodiumError, ProblemsError: the user's to mend; data/raw and params.yaml are as before.
    """
    params_file, raw = root / "params.yaml", root / RAW
    check_block_replaceable(params_file)
    if not (root / ".dvc").is_dir():
        raise PodiumError(f"{root} is no DVC repository: run `dvc init` there (or clone anew)")
    is_folder = _check_source(source, root)
    raw.parent.mkdir(exist_ok=True)
    busy = "another podium init is running: wait for it or end it, then run again"
    with hold_lock(root / ".podium/locks/init.lock", busy), _work_folder(raw) as work:
        folder = source
        if not is_folder:
            folder = work / "unpacked"
            seconds = extract_archive(source, folder)
        with _name_source(folder, source):
            names = list_files(folder, lambda _: True) if is_folder else list_members(source)
            base = find_base(folder)
            name = _make_name(source, root)
            layout = recognise_layout(base, name, RAW, choice or Choice())
            inside = base.relative_to(folder)
            others = describe_others(names, inside, layout.params)
            files = layout.files
            if not is_folder:
                write_packed_times(base, {f: seconds[(inside / f).as_posix()] for f in files})
                files = [*files, PACKED_TIMES]
        with _undone_on_failure(raw, work / "old", params_file):
            how = _bring(base, files, root, work, link)
            # First the block: dvc.yaml names competition.source, and dvc reads it for any command.
            write_competition_block(params_file, layout.params)
            run_dvc(root, "add", RAW)
    return Intake(
        params=layout.params,
        lines=[
            *layout.lines,
            *others,
            f"{len(layout.files)} files in {RAW}/ ({how}), tracked by {RAW}.dvc",
        ],
    )


def _check_source(source: Path, root: Path) -> bool:
    """Whether `source` is a folder (True) or a zip (False)."""
    if source.is_dir():
        if root.resolve().is_relative_to(source.resolve()):
            raise PodiumError(f"{source} holds this repository: give the competition's own folder")
        return True
    if not source.exists():
        raise PodiumError(f"{source} is missing: expected a folder or a .zip")
    if source.suffix.lower() != ".zip" or not source.is_file():
        raise PodiumError(f"{source}: expected a folder or a .zip; unpack it and give the folder")
    return False


def _make_name(source: Path, root: Path) -> str:
    """The folder's or the zip's name; that of the repository where the files lie in data/raw."""
    path = source.resolve()
    if path == (root / RAW).resolve():
        return root.resolve().name
    return path.name if path.is_dir() else path.stem


@contextlib.contextmanager
def _name_source(folder: Path, source: Path) -> Iterator[None]:
    """Messages name what the user gave, not the folder that it was unpacked to."""
    try:
        yield
    except PodiumError as error:
        error.args = (str(error).replace(str(folder), str(source)),)
        raise


@contextlib.contextmanager
def _work_folder(raw: Path) -> Iterator[Path]:
    """An empty folder on the disk of `raw`, removed in the end, with those of killed runs."""
    prefix = f".{raw.name}.init."
    for left in raw.parent.glob(f"{prefix}*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix=prefix) as name:
        yield Path(name)


@contextlib.contextmanager
def _undone_on_failure(raw: Path, old: Path, params_file: Path) -> Iterator[None]:
    """Put data/raw, what DVC writes beside it and params.yaml back when the body fails.

    Args:
        raw: the folder that the body may replace.
        old: where the body moves the folder that it replaces.
        params_file: params.yaml.
    """
    had_raw = raw.exists()
    files = (raw.with_name(f"{raw.name}.dvc"), raw.with_name(".gitignore"), params_file)
    known = {path: path.read_bytes() if path.exists() else None for path in files}
    try:
        yield
    except BaseException:
        if old.exists() or not had_raw:
            shutil.rmtree(raw, ignore_errors=True)
        if old.exists():
            old.rename(raw)
        for path, content in known.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, content)
        raise


def _bring(base: Path, files: Sequence[str], root: Path, work: Path, link: bool) -> str:
    """Make data/raw hold `files` of `base` and no others; what it held goes to work/old.

    Returns:
        How, in a few words.
    """
    raw = root / RAW
    if raw.is_symlink() and not raw.exists():
        raise PodiumError(f"{raw} is a link to {raw.readlink()}, which is missing: remove the link")
    if base.resolve().is_relative_to(raw.resolve()):
        if base.resolve() != raw.resolve():
            raise PodiumError(f"all lies in {base}: move it up into {raw} and run again")
        return "as they are"
    if raw.exists():
        if _holds(raw, base, files):
            return "already there"
        _check_is_demo(root)
    is_ours = base.resolve().is_relative_to(work.resolve())
    n_linked = _place(base, files, work / "raw", is_ours or (link and _dvc_copies(root)))
    if raw.exists():
        raw.rename(work / "old")
    (work / "raw").rename(raw)
    return "unpacked" if is_ours else f"{len(files) - n_linked} copied, {n_linked} linked"


def _holds(raw: Path, base: Path, files: Sequence[str]) -> bool:
    """Whether `raw` holds exactly these files with these bytes."""
    present = sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())
    return present == sorted(files) and all(
        filecmp.cmp(raw / file, base / file, shallow=False) for file in files
    )


def _check_is_demo(root: Path) -> None:
    """Only the demo data, as it was made, may be replaced: it can be made again."""
    raw = root / RAW
    elsewhere = "start another clone for another competition, or move the folder away yourself"
    if not (raw / SPEC_FILE).is_file():
        raise PodiumError(f"{raw} holds a competition already and is not overwritten: {elsewhere}")
    if not raw.with_name(f"{raw.name}.dvc").exists():
        raise PodiumError(f"{raw} is not tracked by DVC and is not overwritten: {elsewhere}")
    status = json.loads(run_dvc(root, "status", "--json", f"{RAW}.dvc"))
    changes = [change for entries in status.values() for change in entries]
    if any("modified" in change.get("changed outs", {}).values() for change in changes):
        raise PodiumError(f"the demo data in {raw} was edited and is not overwritten: {elsewhere}")


def _dvc_copies(root: Path) -> bool:
    """Whether `dvc add` leaves a file that it adds alone, and puts a copy in its place.

    Set to link its cache, it would make the user's own files read-only and a part of the cache.
    """
    settings = run_dvc(root, "config", "--list")
    return re.search(r"^cache\.type=.*(hard|sym)link", settings, re.MULTILINE) is None


def _place(base: Path, files: Sequence[str], fresh: Path, link: bool) -> int:
    """Link or copy the files to the new folder `fresh`; symbolic links are followed.

    Returns:
        How many were linked; all or none, unless symbolic links lead to another disk.
    """
    size = sum((base / file).stat().st_size for file in files)
    free = shutil.disk_usage(fresh.parent).free
    same_disk = base.stat().st_dev == fresh.parent.stat().st_dev
    if size > free and not (link and same_disk):
        raise PodiumError(
            f"the files take {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free beside "
            f"{fresh.parent.parent}: free some and run again"
        )
    fresh.mkdir()
    n_linked = 0
    for file in track(files, len(files), "bring files"):
        target = fresh / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if link and _try_link((base / file).resolve(), target):
            n_linked += 1
        else:
            shutil.copyfile(base / file, target)
    return n_linked


def _try_link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def run_dvc(root: Path, *arguments: str) -> str:
    """Run DVC in `root`.

    Returns:
        What it printed.

    Raises:
        PodiumError: it failed; with its own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.split("\n")
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-2:]
        said = " ".join(" ".join(errors).split()) or "no message"
        raise PodiumError(f"`dvc {' '.join(arguments)}` failed: {said}")
    return done.stdout
