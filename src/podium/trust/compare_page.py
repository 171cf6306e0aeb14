"""The page of a comparison: which images changed sides, and what they look like.

In: a `RunComparison` and the images in the workspace. Out: one HTML file that loads nothing from
anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from podium.data.decode import UndecodableImageError, decode
from podium.trust.compare_report import RunComparison, make_metric_table, make_notes

TEMPLATE = Path(__file__).with_name("compare.html.j2")
PICTURES_SHOWN = 60
_THUMBNAIL_PX = 96
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class ChangedImage:
    """One image and both answers.

    Attributes:
        image_id, label: the image, and the truth.
        before, after: the labels that would be submitted.
        p_before, p_after: probability of the true class, 0..1.
        picture: a data URI, or "" where the file is gone or is another one by now.
    """

    image_id: str
    label: str
    before: str
    after: str
    p_before: float
    p_after: float
    picture: str


def make_page(result: RunComparison, root: Path) -> str:
    """Render the page.

    Args:
        result: what to show.
        root: the repository's top folder, below which the manifest's paths stand.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    found = result.comparison
    sections = [
        {"title": title, "count": len(rows), **_show(result, rows, root)}
        for title, rows in (
            (f"Right only in {result.after.name}", found.mended),
            (f"Right only in {result.before.name}", found.broken),
            ("Wrong in both, with another answer", found.moved),
        )
    ]
    return template.render(
        before=result.before.name,
        after=result.after.name,
        competition=result.before.params.get("competition.name", ""),
        comparison=found,
        primary=found.primary,
        metrics=make_metric_table(result),
        params=result.changed_params,
        inputs=result.changed_inputs,
        notes=make_notes([result.before, result.after]),
        sections=sections,
    )


def _show(result: RunComparison, rows: npt.NDArray[np.int64], root: Path) -> dict[str, Any]:
    """The images of these rows, those first whose true class gained or lost most; the pictures of
    all but the first are left out, their ids are not."""
    before, after = result.sides
    table, classes = result.before.rows, result.before.classes
    targets = result.task.targets(table["label"].tolist())
    own = targets[rows]
    p_before, p_after = before.probabilities[rows, own], after.probabilities[rows, own]
    order = np.argsort(-np.abs(p_after - p_before), kind="stable")
    images: list[ChangedImage] = []
    for place in order.tolist():
        row = int(rows[place])
        facts = table.iloc[row]
        shown = len(images) < PICTURES_SHOWN
        images.append(
            ChangedImage(
                image_id=facts["image_id"],
                label=facts["label"],
                before=classes[before.labels[row]],
                after=classes[after.labels[row]],
                p_before=float(p_before[place]),
                p_after=float(p_after[place]),
                picture=_make_data_uri(root / facts["path"], facts["sha256"]) if shown else "",
            )
        )
    return {"images": images[:PICTURES_SHOWN], "others": images[PICTURES_SHOWN:]}


def _make_data_uri(path: Path, sha256: str) -> str:
    """The image as the net sees it, as an inline JPEG; "" where the file is not that image."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            return ""
        pixels = decode(content, _THUMBNAIL_PX)
    except (OSError, UndecodableImageError):
        return ""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
