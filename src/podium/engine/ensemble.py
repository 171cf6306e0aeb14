"""The models of several folds, run together.

In: networks and images. Out: the outputs of each. Networks with one and the same trunk, as
`model.freeze: all` makes them, share its run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.stored_rows import StoredRows
from podium.data.views import Tta
from podium.engine.inference import Outputs, Predictor, load_predictor
from podium.engine.weights import find_folds, fold_folder, load_network, read_state
from podium.models.networks import Network

Positions = npt.NDArray[np.int64]


class _Heads(nn.Layer):  # type: ignore[misc]
    """A trunk under several heads: (N, 3, H, W) -> (N, outputs of all heads, one after another)."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.trunk = networks[0].trunk
        self.heads = nn.LayerList([network.head for network in networks])

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        features = self.trunk(x)
        return paddle.concat([head(features) for head in self.heads], axis=1)


class Ensemble:
    """The models of models/, one per fold that was held out.

    Args:
        models: the folder.
        tta: the views of each image whose outputs each model averages.
        one: the first fold's model alone, where the rules forbid an ensemble.

    Raises:
        PodiumError: a file is missing or damaged.
    """

    def __init__(self, models: Path, tta: Tta = "none", one: bool = False) -> None:
        self._tta = tta
        self.folds = find_folds(models)[: 1 if one else None]
        loaded = [load_network(fold_folder(models, fold)) for fold in self.folds]
        self._networks = [network for network, _, _ in loaded]
        self.preprocessing: Preprocessing = loaded[0][1]
        self.cards = [card for _, _, card in loaded]
        self._groups = _group_by_trunk(self._networks)
        self._predictors: dict[int, Predictor] = {}  # of a group, by its number

    def size_bytes(self) -> int:
        """Bytes of all weights files."""
        return sum(int(card["weights"]["bytes"]) for card in self.cards)

    def run(self, images: Images, label: str) -> list[Outputs]:
        """Outputs (N, k) of each fold's model for all images."""
        everything = np.arange(len(images))
        return self.run_each(images, [everything] * len(self.folds), label)

    def run_each(self, images: Images, positions: Sequence[Positions], label: str) -> list[Outputs]:
        """Outputs (n_i, k) of the i-th fold's model for the images at positions[i]."""
        outputs: dict[int, Outputs] = {}
        for number, group in enumerate(self._groups):
            wanted = np.unique(np.concatenate([positions[member] for member in group]))
            chosen = images.select(wanted) if isinstance(images, StoredRows) else images[wanted]
            predictor = self._predictor(number)
            together = predictor.run_images(chosen, self.preprocessing, label, self._tta)
            width = together.shape[1] // len(group)
            for place, member in enumerate(group):
                rows = np.searchsorted(wanted, positions[member])
                outputs[member] = together[rows, place * width : (place + 1) * width]
        return [outputs[member] for member in range(len(self.folds))]

    def _predictor(self, number: int) -> Predictor:
        """Of a group, exported when it is first asked."""
        if number not in self._predictors:
            heads = _Heads([self._networks[member] for member in self._groups[number]])
            self._predictors[number] = load_predictor(heads, self.preprocessing.image_size_px)
        return self._predictors[number]


def _group_by_trunk(networks: Sequence[Network]) -> list[list[int]]:
    """Numbers of the networks whose trunks hold the same bits, together."""
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for number, network in enumerate(networks):
        state = read_state(network.trunk)
        key = tuple(values.tobytes() for values in state.values())
        groups.setdefault(key, []).append(number)
    return list(groups.values())
