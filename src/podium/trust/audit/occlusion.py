"""What the model looks at: its score when parts of the picture are taken away.

In: val images, masks, a model as a function. Out: findings. A part is painted over with the mean
colour of all these images, which tells nothing; a background is replaced by another image's, of
another class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from podium.data.decode import RGB
from podium.probes.baselines import BORDER_SHARE
from podium.probes.findings import ALARM_SHARE, Effect, Finding, Scale
from podium.tasks.classification.metrics import grouped_accuracy_interval
from podium.tasks.evidence import Evidence, gain_interval
from podium.trust.audit.masks import Mask, failure_rate

Classes = npt.NDArray[np.int64]
# Images -> the class numbers that the model gives them, each by the model that has not seen it.
Answer = Callable[[RGB, Classes], Classes]

# Of more than this share of the sample without a mask that may be believed, nothing is claimed.
MOST_FAILURES = 0.2
MASK_SAMPLE = 50
_FILL_SPREAD = 0.08  # of the side: how far a background is smeared over the place of its object
BORDER_KEPT, CENTRE_KEPT, BACKGROUND = "border kept", "centre kept", "background replaced"


@dataclass(frozen=True)
class Subject:
    """The val images that are looked at.

    Attributes:
        images: uint8 (n, s, s, 3).
        targets: class numbers (n,).
        groups: of each; rows that are no independent evidence share one.
        draws, seed: of the bootstrap.
    """

    images: RGB
    targets: Classes
    groups: Sequence[str]
    draws: int
    seed: int


def check_occlusion(
    subject: Subject, masks: Sequence[Mask | None], answer: Answer, scale: Scale
) -> list[Finding]:
    """The three checks. `answer` is told which of the subject's rows the images come from.

    It is asked about the images as they are, too: stored predictions may be means over views of each
    image (TTA), and what those gain is nothing that an occlusion takes away.
    """
    everything = np.arange(len(subject.images))
    hits = answer(subject.images, everything) == subject.targets
    right = answer(keep_border(subject.images), everything) == subject.targets
    border = Effect(float(right.mean()), *grouped_accuracy_interval(right, subject.groups))
    severity = scale.judge_score(border)
    alarm_at = scale.reaches(ALARM_SHARE)
    findings = [
        Finding(
            BORDER_KEPT,
            severity,
            f"shown nothing but the outermost tenth of the pictures, the model still scores {border}",
            "the model reads the background: crop to the object, augment backgrounds, or take more "
            "photos of each class in each place"
            if severity in ("alarm", "notice")
            else "",
            border,
            alarm_at,
        )
    ]
    if hits.mean() < scale.loss_that_alarms():
        # Of a model that is not surely better than the commonest class.
        said = f"the model is right on {hits.mean():.1%} of these images: too few to lose any"
        missing = [Finding(check, "not measured", said) for check in (CENTRE_KEPT, BACKGROUND)]
        return [*findings, *missing]
    centre = answer(keep_centre(subject.images), everything) == subject.targets
    loss = _measure_loss(subject, hits, centre, "centre kept")
    severity = scale.judge_loss(loss)
    findings.append(
        Finding(
            CENTRE_KEPT,
            severity,
            f"without the outermost tenth of the pictures the model loses {loss} of the images",
            "it needs the border: see whether the object reaches that far, else crop to it"
            if severity in ("alarm", "notice")
            else "",
            loss,
            scale.loss_that_alarms(),
        )
    )
    findings.append(_check_background(subject, masks, hits, answer, scale))
    return findings


def _check_background(
    subject: Subject,
    masks: Sequence[Mask | None],
    hits: npt.NDArray[np.bool_],
    answer: Answer,
    scale: Scale,
) -> Finding:
    """`hits`: whether the model is right on the images as they are."""
    sample = masks[:MASK_SAMPLE]
    failed = failure_rate(sample)
    said = f"the mask fails on {sum(m is None for m in sample)} of {len(sample)} images (masks.png)"
    if failed > MOST_FAILURES:
        return Finding(BACKGROUND, "not measured", f"{said}: nothing is claimed about backgrounds")
    rows = np.array([row for row, mask in enumerate(masks) if mask is not None])
    donors = pick_donors(subject.targets[rows])
    if donors is None:
        return Finding(BACKGROUND, "not measured", "all images with a mask are of one class")
    kept = [mask for mask in masks if mask is not None]
    changed = replace_backgrounds(subject.images[rows], kept, donors)
    answers = answer(changed, rows)
    loss = _measure_loss(
        Subject(
            changed,
            subject.targets[rows],
            [subject.groups[row] for row in rows],
            subject.draws,
            subject.seed,
        ),
        hits[rows],
        answers == subject.targets[rows],
        "background",
    )
    follows = float((answers == subject.targets[rows][donors]).mean())
    severity = scale.judge_loss(loss)
    return Finding(
        BACKGROUND,
        severity,
        f"before the background of an image of another class the model loses {loss} of the images; "
        f"{follows:.1%} of its answers are then that background's class; {said}",
        "the model reads the background: augment backgrounds, crop to the object, or train on masked "
        "images"
        if severity in ("alarm", "notice")
        else "",
        loss,
        scale.loss_that_alarms(),
    )


def keep_border(images: RGB) -> RGB:
    """Everything but the outermost tenth painted over."""
    return _paint(images, _inside(images.shape[1]))


def keep_centre(images: RGB) -> RGB:
    """The outermost tenth painted over."""
    return _paint(images, ~_inside(images.shape[1]))


def pick_donors(targets: Classes) -> Classes | None:
    """For each row another one of another class, all in turn; None where there is one class only."""
    count = len(targets)
    order = np.argsort(targets, kind="stable")
    largest = int(np.bincount(targets).max())
    if largest == count or count == 0:
        return None
    # In class order, a step as long as the largest class always leaves the own class, unless that
    # holds more than half of the rows: those take turns with all others.
    donors = np.empty(count, dtype=np.int64)
    if 2 * largest <= count:
        donors[order] = np.roll(order, -largest)
        return donors
    for row in range(count):
        others = np.flatnonzero(targets != targets[row])
        donors[row] = others[row % len(others)]
    return donors


def replace_backgrounds(
    images: RGB, masks: Sequence[Mask], donors: Classes, most: int | None = None
) -> RGB:
    """Each object, or the first `most`, before its donor's background; what the donor's own object
    covered is filled from around it."""
    changed = images[:most].copy()
    used = donors[:most]
    empty = {donor: _remove_object(images[donor], masks[donor]) for donor in np.unique(used)}
    for row, (image, mask, donor) in enumerate(zip(changed, masks, used, strict=False)):
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None]
        mixed = soft * image + (1 - soft) * empty[donor]
        changed[row] = np.rint(mixed).astype(np.uint8)
    return changed


def _remove_object(image: RGB, mask: Mask) -> npt.NDArray[np.float32]:
    """The background, smeared over the object (normalised convolution, Knutsson and Westin 1993)."""
    side = image.shape[0]
    wide = 2 * max(1, round(0.02 * side)) + 1
    hidden = cv2.dilate(mask.astype(np.uint8), np.ones((wide, wide), np.uint8))
    weight = (1 - hidden).astype(np.float32)
    shown = image.astype(np.float32) * weight[..., None]
    filled: npt.NDArray[np.float32] = shown.copy()
    spread, missing = _FILL_SPREAD * side, hidden > 0
    while missing.any() and spread < 4 * side:
        blurred = cv2.GaussianBlur(shown, (0, 0), spread)
        near = cv2.GaussianBlur(weight, (0, 0), spread)
        ready = missing & (near > 0.02)
        filled[ready] = blurred[ready] / near[ready][:, None]
        missing &= ~ready
        spread *= 2
    return filled


def _inside(side: int) -> npt.NDArray[np.bool_]:
    edge = max(1, round(BORDER_SHARE * side))
    inside = np.zeros((side, side), dtype=bool)
    inside[edge:-edge, edge:-edge] = True
    return inside


def _paint(images: RGB, where: npt.NDArray[np.bool_]) -> RGB:
    painted = images.copy()
    painted[:, where] = np.rint(images.mean(axis=(0, 1, 2))).astype(np.uint8)
    return painted


def _measure_loss(
    subject: Subject, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], name: str
) -> Effect:
    """Share of right answers lost, with a paired bootstrap interval over groups."""
    lost = before.astype(np.float64) - after
    evidence = Evidence(
        subject.targets, subject.groups, np.zeros(len(lost), np.int64), subject.draws, subject.seed
    )
    low, high = gain_interval(lambda rows: float(lost[rows].mean()), evidence, f"occlusion {name}")
    return Effect(float(lost.mean()), low, high)
