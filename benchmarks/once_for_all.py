"""What PaddleSlim's once-for-all supernets do with MobileNet-type nets here.

In: EfficientNet-Lite0 with ImageNet weights and MobileNetV2 at random, random pictures of 64 px. Out:
lines on stdout: does the widest net of the supernet answer as the net that it was made from; is a
narrower net, once exported, what it was inside; what does a training step cost beside one of the
plain net. docs/compression_nets.md has what came out.

    python benchmarks/once_for_all.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import nn

from podium.models.networks import build_network
from podium.slim.arithmetic import count_parameters
from podium.slim.paddleslim_compat import ATTRIBUTES, paddleslim_works

NETS = {"efficientnet_lite0": True, "mobilenet_v2": False}
SIZE, BATCH, STEPS = 64, 8, 6


def make_plain(network: nn.Layer) -> None:
    """Podium's fast convolutions back to Paddle's own class, the only one that is converted."""
    for parent in network.sublayers(include_self=True):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2D) and type(child) is not nn.Conv2D:
                conv = nn.Conv2D(
                    child._in_channels,
                    child._out_channels,
                    child._kernel_size[0],
                    stride=child._stride[0],
                    padding=child._padding,
                    groups=child._groups,
                    bias_attr=False,
                )
                conv.weight.set_value(child.weight)
                setattr(parent, name, conv)


def answer(network: Callable[..., Any], inputs: paddle.Tensor) -> Any:
    """A net's outputs; a supernet gives them first of several."""
    outputs = network(inputs)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def time_steps(network: nn.Layer, inputs: paddle.Tensor, targets: paddle.Tensor) -> float:
    """CPU seconds of a training step, the first one left out."""
    network.train()
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=network.parameters())
    start = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            start = time.process_time()
        loss = nn.functional.cross_entropy(answer(network, inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    return (time.process_time() - start) / STEPS


def measure(name: str, pretrained: bool) -> None:
    """Print what one net does."""
    from paddleslim.nas.ofa import OFA, RunConfig
    from paddleslim.nas.ofa.convert_super import Convert, supernet
    from paddleslim.nas.ofa.utils import set_state_dict

    paddle.seed(0)
    rng = np.random.default_rng(0)
    inputs = paddle.to_tensor(rng.normal(size=(BATCH, 3, SIZE, SIZE)).astype("float32"))
    targets = paddle.to_tensor(np.arange(BATCH) % 4)
    network = build_network(name, pretrained, 4, 0.0)
    make_plain(network)
    network.eval()
    with paddle.no_grad():
        before = answer(network, inputs).numpy()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    plain_s = time_steps(network, inputs, targets)
    converted = Convert(supernet(expand_ratio=[0.5, 1.0])).convert(network)
    how = RunConfig(
        train_batch_size=BATCH,
        n_epochs=[[1]],
        init_learning_rate=[[1e-3]],
        total_images=BATCH,
        elastic_depth=None,
        dynamic_batch_size=[[1]],
    )
    whole = OFA(converted, how)
    set_state_dict(converted, state)
    whole.eval()
    with paddle.pir_utils.OldIrGuard():  # its first call traces the graph
        paddle.disable_static()
        with paddle.no_grad():
            answer(whole, inputs)
    paddle.disable_static()
    layers = list(whole.current_config)
    whole.set_net_config({layer: {"expand_ratio": 1.0} for layer in layers})
    with paddle.no_grad():
        widest = answer(whole, inputs).numpy()
    whole.net_config = None  # from here on a random net at each step
    whole.set_epoch(0)
    whole.set_task("expand_ratio")
    super_s = time_steps(whole, inputs, targets)
    half = {layer: {"expand_ratio": 0.5} for layer in layers}
    whole.eval()
    whole.set_net_config(half)
    with paddle.no_grad():
        inside = answer(whole, inputs).numpy()
    count = count_parameters(converted)
    exported = whole.export(half, [1, 3, SIZE, SIZE], ["float32"])
    exported.eval()
    with paddle.no_grad():
        outside = answer(exported, inputs).numpy()
    print(
        f"{name}: {len(layers)} elastic layers; widest - trained: {np.abs(widest - before).max():.2g} "
        f"of {np.abs(before).max():.2g}; half as wide: {count:,} -> {count_parameters(exported):,} "
        f"parameters, exported - inside: {np.abs(outside - inside).max():.2g}; CPU s a step: "
        f"{super_s:.2f}, plain {plain_s:.2f}",
        flush=True,
    )


def main() -> None:
    """All nets."""
    with paddleslim_works():
        pass  # only the import; what follows builds nets, which cannot be done in the old IR
    for owner, name, value in ATTRIBUTES:
        setattr(owner, name, value)
    paddle.disable_static()
    for name, pretrained in NETS.items():
        measure(name, pretrained)


if __name__ == "__main__":
    main()
