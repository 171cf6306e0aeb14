"""The one way from an image file to pixels: eda, train, evaluate and deploy all call it.

In: a file's bytes. Out: uint8 RGB, upright, square. Pillow decodes everywhere, so that the shipped
model needs no other decoder (OpenCV's differs by up to 11 levels).
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from podium.data.jpeg import IncompleteJpegError, expose_missing_end

# A 10,000 x 10,000 image is 300 MB of RGB. Above it, a file is far more likely to be a
# decompression bomb (or a scan nobody meant to submit) than a competition image.
MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # our own check, on the header, comes first

# Pillow warns of broken EXIF and the like, without the file's name. What matters becomes an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What competitions hand out. Pillow's other plugins stay shut: one of them starts Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "MPO")

RGB = npt.NDArray[np.uint8]
_WHITE = (255, 255, 255, 255)

# EXIF orientation -> what brings the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # stored width is upright height


class UndecodableImageError(ValueError):
    """The file is no image that can be decoded; the message says why, without the file's name."""


def open_image(content: bytes) -> Image.Image:
    """Read the header of an image file.

    Raises:
        UndecodableImageError: empty, not an image of one of `FORMATS`, larger than `MAX_PIXELS`,
            or a JPEG whose scans are not all there.
    """
    if not content:
        raise UndecodableImageError("the file is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(expose_missing_end(content)), formats=FORMATS)
    except IncompleteJpegError as error:
        raise UndecodableImageError(str(error)) from None
    except Exception as error:  # Pillow's plugins raise a dozen types on hostile bytes
        raise UndecodableImageError(f"not a readable {', '.join(FORMATS[:-1])} image") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableImageError(
            f"{width} x {height} pixels: more than {MAX_PIXELS // 1_000_000} million; scale it down"
        )
    return image


def decode(content: bytes, size_px: int) -> RGB:
    """Decode an image file to a square.

    JPEG is reduced while decoding (libjpeg's scaled IDCT, never below `size_px`); EXIF rotation is
    applied; alpha is laid over white; 16-bit is scaled to 8; of an animation the first frame
    counts; the aspect ratio is given up (the whole image is squeezed into the square).

    Args:
        content: the file's bytes.
        size_px: side of the square, pixels.

    Returns:
        uint8 array of shape (size_px, size_px, 3), RGB, 0..255.

    Raises:
        UndecodableImageError: empty, truncated (also where an end marker was put back, see
            `podium.data.jpeg`), not an image, too large, or a mode with no defined meaning as RGB.
    """
    rgb, _ = decode_reduced(open_image(content), size_px)
    return np.asarray(resize(rgb, size_px))


def decode_file(path: Path, size_px: int) -> RGB:
    """`decode` for a file on disk; raises also OSError."""
    return decode(path.read_bytes(), size_px)


def decode_reduced(image: Image.Image, least_px: int) -> tuple[Image.Image, int]:
    """The whole of an image opened by `open_image`: 8-bit RGB, upright, not squeezed.

    Args:
        image: as opened; it is used up.
        least_px: a JPEG may come out smaller than it is, neither side below this (unless it was).

    Returns:
        The image, and the orientation it was stored in (EXIF, 1..8; 1 is upright).

    Raises:
        UndecodableImageError: see `decode`.
    """
    try:
        image.draft("RGB", (least_px, least_px))
        image.load()
        orientation = _read_orientation(image)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        return _to_rgb(image), orientation
    except UndecodableImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on hostile bytes
        raise UndecodableImageError(f"damaged or truncated: {error}") from error


def find_largest_sample(image: Image.Image) -> int | None:
    """The largest sample, 0..65535, of a loaded image of one channel with more than 8 bits; None of
    others (three channels of 16 bits are cut to 8 by Pillow as it reads them)."""
    return int(np.asarray(image).max()) if _is_deep(image) else None


def resize(rgb: Image.Image, size_px: int) -> Image.Image:
    """Squeeze an RGB image into the square; averages over what falls together (triangle filter)."""
    if rgb.size == (size_px, size_px):
        return rgb
    return rgb.resize((size_px, size_px), Image.Resampling.BILINEAR)


def _read_orientation(image: Image.Image) -> int:
    """EXIF's (or XMP's) orientation; one that cannot be read counts as upright, as in viewers."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  hostile EXIF raises SyntaxError, struct.error, KeyError, ...
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as 8-bit RGB; alpha over white; 16-bit integers divided by 257."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if _is_deep(image):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, _WHITE)
        return Image.alpha_composite(backdrop, rgba).convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """16-bit samples scaled to 8 bits; others have no agreed range and are refused."""
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        raise UndecodableImageError(
            f"samples of type {values.dtype} from {values.min()} to {values.max()}: "
            "expected 8 or 16 bits; convert the file"
        )
    return np.asarray((values.astype(np.uint32) + 128) // 257, dtype=np.uint8)
