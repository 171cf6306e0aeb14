"""PaddleSlim 2.6 on Paddle 3.3 and NumPy 2: what it misses, lent for as long as it works.

`import paddleslim` takes two seconds, most of them matplotlib's and scikit-learn's: only who prunes
pays for it. What is lent, and why:

- the modules `pip` and `pkg_resources`: imported for code that is never reached; neither need be
  installed, and the second warns that it will go;
- `np.product` and `np.float`, which NumPy 2 dropped;
- the old name of Paddle's `to_static_mode_guard`;
- Paddle's old IR, in which it traces a net's graph.

tests/test_pruning.py says when one of them is not missed any more.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle.base.dygraph import base as paddle_modes

MODULES = ("pip", "pkg_resources")
ATTRIBUTES: tuple[tuple[Any, str, Any], ...] = (
    (np, "product", np.prod),
    (np, "float", float),
    (paddle_modes, "_to_static_mode_guard_", paddle_modes.to_static_mode_guard),
)


@contextlib.contextmanager
def paddleslim_works() -> Iterator[Any]:
    """The module `paddleslim`, imported, and working within the block only."""
    lent_modules = {name: types.ModuleType(name) for name in MODULES if name not in sys.modules}
    lent = [(owner, name) for owner, name, _ in ATTRIBUTES if name not in vars(owner)]
    sys.modules.update(lent_modules)
    for owner, name, value in ATTRIBUTES:
        if (owner, name) in lent:
            setattr(owner, name, value)
    # It logs every variable that it prunes, and sets its loggers up anew when it is imported.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with paddle.pir_utils.OldIrGuard():
            import paddleslim

            yield paddleslim
    finally:
        logging.disable(disabled)
        for owner, name in lent:
            delattr(owner, name)
        for name in lent_modules:
            del sys.modules[name]
