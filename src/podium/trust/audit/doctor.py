"""The leak and shortcut doctor: all checks that need splits, features or predictions.

In: a `Case`. Out: findings, the gravest first, tables and contact sheets. It knows no files: the audit
stage reads and writes them, and benchmarks/audit.py makes cases of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.decode import RGB
from podium.data.image_cache import Images
from podium.data.listing import TEST, TRAIN
from podium.probes.cross_validation import thin
from podium.probes.drift import TOO_FEW_GROUPS, measure_drift_auc
from podium.probes.findings import (
    ALARM_SHARE,
    Effect,
    Finding,
    Scale,
    make_scale,
    order_findings,
)
from podium.probes.shortcuts import BORDER, DRIFT, Probe
from podium.runtime import derive_seed
from podium.tasks.classification.metrics import grouped_accuracy_interval
from podium.trust.audit.labels import explain_candidates, find_candidates
from podium.trust.audit.masks import Mask, make_masks
from podium.trust.audit.occlusion import (
    MASK_SAMPLE,
    Answer,
    Subject,
    check_occlusion,
    keep_border,
    keep_centre,
    pick_donors,
    replace_backgrounds,
)
from podium.trust.audit.sheets import draw_sheet, outline
from podium.trust.audit.twins import Twins, explain_twins, find_twins

# Enough for an interval of +-6 points at worst; a mask costs as much as ten predictions.
MAX_OCCLUDED = 250
BOOTSTRAP_DRAWS = 2000
_DRIFT_COMPONENTS = 64
_LEAST_FOR_DRIFT = 10
_LABELS_SHOWN, _TWINS_SHOWN, _EXAMPLES = 48, 24, 5


@dataclass(frozen=True)
class Case:
    """A competition and its models, as the doctor looks at them.

    Attributes:
        rows: readable manifest rows, train first, then test.
        train_images, test_images: their pixels, uint8 (n, s, s, 3).
        embeddings: (n, d) of all rows.
        folds: fold of each training image that is used.
        val_rows: positions, among the train rows, of the images that the predictions are of.
        targets: their class numbers.
        probabilities: (n_val, k) out of fold.
        classes: k names.
        probes: eda's.
        answer: (images, numbers of val rows) -> class numbers, each by the model of its fold.
        load_large: (path, side in px) -> pixels.
        seed: the run's.
    """

    rows: pd.DataFrame
    train_images: Images
    test_images: Images
    embeddings: npt.NDArray[np.float32]
    folds: dict[str, int]
    val_rows: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    classes: Sequence[str]
    probes: Sequence[Probe]
    answer: Answer
    load_large: Callable[[str, int], RGB]
    seed: int


@dataclass(frozen=True)
class Audit:
    """What the doctor found.

    Attributes:
        findings: the gravest first.
        scale: what they were judged by.
        model: the models' score with its interval.
        candidates: for reports/audit/relabel_candidates.csv.
        twins: groups of near-duplicates.
        sheets: file name -> PNG.
    """

    findings: list[Finding]
    scale: Scale
    model: Effect
    candidates: pd.DataFrame
    twins: Twins
    sheets: dict[str, bytes]


def audit(case: Case) -> Audit:
    """Run all checks."""
    train = case.rows[case.rows["source"] == TRAIN].reset_index(drop=True)
    answers = case.probabilities.argmax(axis=1)
    right, groups = answers == case.targets, train["group_id"].iloc[case.val_rows].tolist()
    model = Effect(float(right.mean()), *grouped_accuracy_interval(right, groups))
    majority = float(np.bincount(case.targets).max() / len(answers))
    scale = make_scale(majority, model)
    val_ids = train["image_id"].iloc[case.val_rows].tolist()

    images = _Together(case.train_images, case.test_images)
    twins = find_twins(
        case.rows,
        images,
        case.embeddings,
        case.folds,
        case.load_large,
        BOOTSTRAP_DRAWS,
        case.seed,
    )
    findings = explain_probes(case.probes, model, scale)
    findings.append(measure_drift(case.rows, case.embeddings, case.seed))
    findings += explain_twins(twins, case.rows, val_ids, case.folds, scale)
    subject, chosen, masks = _pick_subject(case, val_ids, twins)
    findings += check_occlusion(
        subject, masks, lambda shown, rows: case.answer(shown, chosen[rows]), scale
    )
    knows_nothing = model.low <= majority
    candidates = find_candidates(val_ids, case.targets, case.probabilities, case.classes)
    if knows_nothing:
        candidates = candidates.iloc[:0]
    findings.append(explain_candidates(candidates, len(val_ids), knows_nothing))
    drawn = {
        "labels.png": _draw_candidates(candidates, train, case.train_images),
        "masks.png": _draw_masks(subject, masks),
        "occlusion.png": _draw_examples(subject, masks),
        "near_duplicates.png": _draw_twins(twins, case.rows, images),
    }
    sheets = {name: content for name, content in drawn.items() if content}
    return Audit(order_findings(findings), scale, model, candidates, twins, sheets)


def explain_probes(probes: Sequence[Probe], model: Effect, scale: Scale) -> list[Finding]:
    """eda's probes, judged against the model."""
    return [_explain_probe(probe, model, scale) for probe in probes]


