"""Unpacks a competition's zip without trusting it.

In: a .zip from anywhere. Out: its images, tables and JSON files below one folder, or one line that
says what is wrong with it. Everything is checked before the first byte is written.
"""

from __future__ import annotations

import errno
import lzma
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from podium.data.ids import is_image_name
from podium.data.packed_times import count_seconds
from podium.errors import PodiumError, ProblemsError
from podium.progress import track

MAX_MEMBERS = 2_000_000
# A bomb unpacks to thousands of times its size; PNG and JPEG hardly shrink in a zip, and CSV by
# some 10 times. Small archives may do what they want.
MAX_RATIO = 200
RATIO_FREE_BYTES = 100_000_000
MAX_NAME_BYTES = 255  # of one folder or file, on all common file systems

_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
_METHODS = frozenset(
    {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
)
_CHUNK_BYTES = 1 << 20
# What zipfile and its decompressors raise on damaged bytes, found by flipping them.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
)


def is_wanted_name(name: str) -> bool:
    """Whether a competition may need a file of this name: an image, a table or `labels.json`."""
    tables = (".csv", ".tsv", ".txt", ".json")
    return is_image_name(name) or PurePosixPath(name).suffix.lower() in tables


def extract_archive(archive: Path, target: Path) -> dict[str, int]:
    """Unpack what a competition needs from `archive` into the new folder `target`.

    Only plain files are made, with the archive's names and ordinary permissions.

    Returns:
        When each of them was last changed, see `podium.data.packed_times`.

    Raises:
        PodiumError: no zip, corrupt, encrypted, a bomb, too many members, too little disk.
        ProblemsError: members with names or types that no honest archive holds.
        OSError: from the disk; the caller removes what was written.
    """
    with _clear_errors(archive), zipfile.ZipFile(archive) as reader:
        members = {
            name: info
            for name, info in check_members(archive, reader.infolist()).items()
            if is_wanted_name(name)
        }
        size = sum(info.file_size for info in members.values())
        free = shutil.disk_usage(target.parent).free
        if size > free:
            raise PodiumError(
                f"{archive} unpacks to {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free "
                f"beside {target.parent}: free some and run again"
            )
        target.mkdir()
        for name, info in track(members.items(), len(members), "unzip"):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with reader.open(info) as packed, path.open("xb") as stream:
                shutil.copyfileobj(packed, stream, _CHUNK_BYTES)
        return {name: count_seconds(info.date_time) for name, info in members.items()}


def list_members(archive: Path) -> list[str]:
    """The clean POSIX paths of all files that `archive` holds, litter left out; sorted.

    Raises:
        PodiumError, ProblemsError: as `extract_archive`.
    """
    with _clear_errors(archive), zipfile.ZipFile(archive) as reader:
        return list(check_members(archive, reader.infolist()))


@contextmanager
def _clear_errors(archive: Path) -> Iterator[None]:
    """One line for what zipfile and its decompressors raise on damaged files."""
    try:
        yield
    except OSError as error:
        # bz2 reports bad data without a number, a seek to a damaged offset is EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        cause: Exception = error
    except _DAMAGE as error:
        cause = error
    else:
        return
    raise PodiumError(f"{archive} is no zip file or a damaged one ({cause}): download it again")


def check_members(archive: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Check every member of an archive; what operating systems leave behind is passed over.

    Returns:
        All members that are files, keyed by their clean POSIX path and sorted by it.

    Raises:
        PodiumError: a bomb, or too many members.
        ProblemsError: all members that are encrypted, lead outside, are no plain files, or collide.
    """
    if len(infos) > MAX_MEMBERS:
        raise PodiumError(
            f"{archive} holds {len(infos):,} members: at most {MAX_MEMBERS:,} are read"
        )
    size = sum(info.file_size for info in infos)
    packed = max(archive.stat().st_size, 1)
    if size > RATIO_FREE_BYTES and size > MAX_RATIO * packed:
        raise PodiumError(
            f"{archive} would unpack to {size / 1e6:,.0f} MB, {size / packed:,.0f} times its size: "
            f"more than {MAX_RATIO} times is a zip bomb; unpack it yourself and give the folder"
        )
    problems: list[str] = []
    files: dict[str, zipfile.ZipInfo] = {}
    seen: dict[str, str] = {}
    for info in infos:
        name = _true_name(info)
        if name is None:
            problems.append(
                f"{info.filename!r}: the name is not UTF-8: pack it again with UTF-8 names"
            )
            continue
        path = name.replace("\\", "/")  # some Windows tools write them
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if any(part.casefold() in _LITTER or part.startswith("._") for part in parts):
            continue
        trouble = _trouble(info, path, parts)
        if trouble:
            problems.append(f"{name!r}: {trouble}")
        elif not path.endswith("/"):
            clean = "/".join(parts)
            folded = unicodedata.normalize("NFC", clean).casefold()
            if folded in seen:
                problems.append(f"{name!r}: the same file as {seen[folded]!r} on some disks")
            seen[folded] = name
            files[clean] = info
    problems += [
        f"{name!r}: a folder of the same name has files"
        for name in sorted(
            {str(parent) for file in files for parent in PurePosixPath(file).parents}
        )
        if name in files
    ]
    if problems:
        raise ProblemsError(
            f"{archive} is not unpacked; unpack it yourself if you trust it and give the folder:",
            problems,
        )
    if not any(is_image_name(name) for name in files):
        inner = [name for name in files if name.lower().endswith(".zip")]
        hint = f"; unpack the inner {inner[0]} and give the folder" if inner else ""
        raise PodiumError(f"{archive} holds no images{hint}")
    return dict(sorted(files.items()))


def _true_name(info: zipfile.ZipInfo) -> str | None:
    """The name as packed: macOS writes UTF-8 without saying so, and Python reads cp437 then."""
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return None


def _trouble(info: zipfile.ZipInfo, path: str, parts: list[str]) -> str:
    """Why a member is refused, or ""."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not parts and not path.endswith("/"):
        return "a member without a name"
    if info.flag_bits & _ENCRYPTED_FLAG:
        return "encrypted: unpack it with its password"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device, no plain file"
    if info.compress_type not in _METHODS:
        return f"packed by method {info.compress_type}, which is not read: pack it again as zip"
    return name_trouble(path)


def name_trouble(path: str) -> str:
    """Why a file name cannot stand in a CSV or on a disk, or ""."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "a name with control characters or bytes that are not UTF-8: rename it"
    if any(len(part.encode("utf-8")) > MAX_NAME_BYTES for part in path.split("/")):
        return f"a name of more than {MAX_NAME_BYTES} bytes: rename it"
    return ""
