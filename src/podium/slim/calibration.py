"""Paddle's histogram calibration in one pass over the images, to the same bytes.

In: a float32 model and batches. Out: the int8 model. Paddle's "hist" runs the net over the images
twice, for the limits of each histogram and for its counts, sorts every activation to count it, and
then only asks which bin holds the 0.9999 quantile of the magnitudes. The largest ten-thousandth of
them answers that, and one pass finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import paddle
from paddle.base.framework import IrGraph, IrNode
from paddle.static.quantization import PostTrainingQuantization
from paddle.static.quantization.utils import load_variable_data

from podium.engine.inference import ExportedModel

# These two are what PaddleSlim's quant_post_static chooses: one magnitude in so many may lie above
# the range of its activation, and operators of these types are quantised.
CLIPPED_ONE_IN = 10_000
QUANTIZED = ("conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2")
HIST_PERCENT = 1 - 1 / CLIPPED_ONE_IN

Batches = Iterator[dict[str, npt.NDArray[np.float32]]]


class Tail:
    """The smallest and the largest ten-thousandth of a tensor's magnitudes, in any order of adding.

    Args:
        count: how many magnitudes there will be.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        # One more than may lie above the quantile, so that the quantile itself is among them.
        self._size = count // CLIPPED_ONE_IN + 1
        self._minimum = np.float32(np.inf)
        self._largest = np.empty(0, np.float32)

    def add(self, magnitudes: npt.NDArray[np.float32]) -> None:
        """Take in float32 (n,), n >= 1."""
        self._minimum = np.minimum(self._minimum, magnitudes.min())
        if len(self._largest) == self._size:  # nearly all are too small, and one comparison tells
            magnitudes = magnitudes[magnitudes > self._largest.min()]
        largest = np.concatenate([self._largest, magnitudes])
        if len(largest) > self._size:
            largest = np.partition(largest, -self._size)[-self._size :]
        self._largest = largest

    def histogram(self, bins: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Counts (bins,) and edges (bins + 1,) from the smallest to the largest magnitude.

        What is below the tail is counted in the first bin: that moves no quantile of the tail.
        """
        limits = (float(self._minimum), float(self._largest.max()))
        # Edges from an empty list, as Paddle makes them, are float64; from the data, float32.
        counts, edges = np.histogram(self._largest, np.histogram_bin_edges([], bins, limits))
        counts[0] += self._count - len(self._largest)
        return counts, edges


class OnePassQuantization(PostTrainingQuantization):  # type: ignore[misc]  # Paddle has no types
    """Paddle's static quantisation as PaddleSlim's `quant_post_static` calls it, in less time.

    Importing PaddleSlim for that one call costs a second, most of it matplotlib's. tests/test_slim.py
    puts the parent's methods back and compares the bytes.

    Memory: one batch's activations, and a ten-thousandth of all batches'.

    Args:
        model: float32, in the old program format.
        batches: makes the iterator of batches; all of one size.
        batch_count: how many of them there are.
    """

    def __init__(
        self, model: ExportedModel, batches: Callable[[], Batches], batch_count: int
    ) -> None:
        super().__init__(
            paddle.static.Executor(paddle.CPUPlace()),
            str(model.program.parent),
            model_filename=model.program.name,
            params_filename=model.weights.name,
            data_loader=batches,
            batch_nums=batch_count,
            algo="hist",
            hist_percent=HIST_PERCENT,
            quantizable_op_type=list(QUANTIZED),
            onnx_format=True,
        )
        self._tails: dict[str, Tail] = {}

    def _collect_activation_abs_min_max(self) -> None:
        """Called after each batch of the parent's first pass."""
        for name in self._quantized_act_var_name:
            values = load_variable_data(self._scope, name)  # a copy, free to change
            if values.size == 0:
                self._zero_size_var_names.add(name)
                continue
            if name not in self._tails:
                self._tails[name] = Tail(values.size * self._batch_nums)
            self._tails[name].add(np.abs(values, out=values).ravel())

    def _init_sampling_act_histogram(self) -> None:
        """Called between the passes: the histograms are ready, so the second pass gets no batch."""
        for name, tail in self._tails.items():
            self._sampling_act_histogram[name] = list(tail.histogram(self._histogram_bins))
        self._data_loader = lambda: iter(())

    def _update_program(self) -> None:
        """Called once all ranges are known: inserts the quantisers into the graph."""
        checked = IrGraph.link_to
        IrGraph.link_to = _link_unchecked
        try:
            super()._update_program()
        finally:
            IrGraph.link_to = checked


def _link_unchecked(_graph: IrGraph, node_in: IrNode, node_out: IrNode) -> None:
    """`IrGraph.link_to` without its two assertions: each makes a Python set of the whole graph's
    nodes, for each of thousands of links, which is half of the time that the graph takes."""
    node_in.append_output(node_out)
    node_out.append_input(node_in)
