"""How long the shipped model takes for one image, as `podium predict` asks it.

From a decoded image to its outputs: preprocessing and all views are in it, reading and decoding the
file are not.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from podium.data.decode import RGB

_WARM_UP = 5
_RUNS = 50


def measure_answer_time(answer: Callable[[RGB, str], Any], image_size_px: int) -> dict[str, float]:
    """Milliseconds an image, one image at a time, on all cores.

    Args:
        answer: uint8 (1, S, S, 3) and what its progress bar says -> outputs.
        image_size_px: S.

    Returns:
        answer_p50_ms, which limits are compared with (other programs lengthen single runs, not the
        median), and answer_p95_ms.
    """
    image = np.zeros((1, image_size_px, image_size_px, 3), np.uint8)
    seconds = []
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for each single image
        for _ in range(_WARM_UP + _RUNS):
            start = time.perf_counter()
            answer(image, "time")
            seconds.append(time.perf_counter() - start)
    p50, p95 = np.percentile(np.array(seconds[_WARM_UP:]) * 1000, [50, 95])
    return {"answer_p50_ms": round(float(p50), 3), "answer_p95_ms": round(float(p95), 3)}
