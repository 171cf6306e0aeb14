"""How well a linear model tells test images from training images, whatever it sees of them.

In: numbers of each image, which of both it is, its group. Out: an AUC, cross-validated by groups, with
its interval: photos of one burst are alike, and one that was learned from gives the others away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from podium.probes.auc import measure_auc
from podium.probes.cross_validation import Codes, Features, make_folds, score_linear
from podium.probes.findings import Effect
from podium.tasks.evidence import CONFIDENCE, draw_groups

TOO_FEW_GROUPS = "fewer than ten groups of a kind"
_LEAST_GROUPS = 10
_DRAWS = 2000


def measure_drift_auc(
    features: Features, is_test: Codes, group_ids: Sequence[str], components: int, seed: int
) -> Effect | None:
    """AUC out of fold; the interval by DeLong where all groups are single images, else by a bootstrap
    that draws whole groups of either kind.

    Args:
        features: (n, d).
        is_test: 0 or 1 (n,), at least two of each.
        group_ids: (n,); rows of one group stay in one fold, and are of one kind, as in the manifest.
        components: how many principal ones the model sees.
        seed: of the folds and the draws.

    Returns:
        None where groups hold several images and are `TOO_FEW_GROUPS`: what few patients have in
        common is luck.
    """
    # Numbered as they come: the folds of single images do not hang on their names.
    groups, names = pd.factorize(np.array(group_ids))
    kinds = [np.flatnonzero(is_test == kind) for kind in (0, 1)]
    is_grouped = len(names) < len(groups)
    if is_grouped and min(len(np.unique(groups[rows])) for rows in kinds) < _LEAST_GROUPS:
        return None
    folds = make_folds(is_test, groups, seed)
    scores, is_positive = score_linear(features, is_test, folds, components), is_test == 1
    effect = measure_auc(scores, is_positive)
    if not is_grouped:
        return effect
    # Each kind by itself: a draw of one kind alone would have no area.
    draws = zip(
        *(
            draw_groups([group_ids[row] for row in rows.tolist()], _DRAWS, seed, f"drift {kind}")
            for kind, rows in enumerate(kinds)
        ),
        strict=True,
    )
    areas = []
    for train, test in draws:
        drawn = np.concatenate([kinds[0][train], kinds[1][test]])
        areas.append(measure_auc(scores[drawn], is_positive[drawn]).value)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(areas, [tail, 1 - tail])
    return Effect(effect.value, float(low), float(high))
