"""The nets that candidates are made of: the trained one, and smaller or hardier ones made from it.

In: a name of `compress.nets`. Out: a float32 network. This is where the frame (precisions, formats,
measurement, choice) meets the makers of nets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from podium.models.networks import Network
from podium.slim.params import CompressParams
from podium.slim.parent import Parent
from podium.slim.qat import teach_int8
from podium.slim.variants import make_variant

TRAINED = "trained"


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
        params: `compress`.
    """

    trained: Network
    load_parent: Callable[[], Parent]
    params: CompressParams

    @cached_property
    def _parent(self) -> Parent:
        """One for all nets: its answers on every picture are what takes the time."""
        return self.load_parent()

    def make(self, name: str, learns_int8: bool) -> Net:
        """The net of that name.

        Args:
            name: trained | pruned | student.
            learns_int8: whether it is trained to live with int8's errors afterwards.

        Raises:
            PodiumError: it cannot be made, and why.
        """
        if name == TRAINED:
            net = Net(self.trained)
        else:
            variant = make_variant(name, self._parent, self.params)
            net = Net(variant.network, variant.made_by, variant.sensitivity)
        if not learns_int8:
            return net
        qat = self.params.qat
        images = self.params.calibration_images
        learned = teach_int8(self._parent, net.network, qat, images)
        return Net(learned, {**net.made_by, "qat": qat.model_dump()}, net.sensitivity)
