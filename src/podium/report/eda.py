"""The eda stage's work: look at everything once, say what is wrong, and what needs no net.

In: the competition as the organiser gave it out. Out: manifest, problems, plot tables, metrics and
the page reports/eda/eda.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.duplicates import PLACES, DuplicateGroup, find_duplicates
from podium.data.inspection import ImageFacts, inspect_files
from podium.data.listing import TEST, TRAIN, Problem, Row, load_listing
from podium.data.manifest import (
    MANIFEST,
    Assembly,
    count_problems,
    make_manifest,
    make_problem_table,
)
from podium.data.packed_times import load_packed_times
from podium.data.params import ListingParams
from podium.data.relabel import RELABEL, apply_relabels, load_relabels
from podium.files import write_csv, write_metrics, write_text
from podium.probes.baselines import Baseline, Baselines, measure_baselines
from podium.probes.cross_validation import NOT_FOLDABLE
from podium.probes.findings import make_scale
from podium.probes.shortcuts import (
    BORDER,
    DRIFT,
    Probe,
    SeenFile,
    make_probe_table,
    probe_drift,
    probe_shortcuts,
)

PROBLEMS = Path("data/problems.csv")
METRICS = Path("metrics/eda.json")
REPORT = Path("reports/eda")
PAGE = REPORT / "eda.html"

# What experiments are compared by; the rest of the metrics goes under `details`.
_HEADLINE = (
    "n_train",
    "n_test",
    "n_problems",
    "conflicting_groups",
    "majority_accuracy",
    "linear_accuracy",
    "border_accuracy",
)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_CHANNELS = ("red", "green", "blue")
_EXAMPLES = 3
_WARNINGS_SHOWN = 3
_LARGEST_DARK_SAMPLE = 2**14 - 1  # of 16 bits: scaled to 8, at most a quarter of white
_SUFFIX_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".tif": "TIFF"}
_DECIMALS = 6


@dataclass(frozen=True)
class Eda:
    """Everything the stage writes.

    Attributes:
        assembly: manifest and problems.
        tables: by file name without `.csv`, the plot data.
        metrics: for metrics/eda.json.
        warnings: plain sentences about what is legal and should be known.
        duplicates: groups of pixel-identical images.
        odd_files: lines about files that no list names.
        baselines: what can be scored without a net.
        probes: what should not tell the class, and test from training images.
        relabelled: what data/relabel.csv changed.
    """

    assembly: Assembly
    tables: dict[str, pd.DataFrame]
    metrics: dict[str, Any]
    warnings: list[str]
    duplicates: list[DuplicateGroup]
    odd_files: list[str]
    baselines: Baselines
    probes: list[Probe]
    relabelled: list[Problem]


def make_eda(
    root: Path, competition: ListingParams, on_problem: Literal["stop", "drop"], seed: int
) -> Eda:
    """Read, check and measure everything that needs no net.

    Args:
        root: the repository's top folder.
        competition: what the organiser gave out.
        on_problem: see `podium.data.manifest.make_manifest`.
        seed: of the baselines' folds.

    Raises:
        PodiumError, ProblemsError: see `load_listing`, `apply_relabels` and `make_manifest`.
    """
    listing = load_listing(root, competition)
    changes = load_relabels(root / RELABEL)
    listing, relabelled = apply_relabels(listing, changes, competition.classes)
    readable = [row for row in listing.rows if not row.problem]
    paths = [root / competition.source / row.image_id for row in readable]
    facts_of = dict(zip((row.image_id for row in readable), inspect_files(paths), strict=True))
    facts = [
        facts_of.get(row.image_id, ImageFacts(sha256="", problem=row.problem))
        for row in listing.rows
    ]
    assembly = make_manifest(listing, facts, competition.source, on_problem)
    manifest = assembly.manifest
    thumbnails = _stack_thumbnails(assembly.facts)
    train = (manifest["source"] == TRAIN).to_numpy()
    duplicates = find_duplicates(manifest)
    baselines = measure_baselines(
        thumbnails[train], list(manifest["label"][train]), list(manifest["group_id"][train]), seed
    )
    probes = _probe(root / competition.source, listing.rows, assembly, baselines, seed)
    tables = {
        "class_counts": _count_classes(manifest, competition.classes),
        "image_sizes": _count_sizes(manifest),
        "brightness": _measure_brightness(manifest, thumbnails, competition.classes),
        "channels": _measure_channels(manifest, thumbnails),
        "duplicates": _count_duplicates(duplicates),
        "probes": make_probe_table(probes),
    }
    return Eda(
        assembly=assembly,
        tables=tables,
        metrics={
            **_make_metrics(assembly, tables, duplicates, listing.odd_files, baselines),
            "n_relabelled": len(relabelled),
        },
        warnings=[
            *_explain_probes(probes),
            *_make_warnings(assembly, tables, duplicates, listing.odd_files, baselines),
            *_explain_relabels(relabelled),
        ],
        duplicates=duplicates,
        odd_files=listing.odd_files,
        baselines=baselines,
        probes=probes,
        relabelled=relabelled,
    )


def write_eda(root: Path, eda: Eda, page: str) -> None:
    """Write the manifest, the problems, metrics/eda.json and reports/eda/."""
    write_csv(root / MANIFEST, eda.assembly.manifest)
    write_csv(root / PROBLEMS, make_problem_table([*eda.assembly.problems, *eda.relabelled]))
    for name, table in eda.tables.items():
        write_csv(root / REPORT / f"{name}.csv", table)
    write_text(root / PAGE, page)
    write_metrics(root / METRICS, eda.metrics, _HEADLINE)


def make_summary(eda: Eda) -> list[str]:
    """What the stage prints: rows, what was done about problems, baselines, where the page is."""
    counts = eda.metrics
    lines = [
        f"{counts['n_train']} training images of {counts['n_classes']} classes, "
        f"{counts['n_test']} test images"
    ]
    if eda.assembly.problems:
        lines.append(
            f"{count_problems(len(eda.assembly.problems))}: {counts['n_train_dropped']} training rows "
            f"dropped, {counts['n_test_unreadable']} test rows kept (class prior); see {PROBLEMS}"
        )
    lines += [f"warning: {warning}" for warning in eda.warnings[:_WARNINGS_SHOWN]]
    hidden = len(eda.warnings) - _WARNINGS_SHOWN
    if hidden > 0:
        lines.append(f"... and {hidden} more warnings on the page")
    lines += explain_baselines(eda.baselines)
    lines.append(f"the page: {PAGE}")
    return lines


def explain_baselines(baselines: Baselines) -> list[str]:
    """The baselines in sentences."""
    lines = [f"always saying the commonest class scores {baselines.majority:.1%}"]
    if baselines.linear is None or baselines.border is None:
        lines.append(f"linear baselines: not measured, {NOT_FOLDABLE}")
        return lines
    lines.append(
        f"a linear model scores {_show(baselines.linear)} on thumbnails and "
        f"{_show(baselines.border)} on their border alone{_in_brackets(baselines.left_out)}"
    )
    return lines


def _explain_border(baselines: Baselines) -> list[str]:
    """The warning that a score may come from the background, where the border tells so much."""
    if baselines.border is None or not baselines.border_tells_much:
        return []
    return [
        f"the outermost tenth of the pictures alone gives {baselines.border.accuracy:.1%}: unless the "
        "object reaches that far, a score of this size can come from the background alone"
    ]


def _probe(
    source: Path, rows: Sequence[Row], assembly: Assembly, baselines: Baselines, seed: int
) -> list[Probe]:
    """The border, what files say beside their pictures, and the drift of both to the test images."""
    packed_at = load_packed_times(source)
    listed_at = {row.image_id: row.line for row in rows if row.file.endswith(".csv")}
    manifest = assembly.manifest
    files: dict[str, list[SeenFile]] = {TRAIN: [], TEST: []}
    for image_id, where, fact in zip(
        manifest["image_id"], manifest["source"], assembly.facts, strict=True
    ):
        if fact.traits is None or fact.thumbnail is None:
            continue
        red, green, blue = fact.thumbnail.mean(axis=(0, 1)).tolist()
        files[where].append(
            SeenFile(
                image_id,
                fact.width,
                fact.height,
                (red, green, blue),
                fact.traits,
                listed_at.get(image_id),
                packed_at.get(image_id),
            )
        )
    train = manifest[manifest["source"] == TRAIN]
    note = baselines.left_out if baselines.border else NOT_FOLDABLE
    effect = None if baselines.border is None else baselines.border.as_effect()
    border = Probe(BORDER, effect, baselines.floor, baselines.n_images, note)
    labels, groups = train["label"].tolist(), train["group_id"].tolist()
    shortcuts = probe_shortcuts(files[TRAIN], labels, groups, seed)
    group_of = dict(zip(manifest["image_id"], manifest["group_id"], strict=True))
    together = [group_of[file.name] for file in (*files[TRAIN], *files[TEST])]
    return [border, *shortcuts, probe_drift(files[TRAIN], files[TEST], seed, together)]


def _explain_probes(probes: Sequence[Probe]) -> list[str]:
    """Warnings of probes that surely close half the gap to a perfect score; no model is known yet."""
    lines = []
    for probe in probes:
        if probe.effect is None or probe.name == BORDER:
            continue  # the border has a sentence of its own
        if make_scale(probe.floor, None).judge_score(probe.effect) != "alarm":
            continue
        if probe.name == DRIFT:
            lines.append(
                "test images can be told from training images by size, encoding or mean colour "
                f"(AUC {probe.effect.value:.2f}): the val score may not hold on them"
            )
        else:
            lines.append(
                f"{probe.name} alone tells the class of {probe.effect} of the images"
                f"{_in_brackets(probe.note)}"
            )
    return lines


def _explain_relabels(relabelled: Sequence[Problem]) -> list[str]:
    if not relabelled:
        return []
    return [f"{len(relabelled)} labels are not the organiser's: {RELABEL} changed them"]


def _in_brackets(note: str) -> str:
    return f" ({note})" if note else ""


def _show(baseline: Baseline) -> str:
    return f"{baseline.accuracy:.1%} ({baseline.low:.1%} to {baseline.high:.1%})"


def _stack_thumbnails(facts: Sequence[ImageFacts]) -> npt.NDArray[np.uint8]:
    """uint8 (n, 32, 32, 3); black where undecodable (such rows are never counted)."""
    shape = next(fact.thumbnail.shape for fact in facts if fact.thumbnail is not None)
    black = np.zeros(shape, dtype=np.uint8)
    return np.stack([black if fact.thumbnail is None else fact.thumbnail for fact in facts])


def _count_classes(manifest: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    counts = Counter(manifest.loc[manifest["source"] == TRAIN, "label"])
    return pd.DataFrame([(label, counts[label]) for label in classes], columns=["label", "count"])


def _count_sizes(manifest: pd.DataFrame) -> pd.DataFrame:
    """width, height, count of decodable images, the commonest first."""
    usable = manifest[manifest["problem"] == ""]
    counts = Counter(zip(usable["width"].tolist(), usable["height"].tolist(), strict=True))
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return pd.DataFrame(
        [(*size, count) for size, count in ordered], columns=["width", "height", "count"]
    )


def _measure_brightness(
    manifest: pd.DataFrame, thumbnails: npt.NDArray[np.uint8], classes: Sequence[str]
) -> pd.DataFrame:
    """Quantiles of the images' mean luma, 0..255: one row per class, then one for test."""
    luma = thumbnails.mean(axis=(1, 2)) @ _LUMA
    usable = (manifest["problem"] == "").to_numpy()
    parts = [(TRAIN, label, usable & (manifest["label"] == label).to_numpy()) for label in classes]
    parts.append((TEST, "(test)", usable & (manifest["source"] == TEST).to_numpy()))
    rows = [
        (source, label, int(rows.sum()), *np.quantile(luma[rows], _QUANTILES).round(2).tolist())
        for source, label, rows in parts
        if rows.any()
    ]
    columns = ["source", "label", "count", *(f"p{round(q * 100):02}" for q in _QUANTILES)]
    return pd.DataFrame(rows, columns=columns)


