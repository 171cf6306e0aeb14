"""`train.flip: auto`: what is seen of mirrored pictures, to find out which of them keep their class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from podium.data.image_cache import load_images
from podium.engine.embeddings import load_embeddings
from podium.probes.baselines import LINEAR_PX
from podium.probes.cross_validation import thin
from podium.probes.mirrors import HORIZONTAL, MAX_IMAGES, PLAIN, VERTICAL, Mirrors, probe_mirrors


def find_mirrors(
    rows: pd.DataFrame, size_px: int, seed: int, allows_pretrained: bool = True
) -> Mirrors:
    """Ask about at most `MAX_IMAGES` readable training rows of the manifest.

    Args:
        rows: of the manifest, readable.
        size_px: what an ImageNet net sees them at; bare pixels are looked at in 16 px.
        seed: of the draw of images, the folds and the bootstrap.
        allows_pretrained: `competition.rules.pretrained`; false: bare pixels alone decide.
    """
    all_codes = np.unique(rows["label"].to_numpy(str), return_inverse=True)[1]
    groups = np.unique(rows["group_id"].to_numpy(str), return_inverse=True)[1]
    asked = rows.iloc[thin(all_codes, groups, seed, MAX_IMAGES)]
    pixels = load_images(asked, LINEAR_PX, "decode thumbnails")[:].astype(np.float32)
    seen = {
        f"{LINEAR_PX} px thumbnails": {
            PLAIN: pixels.reshape(len(asked), -1),
            HORIZONTAL: pixels[:, :, ::-1].reshape(len(asked), -1),
            VERTICAL: pixels[:, ::-1].reshape(len(asked), -1),
        },
    }
    if allows_pretrained:
        seen["an ImageNet net"] = {
            mirror: load_embeddings(asked, size_px, f"{mirror} images", mirror)
            for mirror in (PLAIN, HORIZONTAL, VERTICAL)
        }
    codes = np.unique(asked["label"].to_numpy(str), return_inverse=True)[1]
    return probe_mirrors(seen, codes, asked["group_id"].tolist(), seed)
