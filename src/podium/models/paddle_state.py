"""Reads Paddle's .pdparams files without trusting them: `paddle.load` would run what they say.

A .pdparams file is one pickle: a dict of numpy arrays by name, and under one more name a table of
Paddle's internal names. What `paddle.save` makes of a bare tensor is the pair (internal name, array).
It is of pickle's protocol 2, 3 or 4.
Source: paddle/framework/io.py `_build_saved_state_dict`, `_pickle_save`.
"""

from __future__ import annotations

import codecs
import io
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.errors import PodiumError
from podium.models.unpickling import BROKEN, Names, SafeUnpickler

_NAME_TABLE = "StructuredToParameterName@@"
_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"}


class _Dtype:
    """What a pickle says of a numpy dtype."""

    def __init__(self, code: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def as_numpy(self) -> np.dtype[Any]:
        if self.code not in _DTYPES or self.order not in ("<", ">", "|", "="):
            raise ValueError(f"an array of {self.code!r}, which no weights need")
        return np.dtype(f"{'<' if self.order in '|=' else self.order}{self.code}")


class _Array:
    """What a pickle says of a numpy array; built only when all of it is known."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def as_numpy(self) -> npt.NDArray[Any]:
        if self._state is None:
            raise ValueError("an array without content")
        _version, shape, dtype, is_fortran, raw = self._state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise ValueError("an array that is not of numbers")
        values = np.frombuffer(raw, dtype.as_numpy())
        if min(0, *shape) < 0 or math.prod(shape) != values.size:
            raise ValueError("an array whose shape and content differ")
        return values.reshape(shape, order="F" if is_fortran else "C").copy()


def parse_paddle_state(content: bytes, path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a .pdparams file by name, of the stored dtype; `path` is for messages.

    Raises:
        PodiumError: not such a file, cut short, or one that asks for anything but arrays.
    """
    try:
        if content[1:2] > b"\x04":
            raise ValueError("of a pickle protocol that Paddle does not write")
        state = SafeUnpickler(io.BytesIO(content), _make_names()).load()
        if not isinstance(state, dict):
            raise ValueError(f"holds a {type(state).__name__}, no names with arrays")
        return {
            _check_name(name): _as_array(name, value)
            for name, value in state.items()
            if name != _NAME_TABLE
        }
    except BROKEN as error:
        raise PodiumError(f"{path}: expected a .pdparams file of plain arrays: {error}") from error


def _make_names() -> Names:
    ndarray = object()  # numpy's type: an argument, never called

    def rebuild(kind: object, *_: object) -> _Array:
        if kind is not ndarray:
            raise ValueError("an array of a foreign type")
        return _Array()

    def make_dtype(code: object, *_: object) -> _Dtype:
        return _Dtype(code)

    def encode(text: str, encoding: str) -> bytes:
        # How protocol 2 writes bytes.
        if encoding != "latin1":
            raise ValueError(f"bytes as {encoding!r}")
        return codecs.latin_1_encode(text)[0]

    def make_tuple(values: object = ()) -> tuple[object, ...]:
        if not isinstance(values, tuple | list):
            raise ValueError("a tuple of neither a tuple nor a list")
        return tuple(values)

    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): make_dtype,
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): OrderedDict,
    }
    for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
        names[f"{core}.multiarray", "_reconstruct"] = rebuild
    for module in ("builtins", "__builtin__"):
        names[module, "tuple"] = make_tuple
    return names


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"names an array {name!r}")
    return name


def _as_array(name: str, value: object) -> npt.NDArray[Any]:
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, _Array):
        raise ValueError(f"holds values that are no arrays, as {name!r}")
    return value.as_numpy()
