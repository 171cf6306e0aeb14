"""Contact sheets: pictures that a finding speaks of, with captions.

In: pixels and words. Out: PNG files, a function of those alone, small enough for a mail.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from podium.data.decode import RGB
from podium.trust.audit.masks import Mask

_TILE_PX, _GAP_PX, _LINE_PX = 112, 6, 13
_COLUMNS = 8
_COLORS = 256
_FOUND, _FAILED = (0, 230, 0), (230, 0, 0)


def draw_sheet(
    tiles: Sequence[RGB], captions: Sequence[Sequence[str]], columns: int = _COLUMNS
) -> bytes:
    """A PNG of uint8 (h, w, 3) tiles in rows, each above its lines of text."""
    lines = max((len(caption) for caption in captions), default=0)
    width, height = _TILE_PX + _GAP_PX, _TILE_PX + lines * _LINE_PX + _GAP_PX
    n_rows = max(1, -(-len(tiles) // columns))
    used = min(columns, max(1, len(tiles)))
    sheet = Image.new("RGB", (used * width + _GAP_PX, n_rows * height + _GAP_PX), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = _GAP_PX + number % columns * width
        top = _GAP_PX + number // columns * height
        way = Image.Resampling.NEAREST if tile.shape[0] < _TILE_PX else Image.Resampling.BOX
        image = Image.fromarray(np.ascontiguousarray(tile)).resize((_TILE_PX, _TILE_PX), way)
        sheet.paste(image, (left, top))
        for line, text in enumerate(caption):
            shown = _shorten(text, pen, font)
            pen.text((left, top + _TILE_PX + line * _LINE_PX), shown, "black", font)
    stream = io.BytesIO()
    sheet.quantize(_COLORS, Image.Quantize.MEDIANCUT).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def outline(image: RGB, mask: Mask | None) -> RGB:
    """The image with the mask's outline; framed in red where there is none."""
    enlarged = cv2.resize(image, (2 * _TILE_PX,) * 2, interpolation=cv2.INTER_LINEAR)
    drawn = np.ascontiguousarray(enlarged)
    if mask is None:
        cv2.rectangle(drawn, (0, 0), (2 * _TILE_PX - 1,) * 2, _FAILED, 8)
        return drawn
    large = cv2.resize(mask.astype(np.uint8), (2 * _TILE_PX,) * 2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, contours, -1, _FOUND, 3)
    return drawn


def _shorten(
    text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """The end of a text that is too wide: names differ there."""
    if pen.textlength(text, font) <= _TILE_PX:
        return text
    while text and pen.textlength(f"...{text}", font) > _TILE_PX:
        text = text[1:]
    return f"...{text}"
