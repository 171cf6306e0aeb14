"""Reads PyTorch's legacy state-dict files without PyTorch and without trusting them.

A legacy file (torch.save before 1.6, or `_use_new_zipfile_serialization=False`) is: three pickles
(magic number, protocol, system info), the pickled state dict whose tensors refer to storages by
key, a pickled list of those keys, then per storage an int64 element count and raw little-endian
values. Source: torch/serialization.py `_legacy_load`.

A pickle can run any code. This reader's unpickler knows three names and refuses all others, so a
hostile file can only fail.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from podium.errors import PodiumError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    size: int


class _View(NamedTuple):
    """A tensor: where it lies in its storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(stride))


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"refers to {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, *_view = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return _Storage(str(key), dtype, int(size))


def load_torch_state(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a legacy PyTorch state dict, by name, as numpy arrays of the stored dtype.

    Raises:
        PodiumError: not such a file, cut short, or one that asks for anything but tensors.
    """
    with path.open("rb") as stream:
        try:
            return _load(stream)
        except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError) as error:
            raise PodiumError(
                f"{path}: expected a legacy PyTorch state dict of plain tensors: {error}"
            ) from error


def _load(stream: IO[bytes]) -> dict[str, npt.NDArray[Any]]:
    if _SafeUnpickler(stream).load() != _MAGIC_NUMBER:
        raise ValueError("wrong magic number")
    _SafeUnpickler(stream).load()  # protocol version
    _SafeUnpickler(stream).load()  # system info
    state: dict[str, _View] = _SafeUnpickler(stream).load()
    views = {name: view for name, view in state.items() if isinstance(view, _View)}
    if len(views) != len(state):
        raise ValueError("holds values that are no tensors")
    by_key = {view.storage.key: view.storage for view in views.values()}
    buffers: dict[str, npt.NDArray[Any]] = {}
    for key in _SafeUnpickler(stream).load():
        storage = by_key[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.size:
            raise ValueError(
                f"storage {key} has {count} elements, its tensors expect {storage.size}"
            )
        raw = stream.read(count * storage.dtype.itemsize)
        buffers[key] = np.frombuffer(raw, storage.dtype, count)
    return {name: _as_array(view, buffers[view.storage.key]) for name, view in views.items()}


def _as_array(view: _View, buffer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    reach = view.offset + sum(
        (n - 1) * step for n, step in zip(view.shape, view.stride, strict=True) if n > 0
    )
    if min(view.offset, *view.stride, 0) < 0 or (0 not in view.shape and reach >= buffer.size):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(step * buffer.itemsize for step in view.stride)
    window = np.lib.stride_tricks.as_strided(buffer[view.offset :], view.shape, strides)
    return window.copy()
