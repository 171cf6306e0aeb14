"""The convolutions that train by matrix products give what Paddle's own give."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from podium.models import depthwise, efficientnet_lite
from podium.models.convolutions import (
    ChannelMajor,
    DepthwiseConv2D,
    TinyMapConv2D,
    make_convolutions_fast,
)
from podium.models.networks import build_network


def _run(conv: nn.Layer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs, and what a loss that weighs them differently says to input and weights."""
    inputs = paddle.to_tensor(x, stop_gradient=False)
    outputs = conv(inputs)
    weighing = paddle.arange(outputs.size, dtype="float32").reshape(outputs.shape).cos()
    (outputs * weighing).sum().backward()
    return outputs.numpy(), inputs.grad.numpy(), conv.weight.grad.numpy()


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", 0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 6, 5, 8), (1, 3, 16, 16), (3, 4, 13, 9), (2, 3, 21, 20)])
def test_outputs_and_gradients_are_those_of_paddles_convolution(kernel, stride, padding, shape):
    """Also for sides that the stride does not divide, and for maps that are not square."""
    paddle.seed(0)
    channels = shape[1]
    ours = DepthwiseConv2D(channels, kernel, stride, padding)
    theirs = nn.Conv2D(
        channels, channels, kernel, stride, padding, groups=channels, bias_attr=False
    )
    theirs.weight.set_value(ours.weight)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    for mine, expected in zip(_run(ours, x), _run(theirs, x), strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-5)


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_tiny_map_gives_what_paddles_convolution_gives(kernel, stride, padding):
    """Outputs, and the gradients of inputs and weights."""
    paddle.seed(0)
    ours = TinyMapConv2D(4, 6, kernel, stride, padding, bias_attr=False)
    theirs = nn.Conv2D(4, 6, kernel, stride, padding, bias_attr=False)
    theirs.weight.set_value(ours.weight)
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 5)).astype(np.float32)

    for mine, expected in zip(_run(ours, x), _run(theirs, x), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


def test_small_maps_do_not_go_through_paddles_convolution(monkeypatch):
    """Else it would be as slow as before; large maps do, their matrices would be mostly zeros."""
    calls = []
    monkeypatch.setattr(nn.Conv2D, "forward", lambda self, x: calls.append(tuple(x.shape)) or x)
    for conv in (DepthwiseConv2D(4, 3), TinyMapConv2D(4, 4, 3, padding=1, bias_attr=False)):
        for side in (3, 48):
            conv(paddle.zeros([1, 4, side, side]))

    assert calls == [(1, 4, 48, 48)] * 2


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "resnet18"]
)
def test_a_zoo_net_keeps_its_weights_names_and_outputs(name):
    """All convolutions of more than one tap are replaced; a checkpoint of the old net still fits."""
    paddle.seed(0)
    plain = getattr(paddle.vision.models, name)(num_classes=0, with_pool=True)
    network = build_network(name, False, 3, 0.0)
    fast = network.trunk.model
    assert list(plain.state_dict()) == list(fast.state_dict())
    fast.set_state_dict(plain.state_dict())
    x = paddle.randn([2, 3, 64, 64])
    plain.eval(), fast.eval()

    np.testing.assert_allclose(fast(x).numpy(), plain(x).numpy(), atol=1e-4)
    left = [
        layer
        for layer in fast.sublayers()
        if type(layer) is nn.Conv2D and (layer._groups > 1 or layer._kernel_size[0] > 1)
    ]
    assert not left


def test_convolutions_that_it_cannot_stand_for_are_left_alone():
    """A bias, dilation, several kernels per channel; a single tap, which needs no help."""
    left = [
        nn.Conv2D(4, 4, 3, groups=4),
        nn.Conv2D(4, 4, 3, groups=4, dilation=2, bias_attr=False),
        nn.Conv2D(4, 8, 3, groups=4, bias_attr=False),
        nn.Conv2D(4, 4, (1, 3), groups=4, bias_attr=False),
        nn.Conv2D(4, 4, 1, bias_attr=False),
        nn.Conv2D(4, 4, 3, padding="SAME", bias_attr=False),
    ]
    network = nn.Sequential(*left)

    make_convolutions_fast(network)

    assert list(network.children()) == left


