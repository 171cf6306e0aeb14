"""Folders of files that are a pure function of a key, kept in the store of this checkout.

An interrupted compression goes on with the first candidate that is not there yet.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import podium
from podium.data.store import get_or_make, make_key
from podium.runtime import cpu_class

_PACKAGES = ("numpy", "onnx", "onnxruntime", "paddle2onnx", "paddlepaddle", "paddleslim", "pillow")
_ROOMS = ("data", "engine", "models", "slim", "tasks")


def fill_folder(folder: Path, make: Callable[[Path], None], *parts: str) -> None:
    """Put into `folder` what `make(folder)` writes there, from the store where that has it.

    Args:
        folder: is made; parents must be there.
        make: writes files into the empty folder that it is given.
        parts: with the code, the libraries and the class of the CPU, all that decides the files.
    """
    key = make_key(code_key(), cpu_class(), *parts)

    def pack(target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="podium-") as name:
            make(Path(name))
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
                for path in sorted(Path(name).rglob("*")):
                    if path.is_file():
                        archive.write(path, path.relative_to(name).as_posix())

    stored = get_or_make(key, ".zip", pack, _is_whole)
    folder.mkdir()
    with zipfile.ZipFile(stored) as archive:
        archive.extractall(folder)


@cache
def code_key() -> str:
    """A hash of the code and the libraries that candidates are made with."""
    source = Path(podium.__file__).parent
    digest = hashlib.sha256()
    paths = [path for room in _ROOMS for path in (source / room).rglob("*.py")]
    for path in sorted([source / "runtime.py", *paths]):
        digest.update(path.relative_to(source).as_posix().encode() + b"\0" + path.read_bytes())
    versions = ",".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return f"{digest.hexdigest()} {versions}"


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
