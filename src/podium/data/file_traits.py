"""What a file says about itself beside its picture: how it was encoded, and what a camera wrote.

In: an opened image and its bytes. Out: `FileTraits`. None of it may tell the class; the probes of eda
see whether it does.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

# Of a tag's text so much counts: a maker note may hold megabytes.
_MOST_CHARACTERS = 64
_MOST_TAGS = 200
# Blocks of other tags: date and exposure stand in the first.
_BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


@dataclass(frozen=True)
class FileTraits:
    """Of one file.

    Attributes:
        size_bytes: of the whole file.
        encoding: Pillow's format and mode, whether the JPEG is progressive, and the sums of its
            quantisation tables (the coarser, the larger), in a fixed order; 0 where there is none.
        exif: tag -> text, sorted by tag; what cannot be read is left out.
    """

    size_bytes: int
    encoding: tuple[str, str, int, int, int]
    exif: tuple[tuple[str, str], ...] = ()


def read_traits(image: Image.Image, size_bytes: int) -> FileTraits:
    """Of an image as `podium.data.decode.open_image` gives it, before it is decoded."""
    tables: dict[int, Any] = getattr(image, "quantization", None) or {}
    sums = [int(sum(tables[number])) if number in tables else 0 for number in (0, 1)]
    progressive = int("progressive" in image.info or "progression" in image.info)
    encoding = (image.format or "", image.mode, progressive, sums[0], sums[1])
    return FileTraits(size_bytes, encoding, _read_exif(image))


def _read_exif(image: Image.Image) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):  # hostile EXIF raises SyntaxError, struct.error, KeyError
        exif = image.getexif()
        found.update((f"{tag:05}", _shorten(value)) for tag, value in exif.items())
        for block in _BLOCKS:
            if block in exif:
                values = exif.get_ifd(block)
                found.update((f"{block:05}.{tag:05}", _shorten(v)) for tag, v in values.items())
    return tuple(sorted(found.items())[:_MOST_TAGS])


def _shorten(value: Any) -> str:
    return str(value)[:_MOST_CHARACTERS]
