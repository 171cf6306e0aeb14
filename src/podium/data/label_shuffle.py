"""Label shuffling: the training list in which every class has its say.

In: image ids and labels of the training folds. Out: image ids, repeats allowed, in training order.
Source: PaddlePaddle's image classification course ("label shuffling", after Hikvision's ImageNet
2016 entry): sort by label; of every class take a random permutation of M numbers, M being the size
of the largest class, modulo the class's size; concatenate; shuffle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from podium.errors import PodiumError
from podium.files import write_csv
from podium.runtime import derive_seed

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("image_id", "val_fold")


def rows_per_class(class_sizes: dict[str, int], balance: float) -> dict[str, int]:
    """round(n^(1-b) * M^b) for each class of size n; M is the largest size, b the balance."""
    largest = max(class_sizes.values())
    return {
        label: round(size ** (1 - balance) * largest**balance)
        for label, size in class_sizes.items()
    }


def label_shuffle(
    image_ids: Sequence[str], labels: Sequence[str], balance: float, seed: int
) -> list[str]:
    """The training list.

    A class of n images gets m = `rows_per_class` rows, n <= m <= M: a random permutation of 0..m-1,
    modulo n, indexes its images sorted by id. So each of them occurs floor(m/n) or ceil(m/n) times;
    at balance 1, m = M; at balance 0, m = n and each occurs once. Then all rows are shuffled.

    Args:
        image_ids: unique ids of the training folds, in any order.
        labels: the label of each.
        balance: 0 (as it is) to 1 (all classes equal).
        seed: the run's seed; each class draws from a stream of its own.

    Returns:
        Image ids in training order.
    """
    members: dict[str, list[str]] = {}
    for label, image_id in sorted(zip(labels, image_ids, strict=True)):
        members.setdefault(label, []).append(image_id)
    rows = rows_per_class({label: len(ids) for label, ids in members.items()}, balance)
    listed: list[str] = []
    for label, ids in members.items():
        draws = np.random.default_rng(derive_seed(seed, "label_shuffle", "class", label))
        listed += [ids[number % len(ids)] for number in draws.permutation(rows[label])]
    order = np.random.default_rng(derive_seed(seed, "label_shuffle", "order"))
    return [listed[row] for row in order.permutation(len(listed))]


def make_label_shuffle_report(
    labels: Sequence[str], listed_labels: Sequence[str]
) -> dict[str, Any]:
    """What metrics/label_shuffle.json says: rows and rows per class, before and after."""
    before, after = Counter(labels), Counter(listed_labels)
    return {
        "images": before.total(),
        "rows": after.total(),
        "images_per_class": dict(sorted(before.items())),
        "rows_per_class": dict(sorted(after.items())),
    }


def choose_val_folds(splits: pd.DataFrame, val_fold: int | str) -> list[int]:
    """The folds that are held out, each by a training of its own: one, or all in order."""
    return sorted(set(splits["fold"].tolist())) if val_fold == "all" else [int(val_fold)]


def make_train_rows(manifest: pd.DataFrame, splits: pd.DataFrame, val_fold: int) -> pd.DataFrame:
    """The manifest's rows of all folds but `val_fold`, sorted by image_id.

    Raises:
        PodiumError: splits.csv has no such fold, or names an image that the manifest does not.
    """
    if val_fold not in set(splits["fold"]):
        raise PodiumError(
            f"split.val_fold: expected a fold of data/splits.csv (0 to {splits['fold'].max()}), "
            f"got {val_fold}"
        )
    listed = splits.loc[splits["fold"] != val_fold, "image_id"]
    unknown = sorted(set(listed) - set(manifest["image_id"]))
    if unknown:
        raise PodiumError(
            f"data/splits.csv: {unknown[0]!r} is not in data/manifest.csv: run `dvc repro split`"
        )
    return manifest[manifest["image_id"].isin(listed)].sort_values("image_id", ignore_index=True)


def make_train_lists(
    manifest: pd.DataFrame,
    splits: pd.DataFrame,
    val_fold: int | str,
    balance: float,
    seed: int,
) -> tuple[dict[int, list[str]], dict[str, Any]]:
    """The training list for each fold that is held out, and what metrics/label_shuffle.json says.

    The report counts the rows of all lists together, and each image once.
    """
    lists: dict[int, list[str]] = {}
    label_of: dict[str, str] = {}
    for fold in choose_val_folds(splits, val_fold):
        rows = make_train_rows(manifest, splits, fold)
        ids, labels = rows["image_id"].tolist(), rows["label"].tolist()
        lists[fold] = label_shuffle(ids, labels, balance, seed)
        label_of.update(zip(ids, labels, strict=True))
    listed = [label_of[image_id] for ids in lists.values() for image_id in ids]
    return lists, make_label_shuffle_report(list(label_of.values()), listed)


def write_train_lists(path: Path, lists: Mapping[int, Sequence[str]]) -> None:
    """Replace train_list.csv: for each fold that is held out, image ids in training order."""
    import pandas as pd

    rows = [(image_id, fold) for fold, listed in lists.items() for image_id in listed]
    write_csv(path, pd.DataFrame(rows, columns=list(_COLUMNS)))


def load_train_lists(path: Path) -> dict[int, list[str]]:
    """Read train_list.csv: held-out fold -> image ids in training order, repeats included.

    Raises:
        PodiumError: missing, empty, other columns, a fold that is no number, or no rows.
    """
    import pandas as pd

    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise PodiumError(f"{path} is missing or empty: run `dvc repro label_shuffle`") from None
    if tuple(rows.columns) != _COLUMNS or rows.empty or not rows["val_fold"].str.isdecimal().all():
        raise PodiumError(
            f"{path}: expected rows of image_id and a fold's number in val_fold, got {len(rows)} "
            f"rows in {', '.join(rows.columns)}: remove it and run `dvc repro label_shuffle`"
        )
    lists: dict[int, list[str]] = {}
    for image_id, fold in zip(rows["image_id"], rows["val_fold"], strict=True):
        lists.setdefault(int(fold), []).append(image_id)
    return lists
