"""Decoded images of a manifest, as one uint8 array on disk that every later stage shares.

In: manifest rows. Out: their pixels (N, size, size, 3), read from the disk when asked for. Decoding
640 px JPEGs costs far more than reading the result back, and memory stays flat for any N.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

from podium.data import decode
from podium.data.decode import RGB, decode_file
from podium.data.store import get_or_make, make_key
from podium.data.stored_rows import StoredRows, write_rows
from podium.errors import PodiumError
from podium.progress import track
from podium.runtime import available_cores, data_workers

if TYPE_CHECKING:
    import pandas as pd

# Decoded images, uint8 (N, H, W, 3), in memory or on the disk.
Images = RGB | StoredRows


def readable_rows(manifest: pd.DataFrame, source: str) -> pd.DataFrame:
    """The manifest's rows of `source` (train or test) whose image can be decoded, in its order."""
    chosen = (manifest["source"] == source) & (manifest["problem"] == "")
    return manifest[chosen].reset_index(drop=True)


def decoder_version() -> tuple[str, str]:
    """What with a file's bytes decides its pixels: our code and Pillow's version."""
    return Path(decode.__file__).read_text(encoding="utf-8"), PIL.__version__


def load_images(rows: pd.DataFrame, size_px: int, label: str) -> StoredRows:
    """The images of manifest rows as uint8 (N, size_px, size_px, 3), in the rows' order.

    Stages that ask for the same rows share one decoding, so they ask for all train rows or all
    readable test rows, and select from the result.

    Args:
        rows: manifest rows whose `problem` is empty.
        size_px: side of the square.
        label: what the progress bar says.

    Raises:
        PodiumError: a file is in the manifest but gone.
    """
    paths: list[str] = rows["path"].tolist()
    shape = (len(paths), size_px, size_px, 3)
    key = make_key(*decoder_version(), str(size_px), *rows["sha256"])

    def make(target: Path) -> None:
        images = _decode_all(paths, size_px)
        write_rows(target, track(images, len(paths), label), shape, np.uint8)

    def check(target: Path) -> bool:
        try:
            stored = StoredRows(target)
        except (ValueError, EOFError):
            return False
        return stored.shape == shape and stored.dtype == np.uint8

    return StoredRows(get_or_make(key, ".npy", make, check))


class FileImages:
    """Images that are decoded when they are asked for and then kept: for few of many.

    Args:
        paths: N files.
        size_px: side of the square.
    """

    def __init__(self, paths: Sequence[str], size_px: int) -> None:
        self._paths, self._size_px = paths, size_px
        self._decoded: dict[int, RGB] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | Sequence[int]) -> RGB:
        """uint8 (size_px, size_px, 3) for a number, else (n, size_px, size_px, 3).

        Raises:
            PodiumError: the file is gone.
        """
        if not isinstance(key, int):
            return np.stack([self[number] for number in key])
        if key not in self._decoded:
            self._decoded[key] = _decode(self._paths[key], self._size_px)
        return self._decoded[key]


def _decode_all(paths: list[str], size_px: int) -> Iterator[RGB]:
    """The images in order, decoded on all cores; few of them wait in memory."""
    workers = data_workers(available_cores())
    todo = iter(paths)
    with ThreadPoolExecutor(workers) as pool:  # Pillow decodes without the GIL
        waiting = deque(pool.submit(_decode, path, size_px) for path in islice(todo, 4 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(_decode, path, size_px) for path in islice(todo, 1))


def _decode(path: str, size_px: int) -> RGB:
    try:
        return decode_file(Path(path), size_px)
    except FileNotFoundError:
        raise PodiumError(f"{path} is in the manifest but gone: run `dvc repro` from eda") from None