def _measure_channels(manifest: pd.DataFrame, thumbnails: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Mean and standard deviation, 0..255, of the pixels of the 32 px thumbnails."""
    rows = []
    for source in (TRAIN, TEST):
        used = ((manifest["source"] == source) & (manifest["problem"] == "")).to_numpy()
        if not used.any():
            continue
        pixels = thumbnails[used]
        means, deviations = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
        rows += [
            (source, channel, round(float(mean), 2), round(float(deviation), 2))
            for channel, mean, deviation in zip(_CHANNELS, means, deviations, strict=True)
        ]
    return pd.DataFrame(rows, columns=["source", "channel", "mean", "std"])


def _count_duplicates(duplicates: Sequence[DuplicateGroup]) -> pd.DataFrame:
    """place, groups, images in them, groups with conflicting labels."""
    rows = []
    for place in PLACES:
        groups = [group for group in duplicates if group.place == place]
        images = sum(len(group.image_ids) for group in groups)
        rows.append((place, len(groups), images, sum(group.conflicting for group in groups)))
    return pd.DataFrame(rows, columns=["place", "groups", "images", "conflicting"])


def _make_metrics(
    assembly: Assembly,
    tables: dict[str, pd.DataFrame],
    duplicates: Sequence[DuplicateGroup],
    odd_files: Sequence[str],
    baselines: Baselines,
) -> dict[str, Any]:
    manifest = assembly.manifest
    places = tables["duplicates"].set_index("place")["groups"]
    metrics: dict[str, Any] = {
        "n_train": int((manifest["source"] == TRAIN).sum()),
        "n_test": int((manifest["source"] == TEST).sum()),
        "n_classes": int((tables["class_counts"]["count"] > 0).sum()),
        "n_problems": len(assembly.problems),
        "n_train_dropped": assembly.n_train_dropped,
        "n_test_unreadable": int((manifest["problem"] != "").sum()),
        "n_odd_files": len(odd_files),
        "duplicate_groups": {place.replace(" ", "_"): int(places[place]) for place in PLACES},
        "conflicting_groups": sum(group.conflicting for group in duplicates),
        "majority_accuracy": round(baselines.majority, _DECIMALS),
        "baseline_images": baselines.n_images,
    }
    for name, baseline in (("linear", baselines.linear), ("border", baselines.border)):
        for key in ("accuracy", "low", "high"):
            value = None if baseline is None else round(getattr(baseline, key), _DECIMALS)
            metrics[f"{name}_{key}"] = value
    return metrics


def _make_warnings(
    assembly: Assembly,
    tables: dict[str, pd.DataFrame],
    duplicates: Sequence[DuplicateGroup],
    odd_files: Sequence[str],
    baselines: Baselines,
) -> list[str]:
    """Sentences, the gravest first."""
    warnings = _explain_border(baselines)
    for label, count in tables["class_counts"].itertuples(index=False):
        if count == 0:
            warnings.append(f"class {label!r} has no training image: it cannot be learned")
        elif count == 1:
            warnings.append(f"class {label!r} has one training image: folds need at least two")
    conflicting = [group for group in duplicates if group.conflicting]
    if conflicting:
        names = _examples([f"{g.image_ids[0]} ({' and '.join(g.labels)})" for g in conflicting])
        warnings.append(f"{len(conflicting)} pictures have several labels: {names}")
    across = [group for group in duplicates if group.place == PLACES[2]]
    if across:
        warnings.append(f"{len(across)} test pictures are also training pictures, pixel for pixel")
    warnings += _explain_odd_images(assembly) + _explain_dark_samples(assembly.facts)
    if odd_files:
        warnings.append(f"{len(odd_files)} files are in no list: {_examples(odd_files)}")
    return warnings


def _explain_odd_images(assembly: Assembly) -> list[str]:
    """Images that are legal and unlike the others: sentences with examples."""
    images = [
        (name, fact)
        for name, fact in zip(assembly.manifest["image_id"], assembly.facts, strict=True)
        if not fact.problem
    ]
    usual_mode = _commonest([fact.mode for _, fact in images])
    usual_size = _commonest([(fact.width, fact.height) for _, fact in images])
    odd = {
        f"are stored as another mode than {usual_mode}": [
            f"{name} ({fact.mode})" for name, fact in images if fact.mode != usual_mode
        ],
        f"have another size than {usual_size[0]} x {usual_size[1]}": [
            f"{name} ({fact.width} x {fact.height})"
            for name, fact in images
            if (fact.width, fact.height) != usual_size
        ],
        "are of another format than their name says": [
            f"{name} ({fact.format})" for name, fact in images if _is_misnamed(name, fact)
        ],
        "are turned by EXIF (they are set upright)": [n for n, fact in images if fact.rotated],
        "are animated (the first frame counts)": [n for n, fact in images if fact.animated],
    }
    return [
        f"{len(names)} images {what}: {_examples(names)}" for what, names in odd.items() if names
    ]


def _explain_dark_samples(facts: Sequence[ImageFacts]) -> list[str]:
    """16-bit files of a camera with 8 to 14 bits: scaled from 65535, they come out nearly black."""
    samples = [fact.largest_sample for fact in facts if fact.largest_sample is not None]
    if not 0 < max(samples, default=0) <= _LARGEST_DARK_SAMPLE:
        return []
    return [
        f"{len(samples)} images are stored with more than 8 bits, and none has a sample above "
        f"{max(samples)} of 65535: they are seen nearly black; multiply their samples "
        f"by {65535 // max(samples)}, all by the same"
    ]


def _commonest(values: Sequence[Any]) -> Any:
    """The most frequent value; of equals the smallest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def _is_misnamed(name: str, fact: ImageFacts) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    said = _SUFFIX_FORMATS.get(suffix, suffix.removeprefix(".").upper())
    return said != ("JPEG" if fact.format == "MPO" else fact.format)


def _examples(names: Sequence[str]) -> str:
    more = f", ... ({len(names) - _EXAMPLES} more)" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more
