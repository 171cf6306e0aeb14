"""Quantisation-aware training: the net learns with the errors that int8 will make.

In: a float32 net and its parent. Out: a float32 net which, made int8, answers more like the parent than
one that was only calibrated (Jacob et al., arXiv:1712.05877, with straight-through gradients: Bengio
et al., arXiv:1308.3432).

The errors are put in by hooks around convolutions and linear layers, as `quantize_static` will make
them: one scale per output channel for weights, one range per layer for inputs. So the net keeps its
layers and names, and what has learned is calibrated and written as any other net: the same program,
the same int8 kernels, the same bytes every time. docs/compression_nets.md says why PaddleSlim's own
QAT is not used.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddle import nn

from podium.data.image_cache import Images
from podium.engine.weights import load_state, read_state
from podium.models.networks import LowerTrunk, Network, UpperNetwork
from podium.runtime import derive_seed
from podium.slim.calibration import Tail
from podium.slim.distillation import Schooling, keep_statistics, load_lesson, teach
from podium.slim.params import QatParams
from podium.slim.parent import Parent
from podium.slim.quantization import CALIBRATION_BATCH, check_calibration

_LEVELS = 127
# The first layers see int8's errors but do not learn: they run once per view, and what they make
# wrong the others learn to put right.
_FIXED_SHARE = 1 / 3
_LR = 1e-4
_QUANTIZED = (nn.Conv2D, nn.Linear)
# The histogram of Paddle's calibration has as many bins; see podium.slim.calibration.
_BINS = 2048
_QUANTILE = 1 - 1e-4

Ranges = dict[str, float]


def teach_int8(
    parent: Parent, network: Network, params: QatParams, calibration_images: int
) -> Network:
    """Teach a copy of `network` the parent's answers under int8's errors.

    Args:
        parent: gives images and answers.
        network: float32, in evaluation mode: the parent's own or a variant's; stays as it is.
        params: `compress.qat`.
        calibration_images: how many training images the ranges are read from.

    Returns:
        the same net with other weights: still float32, in evaluation mode, and ready for any static
        quantisation.

    Raises:
        PodiumError: the training list has too few images to read ranges from.
    """
    images = draw_images(parent, calibration_images)
    check_calibration(len(images))
    ranges = measure_ranges(network, images, parent)
    depth = network.trunk.depth
    begin = round(depth * _FIXED_SHARE)

    def build() -> Network:
        fresh = _copy(network)
        add_quantisation_errors(fresh, ranges)
        return fresh

    schooling = Schooling(params.passes, _LR, temperature=1.0, alpha=1.0, ema=0.0)
    trained = teach(
        load_lesson(parent),
        build,
        schooling,
        _fix(LowerTrunk(_copy(network).trunk, depth - begin), ranges) if begin else None,
        lambda net: UpperNetwork(net, depth - begin),
    )
    learned = _copy(network)
    load_state(learned, {**read_state(learned), **trained.state})
    learned.eval()
    return learned


def draw_images(parent: Parent, count: int) -> Images:
    """At most `count` different images of the training list, drawn by the seed."""
    rng = np.random.default_rng(derive_seed(parent.seed, "calibration"))
    drawn = dict.fromkeys(parent.train_rows[rng.permutation(len(parent.train_rows))].tolist())
    return parent.images[sorted(list(drawn)[:count])]


def measure_ranges(network: nn.Layer, images: Images, parent: Parent) -> Ranges:
    """Layer -> the largest magnitude of its inputs that int8 will tell apart: their 0.9999
    quantile over the images, as the calibration takes it."""
    full = len(images) - len(images) % CALIBRATION_BATCH
    tails: dict[str, Tail] = {}

    def note(_: nn.Layer, inputs: Any, name: str) -> None:
        values = np.abs(inputs[0].numpy()).ravel()
        if name not in tails:
            tails[name] = Tail(values.size * (full // CALIBRATION_BATCH))
        tails[name].add(values)

    hooks = [
        layer.register_forward_pre_hook(partial(note, name=name))
        for name, layer in network.named_sublayers()
        if isinstance(layer, _QUANTIZED)
    ]
    network.eval()
    with paddle.no_grad():
        for start in range(0, full, CALIBRATION_BATCH):
            batch = parent.preprocessing.apply(images[start : start + CALIBRATION_BATCH])
            network(paddle.to_tensor(batch))
    for hook in hooks:
        hook.remove()
    return {name: _range_of(tail) for name, tail in tails.items()}


def add_quantisation_errors(network: nn.Layer, ranges: Ranges) -> None:
    """Make convolutions and linear layers see inputs and weights as int8 would hold them.

    Gradients pass as if nothing were rounded; of inputs beyond their range none passes. Batch norm
    keeps the statistics that it has: the shipped net uses those.
    """
    for name, layer in network.named_sublayers():
        if name in ranges:
            layer.register_forward_pre_hook(partial(_quantise, limit=ranges[name]))
            layer.register_forward_post_hook(_restore)
    keep_statistics(network)


def _fix(lower: LowerTrunk, ranges: Ranges) -> LowerTrunk:
    """Layers that will not learn, with int8's errors for good."""
    for name, layer in lower.named_sublayers():
        if name in ranges:
            layer.weight.set_value(_round_weight(layer))
            layer.register_forward_pre_hook(partial(_snap_input, limit=ranges[name]))
    return lower