def measure_drift(rows: pd.DataFrame, embeddings: npt.NDArray[np.float32], seed: int) -> Finding:
    """Whether a linear model tells test from training images by their embeddings."""
    is_test = (rows["source"] == TEST).to_numpy().astype(np.intp)
    check = "drift of embeddings"
    if min(int(is_test.sum()), int((1 - is_test).sum())) < _LEAST_FOR_DRIFT:
        return Finding(check, "not measured", f"fewer than {_LEAST_FOR_DRIFT} images of a kind")
    used = thin(is_test, np.arange(len(is_test)), seed)
    seen, groups = embeddings[used].astype(np.float64), rows["group_id"].iloc[used].tolist()
    effect = measure_drift_auc(seen, is_test[used], groups, _DRIFT_COMPONENTS, seed)
    if effect is None:
        return Finding(check, "not measured", TOO_FEW_GROUPS)
    return _explain_drift(check, effect, "by what a net sees in them")


def _explain_drift(check: str, effect: Effect, how: str) -> Finding:
    scale = Scale(0.5, 1.0)
    severity = scale.judge_score(effect)
    told = f"AUC {effect.value:.2f} ({effect.low:.2f} to {effect.high:.2f}), 0.5 is chance"
    told_apart = severity in ("alarm", "notice")
    verb = "can" if told_apart else "can hardly"
    return Finding(
        check,
        severity,
        f"test images {verb} be told from training images {how}: {told}",
        "the val score may not hold on test images: find out what differs, weigh or augment for it"
        if told_apart
        else "",
        effect,
        scale.reaches(ALARM_SHARE),
    )


def _explain_probe(probe: Probe, model: Effect, scale: Scale) -> Finding:
    if probe.effect is None:
        return Finding(probe.name, "not measured", f"{probe.name}: {probe.note}")
    if probe.name == DRIFT:
        how = "by size, encoding and mean colour"
        return _explain_drift(probe.name, probe.effect, how)
    # A probe has its own majority: it saw all training images, the model's score is of val's.
    own = Scale(probe.floor, max(scale.top, probe.floor))
    severity = own.judge_score(probe.effect)
    beside = f"always the commonest class: {probe.floor:.1%}, the model: {model.value:.1%}"
    if probe.name == BORDER:
        sentence = (
            f"the outermost tenth of the pictures alone, without the object, tells the class of "
            f"{probe.effect} of the images ({beside})"
        )
        if severity == "alarm":
            sentence += ": the model's score can come from the background alone and proves nothing"
        advice = (
            "crop to the object or augment the background, and read the occlusion checks: they say "
            "what the model looks at"
        )
    else:
        sentence = f"{probe.name} alone tells the class of {probe.effect} of the images ({beside})"
        advice = _ADVICE.get(probe.name, _ADVICE_OF_FILES)
    if probe.note:
        sentence += f" ({probe.note})"
    is_told = severity in ("alarm", "notice")
    return Finding(
        probe.name,
        severity,
        sentence,
        advice if is_told else "",
        probe.effect,
        own.reaches(ALARM_SHARE),
    )


_ADVICE = {
    "mean colour and brightness": "if colour is not what the classes are about, the light was not "
    "the same for all of them: augment colour and brightness",
}
_ADVICE_OF_FILES = (
    "the net does not see this, but the classes were made at different times or in different ways, "
    "and that can be in the pixels: ask how; never use it as a feature"
)


