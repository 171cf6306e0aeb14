"""`train.flip: auto`: the embeddings that say which mirrors keep a picture's class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from podium.engine.embeddings import load_embeddings
from podium.probes.cross_validation import thin
from podium.probes.mirrors import MAX_IMAGES, Mirrors, probe_mirrors


def find_mirrors(rows: pd.DataFrame, size_px: int, seed: int) -> Mirrors:
    """Ask about at most `MAX_IMAGES` readable training rows of the manifest, seen at `size_px`."""
    all_codes = np.unique(rows["label"].to_numpy(str), return_inverse=True)[1]
    asked = rows.iloc[thin(all_codes, seed, MAX_IMAGES)]
    plain, horizontal, vertical = (
        load_embeddings(asked, size_px, f"mirror {mirror}", mirror)
        for mirror in ("none", "horizontal", "vertical")
    )
    codes = np.unique(asked["label"].to_numpy(str), return_inverse=True)[1]
    mirrored = {"horizontal": horizontal, "vertical": vertical}
    return probe_mirrors(plain, mirrored, codes, asked["group_id"].tolist(), seed)
