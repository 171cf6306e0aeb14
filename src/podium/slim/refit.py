"""What the inputs that are cut off said, said by those that stay: new weights, without training.

In: a net and training images. Out: for each 1 x 1 convolution and linear layer, how its inputs go
together; from that, the weights of fewer inputs whose outputs come nearest, by least squares, to those
of all (He, Zhang and Sun, ICCV 2017, arXiv:1707.06168, sec. 3.1, closed form). Nearly all inputs that
a filter's cut takes from somebody are inputs of such layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

# Name of a weight -> mean products of its layer's inputs, float64 (d, d).
InputProducts = Mapping[str, npt.NDArray[np.float64]]
NO_PRODUCTS: InputProducts = {}

# Neighbouring places of a map say nearly the same.
_PLACES = 25
# Added to the diagonal, of its mean: few images do not span all directions.
_DAMPING = 1e-4


def input_axis(layer: nn.Layer) -> int | None:
    """The axis of a layer's weight that its inputs lie along; None where this module cannot help."""
    if isinstance(layer, nn.Linear):
        return 0
    is_pointwise = isinstance(layer, nn.Conv2D) and tuple(layer.weight.shape[1:]) == (
        layer._in_channels,
        1,
        1,
    )
    return 1 if is_pointwise else None


def measure_products(
    network: nn.Layer, batches: Iterable[npt.NDArray[np.float32]]
) -> InputProducts:
    """Run preprocessed training images, (n, 3, H, W) each batch, through a net in evaluation mode."""
    from threadpoolctl import threadpool_limits

    seen: dict[str, npt.NDArray[np.float32]] = {}
    totals: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}

    def note(_: nn.Layer, given: Any, weight: str) -> None:
        seen[weight] = _as_rows(given[0].numpy())

    hooks = [
        layer.register_forward_pre_hook(partial(note, weight=f"{name}.weight"))
        for name, layer in network.named_sublayers()
        if input_axis(layer) is not None
    ]
    for batch in batches:
        with paddle.no_grad():
            network(paddle.to_tensor(batch))
        # The order of sums, and so the last bits, follows threads.
        with threadpool_limits(limits=1):
            for weight, rows in seen.items():
                totals[weight] = totals.get(weight, 0.0) + (rows.T @ rows).astype(np.float64)
                counts[weight] = counts.get(weight, 0) + len(rows)
    for hook in hooks:
        hook.remove()
    return {weight: total / counts[weight] for weight, total in totals.items()}


def refit(
    weight: npt.NDArray[np.float32],
    axis: int,
    kept: npt.NDArray[np.bool_],
    products: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """A weight that does without some of its inputs.

    Args:
        weight: of all inputs.
        axis: along which they lie.
        kept: which of them stay, (d,); at least one.
        products: mean products of the inputs, (d, d).

    Returns:
        the same shape; what stands at inputs that go is 0.
    """
    from threadpoolctl import threadpool_limits

    by_input = np.moveaxis(weight, axis, 0).astype(np.float64)
    flat = by_input.reshape(len(by_input), -1)
    among = products[np.ix_(kept, kept)]
    damped = among + np.eye(len(among)) * (_DAMPING * among.trace() / len(among) + 1e-12)
    made = np.zeros_like(flat)
    with threadpool_limits(limits=1):
        said = products[np.ix_(kept, ~kept)] @ flat[~kept]
        made[kept] = flat[kept] + np.linalg.solve(damped, said)
    return np.moveaxis(made.reshape(by_input.shape), 0, axis).astype(np.float32)


def _as_rows(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, d) or (n, d, h, w) -> rows of d inputs, of at most `_PLACES` places of each map."""
    if values.ndim == 2:
        return values
    places = values.reshape(*values.shape[:2], -1)
    chosen = np.unique(np.linspace(0, places.shape[2] - 1, _PLACES).astype(np.int64))
    return places[:, :, chosen].transpose(0, 2, 1).reshape(-1, values.shape[1])
