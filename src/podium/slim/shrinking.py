"""Networks with fewer channels than their architecture says: rebuilt from a card and a state.

In: a model card and arrays by name, some of them smaller. Out: a network whose layers have the
arrays' shapes. So a pruned net is, like any other, a card and a state.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from podium.engine.weights import State, load_state
from podium.models.networks import Network, build_network

BATCH_NORMS = (nn.layer.norm._BatchNormBase, nn.BatchNorm)


def build_shrunk(card: dict[str, Any], state: State) -> Network:
    """The card's architecture with the channels that `state` has, and its weights.

    Returns:
        the network in training mode, dropout as the card says.

    Raises:
        PodiumError: a name of the state is not the architecture's, or one is missing.
    """
    architecture = card["architecture"]
    network = build_network(
        architecture["name"],
        pretrained=False,
        outputs=int(architecture["outputs"]),
        dropout=float(architecture["dropout"]),
    )
    for path, layer in network.named_sublayers(include_self=True):
        _fit_shapes(layer, path, state)
    load_state(network, state)
    return network


def _fit_shapes(layer: nn.Layer, path: str, state: State) -> None:
    """Give a layer tensors of the state's shapes, and the numbers that follow from them."""
    has_changed = False
    for name, parameter in list(layer._parameters.items()):
        wanted = state.get(f"{path}.{name}" if path else name)
        if parameter is None or wanted is None or list(wanted.shape) == list(parameter.shape):
            continue
        fresh = layer.create_parameter(list(wanted.shape), dtype="float32")
        fresh.stop_gradient, fresh.trainable = parameter.stop_gradient, parameter.trainable
        layer._parameters[name] = fresh
        has_changed = True
    for name, buffer in list(layer._buffers.items()):
        wanted = state.get(f"{path}.{name}" if path else name)
        if wanted is not None and list(wanted.shape) != list(buffer.shape):
            layer._buffers[name] = paddle.zeros(list(wanted.shape), dtype="float32")
            has_changed = True
    if not has_changed:
        return
    if isinstance(layer, nn.Conv2D):
        outputs, per_group = layer.weight.shape[:2]
        if layer._groups > 1:  # depthwise: a group per channel
            layer._groups = outputs // per_group
        layer._in_channels, layer._out_channels = per_group * layer._groups, outputs
    elif isinstance(layer, BATCH_NORMS):
        layer._num_features = layer.weight.shape[0]
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = layer.weight.shape
