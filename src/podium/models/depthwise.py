"""Depthwise convolution that trains fast on a CPU.

Paddle's own takes two thirds of a training step of a mobile net, for a twentieth of its arithmetic.
On a small map a depthwise convolution is, for each channel, a product with a matrix that repeats the
kernel's weights along its diagonals (Toeplitz: Dumoulin & Visin, arXiv:1603.07285, section 4.1), and
batched matrix products are what the math library does best. The same sums in another order.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

# On larger maps the matrix, whose size is the square of the map's, is mostly zeros.
_MOST_POSITIONS = 16 * 16


class DepthwiseConv2D(nn.Conv2D):
    """`nn.Conv2D` with one kernel per channel, square: the same parameters, the same export.

    Small maps on a CPU are multiplied by the kernel's matrix; all else is left to Paddle, as is what
    is exported for the inference engine.
    """

    def __init__(
        self, channels: int, kernel: int, stride: int = 1, padding: int | str = "SAME"
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel,
            stride=stride,
            padding=padding,
            groups=channels,
            bias_attr=False,
        )
        self._kernel, self._step, self._pad = kernel, stride, padding

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """float32 (N, C, H, W) -> (N, C, H', W')."""
        if not paddle.in_dynamic_mode() or not x.place.is_cpu_place():
            return super().forward(x)
        batch, channels, height, width = x.shape
        if height * width > _MOST_POSITIONS:
            return super().forward(x)
        spread = _load_spread(height, width, self._kernel, self._step, self._pad)
        kernels = self.weight.reshape([channels, -1])
        matrices = paddle.matmul(kernels, spread).reshape([channels, height * width, -1])
        maps = x.reshape([batch, channels, -1]).transpose([1, 0, 2])
        result = paddle.matmul(maps, matrices).transpose([1, 0, 2])
        outputs = [_span(side, self._kernel, self._step, self._pad)[0] for side in (height, width)]
        return result.reshape([batch, channels, *outputs])


def make_depthwise_fast(network: nn.Layer) -> None:
    """Put `DepthwiseConv2D` in the place of a network's depthwise convolutions that it can stand
    for (square, without bias); weights and their names stay."""
    for parent in network.sublayers(include_self=True):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2D and _is_depthwise(child):
                fast = DepthwiseConv2D(
                    child._in_channels, child._kernel_size[0], child._stride[0], child._padding
                )
                fast.weight = child.weight
                setattr(parent, name, fast)


def _is_depthwise(conv: nn.Conv2D) -> bool:
    return (
        conv._groups == conv._in_channels == conv._out_channels > 1
        and conv.bias is None
        and len(set(conv._kernel_size)) == len(set(conv._stride)) == 1
        and conv._dilation == [1, 1]
        and isinstance(conv._padding, int)
        and conv._padding_mode == "zeros"
    )


def _span(side: int, kernel: int, stride: int, padding: int | str) -> tuple[int, int]:
    """Along one side: how many outputs, and how many zeros before the first input."""
    if padding == "SAME":
        outputs = -(-side // stride)
        return outputs, max((outputs - 1) * stride + kernel - side, 0) // 2
    before = int(padding)
    return (side + 2 * before - kernel) // stride + 1, before


def _make_places(
    side: int, kernel: int, stride: int, padding: int | str
) -> npt.NDArray[np.float32]:
    """(kernel, inputs, outputs): 1 where an output sees an input through that place of the kernel."""
    outputs, before = _span(side, kernel, stride, padding)
    place, seen, output = np.ogrid[:kernel, :side, :outputs]
    places: npt.NDArray[np.float32] = (seen == output * stride + place - before).astype(np.float32)
    return places


@lru_cache(maxsize=64)
def _load_spread(
    height: int, width: int, kernel: int, stride: int, padding: int | str
) -> paddle.Tensor:
    """Zeros and ones (kernel^2, inputs x outputs): kernels times it are their matrices."""
    rows = _make_places(height, kernel, stride, padding)
    columns = _make_places(width, kernel, stride, padding)
    spread = np.einsum("iyp,jxq->ijyxpq", rows, columns)
    return paddle.to_tensor(spread.reshape(kernel * kernel, -1))
