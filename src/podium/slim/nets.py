"""The nets that candidates are made of: the trained one, and smaller ones made from it.

In: a name of `compress.nets`. Out: a float32 network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paddle import nn

from podium.errors import PodiumError
from podium.slim.candidates import TRAINED


@dataclass(frozen=True)
class Net:
    """A float32 network in evaluation mode, preprocessed (N, 3, S, S) -> outputs (N, k).

    Attributes:
        network: with the trained net's preprocessing.
        made_by: how it came from the trained one; ready for JSON.
    """

    network: nn.Layer
    made_by: dict[str, Any] = field(default_factory=dict)


def make_net(name: str, trained: nn.Layer) -> Net:
    """The net of that name.

    Raises:
        PodiumError: it cannot be made, and why.
    """
    if name == TRAINED:
        return Net(trained)
    raise PodiumError(f"compress.nets: {name} cannot be made")
