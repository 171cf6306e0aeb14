"""What a net that knows ImageNet and nothing of this competition sees in each image.

In: decoded images, mirrored if asked. Out: float32 embeddings, kept in the store: they depend on
pixels alone, so no change of a param computes them again, but another decoder does. The trained
model's own features would not do: they have seen labels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paddle
import pandas as pd

from podium.data.image_cache import Images, decoder_version, load_images
from podium.data.store import get_or_make, make_key
from podium.data.stored_rows import StoredRows, write_rows
from podium.engine.inference import Predictor, export
from podium.models.networks import build_trunk, make_preprocessing
from podium.runtime import cpu_class

TRUNK = "efficientnet_lite0"  # its weights are in a package: never random, never fetched
_WIDTH = 1280
_VERSION = "1"  # of what is kept; to be raised when the way here changes
# The axis of (N, height, width, 3) that is turned round.
_TURNED = {"plain": None, "horizontal": 2, "vertical": 1}


def load_embeddings(
    rows: pd.DataFrame, size_px: int, label: str, mirror: str = "plain"
) -> npt.NDArray[np.float32]:
    """Embeddings (N, 1280) of manifest rows, in their order.

    Args:
        rows: all readable rows of train, or of test: what other stages decode, too.
        size_px: side of the square the net sees.
        label: what the progress bars say.
        mirror: plain | horizontal (left and right change places) | vertical.
    """
    if rows.empty:
        return np.zeros((0, _WIDTH), np.float32)
    shape = (len(rows), _WIDTH)
    preprocessing = make_preprocessing(TRUNK, size_px)
    how = (*decoder_version(), repr(preprocessing), paddle.__version__, cpu_class(), mirror)
    key = make_key("embeddings", _VERSION, TRUNK, *how, *rows["sha256"])

    def make(target: Path) -> None:
        images = _mirror(load_images(rows, size_px, f"decode {label}"), mirror)
        with tempfile.TemporaryDirectory(prefix="podium-") as folder:
            predictor = Predictor(export(build_trunk(TRUNK, True), size_px, Path(folder)))
            outputs = predictor.run_images(images, preprocessing, f"embed {label}")
        write_rows(target, outputs.reshape(shape), shape, np.float32)

    def check(target: Path) -> bool:
        try:
            stored = StoredRows(target)
        except (ValueError, EOFError):
            return False
        return stored.shape == shape and stored.dtype == np.float32

    return StoredRows(get_or_make(key, ".npy", make, check))[:]


def _mirror(images: Images, mirror: str) -> Images:
    axis = _TURNED[mirror]
    return images if axis is None else np.flip(images[:], axis)
