"""Pictures of one and the same thing: re-encoded, cropped a little, brighter, shot again.

In: decoded images, a perceptual hash of each, embeddings. Out: confirmed pairs, and groups of capped
size. Hash and embeddings only propose: on photos of one kind of fruit in one place, both join
hundreds that are different. A pair counts when its pixels agree once one picture is laid over the
other, also where least alike.

Method: pHash (imagehash) and nearest embeddings propose; ECC (Evangelidis and Psarakis 2008, OpenCV)
aligns; the local correlation (windows of a few px that hold an edge) is compared at its 10 % quantile,
at 128 px and, where the files have more to show, once more at 256 px. Mirrored copies are not looked
for. Of pictures below 200 px only the first comparison is left: photos of like things in one place, as
small as that, might pass it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from podium.data.decode import RGB
from podium.runtime import available_cores

Floats = npt.NDArray[np.float32]
Pairs = list[tuple[int, int]]

HASH_DISTANCE = 14  # of 64 bits; re-shots of the demo and re-encoded crops of photos stay within it
NEIGHBOURS = 2  # of each image: by hash, and as many by embedding
MAX_GROUP = 20
# Of smaller pictures (20 px characters, say) like things have the same pixels, nearly: of 1,215 plates
# 728 were joined.
LEAST_SIDE_PX = 48
_ALIGN_PX, _FIRST_PX, _SECOND_PX = 64, 128, 256
_LEAST_FOR_SECOND_PX = 200  # less has nothing to show at 256 px that was not there at 128
_FIRST_LIMIT, _LIMIT_BELOW_200, _SECOND_LIMIT = 0.80, 0.70, 0.86
_QUANTILE = 0.1
_WINDOW_PX = 2.0  # standard deviation of the Gaussian window
_NOISE_VARIANCE = 9.0  # grey levels squared: what sensors and JPEG change
_LEAST_CONTRAST = 10.0  # grey levels; flat skin and table look alike everywhere
_LEAST_OVERLAP = 0.5
_LEAST_WINDOWS = 50
_ECC_STEPS, _ECC_STEPS_AGAIN = 30, 15
_BLOCK = 1024


@dataclass(frozen=True)
class NearDuplicates:
    """What was found among n images.

    Attributes:
        n_proposed: pairs that were looked at.
        pairs: confirmed pairs of positions, sorted.
        groups: positions that belong together, each sorted and at most `MAX_GROUP` long.
    """

    n_proposed: int
    pairs: Pairs
    groups: list[list[int]]


def hash_images(images: Sequence[RGB]) -> npt.NDArray[np.uint64]:
    """A 64-bit pHash of each uint8 (s, s, 3) image."""
    import imagehash
    from PIL import Image

    return np.array(
        [int(str(imagehash.phash(Image.fromarray(image))), 16) for image in images], dtype=np.uint64
    )


def propose_pairs(hashes: npt.NDArray[np.uint64], embeddings: Floats) -> Pairs:
    """Pairs (i < j) where one is among the other's nearest, by hash or by embedding, and their hashes
    are near.

    Args:
        hashes: (n,).
        embeddings: (n, d); compared by the cosine of what differs from their mean.
    """
    centred = embeddings - embeddings.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(centred), _BLOCK):
        unlike = 1 - centred[start : start + _BLOCK] @ centred.T  # 0..2
        bits = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes[None])
        own = np.arange(start, start + len(unlike))
        far = np.where(bits <= HASH_DISTANCE, np.float32(0), np.float32(np.inf))
        far[np.arange(len(own)), own] = np.inf
        for order in (bits * np.float32(4) + unlike, unlike):
            ranked = order + far
            nearest = np.argsort(ranked, axis=1, kind="stable")[:, :NEIGHBOURS]
            near_enough = np.isfinite(np.take_along_axis(ranked, nearest, axis=1))
            rows, columns = np.nonzero(near_enough)
            pairs = zip(own[rows].tolist(), nearest[rows, columns].tolist(), strict=True)
            found.update((min(pair), max(pair)) for pair in pairs)
    return sorted(found)


def find_near_duplicates(
    images: Sequence[RGB],
    embeddings: Floats,
    sides_px: Sequence[int],
    load_large: Callable[[int, int], RGB],
) -> NearDuplicates:
    """Near-duplicates among n different images.

    Args:
        images: uint8 (s, s, 3) each.
        embeddings: (n, d).
        sides_px: the shorter side of each file's picture.
        load_large: (position, side in px) -> the image decoded at that size.
    """
    if len(images) < 2:
        return NearDuplicates(0, [], [])
    cv2.setNumThreads(1)
    proposed = propose_pairs(hash_images(images), embeddings)

    def confirm(pair: tuple[int, int]) -> float:
        large = min(sides_px[place] for place in pair) >= _LEAST_FOR_SECOND_PX
        return confirm_pair(*pair, images, load_large if large else None)

    with ThreadPoolExecutor(available_cores()) as pool:  # OpenCV runs without the GIL
        agreements = list(pool.map(confirm, proposed))
    sure = [(a, pair) for a, pair in zip(agreements, proposed, strict=True) if a > 0]
    strongest_first = [pair for _, pair in sorted(sure, key=lambda entry: (-entry[0], entry[1]))]
    groups = make_groups(strongest_first, MAX_GROUP)
    return NearDuplicates(len(proposed), sorted(strongest_first), groups)


def confirm_pair(
    one: int,
    other: int,
    images: Sequence[RGB],
    load_large: Callable[[int, int], RGB] | None,
) -> float:
    """Agreement of two images' pixels, 0 where they are not the same picture.

    Args:
        one, other: positions in `images`.
        images: as in `find_near_duplicates`.
        load_large: likewise; None where the files show no more than `images` do.
    """
    first, second = (_grey(images[place], _FIRST_PX) for place in (one, other))
    small = [
        cv2.resize(grey, (_ALIGN_PX,) * 2, interpolation=cv2.INTER_AREA) for grey in (first, second)
    ]
    warp = _align(small[0], small[1], np.eye(2, 3, dtype=np.float32), _ECC_STEPS)
    if warp is None:
        return 0.0
    agreement = measure_agreement(first, second, _scale(warp, _FIRST_PX / _ALIGN_PX))
    if load_large is None:
        return agreement if agreement >= _LIMIT_BELOW_200 else 0.0
    if agreement < _FIRST_LIMIT:
        return 0.0
    first, second = (_grey(load_large(place, _SECOND_PX), _SECOND_PX) for place in (one, other))
    warp = _align(first, second, _scale(warp, _SECOND_PX / _ALIGN_PX), _ECC_STEPS_AGAIN)
    if warp is None:
        return 0.0
    agreement = measure_agreement(first, second, warp)
    return agreement if agreement >= _SECOND_LIMIT else 0.0


def measure_agreement(one: RGB, other: RGB, warp: Floats) -> float:
    """The 10 % quantile of the local correlation of two grey images, -1..1; -1 where they overlap by
    less than half or have no contrast to compare.

    Args:
        one, other: uint8 (s, s).
        warp: (2, 3), from places of `one` to places of `other`.
    """
    side = one.shape[0]
    back = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(other, warp, (side, side), flags=cv2.INTER_CUBIC | back)
    inside = cv2.warpAffine(np.ones_like(other), warp, (side, side), flags=cv2.INTER_NEAREST | back)
    reach = int(4 * _WINDOW_PX) * 2 + 1
    inside = cv2.erode(
        inside, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    x, y = one.astype(np.float32), moved.astype(np.float32)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    local = covariance / np.sqrt(
        np.maximum(var_x + _NOISE_VARIANCE, 1) * np.maximum(var_y + _NOISE_VARIANCE, 1)
    )
    shown = (inside > 0) & (np.maximum(var_x, var_y) > _LEAST_CONTRAST**2)
    if (inside > 0).mean() < _LEAST_OVERLAP or shown.sum() < _LEAST_WINDOWS:
        return -1.0
    return float(np.quantile(local[shown], _QUANTILE))


def make_groups(pairs: Pairs, most: int) -> list[list[int]]:
    """Join pairs in their order; two groups that would be more than `most` together stay apart."""
    group_of: dict[int, list[int]] = {}
    for one, other in pairs:
        left, right = group_of.get(one, [one]), group_of.get(other, [other])
        if left is right or len(left) + len(right) > most:
            continue
        joined = sorted(left + right)
        group_of.update(dict.fromkeys(joined, joined))
    return sorted({group[0]: group for group in group_of.values()}.values())


def _grey(image: RGB, side: int) -> Any:
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    if grey.shape[0] == side:
        return grey
    way = cv2.INTER_AREA if grey.shape[0] > side else cv2.INTER_LINEAR
    return cv2.resize(grey, (side, side), interpolation=way)


def _align(one: Any, other: Any, start: Floats, steps: int) -> Any:
    """The warp that lays `other` over `one`, None where none converges."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-5)
    try:
        _, warp = cv2.findTransformECC(one, other, start, cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # flat, or too unlike
        return None
    return warp


def _scale(warp: Floats, factor: float) -> Floats:
    """The same warp for images `factor` times as large; pixel centres lie at whole numbers."""
    turn, move = warp[:, :2], warp[:, 2]
    shift = (factor - 1) / 2
    moved = factor * move + shift * (1 - turn.sum(axis=1))
    return np.column_stack([turn, moved]).astype(np.float32)


def _smooth(values: Floats) -> Floats:
    smoothed: Floats = cv2.GaussianBlur(values, (0, 0), _WINDOW_PX)
    return smoothed