def _pick_subject(
    case: Case, val_ids: Sequence[str], twins: Twins
) -> tuple[Subject, npt.NDArray[np.int64], list[Mask | None]]:
    """At most `MAX_OCCLUDED` val images, drawn by the seed and the name, with their masks."""
    drawn = sorted(
        range(len(val_ids)),
        key=lambda row: (derive_seed(case.seed, "audit", val_ids[row]), val_ids[row]),
    )[:MAX_OCCLUDED]
    chosen = np.array(drawn, dtype=np.int64)
    images = _load(case.train_images, case.val_rows[chosen])
    subject = Subject(
        images,
        case.targets[chosen],
        [twins.group_of_train[row] for row in case.val_rows[chosen]],
        BOOTSTRAP_DRAWS,
        case.seed,
    )
    return subject, chosen, make_masks(images)


def _load(images: Images, rows: npt.NDArray[np.int64]) -> RGB:
    loaded: RGB = images[rows]
    return loaded


class _Together(Sequence[RGB]):
    """Train and test images, one after another; nothing is copied before it is asked for."""

    def __init__(self, train: Images, test: Images) -> None:
        self._train, self._test = train, test

    def __len__(self) -> int:
        return len(self._train) + len(self._test)

    def __getitem__(self, row: int) -> RGB:  # type: ignore[override]
        """uint8 (s, s, 3)."""
        inside = row < len(self._train)
        image: RGB = self._train[row] if inside else self._test[row - len(self._train)]
        return image


def _draw_candidates(candidates: pd.DataFrame, train: pd.DataFrame, images: Images) -> bytes | None:
    place = {image_id: row for row, image_id in enumerate(train["image_id"])}
    shown = candidates.head(_LABELS_SHOWN)
    if shown.empty:
        return None
    tiles = [images[place[image_id]] for image_id in shown["image_id"]]
    captions = [
        (image_id, f"given {given}", f"model {label}, {quality:.2f}")
        for image_id, given, label, quality in shown.itertuples(index=False)
    ]
    return draw_sheet(tiles, captions)


def _draw_masks(subject: Subject, masks: Sequence[Mask | None]) -> bytes:
    sample = list(zip(subject.images, masks, strict=True))[:MASK_SAMPLE]
    captions = [("",) if mask is not None else ("not believed",) for _, mask in sample]
    return draw_sheet([outline(image, mask) for image, mask in sample], captions, columns=10)


def _draw_examples(subject: Subject, masks: Sequence[Mask | None]) -> bytes:
    """A few images as the checks show them to the model."""
    rows = np.array([row for row, mask in enumerate(masks) if mask is not None], dtype=np.int64)
    donors = pick_donors(subject.targets[rows]) if len(rows) > 1 else None
    tiles: list[RGB] = []
    captions: list[tuple[str]] = []
    columns = [("as it is", subject.images), ("border kept", keep_border(subject.images))]
    columns.append(("centre kept", keep_centre(subject.images)))
    shown = np.arange(min(_EXAMPLES, len(subject.images)))
    if donors is not None:
        kept = [mask for mask in masks if mask is not None]
        shown = rows[:_EXAMPLES]
        changed = subject.images.copy()
        changed[shown] = replace_backgrounds(subject.images[rows], kept, donors, _EXAMPLES)
        columns.append(("background replaced", changed))
    for row in shown:
        for caption, images in columns:
            tiles.append(images[row])
            captions.append((caption,))
    return draw_sheet(tiles, captions, columns=len(columns))


def _draw_twins(twins: Twins, rows: pd.DataFrame, images: Sequence[RGB]) -> bytes | None:
    place = {image_id: row for row, image_id in enumerate(rows["image_id"])}
    shown = twins.table.head(_TWINS_SHOWN)
    if shown.empty:
        return None
    number = {name: k + 1 for k, name in enumerate(dict.fromkeys(shown["group"]))}
    tiles = [images[place[image_id]] for image_id in shown["image_id"]]
    captions = [
        (f"group {number[group]}", image_id, f"{source}{_in_fold(fold)} {label}")
        for group, image_id, source, fold, label in shown.itertuples(index=False)
    ]
    return draw_sheet(tiles, captions)


def _in_fold(fold: str) -> str:
    return f", fold {fold}:" if fold else ""
