"""The nets that candidates are made of: the trained one, and smaller or hardier ones made from it.

In: a name of `compress.nets`. Out: a float32 network. This is where the frame (precisions, formats,
measurement, choice) meets the makers of nets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from podium.engine.weights import State
from podium.models.networks import Network
from podium.slim.params import CompressParams
from podium.slim.parent import Parent
from podium.slim.qat import teach_int8
from podium.slim.variants import make_variant, restore_variant

TRAINED = "trained"
# The section of `compress` that each of the others is made with.
PARAMS = {"pruned": "prune", "student": "student"}


@dataclass(frozen=True)
class Net:
    """A float32 network in evaluation mode, preprocessed (N, 3, S, S) -> outputs (N, k).

    Attributes:
        network: with the trained net's preprocessing.
        made_by: how it came from the trained one; ready for JSON.
        sensitivity: rows of the curves that pruning chose its ratios from: layer, ratio, loss.
    """

    network: Network
    made_by: dict[str, Any] = field(default_factory=dict)
    sensitivity: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Maker:
    """What nets are made from.

    Attributes:
        trained: the trained network.
        load_parent: loads it with its training images, for whoever trains.
        lesson: `podium.slim.parent.hash_lesson` of that parent, which need not be loaded for it.
        params: `compress`.
    """

    trained: Network
    load_parent: Callable[[], Parent]
    lesson: str
    params: CompressParams

    @cached_property
    def _parent(self) -> Parent:
        """One for all nets: its answers on every picture are what takes the time."""
        return self.load_parent()

    def make(self, name: str) -> Net:
        """The net of that name: trained | pruned | student.

        Raises:
            PodiumError: it cannot be made, and why.
        """
        if name == TRAINED:
            return Net(self.trained)
        variant = make_variant(name, self._parent, self.params)
        return Net(variant.network, variant.made_by, variant.sensitivity)

    def restore(self, name: str, state: State) -> Network:
        """The network of that name, as `make` gave it, from its weights.

        Raises:
            PodiumError: the weights are of another net.
        """
        if name == TRAINED:
            return self.trained
        return restore_variant(name, self._parent, self.params, state)

    def teach_int8(self, network: Network) -> Network:
        """A copy of one of the nets that has learned to live with int8's errors.

        Raises:
            PodiumError: there are too few images for it.
        """
        params = self.params
        return teach_int8(self._parent, network, params.qat, params.calibration_images)

    def describe_making(self, name: str) -> tuple[str, ...]:
        """All that decides what `make` makes of the trained net."""
        if name == TRAINED:
            return (name,)
        params = getattr(self.params, PARAMS[name])
        return (name, self.lesson, params.model_dump_json())

    def describe_teaching(self) -> tuple[str, ...]:
        """All that decides what `teach_int8` makes of a net."""
        params = self.params
        return (self.lesson, params.qat.model_dump_json(), str(params.calibration_images))
