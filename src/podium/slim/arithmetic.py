"""How large a net is before it is a file: parameters, and multiply-accumulates per image."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn


def count_parameters(network: nn.Layer) -> int:
    """Numbers in all parameters and buffers: what a float32 file stores four bytes each of."""
    return sum(math.prod(tensor.shape) for tensor in network.state_dict().values())


def count_macs(network: nn.Layer, image_size_px: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image.

    Twice this number is what is often called FLOPs. Biases, normalisation and activations are left
    out, as PaddleSlim's and most papers' counts leave them out.
    """
    total = 0

    def add(layer: nn.Layer, _: Any, output: paddle.Tensor) -> None:
        nonlocal total
        # A convolution's weight is (out, in / groups, k, k), a linear layer's (in, out).
        per_output = math.prod(layer.weight.shape) // output.shape[1]
        total += math.prod(output.shape) * per_output

    hooks = [
        layer.register_forward_post_hook(add)
        for layer in network.sublayers(include_self=True)
        if isinstance(layer, nn.Conv2D | nn.Linear)
    ]
    was_training = network.training
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.zeros([1, 3, image_size_px, image_size_px]))
    finally:
        for hook in hooks:
            hook.remove()
        if was_training:
            network.train()
    return total
