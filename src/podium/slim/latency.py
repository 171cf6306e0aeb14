"""How long one answer takes, on the files that ship."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from podium.engine.inference import ExportedModel, Predictor

_WARM_UP = 5
_RUNS = 50


def measure_latency(model: ExportedModel, int8: bool, image_size_px: int) -> dict[str, Any]:
    """Milliseconds per image at batch 1 on one thread, preprocessing not included."""
    predictor = Predictor(model, int8=int8, threads=1)
    image = np.zeros((1, 3, image_size_px, image_size_px), np.float32)
    for _ in range(_WARM_UP):
        predictor.run(image)
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        predictor.run(image)
        seconds.append(time.perf_counter() - start)
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {"latency_p50_ms": round(float(p50), 3), "latency_p95_ms": round(float(p95), 3)}
