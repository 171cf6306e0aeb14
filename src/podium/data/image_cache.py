"""Decoded images of a manifest, as one uint8 array on disk that every later stage shares.

In: manifest rows. Out: a read-only memory map (N, size, size, 3). Decoding 640 px JPEGs costs far
more than reading the result back, and a memory map keeps the resident size flat for any N.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from numpy.lib.format import open_memmap

from podium.data import decode
from podium.data.decode import RGB, decode_file
from podium.data.store import get_or_make, make_key
from podium.errors import PodiumError
from podium.progress import track
from podium.runtime import available_cores

if TYPE_CHECKING:
    import pandas as pd


def readable_rows(manifest: pd.DataFrame, source: str) -> pd.DataFrame:
    """The manifest's rows of `source` (train or test) whose image can be decoded, in its order."""
    chosen = (manifest["source"] == source) & (manifest["problem"] == "")
    return manifest[chosen].reset_index(drop=True)


def load_images(rows: pd.DataFrame, size_px: int, label: str) -> RGB:
    """The images of manifest rows as uint8 (N, size_px, size_px, 3), in the rows' order.

    Stages that ask for the same rows share one decoding, so they ask for all train rows or all
    readable test rows, and index the result.

    Args:
        rows: manifest rows whose `problem` is empty.
        size_px: side of the square.
        label: what the progress bar says.

    Raises:
        PodiumError: a file is in the manifest but gone.
    """
    paths: list[str] = rows["path"].tolist()
    if not paths:
        return np.zeros((0, size_px, size_px, 3), np.uint8)
    shape = (len(paths), size_px, size_px, 3)
    code = Path(decode.__file__).read_text(encoding="utf-8")
    key = make_key(code, PIL.__version__, str(size_px), *rows["sha256"])

    def make(target: Path) -> None:
        images = open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(target)
        with ThreadPoolExecutor(available_cores()) as pool:  # Pillow decodes without the GIL
            decoded = pool.map(lambda path: _decode(path, size_px), paths)
            for row, image in enumerate(track(decoded, len(paths), label)):
                images[row] = image
        images.flush()

    def check(target: Path) -> bool:
        try:
            stored = np.load(target, mmap_mode="r")
        except (ValueError, EOFError):
            return False
        return bool(stored.shape == shape and stored.dtype == np.uint8)

    images: RGB = np.load(get_or_make(key, ".npy", make, check), mmap_mode="r")
    return images


def _reserve(path: Path) -> None:
    """Give every byte of a sparse file its place on the disk, so that a full one is an OSError
    here and not a bus error when the memory map is written."""
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _decode(path: str, size_px: int) -> RGB:
    try:
        return decode_file(Path(path), size_px)
    except FileNotFoundError:
        raise PodiumError(f"{path} is in the manifest but gone: run `dvc repro` from eda") from None
