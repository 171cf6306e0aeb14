"""Near-duplicates by where they stand: inside train, across train and val, across train and test.

In: manifest rows, their pixels and embeddings, folds. Out: findings, the table near_duplicates.csv and
the groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.decode import RGB
from podium.data.duplicates import make_group_ids
from podium.data.listing import TEST, TRAIN
from podium.probes.cross_validation import NOT_FOLDABLE
from podium.probes.findings import Effect, Finding, Scale
from podium.probes.inflation import Inflation, measure_inflation
from podium.probes.near_duplicates import (
    LEAST_SIDE_PX,
    MAX_GROUP,
    NearDuplicates,
    find_near_duplicates,
)
from podium.tasks.classification.metrics import accuracy_interval

# The comparison of all embeddings grows with the square of their number.
MAX_IMAGES = 20_000
TABLE = "near_duplicates.csv"
COLUMNS = ("group", "image_id", "source", "fold", "label")


@dataclass(frozen=True)
class Twins:
    """What was found.

    Attributes:
        groups: image_ids that belong together, each sorted, by the first.
        apart: pairs of image_ids that are alike and in no common group, which would be too large.
        group_of_train: group name of every train row, the manifest's own groups included.
        table: `COLUMNS`, a row for each image of a group.
        inflation: None where there was nothing to measure.
        skipped: why none were looked for; "" where they were.
    """

    groups: list[list[str]]
    apart: list[tuple[str, str]]
    group_of_train: list[str]
    table: pd.DataFrame
    inflation: Inflation | None
    skipped: str


def find_twins(
    rows: pd.DataFrame,
    images: Sequence[RGB],
    embeddings: npt.NDArray[np.float32],
    folds: dict[str, int],
    load_large: Callable[[str, int], RGB],
    draws: int,
    seed: int,
) -> Twins:
    """Compare all different pictures of train and test.

    Args:
        rows: readable manifest rows, train first.
        images: uint8 (s, s, 3) of each row.
        embeddings: (n, d) likewise.
        folds: fold of each training image that is used.
        load_large: (path, side in px) -> pixels.
        draws, seed: of the bootstrap of the inflation.
    """
    # Pixel-identical images are one picture here; they are groups already.
    firsts = np.flatnonzero(~rows["pixel_hash"].duplicated().to_numpy())
    sides = rows[["width", "height"]].min(axis=1).to_numpy()[firsts]
    skipped = _why_not(sides)
    found = NearDuplicates(0, [], [])
    if not skipped:
        paths = rows["path"].to_numpy()[firsts]
        found = find_near_duplicates(
            [images[int(row)] for row in firsts],
            embeddings[firsts],
            sides.tolist(),
            lambda place, side: load_large(str(paths[place]), side),
        )
    by_hash: dict[str, list[int]] = {}
    for row, pixel_hash in enumerate(rows["pixel_hash"]):
        by_hash.setdefault(pixel_hash, []).append(row)
    ids = rows["image_id"].tolist()

    def copies(place: int) -> list[str]:
        return [ids[row] for row in by_hash[rows["pixel_hash"].iloc[firsts[place]]]]

    groups = [sorted(name for place in group for name in copies(place)) for group in found.groups]
    name_of = {image_id: group[0] for group in groups for image_id in group}
    apart = [
        pair
        for one, other in found.pairs
        for pair in itertools.product(copies(one), copies(other))
        if name_of.get(pair[0], pair[0]) != name_of.get(pair[1], pair[1])
    ]
    train = rows[rows["source"] == TRAIN]
    names = make_group_ids(
        train["image_id"].tolist(),
        [train["group_id"].tolist(), [name_of.get(name, "") for name in train["image_id"]]],
    )
    codes = np.unique(train["label"].to_numpy(dtype=str), return_inverse=True)[1]
    inflation = measure_inflation(embeddings[: len(train)], codes, names, draws, seed)
    return Twins(groups, apart, names, _make_table(rows, groups, folds), inflation, skipped)


def _why_not(sides_px: npt.NDArray[np.int64]) -> str:
    if len(sides_px) > MAX_IMAGES:
        return f"more than {MAX_IMAGES} different pictures: only equal pixels were looked for"
    if len(sides_px) and np.median(sides_px) < LEAST_SIDE_PX:
        return (
            f"half of the pictures are smaller than {LEAST_SIDE_PX} px, which shows too little to tell "
            "one thing from its like: only equal pixels were looked for"
        )
    return ""


def explain_twins(
    twins: Twins, rows: pd.DataFrame, val_ids: Sequence[str], folds: dict[str, int], scale: Scale
) -> list[Finding]:
    """One finding for each place, one for conflicting labels, one for the inflation; where only equal
    pixels were looked for, what those say."""
    if twins.skipped:
        return [
            Finding("near-duplicates", "not measured", twins.skipped),
            _explain_test(rows, twins, scale),
            _explain_inflation(twins, scale),
        ]
    table = twins.table
    train = table[table["source"] == TRAIN]
    sizes = train.groupby("group", sort=True).size()
    inside = set(sizes[sizes > 1].index)
    names = set(rows.loc[rows["source"] == TRAIN, "image_id"])
    n_train = len(names)
    apart = {name for pair in twins.apart if names.issuperset(pair) for name in pair}
    count = len(apart.union(train.loc[train["group"].isin(inside), "image_id"]))
    return [
        _found(
            "near-duplicates within train",
            count,
            n_train,
            f"{count} of {n_train} training images show the same thing as another one, in "
            f"{len(inside)} groups",
            f"they weigh double; {TABLE} names them",
        ),
        _explain_val(train, twins.apart, val_ids, folds, scale),
        _explain_test(rows, twins, scale),
        _explain_conflicts(train[train["group"].isin(inside)], scale),
        _explain_inflation(twins, scale),
    ]


def _explain_val(
    train: pd.DataFrame,
    apart: Sequence[tuple[str, str]],
    val_ids: Sequence[str],
    folds: dict[str, int],
    scale: Scale,
) -> Finding:
    folds_of_group: dict[str, set[int]] = {}
    for group, image_id in zip(train["group"], train["image_id"], strict=True):
        if image_id in folds:
            folds_of_group.setdefault(group, set()).add(folds[image_id])
    group_of = dict(zip(train["image_id"], train["group"], strict=True))
    in_folds = [pair for pair in apart if pair[0] in folds and pair[1] in folds]
    parted = {name for pair in in_folds if folds[pair[0]] != folds[pair[1]] for name in pair}
    leaking = [
        name
        for name in val_ids
        if name in parted or len(folds_of_group.get(group_of.get(name, ""), set())) > 1
    ]
    advice = (
        "the val score is too high by what they give: name the groups of "
        f"{TABLE} in a column of the training list and set competition.group_column"
    )
    if in_folds:
        advice += (
            f"; {len(in_folds)} pairs that are alike are in no common group, for these hold {MAX_GROUP} "
            "pictures at most: a series longer than that wants a name of your own"
        )
    return _found(
        "near-duplicates across train and val",
        len(leaking),
        len(val_ids),
        f"{len(leaking)} of {len(val_ids)} val images have a near-duplicate in training",
        advice,
        scale.looked_up_that_alarms(),
    )


def _explain_test(rows: pd.DataFrame, twins: Twins, scale: Scale) -> Finding:
    table, test = twins.table, rows[rows["source"] == TEST]
    near_train = set(table.loc[table["source"] == TRAIN, "group"])
    known = set(table.loc[(table["source"] == TEST) & table["group"].isin(near_train), "image_id"])
    in_test = set(test["image_id"])
    known |= {
        name for pair in twins.apart if len(in_test & {*pair}) == 1 for name in pair
    } & in_test
    equal = test["pixel_hash"].isin(set(rows.loc[rows["source"] == TRAIN, "pixel_hash"]))
    known |= set(test.loc[equal, "image_id"])
    if test.empty:
        return Finding("near-duplicates across train and test", "not measured", "no test image")
    said = f"{len(known)} of {len(test)} test images "
    said += (
        "are a training image, pixel for pixel"
        if twins.skipped
        else f"show the same thing as a training image ({int(equal.sum())} of them pixel for pixel)"
    )
    return _found(
        "near-duplicates across train and test",
        len(known),
        len(test),
        said,
        "the public score flatters by them, too; a private set may hold none",
        scale.looked_up_that_alarms(),
    )


def _explain_conflicts(train: pd.DataFrame, scale: Scale) -> Finding:
    """Who knows one label of a thing and says it of the other loses the share that conflicts."""
    labels = train.groupby("group", sort=True)["label"].nunique()
    groups = labels[labels > 1].index.tolist()
    n_groups = len(labels)
    if not n_groups:
        return Finding("labels of near-duplicates", "quiet", "no group to compare labels in")
    return _found(
        "labels of near-duplicates",
        len(groups),
        n_groups,
        f"{len(groups)} of {n_groups} groups of near-duplicates have several labels",
        "one label is wrong, or two things pass for one: look at near_duplicates.png and "
        f"{TABLE}, mend data/relabel.csv",
        scale.loss_that_alarms(),
    )


def _explain_inflation(twins: Twins, scale: Scale) -> Finding:
    check, inflation = "inflation by random folds", twins.inflation
    if inflation is None and len(set(twins.group_of_train)) < len(twins.group_of_train):
        said = f"the images asked about hold no group, or {NOT_FOLDABLE}"
        return Finding(check, "not measured", said)
    if inflation is None:
        alike = "equal" if twins.skipped else "equal or alike"
        said = f"no group of {alike} images: random folds are as honest as grouped ones"
        return Finding(check, "quiet", said)
    severity = scale.judge_loss(inflation.difference)
    left_out = f" ({inflation.left_out})" if inflation.left_out else ""
    kept = "equal" if twins.skipped else "equal and alike"
    return Finding(
        check,
        severity,
        f"a quick model scores {inflation.random:.1%} with random folds and {inflation.grouped:.1%} "
        f"with {kept} images kept together: random folds flatter by {inflation.difference}{left_out}",
        f"keep groups together: competition.group_column, see {TABLE}"
        if severity in ("alarm", "notice")
        else "",
        inflation.difference,
        scale.loss_that_alarms(),
    )


def _found(
    check: str,
    count: int,
    of: int,
    sentence: str,
    advice: str,
    alarm_at: float | None = None,
) -> Finding:
    """A count, as a share with its exact interval: a notice where there is one, an alarm where the
    share is surely `alarm_at`; None: what harm it does is the inflation's to say."""
    effect = Effect(count / of, *accuracy_interval(count, of)) if of else None
    if not count or effect is None:
        return Finding(check, "quiet", sentence, effect=effect, alarm_at=alarm_at)
    is_alarm = alarm_at is not None and effect.low >= alarm_at
    return Finding(check, "alarm" if is_alarm else "notice", sentence, advice, effect, alarm_at)


def _make_table(
    rows: pd.DataFrame, groups: Sequence[Sequence[str]], folds: dict[str, int]
) -> pd.DataFrame:
    facts = rows.set_index("image_id")[["source", "label"]]
    lines = [
        (
            group[0],
            image_id,
            facts.at[image_id, "source"],
            str(folds.get(image_id, "")),
            facts.at[image_id, "label"],
        )
        for group in groups
        for image_id in group
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=str)
