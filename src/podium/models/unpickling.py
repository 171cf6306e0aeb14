"""Unpickling that can only fail: what PyTorch's and Paddle's weight files need, and nothing else.

A pickle names functions and calls them. Here every name stands for a function or type of ours,
made anew for each file, so that a hostile one reaches nothing: not even numpy's own rebuilding,
which trusts what it is told about memory.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import IO, Any

# What an unpickler raises on bytes that are no pickle of what was expected; pickle's documentation
# names some, "not necessarily all".
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    AssertionError,
    struct.error,
)

Names = Mapping[tuple[str, str], Any]


class SafeUnpickler(pickle._Unpickler):
    """Loads one pickle; all but `names` is refused.

    It is pickle's Python half: the C half makes room for as many gigabytes of remembered values as a
    damaged byte says.

    Args:
        stream: from which it is read.
        names: (module, name) -> what stands for it.
        load_external: what a persistent id stands for; None: there are none.
    """

    def __init__(
        self, stream: IO[bytes], names: Names, load_external: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(stream)
        self._names, self._load_external = names, load_external

    def find_class(self, module: str, name: str) -> Any:
        """Raises:
        pickle.UnpicklingError: a name that is not among `names`.
        """
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"refers to {module}.{name}, which no weights need")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Raises:
        pickle.UnpicklingError: there are none.
        """
        if self._load_external is None:
            raise pickle.UnpicklingError(f"unknown persistent id {pid!r}")
        return self._load_external(pid)
