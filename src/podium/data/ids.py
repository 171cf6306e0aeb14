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

from podium.errors import PodiumError

# Compared in lower case: cameras write .JPG.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
)
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_image_name(name: str) -> bool:
    """Whether the name ends like an image file's, in any case."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def list_images(folder: Path) -> list[str]:
    """All image files below `folder` by name, hidden ones left out.

    Returns:
        POSIX paths relative to `folder`, sorted by code point.

    Raises:
        PodiumError: a folder that cannot be read, or is a link: its images would be lost silently.
    """
    return list_files(folder, is_image_name)


def list_files(folder: Path, is_wanted: Callable[[str], bool]) -> list[str]:
    """`list_images` for any kind of file: `is_wanted` is asked with the file's name."""
    found = []
    for where, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not is_litter(name)]
        for name in folders:
            path = Path(where, name)
            if path.is_symlink():  # links may lead in circles, so `os.walk` does not follow them
                raise PodiumError(
                    f"{path} is a link to the folder {path.readlink()}: expected a folder; put the "
                    "folder itself there, or remove the link"
                )
        relative = Path(where).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in files
            if is_wanted(name) and not is_litter(name)
        ]
    return sorted(found)


def is_litter(name: str) -> bool:
    """What operating systems leave behind: `.git`, `._0007.jpg`, `__MACOSX`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in _LITTER


def _refuse_unreadable(error: OSError) -> None:
    """What `os.walk` does where it cannot list a folder; by itself it would pass it over."""
    raise PodiumError(
        f"{error.filename} cannot be read ({error.strerror}): expected a folder of files; mend its "
        "permissions or remove it"
    ) from error


class IdResolver:
    """Finds the file that an id means among a fixed list of files.

    The first of these rules that finds any file decides; where it finds more than one, the id is
    ambiguous: the whole path; the whole path without its extension; the end of a path, where the
    file's ends with the id (`7.jpg` for `a/7.jpg`) or the id with the file's (`train/7.jpg` for
    `7.jpg`), so that of two folders none stands for the other; such an end without its extension;
    and the rules that look at extensions again without regard to the extension's case. Any other
    case tells apart (`aBc` is not `AbC`); where it alone tells two of the files apart, it counts
    in extensions too. Unicode is compared in composed form (macOS writes file names decomposed).

    Args:
        folder_files: POSIX paths relative to the images folder, as `list_images` gives them.
    """

    def __init__(self, folder_files: Sequence[str]) -> None:
        files = list(folder_files)
        self._exact, self._stems = _Index(files, str), _Index(files, _stem)
        case_counts = len({_normalise(file).casefold() for file in files}) < len(files)
        self._folded = _Index([] if case_counts else files, _fold_suffix)
        self._near = {_skeleton(file): file for file in reversed(files)}

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
        folded = _fold_suffix(wanted)
        # An id's own extension is never cut off: `7.png` does not mean 7.jpg.
        return (
            self._exact.find_whole(wanted)
            or self._stems.find_whole(wanted)
            or self._exact.find_end(wanted)
            or self._stems.find_end(wanted)
            or self._folded.find_whole(folded)
            or self._folded.find_end(folded)
        )


class _Index:
    """Files by their path in some form, and by the ends of that path."""

    def __init__(self, files: Sequence[str], form: Callable[[str], str]) -> None:
        self._by_path: dict[str, list[str]] = {}
        self._by_end: dict[str, list[str]] = {}
        for file in files:
            path = form(_normalise(file))
            self._by_path.setdefault(path, []).append(file)
            for end in _ends(path):
                self._by_end.setdefault(end, []).append(file)

    def find_whole(self, path: str) -> list[str]:
        """The files of this path."""
        return self._by_path.get(path, [])

    def find_end(self, path: str) -> list[str]:
        """The files whose path ends with this one, or this one with theirs."""
        shorter = [file for end in _ends(path) if end != path for file in self.find_whole(end)]
        return self._by_end.get(path, []) + shorter


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


def _fold_suffix(path: str) -> str:
    return _stem(path) + PurePosixPath(path).suffix.casefold()


def _ends(path: str) -> list[str]:
    """The path, and what is left of it without its first folder, its first two, ..."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
