"""Convolutions that train fast on a CPU: Paddle's own parameters, names and exports.

Two thirds of a mobile net's training step are Paddle's depthwise kernels, for a twentieth of its
arithmetic; and where maps are tiny, its dense kernels multiply image by image, nine columns at a
time. Batched matrix products are what the math library does best, so both become that:

- depthwise, on all but large maps: for each channel a product with its own matrix (see
  `podium.models.depthwise`);
- dense, on tiny maps: one product for the whole batch (im2col: Chellapilla et al., 2006).

The same sums in another order. docs/training.md has the figures.

Between such products lies nothing but a change of order: images of channels there, channels of images
here. `ChannelMajor` has a whole block's layers on maps that lie channel by channel, (C, N, H, W), where
pointwise convolutions are one product each, too, and batch norm reads long rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import paddle
from paddle import nn
from paddle.nn import functional

from podium.models.depthwise import convolve_depthwise, span

# On larger maps Paddle's depthwise kernels are as fast: the matrices are mostly zeros.
_MOST_POSITIONS = 40 * 40
# Of the output of a dense convolution; with more columns per image Paddle's kernels are as fast.
_MOST_COLUMNS = 9


class DepthwiseConv2D(nn.Conv2D):
    """`nn.Conv2D` with one kernel per channel, square: the same parameters, the same export.

    All but large maps are multiplied by matrices on a CPU; all else is left to Paddle.
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
        self._step, self._pad = stride, padding

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """float32 (N, C, H, W) -> (N, C, H', W')."""
        if not _is_ours(x) or not _is_small(x):
            return super().forward(x)
        return self.multiply(x.transpose([1, 0, 2, 3])).transpose([1, 0, 2, 3])

    def multiply(self, x: paddle.Tensor) -> paddle.Tensor:
        """The same of small maps in another order: (C, N, H, W) -> (C, N, H', W')."""
        return convolve_depthwise(x, self.weight, self._step, self._pad)


class TinyMapConv2D(nn.Conv2D):
    """`nn.Conv2D`, dense and square, that takes a whole batch of tiny maps as one product."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """float32 (N, C, H, W) -> (N, O, H', W')."""
        kernel, stride, padding = self._kernel_size[0], self._stride[0], self._padding
        height, width = (span(side, kernel, stride, padding)[0] for side in x.shape[2:])
        if not _is_ours(x) or height * width > _MOST_COLUMNS:
            return super().forward(x)
        batch, outputs = x.shape[0], self.weight.shape[0]
        columns = functional.unfold(x, kernel, stride, padding).transpose([1, 0, 2])
        columns = columns.reshape([columns.shape[0], -1])
        result = paddle.matmul(self.weight.reshape([outputs, -1]), columns)
        return result.reshape([outputs, batch, height, width]).transpose([1, 0, 2, 3])


class ImageMajor:
    """What a block's layers do with maps that lie as everywhere, (N, C, H, W): what they are."""

    @staticmethod
    def pointwise(conv: nn.Conv2D, x: paddle.Tensor) -> paddle.Tensor:
        """A dense convolution of 1 x 1, without bias."""
        return conv(x)

    @staticmethod
    def depthwise(conv: DepthwiseConv2D, x: paddle.Tensor) -> paddle.Tensor:
        """A kernel per channel."""
        return conv(x)

    @staticmethod
    def normalise(norm: nn.BatchNorm2D, x: paddle.Tensor) -> paddle.Tensor:
        """Per channel."""
        return norm(x)


class ChannelMajor(ImageMajor):
    """The same with maps (C, N, H, W), where `lie_better_by_channel` says so."""

    @staticmethod
    def pointwise(conv: nn.Conv2D, x: paddle.Tensor) -> paddle.Tensor:
        """One product for the whole batch."""
        weight = conv.weight.flatten(1)
        return paddle.matmul(weight, x.flatten(1)).reshape([weight.shape[0], *x.shape[1:]])

    @staticmethod
    def depthwise(conv: DepthwiseConv2D, x: paddle.Tensor) -> paddle.Tensor:
        """One product per channel."""
        return conv.multiply(x)

    @staticmethod
    def normalise(norm: nn.BatchNorm2D, x: paddle.Tensor) -> paddle.Tensor:
        """As one image, whose rows are those of all."""
        channels, batch, height, width = x.shape
        return norm(x.reshape([1, channels, batch * height, width])).reshape(x.shape)


def lie_better_by_channel(x: paddle.Tensor, layers: Iterable[nn.Layer]) -> bool:
    """Whether `layers`, of convolutions and the like, are faster on (N, C, H, W) as `ChannelMajor`.

    Not while a hook looks at one of them: it would not be called, or see maps it does not expect.
    """
    return (
        _is_ours(x)
        and _is_small(x)
        and not any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)
    )


def make_convolutions_fast(network: nn.Layer) -> None:
    """Put these classes in the place of a network's convolutions that they can stand for (square,
    without bias); weights and their names stay."""
    for parent in network.sublayers(include_self=True):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2D and _is_plain(child):
                fast = _stand_in(child)
                if fast is not None:
                    fast.weight = child.weight
                    setattr(parent, name, fast)


def _stand_in(conv: nn.Conv2D) -> nn.Conv2D | None:
    inputs, outputs, kernel = conv._in_channels, conv._out_channels, conv._kernel_size[0]
    stride, padding = conv._stride[0], conv._padding
    if conv._groups == inputs == outputs > 1:
        return DepthwiseConv2D(inputs, kernel, stride, padding)
    if conv._groups == 1 and kernel > 1:
        return TinyMapConv2D(inputs, outputs, kernel, stride, padding, bias_attr=False)
    return None


def _is_plain(conv: nn.Conv2D) -> bool:
    return (
        conv.bias is None
        and len(set(conv._kernel_size)) == len(set(conv._stride)) == 1
        and conv._dilation == [1, 1]
        and isinstance(conv._padding, int)
        and conv._padding_mode == "zeros"
    )


def _is_small(x: paddle.Tensor) -> bool:
    """(..., H, W)."""
    return bool(x.shape[-2] * x.shape[-1] <= _MOST_POSITIONS)


def _is_ours(x: paddle.Tensor) -> bool:
    """float32 on a CPU, and not exported for the inference engine, which has kernels of its own."""
    on_cpu = paddle.in_dynamic_mode() and x.place.is_cpu_place()
    return bool(on_cpu and x.dtype == paddle.float32)
