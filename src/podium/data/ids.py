"""From the id an organiser writes in a CSV to the file it means.

In: ids such as `7`, `0007.jpg`, `train\\0007.JPG`. Out: one path of a known list of files, or a line
that says why there is none. Nothing is guessed: a match that is not the only one is no match.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

# Compared in lower case: cameras write .JPG.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


def is_image_name(name: str) -> bool:
    """Whether the name ends like an image file's, in any case."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[str]:
    """All image files below `folder` by name, hidden ones left out.

    Returns:
        POSIX paths relative to `folder`, sorted by code point.
    """
    return list_files(folder, is_image_name)


def list_files(folder: Path, is_wanted: Callable[[str], bool]) -> list[str]:
    """`list_images` for any kind of file: `is_wanted` is asked with the file's name."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_litter(name)]
        relative = Path(where).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in files
            if is_wanted(name) and not _is_litter(name)
        ]
    return sorted(found)


def _is_litter(name: str) -> bool:
    """What operating systems leave behind: `.git`, `._0007.jpg`, `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


class IdResolver:
    """Finds the file that an id means among a fixed list of files.

    The first of these rules that finds any file decides; where it finds more than one, the id is
    ambiguous: the whole path; the whole path without its extension; the file's name; the name
    without its extension; and the same four again without regard to case. Unicode is compared in
    composed form (macOS writes file names decomposed).

    Args:
        folder_files: POSIX paths relative to the images folder, as `list_images` gives them.
    """

    def __init__(self, folder_files: Sequence[str]) -> None:
        self._files = list(folder_files)
        self._indexes = [
            _make_index(self._files, rule, fold) for fold in (str, str.casefold) for rule in _RULES
        ]
        self._near = {_skeleton(file): file for file in reversed(self._files)}

    def resolve(self, listed_id: str) -> str | None:
        """The one file that `listed_id` means, else None."""
        found = self._candidates(listed_id)
        return found[0] if len(found) == 1 else None

    def problem(self, listed_id: str) -> str:
        """Why `resolve` gives None: one line without the CSV's name and row."""
        if not listed_id.strip():
            return "the id is empty"
        found = self._candidates(listed_id)
        if len(found) > 1:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            return f"id {listed_id!r} could be {len(found)} files ({shown}): write the whole path"
        near = self._near.get(_skeleton(listed_id))
        hint = f"; did you mean {near!r}?" if near else ""
        return f"id {listed_id!r} has no image file{hint}"

    def _candidates(self, listed_id: str) -> list[str]:
        wanted = _normalise(listed_id)
        if not wanted.strip():
            return []
        name = PurePosixPath(wanted).name
        # An id's own extension is never cut off: `7.png` does not mean 7.jpg.
        keys = (wanted, wanted, name, name)
        folded = tuple(key.casefold() for key in keys)
        for index, key in zip(self._indexes, keys + folded, strict=True):
            if key in index:
                return index[key]
        return []


def _normalise(path: str) -> str:
    """Composed Unicode, forward slashes, no leading `./`."""
    return unicodedata.normalize("NFC", path).replace("\\", "/").removeprefix("./")


def _skeleton(path: str) -> str:
    """What is left of a name when case, extension, marks and leading zeros are not looked at.

    Two names that share it are likely slips of one another. (An edit distance would take 0.2 s for
    each wrong id among 10,000 files, and any two numbered files are near by it.)
    """
    words = re.findall(r"[^\W\d_]+|\d+", PurePosixPath(_normalise(path)).stem.casefold())
    return " ".join(word.lstrip("0") if word.isdigit() else word for word in words)


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


_RULES: tuple[Callable[[str], str], ...] = (
    lambda path: path,
    _stem,
    lambda path: PurePosixPath(path).name,
    lambda path: PurePosixPath(path).stem,
)


def _make_index(
    files: Sequence[str], rule: Callable[[str], str], fold: Callable[[str], str]
) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for file in files:
        index.setdefault(fold(rule(_normalise(file))), []).append(file)
    return index
