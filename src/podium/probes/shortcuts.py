"""Shortcut probes: how well the class can be told from what it should not depend on.

In: what eda saw of each file, the labels. Out: for each probe a cross-validated score with its
interval, or why it was not measured. A net sees borders and colours; of file sizes, EXIF, times, order
and names it sees nothing, but where they tell the class the images were made class by class, and
whatever differed between those days can be in the pixels, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.file_traits import FileTraits
from podium.probes.cross_validation import (
    NOT_FOLDABLE,
    Features,
    Sample,
    draw_sample,
    predict_by_tree,
    thin,
)
from podium.probes.drift import TOO_FEW_GROUPS, measure_drift_auc
from podium.probes.findings import Effect
from podium.tasks.classification.metrics import grouped_accuracy_interval

BORDER, DRIFT = "border", "drift of simple statistics"
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_MOST_TAGS = 60
_DRIFT_COMPONENTS = 16
COLUMNS = ("probe", "measure", "value", "low", "high", "floor", "n_images", "note")


@dataclass(frozen=True)
class SeenFile:
    """What the probes may know of one readable image.

    Attributes:
        name: its path below competition.source, of which only the last part counts: folders may be
            classes.
        width, height: px.
        mean_rgb: 0..255.
        traits: see `FileTraits`.
        listed_at: its line in the organiser's list, None where there is none.
        packed_at: when it was last changed, as the zip that it came in says, in seconds; None where
            it came in none.
    """

    name: str
    width: int
    height: int
    mean_rgb: tuple[float, float, float]
    traits: FileTraits
    listed_at: int | None = None
    packed_at: int | None = None


@dataclass(frozen=True)
class Probe:
    """One probe's score.

    Attributes:
        name: what it sees.
        effect: accuracy or AUC; None where not measured.
        floor: what it would be if nothing could be told: the majority's share, 0.5 for an AUC.
        n_images: that were used.
        note: why it was not measured, or which images were left out; else "".
        measure: accuracy or auc.
    """

    name: str
    effect: Effect | None
    floor: float
    n_images: int
    note: str = ""
    measure: str = "accuracy"


def probe_shortcuts(
    files: Sequence[SeenFile], labels: Sequence[str], group_ids: Sequence[str], seed: int
) -> list[Probe]:
    """Score every probe over the same grouped, stratified folds.

    Args:
        files, labels, group_ids: of the n training images; rows of one group stay in one fold.
        seed: of the folds, and of which images count where there are very many.
    """
    sample = draw_sample(labels, group_ids, seed)
    if not len(sample.rows):
        return [Probe(name, None, sample.floor, 0, NOT_FOLDABLE) for name in _PROBES]
    few = [files[row] for row in sample.rows]
    return [_run(name, read(few), sample) for name, read in _PROBES.items()]


def probe_drift(
    train: Sequence[SeenFile],
    test: Sequence[SeenFile],
    seed: int,
    group_ids: Sequence[str] | None = None,
) -> Probe:
    """How well a linear model tells test images from training images by simple statistics: size in
    px and in bytes, encoding, mean colour.

    Args:
        train, test: files of both.
        seed: of the folds, and of which images count where there are very many.
        group_ids: of train, then of test; None: each image is its own group.
    """
    is_test = np.repeat([0, 1], [len(train), len(test)])
    if min(len(train), len(test)) < 10:
        return Probe(DRIFT, None, 0.5, len(is_test), "fewer than ten images of a kind", "auc")
    rows = thin(is_test, np.arange(len(is_test)), seed)
    files = [*train, *test]
    few = [files[row] for row in rows]
    features = np.column_stack(
        [_read_colours(few), _read_sizes(few), _read_encoding(few), np.log(_read_bytes(few))]
    )
    groups = [str(row) if group_ids is None else group_ids[row] for row in rows]
    effect = measure_drift_auc(features, is_test[rows], groups, _DRIFT_COMPONENTS, seed)
    note = "" if effect else TOO_FEW_GROUPS
    return Probe(DRIFT, effect, 0.5, len(rows), note, "auc")


def make_probe_table(probes: Sequence[Probe]) -> pd.DataFrame:
    """reports/eda/probes.csv: `COLUMNS`, numbers rounded to 6 decimals."""
    rows = [
        (
            p.name,
            p.measure,
            *([None] * 3 if p.effect is None else [p.effect.value, p.effect.low, p.effect.high]),
            p.floor,
            p.n_images,
            p.note,
        )
        for p in probes
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).round(6)


def parse_probe_table(table: pd.DataFrame) -> list[Probe]:
    """Inverse of `make_probe_table`, of a frame of str."""
    probes = []
    for row in table.to_dict("records"):
        values = [row[key] for key in ("value", "low", "high")]
        effect = Effect(*(float(value) for value in values)) if all(values) else None
        probes.append(
            Probe(
                row["probe"],
                effect,
                float(row["floor"]),
                int(row["n_images"]),
                row["note"],
                row["measure"],
            )
        )
    return probes


def _run(name: str, features: Features | None, sample: Sample) -> Probe:
    codes = sample.codes
    if features is None:
        return Probe(name, None, sample.floor, len(codes), _ABSENT[name])
    if (features == features[0]).all():
        return Probe(name, None, sample.floor, len(codes), "the same for all training images")
    right = predict_by_tree(features, codes, sample.folds) == codes
    effect = Effect(float(right.mean()), *grouped_accuracy_interval(right, sample.groups))
    return Probe(name, effect, sample.floor, len(codes), sample.left_out)


def _read_colours(files: Sequence[SeenFile]) -> Features:
    rgb = np.array([file.mean_rgb for file in files])
    return np.column_stack([rgb, rgb @ _LUMA])


def _read_bytes(files: Sequence[SeenFile]) -> Features:
    return np.array([[float(file.traits.size_bytes)] for file in files])


def _read_sizes(files: Sequence[SeenFile]) -> Features:
    sizes = np.array([(file.width, file.height) for file in files], dtype=np.float64)
    return np.column_stack([sizes, sizes.prod(axis=1), sizes[:, 0] / sizes[:, 1]])


def _read_encoding(files: Sequence[SeenFile]) -> Features:
    return _rank([file.traits.encoding for file in files])


def _read_exif(files: Sequence[SeenFile]) -> Features | None:
    tags = [dict(file.traits.exif) for file in files]
    counts: dict[str, int] = {}
    for found in tags:
        for tag in found:
            counts[tag] = counts.get(tag, 0) + 1
    used = sorted(counts, key=lambda tag: (-counts[tag], tag))[:_MOST_TAGS]
    return _rank([tuple(found.get(tag, "") for tag in used) for found in tags]) if used else None


def _read_times(files: Sequence[SeenFile]) -> Features | None:
    if all(file.packed_at is None for file in files):
        return None
    return np.array([[-1.0 if f.packed_at is None else float(f.packed_at)] for f in files])


def _read_order(files: Sequence[SeenFile]) -> Features | None:
    if any(file.listed_at is None for file in files):
        return None
    return np.array([[float(file.listed_at or 0)] for file in files])


def _read_names(files: Sequence[SeenFile]) -> Features:
    """Of each name its length, its letters, its last number and its place in the sorted list."""
    stems = [PurePosixPath(file.name).stem for file in files]
    numbers = [re.findall(r"\d+", stem) for stem in stems]
    last = [float(found[-1][:15]) if found else -1.0 for found in numbers]
    letters = [re.sub(r"\d+", "", stem) for stem in stems]
    ranked = _rank([(letter, stem) for letter, stem in zip(letters, stems, strict=True)])
    return np.column_stack([[float(len(stem)) for stem in stems], last, ranked])


def _rank(rows: Sequence[tuple[Any, ...]]) -> Features:
    """Each column's values by their place among its sorted values: dates come out in their order."""
    columns = []
    for values in zip(*rows, strict=True):
        place = {value: number for number, value in enumerate(sorted(set(values)))}
        columns.append([float(place[value]) for value in values])
    return np.array(columns).T


_PROBES: dict[str, Callable[[Sequence[SeenFile]], npt.NDArray[np.float64] | None]] = {
    "mean colour and brightness": _read_colours,
    "file size": _read_bytes,
    "encoding": _read_encoding,
    "dimensions": _read_sizes,
    "EXIF": _read_exif,
    "times in the zip": _read_times,
    "order in the list": _read_order,
    "file name": _read_names,
}
_ABSENT = {
    "EXIF": "no file has any",
    "times in the zip": "the files came in no zip",
    "order in the list": "there is no list, the folders name the classes",
}
