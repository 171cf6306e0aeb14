"""How much a random split flatters: the same quick model, scored by folds that keep near-duplicates
together and by folds that do not.

In: embeddings, classes, groups. Out: the difference with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from podium.probes.cross_validation import (
    describe_left_out,
    find_foldable,
    make_folds,
    predict_linear,
)
from podium.probes.findings import Effect
from podium.runtime import derive_seed
from podium.tasks.evidence import Evidence, gain_interval

MAX_IMAGES = 3000
_COMPONENTS = 64


@dataclass(frozen=True)
class Inflation:
    """Accuracies by both kinds of folds, and their difference, of `n_images`; `left_out` says in
    words which images could not be asked about."""

    grouped: float
    random: float
    difference: Effect
    n_images: int
    left_out: str


def measure_inflation(
    embeddings: npt.NDArray[np.float32],
    codes: npt.NDArray[np.intp],
    group_names: Sequence[str],
    draws: int,
    seed: int,
) -> Inflation | None:
    """None where no group holds two images, or fewer than two classes have two groups.

    Args:
        embeddings: (n, d).
        codes: class numbers (n,).
        group_names: (n,); images of one group are no independent evidence.
        draws, seed: of the bootstrap over groups.
    """
    names, groups, sizes = np.unique(
        np.asarray(group_names), return_inverse=True, return_counts=True
    )
    drawn = _thin(names.tolist(), groups, seed)
    rows = drawn[find_foldable(codes[drawn], groups[drawn])]
    if sizes[groups[rows]].max(initial=0) < 2:
        return None
    few, numbers = np.unique(codes[rows], return_inverse=True)[1], groups[rows]
    seen = embeddings[rows].astype(np.float64)
    alone = np.arange(len(rows))
    hits = [
        predict_linear(seen, few, make_folds(few, parts, seed), _COMPONENTS) == few
        for parts in (numbers, alone)
    ]
    gain = hits[1].astype(np.float64) - hits[0]
    evidence = Evidence(
        few.astype(np.int64),
        [names[n] for n in numbers],
        np.zeros(len(rows), np.int64),
        draws,
        seed,
    )
    low, high = gain_interval(lambda drawn: float(gain[drawn].mean()), evidence, "inflation")
    difference = Effect(float(gain.mean()), low, high)
    left_out = describe_left_out(codes[drawn], np.searchsorted(drawn, rows))
    return Inflation(float(hits[0].mean()), float(hits[1].mean()), difference, len(rows), left_out)


def _thin(names: Sequence[str], groups: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.intp]:
    """At most about `MAX_IMAGES` rows, as whole groups: half a group would flatter less."""
    if len(groups) <= MAX_IMAGES:
        return np.arange(len(groups))
    order = sorted(range(len(names)), key=lambda n: (derive_seed(seed, "inflation", names[n]), n))
    sizes = np.bincount(groups, minlength=len(names))
    kept = np.array(order)[np.cumsum(sizes[order]) <= MAX_IMAGES]
    return np.flatnonzero(np.isin(groups, kept))