@pytest.mark.parametrize("side", [8, 20])
def test_the_matrix_of_a_kernel_is_built_once_per_shape(side):
    """Not in every step."""
    depthwise._load_spread.cache_clear()
    conv = DepthwiseConv2D(4, 3)
    for _ in range(3):
        conv(paddle.zeros([1, 4, side, side]))

    assert depthwise._load_spread.cache_info().misses == 1


def test_a_band_is_a_small_matrix():
    """That of the whole map has 400 x 400 entries."""
    depthwise._load_spread.cache_clear()
    spreads = []
    load = depthwise._load_spread
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            depthwise, "_load_spread", lambda *shape: spreads.append(load(*shape)) or spreads[-1]
        )
        DepthwiseConv2D(4, 3)(paddle.zeros([1, 4, 20, 20]))

    assert [spread.shape for spread in spreads] == [[9, 4 * 20, 2 * 20]]


def test_other_numbers_than_float32_are_left_to_paddle():
    """Not cast in silence."""
    conv = DepthwiseConv2D(4, 3)
    for side in (6, 20):
        with pytest.raises(ValueError):
            conv(paddle.zeros([1, 4, side, side], "float64"))


@pytest.mark.parametrize("learns", ["input", "weight"])
def test_a_gradient_that_nobody_wants_is_not_missed(learns):
    """Frozen weights; pictures."""
    conv = DepthwiseConv2D(4, 3)
    conv.weight.stop_gradient = learns == "input"
    x = paddle.randn([2, 4, 20, 20])
    x.stop_gradient = learns == "weight"
    conv(x).sum().backward()

    assert (x.grad is None) == (learns == "weight")
    assert (conv.weight.grad is None) == (learns == "input")


def _step(trunk: nn.Layer, x: paddle.Tensor) -> dict[str, np.ndarray]:
    """Outputs, gradients of all weights, and the running statistics of one training pass."""
    trunk.train()
    outputs = trunk(x)
    weighing = paddle.arange(outputs.size, dtype="float32").reshape(outputs.shape).cos()
    (outputs * weighing).sum().backward()
    found = {"outputs": outputs.numpy()}
    for name, parameter in trunk.named_parameters():  # Paddle counts running statistics among them
        learns = not parameter.stop_gradient
        found[name] = parameter.grad.numpy() if learns else parameter.numpy()
    trunk.clear_gradients()
    return found


def test_maps_that_lie_by_channel_teach_the_same(monkeypatch):
    """From where they are small, a Lite net's blocks work on (C, N, H, W)."""
    paddle.seed(0)
    trunk = build_network("efficientnet_lite0", True, 3, 0.0).trunk
    for layer in (trunk, *trunk.blocks):
        layer.act = nn.Identity()  # at ReLU6's kinks the last digit decides about a gradient
    before = {name: tensor.numpy() for name, tensor in trunk.state_dict().items()}
    x = paddle.randn([4, 3, 64, 64])
    shapes = []
    normalise = ChannelMajor.normalise
    monkeypatch.setattr(
        ChannelMajor,
        "normalise",
        staticmethod(lambda norm, maps: shapes.append(tuple(maps.shape)) or normalise(norm, maps)),
    )
    by_channel = _step(trunk, x)
    assert shapes[0] == (32, 4, 32, 32)
    assert shapes[-1] == (1280, 4, 2, 2)
    trunk.set_state_dict(before)
    monkeypatch.setattr(efficientnet_lite, "lie_better_by_channel", lambda *_: False)
    by_image = _step(trunk, x)

    for name, expected in by_image.items():
        scale = max(np.abs(expected).max(), 1.0)  # some gradients are sums that ought to be 0
        np.testing.assert_allclose(by_channel[name], expected, atol=2e-3 * scale, err_msg=name)


def test_who_looks_at_a_layer_sees_maps_as_usual():
    """Hooks count work, and put int8's errors in."""
    trunk = build_network("efficientnet_lite0", True, 3, 0.0).trunk
    trunk.eval()
    seen = []
    conv = trunk.blocks[9].project_conv
    hook = conv.register_forward_post_hook(lambda _, inputs, outputs: seen.append(outputs.shape))
    x = paddle.randn([2, 3, 64, 64])
    with paddle.no_grad():
        watched = trunk(x)
        hook.remove()
        unwatched = trunk(x)

    assert seen == [[2, 112, 4, 4]]
    np.testing.assert_allclose(watched.numpy(), unwatched.numpy(), atol=1e-4)
