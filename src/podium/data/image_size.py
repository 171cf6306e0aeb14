"""`image_size: auto`: as many pixels as the training images have, as far as they pay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# Trunks halve the map five times: a side in between is rounded up by their padding, and pays for it.
_STRIDE_PX = 32
# At 32 px a trunk's last map is a single cell. 160 px are worth their time (docs/accuracy.md); more was
# not measured, and costs as the square.
_LEAST_PX = 64
_MOST_PX = 160


def choose_image_size(image_size_px: int | None, rows: pd.DataFrame) -> int:
    """What `image_size: auto` (None) means: the median short side of the images, rounded down to a
    multiple of 32 px, 64 to 160 px. Enlarged images have no more to see, only more to compute.

    Args:
        rows: readable training rows of the manifest, at least one.
    """
    if image_size_px is not None:
        return image_size_px
    short_side = float(np.median(rows[["width", "height"]].to_numpy(int).min(axis=1)))
    return min(max(int(short_side) // _STRIDE_PX * _STRIDE_PX, _LEAST_PX), _MOST_PX)
