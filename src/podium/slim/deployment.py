"""The shipped model: deploy/ as something that answers, in Paddle or in ONNX.

Loads only what the card lists, and proves that the files are the ones the card describes. The code
that ships in the folder is not run here: the card and the files are data, code is Podium's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.engine.inference import Outputs, quiet
from podium.engine.runner import Runner
from podium.progress import track
from podium.runtime import available_cores

_BATCH = 32


class Deployment:
    """A loaded deploy/ folder.

    Raises:
        PodiumError: a file is missing or is not the one that the card describes; or the card is
            damaged.
    """

    def __init__(self, folder: Path) -> None:
        with quiet():
            self._runner = Runner(folder, available_cores())

    @property
    def card(self) -> dict[str, Any]:
        """Its model card."""
        return self._runner.card

    @property
    def preprocessing(self) -> Preprocessing:
        """What it was trained with."""
        return self._runner.preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return tuple(self.card["classes"])

    @property
    def has_trained_net(self) -> bool:
        """Whether it is the trained net, however rounded; else another one was taught from it."""
        net, precision, _ = self.card["candidate"].split("-")
        return bool(net == "trained" and precision != "qat")

    def size_bytes(self) -> int:
        """Bytes of the model's files on disk, card and code not counted."""
        return sum(int(facts["bytes"]) for facts in self.card["files"].values())

    def run_images(self, images: Images, label: str) -> Outputs:
        """uint8 (N, H, W, 3) images of the card's size -> float32 outputs (N, k), the mean over
        the views that the card names: those that its score was measured with."""
        starts = range(0, len(images), _BATCH)
        batches = track(starts, len(starts), label)
        return np.concatenate([self._runner.run(images[i : i + _BATCH]) for i in batches])
