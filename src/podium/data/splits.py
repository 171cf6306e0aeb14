"""Stratified, group-aware k folds: splits.csv.

In: the manifest's train rows. Out: one fold number per image_id.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.data.subset import count_groups, make_subset
from podium.errors import PodiumError, ProblemsError
from podium.runtime import derive_seed

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image_id", "fold")


def make_splits(train: pd.DataFrame, folds: int, seed: int, subset: float) -> pd.DataFrame:
    """Deal the training rows out to `folds` folds.

    Rows with one group_id come into one fold. Every fold gets its share of every class: where all
    groups are single images, a class's counts in two folds differ by 1 at most, and so do the
    folds' sizes.

    Method: groups are dealt from the largest to the smallest, those of one size class by class, in
    an order drawn from the seed and the group's name alone. Each goes to the fold where it adds
    least to the sum of squared class shares (for one image: the fold with fewest of its class), of
    several to the smallest fold. sklearn's StratifiedGroupKFold is greedy in the same way and about
    as well balanced, but slower by 8, and its folds depend on the order of the rows.

    Args:
        train: manifest rows, in any order, with the columns image_id, group_id and label.
        folds: k, at least 2.
        seed: the run's seed.
        subset: share of the rows to use, see `make_subset`.

    Returns:
        Columns image_id (str) and fold (int, 0..folds-1), sorted by image_id; rows left out by
        `subset` are not in it.

    Raises:
        PodiumError, ProblemsError: no rows, or classes with fewer images or groups than folds.
    """
    import pandas as pd

    used = make_subset(train, subset, folds, seed)
    groups = count_groups(used)
    class_sizes = Counter(used["label"])
    _check_class_sizes(groups, class_sizes, folds)

    def dealing_key(group_id: str) -> tuple[int, list[str], int, str]:
        counts = groups[group_id]
        return -counts.total(), sorted(counts), derive_seed(seed, "split", group_id), group_id

    filled = [Counter[str]() for _ in range(folds)]
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    for group_id in sorted(groups, key=dealing_key):
        counts = sorted(groups[group_id].items())
        # The terms that differ between folds of the growth of the sum of (count / class size)^2.
        added = [
            sum(fold[label] * count / class_sizes[label] ** 2 for label, count in counts)
            for fold in filled
        ]
        best = min(range(folds), key=lambda fold: (added[fold], sizes[fold], fold))
        fold_of[group_id] = best
        filled[best] += groups[group_id]
        sizes[best] += groups[group_id].total()
    splits = pd.DataFrame(
        {"image_id": used["image_id"], "fold": used["group_id"].map(fold_of).astype("int64")}
    )
    return splits.sort_values("image_id", ignore_index=True)


def _check_class_sizes(
    groups: dict[str, Counter[str]], class_sizes: Counter[str], folds: int
) -> None:
    """Every fold needs a group of every class."""
    if not class_sizes:
        raise PodiumError("data/manifest.csv has no training rows: nothing to split")
    group_counts = Counter(label for counts in groups.values() for label in counts)
    problems = []
    for label, images in sorted(class_sizes.items()):
        n_groups = group_counts[label]
        if n_groups >= folds:
            continue
        have = f"{images} image{'s' if images > 1 else ''}"
        if n_groups < images:
            have += f" in {n_groups} group{'s' if n_groups > 1 else ''} that must not be parted"
        cure = "add images, or merge or remove the class"
        if n_groups >= 2:
            cure = f"set split.folds to {n_groups} or less, {cure}"
        problems.append(
            f"class {label!r} has {have}, expected at least split.folds ({folds}): {cure}"
        )
    if len(problems) == 1:
        raise PodiumError(problems[0])
    if problems:
        raise ProblemsError(f"{len(problems)} classes are too small to split:", problems)


def make_split_report(train: pd.DataFrame, splits: pd.DataFrame) -> dict[str, Any]:
    """What metrics/split.json says about `splits`.

    Returns:
        n_images, n_groups, largest_group (images), fold_sizes, max_class_share_deviation (largest
        difference, over folds and classes, between a class's share of the fold and of all rows)
        and class_counts ({label: images in each fold}; lists, which DVC's tables leave out).
    """
    rows = splits.merge(train[["image_id", "group_id", "label"]], on="image_id", validate="1:1")
    n_folds = int(rows["fold"].max()) + 1
    counts = Counter(zip(rows["label"], rows["fold"], strict=True))
    fold_sizes = Counter(rows["fold"])
    class_sizes = Counter(rows["label"])
    deviation = max(
        abs(counts[label, fold] / fold_sizes[fold] - size / len(rows))
        for label, size in class_sizes.items()
        for fold in range(n_folds)
        if fold_sizes[fold]
    )
    return {
        "n_images": len(rows),
        "n_groups": int(rows["group_id"].nunique()),
        "largest_group": max(Counter(rows["group_id"]).values()),
        "max_class_share_deviation": round(deviation, 6),
        "fold_sizes": {str(fold): fold_sizes[fold] for fold in range(n_folds)},
        "class_counts": {
            label: [counts[label, fold] for fold in range(n_folds)] for label in sorted(class_sizes)
        },
    }


def describe_gaps(report: dict[str, Any]) -> list[str]:
    """A line for each class that some fold has no image of: groups that hold several classes can make
    it so.

    Args:
        report: as `make_split_report` gives it.
    """
    empty = {
        label: [fold for fold, count in enumerate(counts) if not count]
        for label, counts in report["class_counts"].items()
    }
    return [
        f"no image of class {label} in folds {folds}: scores there leave it out"
        for label, folds in empty.items()
        if folds
    ]


def load_splits(path: Path) -> pd.DataFrame:
    """Read splits.csv: columns image_id (str) and fold (int64).

    Raises:
        PodiumError: missing, empty, other columns, an image_id twice, or a fold that is no number.
    """
    import pandas as pd

    try:
        splits = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise PodiumError(f"{path} is missing or empty: run `dvc repro split`") from None
    if tuple(splits.columns) != COLUMNS:
        raise PodiumError(
            f"{path}: expected columns {', '.join(COLUMNS)}, got {', '.join(splits.columns)}: "
            "run `dvc repro split`"
        )
    mendable = "it was edited by hand: remove it and run `dvc repro split`"
    if not splits["fold"].str.fullmatch("[0-9]+").all():
        raise PodiumError(f"{path}: expected fold numbers from 0; {mendable}")
    if splits["image_id"].duplicated().any():
        raise PodiumError(f"{path}: expected each image_id once; {mendable}")
    return splits.astype({"fold": "int64"})
