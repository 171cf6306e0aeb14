"""Where the object is: a mask by GrabCut, and whether it may be believed.

In: pixels. Out: bool masks, True on the object, or None where two starts disagree. Nothing is claimed
from masks unless most of a fixed sample can be believed.

Method: GrabCut (Rother, Kolmogorov and Blake 2004) at 64 px, from a rectangle: what lies outside is
background. Done from two rectangles; a mask counts when both give nearly the same one, in one piece,
neither tiny nor nearly all of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

from podium.data.decode import RGB
from podium.runtime import available_cores

Mask = npt.NDArray[np.bool_]

_WORK_PX = 64
_MARGINS = (0.04, 0.10)  # of the side; the two starts
_ROUNDS = 3
_LEAST_AGREEMENT = 0.8  # intersection over union of the two
_LEAST_AREA, _MOST_AREA = 0.03, 0.75  # of the picture
_LEAST_IN_ONE_PIECE = 0.8  # of the mask


def make_masks(images: RGB) -> list[Mask | None]:
    """Masks of uint8 (n, s, s, 3) images, each (s, s); the same on any number of cores."""
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(available_cores()) as pool:  # OpenCV runs without the GIL
        return list(pool.map(make_mask, images))


def make_mask(image: RGB) -> Mask | None:
    """The object's mask, None where it cannot be believed."""
    small = cv2.resize(image, (_WORK_PX, _WORK_PX), interpolation=cv2.INTER_AREA)
    first, second = (_cut(small, margin) for margin in _MARGINS)
    union = (first | second).sum()
    if union == 0 or (first & second).sum() < _LEAST_AGREEMENT * union:
        return None
    mask = _keep_largest(first & second)
    if not _LEAST_AREA <= mask.mean() <= _MOST_AREA:
        return None
    if mask.sum() < _LEAST_IN_ONE_PIECE * (first & second).sum():
        return None
    side = image.shape[0]
    large = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.5)


def failure_rate(masks: Sequence[Mask | None]) -> float:
    """Share that cannot be believed, 0..1."""
    return sum(mask is None for mask in masks) / len(masks)


def _cut(image: RGB, margin: float) -> Mask:
    cv2.setRNGSeed(0)  # GrabCut starts from k-means; the state belongs to the thread
    edge = max(1, round(margin * _WORK_PX))
    inside = _WORK_PX - 2 * edge
    labels = np.zeros(image.shape[:2], dtype=np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (edge, edge, inside, inside)
    try:
        cv2.grabCut(image, labels, rectangle, *models, _ROUNDS, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # fewer colours than it wants clusters
        return np.zeros(image.shape[:2], dtype=bool)
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def _keep_largest(mask: Mask) -> Mask:
    """The largest piece, without its holes."""
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return mask
    piece = pieces == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
    contours, _ = cv2.findContours(piece.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, dtype=np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return np.asarray(filled > 0)
