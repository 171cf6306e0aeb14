"""A kernel for each channel, forward and backward: bands of rows, the matrix of the whole map, Paddle.

In: nothing. The depthwise layers of EfficientNet-Lite0 that maps of 8 to 40 px come through, in one
process, in turn with all three ways; the fastest of all passes counts. Out: a Markdown table on stdout,
with --write also in docs/training.md. `taken` is what a training takes (podium.models.depthwise).

    python benchmarks/depthwise.py --write
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from clones import write_table
from eda_speed import cpu_model

from podium.runtime import configure_math, keep_freed_memory

configure_math()  # before Paddle loads
keep_freed_memory()

import paddle  # noqa: E402
from paddle import nn  # noqa: E402

from podium.models import depthwise  # noqa: E402

BATCH = 16  # of each of two processes
ROUNDS = 10
# A matrix of more entries for each channel takes gigabytes.
MOST_ENTRIES = 400 * 400
HEADER = (
    "| channels | map | kernel | stride | Paddle, ms | whole map, ms | bands, ms | taken "
    "| Paddle / taken |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


class Layer(NamedTuple):
    channels: int
    side: int
    kernel: int
    stride: int


LAYERS = (
    Layer(144, 40, 3, 1),
    Layer(144, 40, 5, 2),
    Layer(240, 20, 5, 1),
    Layer(240, 20, 3, 2),
    Layer(480, 10, 3, 1),
    Layer(672, 10, 5, 1),
    Layer(672, 10, 5, 2),
    Layer(672, 8, 5, 1),
    Layer(240, 12, 3, 2),
)


def measure(layer: Layer) -> str:
    """A row of the table."""
    channels, side, kernel, stride = layer
    conv = nn.Conv2D(channels, channels, kernel, stride, "SAME", groups=channels, bias_attr=False)
    by_channel = paddle.randn([channels, BATCH, side, side])
    by_image = by_channel.transpose([1, 0, 2, 3]).contiguous()
    entries = side**2 * depthwise.span(side, kernel, stride, "SAME")[0] ** 2
    taken = "bands" if entries > depthwise._MOST_ENTRIES else "whole map"

    def multiply(x: paddle.Tensor) -> paddle.Tensor:
        return depthwise.convolve_depthwise(x, conv.weight, stride, "SAME")

    ways: dict[str, tuple[int, Callable[[paddle.Tensor], paddle.Tensor], paddle.Tensor]] = {
        "Paddle": (0, conv, by_image),
        "bands": (0, multiply, by_channel),
    }
    if entries <= MOST_ENTRIES:
        ways["whole map"] = (MOST_ENTRIES, multiply, by_channel)
    ms = dict.fromkeys(ways, float("inf"))
    limit = depthwise._MOST_ENTRIES
    for _ in range(ROUNDS):
        for name, (most_entries, run, x) in ways.items():
            depthwise._MOST_ENTRIES = most_entries
            ms[name] = min(ms[name], _time(run, x, conv))
    depthwise._MOST_ENTRIES = limit
    whole = f"{ms['whole map']:.1f}" if "whole map" in ms else "too large"
    return (
        f"| {channels} | {side} x {side} | {kernel} | {stride} | {ms['Paddle']:.1f} | {whole} "
        f"| {ms['bands']:.1f} | {taken} | **{ms['Paddle'] / ms[taken]:.1f}** |"
    )


def _time(run: Callable[[Any], Any], x: paddle.Tensor, conv: nn.Conv2D) -> float:
    """Forward and backward, ms."""
    x.stop_gradient = False
    start = time.perf_counter()
    run(x).sum().backward()
    took = 1000 * (time.perf_counter() - start)
    x.clear_gradient()
    conv.clear_gradients()
    return took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/training.md")
    arguments = parser.parse_args()
    lines = [f"One thread of {cpu_model()}, {BATCH} images, best of {ROUNDS}.", "", HEADER]
    for layer in LAYERS:
        lines.append(measure(layer))
    print("\n".join(lines))
    if arguments.write:
        write_table("depthwise", "\n".join(lines))


if __name__ == "__main__":
    main()
