"""reports/eda/eda.html: one file to open, mail or print; it loads nothing from anywhere.

In: an `Eda` and the images it names. Out: HTML with inline style, inline charts and thumbnails.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from podium.data.decode import decode_file
from podium.data.duplicates import DuplicateGroup
from podium.data.listing import TEST, TRAIN
from podium.report.eda import PROBLEMS, Eda, explain_baselines
from podium.runtime import derive_seed

TEMPLATE = Path(__file__).with_name("eda.html.j2")
SAMPLES_PER_CLASS = 8
_DUPLICATES_SHOWN = 12
_IMAGES_PER_DUPLICATE = 4
_LINES_SHOWN = 50
_SIZES_SHOWN = 12
_THUMBNAIL_PX = 96
_JPEG_QUALITY = 80
# Where labels conflict first: those are the ones to look at.
_CONFLICTING_FIRST = (True, False)


def make_page(root: Path, name: str, eda: Eda, seed: int) -> str:
    """Render the page.

    Args:
        root: the repository's top folder, below which the manifest's paths stand.
        name: the competition's.
        eda: what to show.
        seed: decides which images stand for their class.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    manifest = eda.assembly.manifest
    problems = [str(problem) for problem in eda.assembly.problems]
    shown_duplicates = [
        group
        for wanted in _CONFLICTING_FIRST
        for group in eda.duplicates
        if group.conflicting == wanted
    ][:_DUPLICATES_SHOWN]
    tables = {key: table.to_dict("records") for key, table in eda.tables.items()}
    return template.render(
        name=name,
        metrics=eda.metrics,
        tables=tables,
        largest_class=max(row["count"] for row in tables["class_counts"]),
        sizes_shown=_SIZES_SHOWN,
        warnings=eda.warnings,
        problems=problems[:_LINES_SHOWN],
        n_problems=len(problems),
        problems_file=PROBLEMS.as_posix(),
        samples=_pick_samples(root, manifest, [r["label"] for r in tables["class_counts"]], seed),
        duplicates=[_show_group(root, manifest, group) for group in shown_duplicates],
        n_duplicates=len(eda.duplicates),
        odd_files=eda.odd_files[:_LINES_SHOWN],
        n_odd_files=len(eda.odd_files),
        baselines=eda.baselines,
        probes=eda.probes,
        sentences=explain_baselines(eda.baselines),
    )


def _pick_samples(
    root: Path, manifest: pd.DataFrame, classes: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """For each class (and test) some images, drawn independently of their order."""
    usable = manifest[manifest["problem"] == ""]
    parts = [(label, usable[usable["label"] == label]) for label in classes]
    parts.append((TEST, usable[usable["source"] == TEST]))
    samples = []
    for label, rows in parts:
        drawn = sorted(
            zip(rows["image_id"], rows["path"], strict=True),
            key=lambda row: (derive_seed(seed, "eda", "sample", row[0]), row[0]),
        )[:SAMPLES_PER_CLASS]
        if drawn:
            images = [(image_id, _make_data_uri(root / path)) for image_id, path in drawn]
            samples.append({"label": label, "count": len(rows), "images": images})
    return samples


def _show_group(root: Path, manifest: pd.DataFrame, group: DuplicateGroup) -> dict[str, Any]:
    rows = manifest[manifest["image_id"].isin(group.image_ids[:_IMAGES_PER_DUPLICATE])]
    columns = (rows[column] for column in ("image_id", "path", "label", "source"))
    return {
        "place": group.place,
        "conflicting": group.conflicting,
        "hidden": len(group.image_ids) - len(rows),
        "images": [
            (image_id, label if source == TRAIN else TEST, _make_data_uri(root / path))
            for image_id, path, label, source in zip(*columns, strict=True)
        ],
    }


def _make_data_uri(path: Path) -> str:
    """The image as the net sees it (squeezed to a square), as an inline JPEG."""
    stream = io.BytesIO()
    image = Image.fromarray(decode_file(path, _THUMBNAIL_PX))
    image.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
