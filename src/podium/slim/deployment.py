"""The shipped model: deploy/ as something that answers.

Loads only what the card lists, and proves that the files are the ones the card describes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.views import parse_tta
from podium.engine.inference import ExportedModel, Outputs, Predictor
from podium.engine.weights import CARD_FILE, load_card
from podium.errors import PodiumError


class Deployment:
    """A loaded deploy/ folder.

    Raises:
        PodiumError: a file is missing or is not the one that the card describes; or the card is
            damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.card: dict[str, Any] = load_card(folder / CARD_FILE)
        self.preprocessing = Preprocessing.from_card(self.card["preprocessing"])
        for name, facts in self.card["files"].items():
            path = folder / name
            if not path.is_file():
                raise PodiumError(f"{path} is missing: run `dvc repro` to make it")
            if hashlib.sha256(path.read_bytes()).hexdigest() != facts["sha256"]:
                raise PodiumError(
                    f"{path} is not the file that {CARD_FILE} describes: run compress"
                )
        # A card without views is of a model that was judged on plain images.
        self._tta = parse_tta(self.card.get("tta", "none"), str(folder / CARD_FILE))
        int8 = bool(self.card["runtime"]["int8"])
        self._predictor = Predictor(ExportedModel.in_folder(folder), int8=int8)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return tuple(self.card["classes"])

    def size_bytes(self) -> int:
        """Bytes of the model's files on disk, the card not counted."""
        return sum(int(facts["bytes"]) for facts in self.card["files"].values())

    def run_images(self, images: Images, label: str) -> Outputs:
        """uint8 (N, H, W, 3) images of the card's size -> float32 outputs (N, k), the mean over
        the views that the card names: those that its score was measured with."""
        return self._predictor.run_images(images, self.preprocessing, label, self._tta)
