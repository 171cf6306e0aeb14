"""A kernel for each channel, as products with that channel's own matrix: what CPUs do best.

In: maps that lie channel by channel, (C, N, H, W), and Paddle's weights. Out: the maps that
`nn.Conv2D` makes of them, the same sums in another order.

A kernel that slides over a map is a matrix that repeats its weights along diagonals (Toeplitz: Dumoulin
& Visin, arXiv:1603.07285, section 4.1). Of a whole map that matrix grows with the square of the map and
is mostly zeros, so all but the smallest maps are cut into bands of a few rows, which share one small
matrix. docs/training.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import paddle
from numpy.lib.stride_tricks import as_strided
from paddle.autograd import PyLayer

# Entries of the matrix of a whole map: up to there bands would save a quarter at most.
_MOST_ENTRIES = 6000
# Rows of outputs in a band: more make the matrix larger, fewer read each row more often.
_ROWS = 2


def span(side: int, kernel: int, stride: int, padding: int | str) -> tuple[int, int]:
    """Along one side: how many outputs, and how many zeros before the first input.

    Args:
        padding: zeros at both ends, or "SAME" as TensorFlow has it.
    """
    if padding == "SAME":
        outputs = -(-side // stride)
        return outputs, max((outputs - 1) * stride + kernel - side, 0) // 2
    before = int(padding)
    return (side + 2 * before - kernel) // stride + 1, before


def convolve_depthwise(
    x: paddle.Tensor, weight: paddle.Tensor, stride: int, padding: int | str
) -> paddle.Tensor:
    """float32 (C, N, H, W) -> (C, N, H', W'), on a CPU.

    Args:
        weight: (C, 1, k, k).
        stride, padding: as in `span`, of both sides.
    """
    channels, batch, height, width = x.shape
    kernel = weight.shape[-1]
    rows, columns = (span(side, kernel, stride, padding)[0] for side in (height, width))
    if height * width * rows * columns > _MOST_ENTRIES:
        return _Bands.apply(x, weight, stride, padding)
    matrices = _matrices(weight, _load_spread(height, width, kernel, stride, padding, padding))
    result = paddle.matmul(x.reshape([channels, batch, -1]), matrices)
    return result.reshape([channels, batch, rows, columns])


class _Cut(NamedTuple):
    """How maps are cut into bands.

    Attributes:
        shape: of the inputs, (C, N, H, W).
        rows, columns: of the outputs.
        bands: so many, the last of which may reach below the outputs.
        seen: rows of inputs that a band's outputs see.
        step: from the inputs of a band to those of the next, rows.
        above: rows of zeros above the first input.
        used: rows of the inputs that any band sees.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    bands: int
    seen: int
    step: int
    above: int
    used: int

    @property
    def padded_rows(self) -> int:
        return (self.bands - 1) * self.step + self.seen


