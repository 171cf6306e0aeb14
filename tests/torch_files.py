"""PyTorch's weight files, made without PyTorch: as torch.save wrote and writes them."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

_STORAGES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage"}


@dataclass(frozen=True)
class Tensor:
    """What lies in a storage of its own, and how it is looked at."""

    storage: npt.NDArray[Any]
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Tensor:
        """Contiguous."""
        whole = np.ascontiguousarray(values).reshape(values.shape)
        stride = tuple(step // whole.itemsize for step in whole.strides)
        return cls(whole.reshape(-1), values.shape, stride)


def write_legacy(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As before torch 1.6."""
    with path.open("wb") as stream:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            stream.write(pickle.dumps(value, 2))
        stream.write(pickle_state(tensors))
        stream.write(pickle.dumps([str(key) for key in range(len(tensors))], 2))
        for tensor in tensors.values():
            stream.write(struct.pack("<q", tensor.storage.size) + tensor.storage.tobytes())


def write_zip(path: Path, tensors: Mapping[str, Tensor], **changes: bytes) -> None:
    """As since torch 1.6; `changes` replace the content of files, `data_pkl` data.pkl's."""
    files = {"data.pkl": pickle_state(tensors), "byteorder": b"little", "version": b"3\n"}
    for key, tensor in enumerate(tensors.values()):
        files[f"data/{key}"] = tensor.storage.tobytes()
    files |= {name.replace("_", ".").replace("data.0", "data/0"): c for name, c in changes.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(f"archive/{name}", content)


class _Storage:
    def __init__(self, key: int, values: npt.NDArray[Any]) -> None:
        self.key, self.values = key, values


def _torch_name(module: str, name: str) -> Any:
    return type(name, (), {"__module__": module})


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        kind = _torch_name("torch", _STORAGES[obj.values.dtype.str])
        return ("storage", kind, str(obj.key), "cpu", obj.values.size)

    def save_type(self, obj: Any) -> None:
        self.write(b"c" + f"{obj.__module__}\n{obj.__name__}\n".encode())

    dispatch: ClassVar = {**pickle._Pickler.dispatch, type: save_type}  # type: ignore[attr-defined]


class _Pickled:
    def __init__(self, key: int, tensor: Tensor) -> None:
        self._key, self._tensor = key, tensor

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = _torch_name("torch._utils", "_rebuild_tensor_v2")
        storage = _Storage(self._key, self._tensor.storage)
        rest = (0, self._tensor.shape, self._tensor.stride, False, OrderedDict())
        return (rebuild, (storage, *rest))


def pickle_state(tensors: Mapping[str, Tensor]) -> bytes:
    """The state dict's pickle, in protocol 2."""
    stream = BytesIO()
    named = [(name, _Pickled(key, tensor)) for key, (name, tensor) in enumerate(tensors.items())]
    state: OrderedDict[str, Any] = OrderedDict(named)
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    _Pickler(stream, 2).dump(state)
    return stream.getvalue()
