"""Looks at every image file once: is it whole, what is it, what does it look like on average.

In: paths. Out: one `ImageFacts` each, in the order of the paths, whatever the number of cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from podium.data.decode import (
    RGB,
    SIDEWAYS,
    UndecodableImageError,
    decode_reduced,
    find_largest_sample,
    open_image,
)
from podium.data.file_traits import FileTraits, read_traits
from podium.data.jpeg import IncompleteJpegError, check_last_scan
from podium.progress import track
from podium.runtime import available_cores, data_workers

# A 640 px JPEG decodes to 80 px: libjpeg then skips most of its arithmetic, though no compressed
# byte. The mean of a picture and its 32 px thumbnail need no more.
REDUCED_PX = 64
THUMBNAIL_PX = 32
_FILES_PER_TASK = 8  # one task a file would cost as much as decoding a small file


@dataclass(frozen=True)
class ImageFacts:
    """What one reading of one file tells.

    Attributes:
        sha256: of the file's bytes, hex; "" where the file cannot be read at all.
        pixel_hash: of size and upright pixels, hex; "" where undecodable.
        reduced: whether `pixel_hash` saw pixels that were averaged while decoding.
        width, height: px as the file's header says, 0 where undecodable.
        format: Pillow's name (`JPEG`, `PNG`, ...), "" where undecodable.
        mode: Pillow's mode as stored (`RGB`, `L`, `CMYK`, ...), "" where undecodable.
        rotated: whether EXIF asks for another orientation than the stored one.
        animated: whether there are more frames than the first, which is the one that counts.
        largest_sample: of one channel of more than 8 bits, 0..65535; None where it is stored otherwise.
        thumbnail: uint8 (32, 32, 3), None where undecodable.
        traits: what the file says beside its picture, None where undecodable.
        problem: why the file cannot be used, without its name; "" where it can.
    """

    sha256: str
    pixel_hash: str = ""
    reduced: bool = False
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    rotated: bool = False
    animated: bool = False
    largest_sample: int | None = None
    thumbnail: RGB | None = None
    traits: FileTraits | None = None
    problem: str = ""


def inspect_file(path: Path) -> ImageFacts:
    """Read and fully decode one file. Never raises for what the file holds: see `problem`.

    Raises:
        OSError: the file is there and the system does not let us read it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ImageFacts(sha256="", problem="the file is missing")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        image = open_image(content)
        width, height = image.size
        mode, file_format = image.mode, image.format or ""
        animated = _is_animated(image)
        traits = read_traits(image, len(content))
        check_last_scan(content)
        rgb, orientation = decode_reduced(image, REDUCED_PX)
        largest_sample = find_largest_sample(image)
    except (UndecodableImageError, IncompleteJpegError) as error:
        return ImageFacts(sha256=sha256, problem=str(error))
    upright_size = (height, width) if orientation in SIDEWAYS else (width, height)
    return ImageFacts(
        sha256=sha256,
        pixel_hash=_hash_pixels(rgb, upright_size),
        reduced=rgb.width * rgb.height < width * height,
        width=width,
        height=height,
        format=file_format,
        mode=mode,
        rotated=orientation != 1,
        animated=animated,
        largest_sample=largest_sample,
        thumbnail=_make_thumbnail(rgb),
        traits=traits,
    )


def inspect_files(paths: Sequence[Path], workers: int | None = None) -> list[ImageFacts]:
    """`inspect_file` for all paths on all cores (or `workers`), with progress on stderr.

    Equal hashes of averaged pixels are no proof: where files that differ share one, all of them
    are decoded again in full and get the hash of every pixel. So do those beside which a file of
    their size was read in full (a PNG beside JPEGs): else no hash could show that two are equal.
    """
    Image.preinit()  # else the threads would race to load Pillow's plugins
    with ThreadPoolExecutor(workers or data_workers(available_cores())) as pool:
        tasks = _map_in_order(pool, paths)
        try:
            facts = list(track(tasks, total=len(paths), label="eda: reading images"))
        except BaseException:  # also Ctrl-C: else leaving the pool would read all the rest first
            pool.shutdown(cancel_futures=True)
            raise
    full_sizes = {_size(fact) for fact in facts if not fact.reduced}
    by_hash: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        if fact.reduced:
            by_hash.setdefault(fact.pixel_hash, []).append(index)
    for indices in by_hash.values():
        differ = len({facts[index].sha256 for index in indices}) > 1
        if differ or _size(facts[indices[0]]) in full_sizes:
            for index in indices:
                facts[index] = replace(facts[index], pixel_hash=_hash_all_pixels(paths[index]))
    return facts


def _size(fact: ImageFacts) -> tuple[int, int]:
    """Of the picture, however it was turned."""
    return min(fact.width, fact.height), max(fact.width, fact.height)


def _map_in_order(pool: ThreadPoolExecutor, paths: Sequence[Path]) -> Iterator[ImageFacts]:
    tasks = [paths[at : at + _FILES_PER_TASK] for at in range(0, len(paths), _FILES_PER_TASK)]
    for facts in pool.map(lambda task: [inspect_file(path) for path in task], tasks):
        yield from facts


def _is_animated(image: Image.Image) -> bool:
    """Whether frames follow the first; the second picture of an MPO is a preview, no frame."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001  a damaged later frame raises a dozen types, and counts for nothing
        return False


def _hash_pixels(rgb: Image.Image, upright_size: tuple[int, int]) -> str:
    digest = hashlib.sha256(repr((upright_size, rgb.size)).encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()[:32]


def _hash_all_pixels(path: Path) -> str:
    image = open_image(path.read_bytes())
    rgb, _ = decode_reduced(image, max(image.size))
    return _hash_pixels(rgb, rgb.size)


def _make_thumbnail(rgb: Image.Image) -> RGB:
    """Means over equal boxes: the cheapest filter, and the picture's mean stays what it was."""
    small = rgb.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.frombuffer(small.tobytes(), np.uint8).reshape(THUMBNAIL_PX, THUMBNAIL_PX, 3)
