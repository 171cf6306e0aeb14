"""Images with equal pixels, and the groups that must stay in one fold.

In: pixel hashes and the organiser's group column. Out: group names, and the duplicates by where
they stand and whether their labels agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

WITHIN_TRAIN, WITHIN_TEST, ACROSS = "within train", "within test", "train and test"
PLACES = (WITHIN_TRAIN, WITHIN_TEST, ACROSS)


@dataclass(frozen=True)
class DuplicateGroup:
    """Images whose decoded pixels are equal.

    Attributes:
        image_ids: at least two, sorted.
        labels: of the training images among them, sorted, each once.
        place: one of `PLACES`.
    """

    image_ids: tuple[str, ...]
    labels: tuple[str, ...]
    place: str

    @property
    def conflicting(self) -> bool:
        """Whether one picture was given several labels."""
        return len(self.labels) > 1


def find_duplicates(manifest: pd.DataFrame) -> list[DuplicateGroup]:
    """All groups of pixel-identical images, sorted by their first image_id."""
    usable = manifest[manifest["pixel_hash"] != ""]
    repeated = usable[usable.duplicated("pixel_hash", keep=False)]
    groups = []
    for _, rows in repeated.groupby("pixel_hash", sort=True):
        sources = set(rows["source"])
        place = ACROSS if len(sources) > 1 else WITHIN_TRAIN if "train" in sources else WITHIN_TEST
        labels = tuple(sorted(set(rows["label"]) - {""}))
        groups.append(DuplicateGroup(tuple(sorted(rows["image_id"])), labels, place))
    return sorted(groups, key=lambda group: group.image_ids)


def make_group_ids(image_ids: Sequence[str], ties: Iterable[Sequence[str]]) -> list[str]:
    """Name each image's group by its smallest image_id.

    Args:
        image_ids: (n,), unique.
        ties: each a column of n values; images that share a value other than "" belong together,
            also through others.

    Returns:
        (n,) group names; an image that shares nothing is its own group.
    """
    parent = list(range(len(image_ids)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for values in ties:
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if value == "":
                continue
            one, other = root(first.setdefault(value, index)), root(index)
            low, high = sorted((one, other), key=lambda place: image_ids[place])
            parent[high] = low
    return [image_ids[root(index)] for index in range(len(image_ids))]
