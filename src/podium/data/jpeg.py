"""Finds JPEGs whose compressed data ends early, also where an end marker was put back.

libjpeg, and so Pillow and OpenCV, fill what is missing with grey and say nothing: a warning that
neither passes on. Three checks, none of which looks at the picture:

- One scan (baseline, the usual kind): the end marker is replaced by `_FILLER` and nothing after it.
  A decoder that has all its data never looks beyond the filler; one that has not runs dry, and
  Pillow raises "image file is truncated". It costs no second decoding and changes no pixel.
  What passes: a cut within the last two 8 x 8 blocks (some ten bytes before the end).
- Several scans (progressive): the scan headers must cover all coefficients to the last bit.
- And the last scan's data: decoded twice with different fillers, complete data gives equal pixels
  (`check_last_scan`, for eda: it costs two full decodings).

Markers and scans: ITU-T T.81, annex B and G.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

from PIL import Image

_SOI, _EOI, _SCAN_MARKER = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_SCAN_CODE, _EOI_CODE = 0xDA, 0xD9
_BASELINE = (0xC0, 0xC1)  # start of frame: baseline and extended sequential, Huffman-coded
_PROGRESSIVE = 0xC2
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_COEFFICIENTS = 64

# Compressed data ends where a 0xFF is followed by neither 0 (an escaped 0xFF) nor a restart marker
# nor another 0xFF.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# libjpeg reads ahead up to 57 bits. Eight bytes of ones (each 0xFF escaped) satisfy that, and last
# for two blocks at most: no Huffman code consists of ones only, so each missing one eats 17 bits.
_FILLER = b"\xff\x00" * 8
_OTHER_FILLER = b"\x55\xaa\x33\xc4\x9a\x27\x61\x5b" * 64


class IncompleteJpegError(ValueError):
    """A JPEG without all of its data; the message says what is missing."""


@dataclass
class _Layout:
    """Where things stand in a JPEG file."""

    frame: int = 0  # the code of the start-of-frame marker, 0 where there was none
    components: tuple[int, ...] = ()
    scans: list[bytes] = field(default_factory=list)  # scan headers, behind their length
    data_end: int = 0  # offset behind the last scan's data


def expose_missing_end(content: bytes) -> bytes:
    """The file in a form that makes Pillow raise where data is missing at its end.

    Pixels of complete images are unchanged. What is no JPEG, or a rare kind (arithmetic-coded,
    lossless), comes back as it is.

    Raises:
        IncompleteJpegError: a progressive JPEG with scans missing.
    """
    layout = _read_layout(content)
    if layout is None:
        return content
    if len(layout.scans) == 1 and layout.frame in _BASELINE:
        return content[: layout.data_end] + _FILLER
    if layout.frame == _PROGRESSIVE or layout.frame in _BASELINE:
        _check_scans(layout)
    return content


def check_last_scan(content: bytes) -> None:
    """Check the last of several scans to its end; for all other files it returns at once.

    Raises:
        IncompleteJpegError: data is missing, or Pillow cannot decode it at all.
    """
    if content.count(_SCAN_MARKER) < 2:  # most files end here, without the walk
        return
    layout = _read_layout(content)
    if layout is None or len(layout.scans) < 2:
        return
    data = content[: layout.data_end]
    one, other = (_decode_pixels(data + filler + _EOI) for filler in (_FILLER, _OTHER_FILLER))
    if one != other:
        raise IncompleteJpegError("truncated: the last scan of the progressive JPEG is cut short")


def _decode_pixels(content: bytes) -> bytes:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            return image.tobytes()
    except Exception as error:  # Pillow's decoders raise a dozen types on hostile bytes
        raise IncompleteJpegError(f"damaged or truncated: {error}") from error


def _read_layout(content: bytes) -> _Layout | None:
    """Walk over the segments; None where it is no JPEG with image data."""
    if not content.startswith(_SOI):
        return None
    layout = _Layout()
    at = len(_SOI)
    while at + 4 <= len(content) and content[at] == 0xFF:
        code = content[at + 1]
        if code == 0xFF:  # a fill byte before a marker
            at += 1
            continue
        if code == _EOI_CODE:
            break
        if code in _WITHOUT_LENGTH:
            at += 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        at += 2 + length
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            layout.frame = code
            layout.components = tuple(body[6::3])
        elif code == _SCAN_CODE:
            layout.scans.append(body)
            marker = _MARKER.search(content, at)
            at = layout.data_end = marker.start() if marker else len(content)
    return layout if layout.scans else None


def _check_scans(layout: _Layout) -> None:
    """Every coefficient of every component must have come down to its last bit."""
    missing = {(name, k) for name in layout.components for k in range(_COEFFICIENTS)}
    for scan in layout.scans:
        count = scan[0] if scan else 0
        if len(scan) < 1 + 2 * count + 3:
            raise IncompleteJpegError("truncated: a scan header of the JPEG is cut short")
        names = scan[1 : 1 + 2 * count : 2]
        first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
        if layout.frame == _PROGRESSIVE and bits & 0x0F:
            continue  # lower bits are still to come
        if layout.frame != _PROGRESSIVE:
            first, last = 0, _COEFFICIENTS - 1
        missing -= {(name, k) for name in names for k in range(first, last + 1)}
    if missing:
        raise IncompleteJpegError(
            f"truncated: only {len(layout.scans)} scans of the progressive JPEG are there"
        )
