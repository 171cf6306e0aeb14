"""Thins the training rows for quick runs: stratified, by whole groups, never the test rows.

In: the manifest's train rows. Out: some of them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from podium.runtime import derive_seed

if TYPE_CHECKING:
    import pandas as pd


def count_groups(train: pd.DataFrame) -> dict[str, Counter[str]]:
    """How many rows of each label each group has: {group_id: {label: rows}}, sorted."""
    groups: dict[str, Counter[str]] = {}
    for group_id, label in sorted(zip(train["group_id"], train["label"], strict=True)):
        groups.setdefault(group_id, Counter())[label] += 1
    return groups


def make_subset(train: pd.DataFrame, share: float, min_groups: int, seed: int) -> pd.DataFrame:
    """The rows of about `share` of each class, as whole groups.

    Each class gives the groups that hold it, in an order drawn from the seed and the group's name
    alone, until it has `share` of its rows and `min_groups` groups, or has no more. So a smaller
    share is a part of a larger one, and the input's order does not matter.

    Args:
        train: manifest rows with the columns group_id and label.
        share: above 0, at most 1; 1 keeps all.
        min_groups: how many groups of each class to keep where it has them (folds need one each).
        seed: the run's seed.

    Returns:
        The rows kept, in the order of `train`.
    """
    if share == 1:
        return train
    groups = count_groups(train)
    members: dict[str, list[str]] = {}
    for group_id in sorted(groups, key=lambda name: (derive_seed(seed, "subset", name), name)):
        for label in groups[group_id]:
            members.setdefault(label, []).append(group_id)
    kept: set[str] = set()
    for label, group_ids in members.items():
        wanted_rows = share * sum(groups[group_id][label] for group_id in group_ids)
        rows = 0
        for taken, group_id in enumerate(group_ids):
            if rows >= wanted_rows and taken >= min_groups:
                break
            kept.add(group_id)
            rows += groups[group_id][label]
    return train[train["group_id"].isin(kept)]
