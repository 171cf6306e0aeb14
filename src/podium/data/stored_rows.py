"""Arrays too big for memory: a .npy file whose rows are read when they are asked for.

A memory map would do the same in fewer lines, but what it has touched counts as resident memory:
after one epoch over 20,000 images a process would hold them all. Here the kernel's page cache
holds what fits, and the process holds one batch.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Key = int | slice | Sequence[int] | npt.NDArray[np.int64]


def write_rows(
    path: Path, rows: Iterable[npt.NDArray[Any]], shape: tuple[int, ...], dtype: npt.DTypeLike
) -> None:
    """Write an array of `shape` row by row: never more than one in memory.

    Raises:
        ValueError: a row of another shape or kind, or another number of rows.
    """
    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    written = 0
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for row in rows:
            if row.shape != shape[1:] or row.dtype != kind:
                raise ValueError(f"{path}: expected rows {shape[1:]} {kind}, got {row.shape}")
            stream.write(row.tobytes())
            written += 1
    if written != shape[0]:
        raise ValueError(f"{path}: expected {shape[0]} rows, got {written}")


class StoredRows:
    """The rows of a .npy file, or some of them, indexed like an array's first axis.

    Safe to read from several threads: it keeps no position in the file.

    Args:
        path: the file; it may be deleted while this is alive.

    Raises:
        ValueError: no .npy file, of Python objects, or cut short.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"{path}: a .npy file of version {version}")
            shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(stream)
            self._start = stream.tell()
            size = stream.seek(0, os.SEEK_END)
        if fortran or self.dtype.hasobject or not shape:
            raise ValueError(f"{path}: not rows of numbers")
        self._row_shape: tuple[int, ...] = shape[1:]
        self._row_bytes = self.dtype.itemsize * int(np.prod(self._row_shape))
        if size != self._start + shape[0] * self._row_bytes:
            raise ValueError(f"{path}: cut short")
        self._positions = np.arange(shape[0])
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._handle)

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (len(self), *self._row_shape)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, key: Key) -> npt.NDArray[Any]:
        """One row for a number, else an array of the rows: a copy in memory either way."""
        if isinstance(key, (int, np.integer)):
            return self._read(int(self._positions[key]))
        positions = self._positions[key]
        rows = np.empty((len(positions), *self._row_shape), self.dtype)
        for number, position in enumerate(positions):
            rows[number] = self._read(int(position))
        return rows

    def select(self, key: slice | Sequence[int] | npt.NDArray[np.int64]) -> StoredRows:
        """Some of the rows, still on the disk."""
        part = object.__new__(StoredRows)
        part.__dict__.update(self.__dict__)
        part._positions = self._positions[key]
        part._whole = self  # it closes the file
        return part

    _whole: StoredRows | None = None

    def _read(self, position: int) -> npt.NDArray[Any]:
        content = os.pread(self._handle, self._row_bytes, self._start + position * self._row_bytes)
        return np.frombuffer(content, self.dtype).reshape(self._row_shape)
