"""Features of a frozen trunk, computed once for all images and kept as a DVC output.

features/train.npy, features/test.npy   float32 (rows, features), the manifest's order; of the
                                         test rows the readable ones
features/features.json                   what made them; `"freeze": "none"` and no arrays when the
                                         trunk trains and nothing is to be kept
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.image_cache import load_images, readable_rows
from podium.engine.inference import run_network
from podium.errors import PodiumError
from podium.files import replace_folder, write_bytes, write_json
from podium.models.networks import build_trunk, make_preprocessing

META_FILE = "features.json"


def write_features(
    folder: Path,
    manifest: pd.DataFrame,
    name: str,
    pretrained: bool,
    freeze: str,
    image_size_px: int,
) -> str:
    """Compute and write the features of every readable image; returns a line that says what."""
    with replace_folder(folder) as fresh:
        if freeze == "none":
            write_json(fresh / META_FILE, {"freeze": "none"})
            return "model.freeze is none: the trunk trains, no features are kept"
        trunk = build_trunk(name, pretrained)
        preprocessing = make_preprocessing(name, image_size_px)
        meta: dict[str, Any] = {"freeze": freeze, "trunk": name}
        for source in ("train", "test"):
            rows = readable_rows(manifest, source)
            images = load_images(rows, image_size_px, f"decode {source}")
            features = run_network(trunk, images, preprocessing, f"features {source}")
            meta[source] = _write_array(fresh / f"{source}.npy", features, rows)
        write_json(fresh / META_FILE, meta)
        return f"features of {meta['train']['rows']} train and {meta['test']['rows']} test images"


def load_train_features(folder: Path, rows: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Features of the manifest's train rows, float32 (rows, features).

    Raises:
        PodiumError: missing, or made for other rows.
    """
    path = folder / "train.npy"
    try:
        features: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ValueError, EOFError) as error:
        raise PodiumError(f"{path} is damaged ({error}): delete it and run `dvc repro`") from None
    if len(features) != len(rows):
        raise PodiumError(
            f"{path} has {len(features)} rows, the manifest {len(rows)}: run `dvc repro`"
        )
    return features


def _write_array(
    path: Path, features: npt.NDArray[np.float32], rows: pd.DataFrame
) -> dict[str, Any]:
    buffer = io.BytesIO()
    np.save(buffer, features)
    write_bytes(path, buffer.getvalue())
    ids = "\n".join(rows["image_id"])
    return {
        "rows": len(rows),
        "features": features.shape[1],
        "image_ids_sha256": hashlib.sha256(ids.encode("utf-8")).hexdigest(),
    }
