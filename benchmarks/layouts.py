"""What it brings to a training step that small maps lie by channel (podium.models.convolutions).

In: nothing. The upper layers of EfficientNet-Lite0 learn from one batch again and again, in one process,
in turn with both layouts; the fastest of all passes counts. Out: a Markdown table on stdout.

    python benchmarks/layouts.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from podium.runtime import configure_math, keep_freed_memory

configure_math()  # before Paddle loads
keep_freed_memory()

import paddle  # noqa: E402

from podium.models import efficientnet_lite  # noqa: E402
from podium.models.networks import UpperNetwork, build_network  # noqa: E402

NAME, TOP_LAYERS, BATCH, CLASSES = "efficientnet_lite0", 12, 16, 10
SIZES_PX = (64, 96, 128, 160)
ROUNDS, STEPS = 4, 8
HEADER = "| px | by image, ms | by channel, ms | ratio |\n|---|---|---|---|"


def measure(size_px: int) -> str:
    """A row: forward and backward."""
    network = build_network(NAME, True, CLASSES, 0.0)
    upper = UpperNetwork(network, TOP_LAYERS)
    draws = np.random.default_rng(0)
    images = paddle.to_tensor(draws.random((BATCH, 3, size_px, size_px), np.float32))
    targets = paddle.to_tensor(draws.integers(0, CLASSES, BATCH))
    network.eval()
    with paddle.no_grad():
        maps = network.trunk.run(images, 0, upper.begin)
    network.train()
    by_channel = efficientnet_lite.lie_better_by_channel
    fastest = {"image": np.inf, "channel": np.inf}
    for _ in range(ROUNDS):
        for layout in fastest:
            chosen = by_channel if layout == "channel" else lambda *_: False
            efficientnet_lite.lie_better_by_channel = chosen
            for _ in range(STEPS):
                start = time.perf_counter()
                paddle.nn.functional.cross_entropy(upper(maps), targets).backward()
                fastest[layout] = min(fastest[layout], time.perf_counter() - start)
                network.clear_gradients()
    efficientnet_lite.lie_better_by_channel = by_channel
    image, channel = (1000 * fastest[layout] for layout in ("image", "channel"))
    return f"| {size_px} | {image:.0f} | {channel:.0f} | **{image / channel:.2f}** |"


if __name__ == "__main__":
    print(HEADER)
    for size in SIZES_PX:
        print(measure(size), flush=True)
