"""Filter pruning: channels that say least are cut out, and the rest learns to do without them.

In: a trained net. Out: the same net with fewer channels. PaddleSlim chooses the filters (L1 norm:
Li et al., arXiv:1608.08710; FPGM, geometric median: He et al., arXiv:1811.00250) and knows from the
net's graph which layers go together; the cut itself is made on the arrays, layers that read the cut
channels are refitted to those that stay (`podium.slim.refit`), and the narrow net is built anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.engine.weights import State, read_state
from podium.errors import PodiumError
from podium.models.networks import Network
from podium.progress import track
from podium.slim.paddleslim_compat import paddleslim_works
from podium.slim.refit import NO_PRODUCTS, InputProducts, input_axis, refit

# Of the filters of one layer, that the sensitivity analysis tries to do without.
SENSITIVITY_RATIOS = (0.2, 0.4, 0.6, 0.8)
# Kernels work on vectors of 8 or 16 channels: what is left is a multiple of this where it can be.
_ALIGN = 8
_STEPS = 30

Ratios = dict[str, float]
Masks = list[tuple[str, int, npt.NDArray[np.bool_]]]


@dataclass(frozen=True)
class Cut:
    """A net's arrays with fewer channels.

    Attributes:
        state: all of them.
        ratios: layer -> the share of its filters that went.
        macs: multiply-accumulates per image that are left.
    """

    state: State
    ratios: Ratios
    macs: int


class FilterCutter:
    """Chooses and cuts filters of one net.

    Args:
        network: a trained net; stays as it is.
        method: l1 | fpgm.
        image_size_px: side of its input.
        products: of the net; layers that are not in it keep the weights of the inputs that stay.

    Attributes:
        macs: multiply-accumulates of the net per image.

    Raises:
        PodiumError: no layer of the net can be pruned.
    """

    def __init__(
        self,
        network: Network,
        method: str,
        image_size_px: int,
        products: InputProducts = NO_PRODUCTS,
    ) -> None:
        self._network = network
        self._products = products
        self._input_axes = {
            f"{name}.weight": input_axis(layer) for name, layer in network.named_sublayers()
        }
        self._state = read_state(network)
        self._names = {tensor.name: name for name, tensor in network.state_dict().items()}
        was_training = network.training
        network.eval()
        with paddleslim_works() as paddleslim:
            pruners = {
                "l1": paddleslim.dygraph.L1NormFilterPruner,
                "fpgm": paddleslim.dygraph.FPGMFilterPruner,
            }
            # No convolution is left out: what follows the last one is pooled, and head's inputs
            # are cut with it.
            shape = [1, 3, image_size_px, image_size_px]
            self._pruner = pruners[method](network, shape, skip_leaves=False)
        if was_training:
            network.train()
        # By the name of its first convolution's weight: layers whose channels go together.
        self._groups: dict[str, str] = {}
        self._members: dict[str, list[tuple[str, int]]] = {}
        for collection in self._pruner.collections:
            if collection.master_axis == 0 and collection.master_name in self._names:
                layer = self._names[collection.master_name].removesuffix(".weight")
                self._groups[layer] = collection.master_name
                self._members[layer] = [
                    (self._names[detail.name], detail.axis)
                    for detail in collection.all_pruning_details()
                    if detail.name in self._names  # the rest are maps
                ]
        if not self._groups:
            raise PodiumError(
                "compress.prune: no layer of this net can be pruned: PaddleSlim finds no "
                "convolution whose channels may go; leave `pruned` out of the candidates"
            )
        self._positions = _count_positions(network, image_size_px)
        self.macs = self.count_macs(self._state)

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions whose filters can be cut; others go with them."""
        return list(self._groups)

    def filters(self, layer: str) -> int:
        """How many a layer has."""
        return len(self._state[f"{layer}.weight"])

    def cut(self, ratios: Mapping[str, float]) -> Cut:
        """Without that share of each layer's filters; what is left is a multiple of 8 if it can be.

        Raises:
            PodiumError: a layer that cannot be pruned.
        """
        wanted = {}
        for layer, ratio in ratios.items():
            if layer not in self._groups:
                raise PodiumError(
                    f"compress.prune: the layer {layer} cannot be pruned; those that can: "
                    + ", ".join(self._groups)
                )
            wanted[layer] = self._align(layer, ratio)
        masks = self._find_masks(wanted)
        state = {**self._state, **self._silence(masks)}
        for name, axis, mask in masks:
            state[name] = np.compress(mask, state[name], axis=axis)
        return Cut(state, wanted, self.count_macs(state))

    def cut_to(self, ratio: float, ratios_at: Callable[[float], Ratios]) -> Cut:
        """The cut that leaves nearest to a share of the multiply-accumulates.

        Args:
            ratio: of them that shall go, > 0 .. < 1.
            ratios_at: 0..1 -> the layers' ratios, each growing with it.

        Raises:
            PodiumError: less can go, even at 1.
        """
        most = 1 - self._foresee(ratios_at(1.0)) / self.macs
        if most < ratio - 0.01:
            raise PodiumError(
                f"compress.prune.ratio: {ratio:g} of the multiply-accumulates cannot go: at most "
                f"{most:.2f} can, with a few filters left in each layer"
            )
        low, high = 0.0, 1.0
        gaps = {}
        for _ in range(_STEPS):
            middle = (low + high) / 2
            gap = 1 - self._foresee(ratios_at(middle)) / self.macs - ratio
            gaps[middle] = abs(gap)
            low, high = (middle, high) if gap < 0 else (low, middle)
        return self.cut(ratios_at(min(gaps, key=lambda level: gaps[level])))

    def _foresee(self, ratios: Ratios) -> int:
        """The multiply-accumulates that will be left; which filters go does not matter for it."""
        shapes = {name: list(self._state[name].shape) for name in self._positions}
        for layer, ratio in ratios.items():
            left = 1 - self._align(layer, ratio)
            for name, axis in self._members[layer]:
                if name in shapes:
                    shapes[name][axis] = round(shapes[name][axis] * left)
        return sum(self._positions[name] * math.prod(shape) for name, shape in shapes.items())

    def uniform(self, level: float) -> Ratios:
        """The same ratio for all layers."""
        return dict.fromkeys(self._groups, level)

    def measure_sensitivity(self, inputs: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """How far the outputs go wrong as one layer after another loses filters.

        Args:
            inputs: preprocessed training images (n, 3, H, W).

        Returns:
            rows of layer, filters, ratio and loss: the share of the outputs' variance over the
            images that the narrowed net gets wrong, 0: none.
        """
        before = _run(self._network, inputs)
        spread = float(np.square(before - before.mean(axis=0)).mean())
        own = self._network.state_dict()
        tries = [(layer, ratio) for layer in self._groups for ratio in SENSITIVITY_RATIOS]
        rows = []
        for layer, ratio in track(tries, len(tries), "sensitivity"):
            used = self._align(layer, ratio)
            masks = self._find_masks({layer: used})
            silenced = self._silence(masks)
            for name, values in silenced.items():
                own[name].set_value(values)
            after = _run(self._network, inputs)
            for name in silenced:
                own[name].set_value(self._state[name])
            loss = float(np.square(after - before).mean()) / max(spread, 1e-12)
            rows.append(
                {
                    "layer": layer,
                    "filters": self.filters(layer),
                    "ratio": round(used, 6),
                    "loss": round(loss, 6),
                }
            )
        return rows

    def by_sensitivity(self, rows: list[dict[str, Any]]) -> Callable[[float], Ratios]:
        """Level -> for each layer the largest ratio that loses no more than what the level allows.

        Levels go in equal steps of the logarithm, from a hundredth of the least loss that was
        measured to the largest; between two measured ratios the curve is taken for straight. Curves
        that fall are taken for flat.
        """
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            curves.setdefault(row["layer"], [(0.0, 0.0)]).append((row["ratio"], row["loss"]))
        least = max(min((row["loss"] for row in rows if row["loss"] > 0), default=1e-6), 1e-6) / 100
        largest = max(max(row["loss"] for row in rows), 2 * least)

        def ratios_at(level: float) -> Ratios:
            allowed = least * (largest / least) ** level
            return {layer: _largest_ratio(curve, allowed) for layer, curve in curves.items()}

        return ratios_at

    def count_macs(self, state: State) -> int:
        """Multiply-accumulates per image of a net with these arrays."""
        return sum(
            positions * math.prod(state[name].shape) for name, positions in self._positions.items()
        )

    def _align(self, layer: str, ratio: float) -> float:
        count = self.filters(layer)
        left = count * (1 - ratio)
        if count >= 2 * _ALIGN:
            left = max(_ALIGN, round(left / _ALIGN) * _ALIGN)
        return 1 - min(count, max(1, round(left))) / count

    def _find_masks(self, ratios: Mapping[str, float]) -> Masks:
        """Which array loses what along which axis."""
        masks: Masks = []
        with paddleslim_works():
            wanted = {self._groups[layer]: ratio for layer, ratio in ratios.items() if ratio > 0}
            plan = self._pruner.prune_vars(wanted, axis=0, apply=None)
        for variable, found in plan.masks.items():
            for one in found if variable in self._names else ():  # the rest are maps
                masks.append((self._names[variable], one.dims, np.array(one.mask, bool).ravel()))
        return masks

    def _silence(self, masks: Masks) -> State:
        """The arrays that change, whole: zeros do what a cut does, and leave the graph as it is;
        who read what is zero now is refitted."""
        changed: State = {}
        for name, axis, mask in masks:
            values = changed.get(name, self._state[name])
            if name in self._products and axis == self._input_axes[name]:
                changed[name] = refit(values, axis, mask, self._products[name])
            else:
                changed[name] = _zero_out(values, axis, mask)
        return changed


def _largest_ratio(curve: list[tuple[float, float]], allowed: float) -> float:
    ratio, loss = curve[0]
    for next_ratio, next_loss in curve[1:]:
        next_loss = max(next_loss, loss)
        if next_loss > allowed:
            return ratio + (next_ratio - ratio) * (allowed - loss) / (next_loss - loss)
        ratio, loss = next_ratio, next_loss
    return ratio


def _zero_out(
    values: npt.NDArray[np.float32], axis: int, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    shape = [1] * values.ndim
    shape[axis] = len(mask)
    zeroed: npt.NDArray[np.float32] = values * mask.reshape(shape).astype(np.float32)
    return zeroed


def _run(network: nn.Layer, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with paddle.no_grad():
        outputs: npt.NDArray[np.float32] = network(paddle.to_tensor(inputs)).numpy()
    return outputs


def _count_positions(network: nn.Layer, image_size_px: int) -> dict[str, int]:
    """Weight -> how many places of a map it is used at: times its size that is its layer's work."""
    positions: dict[str, int] = {}
    hooks = []
    for name, layer in network.named_sublayers():
        if isinstance(layer, nn.Conv2D | nn.Linear):

            def note(_: nn.Layer, __: Any, output: paddle.Tensor, name: str = name) -> None:
                positions[f"{name}.weight"] = math.prod(output.shape[2:])

            hooks.append(layer.register_forward_post_hook(note))
    _run(network, np.zeros((1, 3, image_size_px, image_size_px), np.float32))
    for hook in hooks:
        hook.remove()
    return positions