def _quantise(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], limit: float) -> Any:
    # An entry of its own hides the parameter from the layer's forward, until `_restore`.
    layer.__dict__["weight"] = _round_weight(layer)
    return _round_input(layer, inputs, limit)


def _round_weight(layer: nn.Layer) -> paddle.Tensor:
    weight = layer._parameters["weight"]
    # Output channels stand first in a convolution's weight, last in a linear layer's.
    axes = [0] if isinstance(layer, nn.Linear) else [1, 2, 3]
    scale = paddle.clip(weight.detach().abs().max(axis=axes, keepdim=True), min=1e-8) / _LEVELS
    return _round(weight, scale)


def _round_input(_: nn.Layer, inputs: tuple[paddle.Tensor, ...], limit: float) -> Any:
    step = max(limit, 1e-8) / _LEVELS
    return (_round(paddle.clip(inputs[0], -limit, limit), step), *inputs[1:])


def _snap_input(_: nn.Layer, inputs: tuple[paddle.Tensor, ...], limit: float) -> Any:
    """`_round_input` where nothing learns: it can be exported."""
    step = max(limit, 1e-8) / _LEVELS
    return (_snap(paddle.clip(inputs[0], -limit, limit), step), *inputs[1:])


def _restore(layer: nn.Layer, _: Any, __: Any) -> None:
    del layer.__dict__["weight"]


def _round(values: paddle.Tensor, step: Any) -> paddle.Tensor:
    """To whole steps; for gradients as if it had not been done."""
    return values + (_snap(values, step) - values).detach()


def _snap(values: paddle.Tensor, step: Any) -> paddle.Tensor:
    """To whole steps, of which there are 127 on either side. By way of integers, which cut off what
    is behind the point: Paddle's `round` cannot be exported in the old format."""
    whole = paddle.cast(values / step + (_LEVELS + 1.5), "int32")
    return (paddle.cast(whole, "float32") - (_LEVELS + 1)) * step


def _range_of(tail: Tail) -> float:
    counts, edges = tail.histogram(_BINS)
    place = int(np.searchsorted(np.cumsum(counts), _QUANTILE * counts.sum()))
    return float(edges[min(place, _BINS - 1) + 1])


def _copy(network: Network) -> Network:
    """A copy that shares nothing. An export leaves a forward of its own in the layer: not copied."""
    own = network.__dict__.pop("forward", None)
    try:
        copied: Network = copy.deepcopy(network)
    finally:
        if own is not None:
            network.__dict__["forward"] = own
    return copied