def _cut(shape: Sequence[int], kernel: int, stride: int, padding: int | str) -> _Cut:
    rows, above = span(shape[2], kernel, stride, padding)
    columns, _ = span(shape[3], kernel, stride, padding)
    bands, seen, step = -(-rows // _ROWS), (_ROWS - 1) * stride + kernel, _ROWS * stride
    used = min(shape[2], (bands - 1) * step + seen - above)
    return _Cut(tuple(shape), rows, columns, bands, seen, step, above, used)


class _Bands(PyLayer):
    """The bands of all images are the rows of one product for each channel.

    For one `backward()`: Paddle 3.3 crashes on a second one through any PyLayer (`retain_graph`), and
    refuses `paddle.grad` of the input or the weight alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, stride: int, padding: int | str
    ) -> paddle.Tensor:
        cut = _cut(x.shape, weight.shape[-1], stride, padding)
        spread = _load_band_spread(cut, weight.shape[-1], stride, padding)
        seen, matrices = _gather(x, cut), _matrices(weight, spread)
        ctx.cut, ctx.stride, ctx.weight = cut, stride, weight
        ctx.seen, ctx.matrices, ctx.spread = seen, matrices, spread.flatten(1)
        ctx.wanted = not x.stop_gradient, not weight.stop_gradient
        return _multiply(seen, matrices, cut)

    @staticmethod
    def backward(
        ctx: Any, gradient: paddle.Tensor
    ) -> tuple[paddle.Tensor | None, paddle.Tensor | None]:
        cut: _Cut = ctx.cut
        by_band = _split(gradient, cut)
        of_x, of_weight = None, None
        if ctx.wanted[0]:
            if _keeps_the_size(cut, ctx.weight.shape[-1], ctx.stride):
                of_x = _convolve_backwards(gradient, ctx.weight)
            else:
                of_x = _add_up(paddle.matmul(by_band, ctx.matrices, transpose_y=True), cut)
        if ctx.wanted[1]:
            of_matrices = paddle.matmul(ctx.seen, by_band, transpose_x=True)
            of_weight = paddle.matmul(of_matrices.flatten(1), ctx.spread, transpose_y=True)
            of_weight = of_weight.reshape(ctx.weight.shape)
        return of_x, of_weight


def _multiply(seen: paddle.Tensor, matrices: paddle.Tensor, cut: _Cut) -> paddle.Tensor:
    """(C, N, H', W')."""
    outputs = paddle.matmul(seen, matrices)
    outputs = outputs.reshape([*cut.shape[:2], cut.bands * _ROWS, cut.columns])
    return outputs[:, :, : cut.rows] if cut.bands * _ROWS > cut.rows else outputs


def _split(outputs: paddle.Tensor, cut: _Cut) -> paddle.Tensor:
    """(C, N, H', W') -> (C, N x bands, rows x W'), zeros below the last row."""
    channels, batch = cut.shape[:2]
    below = cut.bands * _ROWS - cut.rows
    if below:
        zeros = paddle.zeros([channels, batch, below, cut.columns])
        outputs = paddle.concat([outputs, zeros], axis=2)
    return outputs.reshape([channels, batch * cut.bands, -1])


def _keeps_the_size(cut: _Cut, kernel: int, stride: int) -> bool:
    """Whether as many zeros lie at all four sides, and the outputs are as many as the inputs."""
    return stride == 1 and kernel % 2 == 1 and cut.shape[2:] == (cut.rows, cut.columns)


def _convolve_backwards(gradient: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """The gradient of the inputs of a convolution that keeps the size: one with the kernels turned by
    180 degrees, which costs less than to add up what overlaps."""
    kernel = weight.shape[-1]
    cut = _cut(gradient.shape, kernel, 1, "SAME")
    matrices = _matrices(weight.flip([2, 3]), _load_band_spread(cut, kernel, 1, "SAME"))
    return _multiply(_gather(gradient, cut), matrices, cut)


def _gather(x: paddle.Tensor, cut: _Cut) -> paddle.Tensor:
    """What each band sees: (C, N x bands, rows x W)."""
    channels, batch, _, width = cut.shape
    padded = np.zeros((channels * batch, cut.padded_rows, width), np.float32)
    maps = _numbers(x)[:, :, : cut.used].reshape(channels * batch, cut.used, width)
    padded[:, cut.above : cut.above + cut.used] = maps
    seen = paddle.empty([channels, batch * cut.bands, cut.seen * width])
    shape = (channels * batch, cut.bands, cut.seen * width)
    map_bytes, row_bytes, number_bytes = padded.strides
    windows = as_strided(padded, shape, (map_bytes, cut.step * row_bytes, number_bytes))
    _numbers(seen).reshape(shape)[...] = windows
    return seen


def _add_up(of_seen: paddle.Tensor, cut: _Cut) -> paddle.Tensor:
    """The gradient of the inputs: each row's is the sum of what the bands that see it say."""
    channels, batch, _, width = cut.shape
    by_band = _numbers(of_seen).reshape(channels * batch, cut.bands, -1)
    padded = np.zeros((channels * batch, cut.padded_rows * width), np.float32)
    for band in range(cut.bands):
        start = band * cut.step * width
        padded[:, start : start + by_band.shape[2]] += by_band[:, band]
    gradient = paddle.empty(cut.shape)
    own = _numbers(gradient)
    rows = padded.reshape(channels, batch, -1, width)
    own[:, :, : cut.used] = rows[:, :, cut.above : cut.above + cut.used]
    own[:, :, cut.used :] = 0
    return gradient


def _numbers(tensor: paddle.Tensor) -> npt.NDArray[np.float32]:
    """The tensor's own memory."""
    own: npt.NDArray[Any] = np.from_dlpack(tensor.detach())
    return own


def _matrices(weight: paddle.Tensor, spread: paddle.Tensor) -> paddle.Tensor:
    """(C, inputs, outputs)."""
    kernels = weight.reshape([weight.shape[0], -1])
    return paddle.matmul(kernels, spread.flatten(1)).reshape([-1, *spread.shape[1:]])


def _load_band_spread(cut: _Cut, kernel: int, stride: int, padding: int | str) -> paddle.Tensor:
    """Of the rows that one band sees, zeros included."""
    return _load_spread(cut.seen, cut.shape[3], kernel, stride, 0, padding)


@lru_cache(maxsize=64)
def _load_spread(
    height: int, width: int, kernel: int, stride: int, padding: int | str, side_padding: int | str
) -> paddle.Tensor:
    """Zeros and ones (kernel^2, inputs, outputs): kernels times it are their matrices.

    Args:
        height, width: of the inputs.
        padding, side_padding: above and below them; left and right of them.
    """
    rows = _make_places(height, kernel, stride, padding)
    columns = _make_places(width, kernel, stride, side_padding)
    spread = np.einsum("iyp,jxq->ijyxpq", rows, columns)
    return paddle.to_tensor(spread.reshape(kernel * kernel, height * width, -1))


def _make_places(
    side: int, kernel: int, stride: int, padding: int | str
) -> npt.NDArray[np.float32]:
    """(kernel, inputs, outputs): 1 where an output sees an input through that place of the kernel."""
    outputs, before = span(side, kernel, stride, padding)
    place, seen, output = np.ogrid[:kernel, :side, :outputs]
    places: npt.NDArray[np.float32] = (seen == output * stride + place - before).astype(np.float32)
    return places
