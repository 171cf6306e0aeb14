"""Reads PyTorch's state-dict files without PyTorch and without trusting them.

A legacy file (torch.save before 1.6, or `_use_new_zipfile_serialization=False`) is: three pickles
(magic number, protocol, system info), the pickled state dict whose tensors refer to storages by
key, a pickled list of those keys, then per storage an int64 element count and raw little-endian
values. Source: torch/serialization.py `_legacy_load`.

A newer file is a zip, nothing in it compressed: NAME/data.pkl, the same pickled state dict, and per
storage NAME/data/KEY with its raw values; NAME/byteorder where torch was 2.1 or newer.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from podium.errors import PodiumError
from podium.models.unpickling import BROKEN, Names, SafeUnpickler

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
# How a legacy file begins: the magic number's pickle.
LEGACY_START = pickle.dumps(_MAGIC_NUMBER, protocol=2)
ZIP_START = b"PK\x03\x04"
_STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}

Arrays = dict[str, npt.NDArray[Any]]


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


def load_torch_state(path: Path) -> Arrays:
    """The tensors of a PyTorch state dict, by name, as numpy arrays of the stored dtype.

    Raises:
        PodiumError: not such a file, cut short, or one that asks for anything but tensors.
    """
    return parse_torch_state(path.read_bytes(), path)


def parse_torch_state(content: bytes, path: Path) -> Arrays:
    """The same of a file's `content`; `path` is for messages."""
    is_zip = content.startswith(ZIP_START)
    kind = "PyTorch state dict" if is_zip else "legacy PyTorch state dict"
    try:
        return (_load_zip if is_zip else _load_legacy)(io.BytesIO(content))
    except (*BROKEN, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise PodiumError(f"{path}: expected a {kind} of plain tensors: {error}") from error


def _load_legacy(stream: IO[bytes]) -> Arrays:
    if _unpickle(stream) != _MAGIC_NUMBER:
        raise ValueError("wrong magic number")
    _unpickle(stream)  # protocol version
    _unpickle(stream)  # system info
    views = _find_views(_unpickle(stream))
    by_key = {view.storage.key: view.storage for view in views.values()}
    buffers: Arrays = {}
    for key in _unpickle(stream):
        storage = by_key[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.size:
            raise ValueError(
                f"storage {key} has {count} elements, its tensors expect {storage.size}"
            )
        raw = stream.read(count * storage.dtype.itemsize)
        buffers[key] = np.frombuffer(raw, storage.dtype, count)
    return {name: _as_array(view, buffers[view.storage.key]) for name, view in views.items()}


def _load_zip(stream: IO[bytes]) -> Arrays:
    with zipfile.ZipFile(stream) as archive:
        tops = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(tops) != 1:
            raise ValueError(f"a zip with {len(tops)} files data.pkl")
        top = tops[0]
        order = f"{top}byteorder"
        if order in archive.namelist() and _read_member(archive, order) != b"little":
            raise ValueError("its numbers are not little-endian")
        views = _find_views(_unpickle(io.BytesIO(_read_member(archive, f"{top}data.pkl"))))
        buffers: Arrays = {}
        for storage in {view.storage for view in views.values()}:
            raw = _read_member(archive, f"{top}data/{storage.key}")
            buffers[storage.key] = np.frombuffer(raw, storage.dtype)
    return {name: _as_array(view, buffers[view.storage.key]) for name, view in views.items()}


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the zip; torch compresses none, and what is not compressed cannot grow."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which torch.save does not do")
    return archive.read(name)


def _unpickle(stream: IO[bytes]) -> Any:
    return SafeUnpickler(stream, _make_names(), _as_storage).load()


def _make_names() -> Names:
    def rebuild_tensor(
        storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
    ) -> _View:
        return _View(storage, offset, tuple(shape), tuple(stride))

    def rebuild_parameter(tensor: _View, *_: object) -> _View:
        return tensor

    return {
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("collections", "OrderedDict"): OrderedDict,
        **{("torch", name): name for name in _STORAGE_DTYPES},
    }


def _as_storage(pid: Any) -> _Storage:
    kind, dtype, key, _device, size, *_view = pid
    if kind != "storage":
        raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
    return _Storage(str(key), _STORAGE_DTYPES[dtype], int(size))


def _find_views(state: Any) -> dict[str, _View]:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("holds no names with tensors")
    strangers = [name for name, view in state.items() if not isinstance(view, _View)]
    if strangers:
        raise ValueError(f"holds values that are no tensors, as {strangers[0]!r}")
    return state


def _as_array(view: _View, buffer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    reach = view.offset + sum(
        (n - 1) * step for n, step in zip(view.shape, view.stride, strict=True) if n > 0
    )
    if min(view.offset, *view.stride, *view.shape, 0) < 0 or (
        0 not in view.shape and reach >= buffer.size
    ):
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(view.shape) > buffer.size:  # strides of 0: a few bytes could stand for terabytes
        raise ValueError("a tensor is larger than its storage")
    strides = tuple(step * buffer.itemsize for step in view.stride)
    window = np.lib.stride_tricks.as_strided(buffer[view.offset :], view.shape, strides)
    return window.copy()
