"""Area under the ROC curve with its interval.

Method: Mann and Whitney 1947 for the area, DeLong, DeLong and Clarke-Pearson 1988 for its variance
(midranks as in Sun and Xu 2014), 95 % by the normal distribution.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from podium.probes.findings import Effect

_NORMAL_95 = 1.959964  # the normal distribution's 97.5 % quantile


def measure_auc(scores: npt.NDArray[np.float64], is_positive: npt.NDArray[np.bool_]) -> Effect:
    """How well `scores` (n,) put positives above the others: 0.5 is chance.

    Raises:
        ValueError: fewer than two of a kind.
    """
    from scipy.stats import rankdata

    positive, negative = scores[is_positive], scores[~is_positive]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"{m} positive and {n} negative scores: at least two of each")
    together = rankdata(np.concatenate([positive, negative]))
    area = float((together[:m].sum() / m - (m + 1) / 2) / n)
    # Of each score, the share of the other kind that it is on the right side of.
    of_positive = (together[:m] - rankdata(positive)) / n
    of_negative = 1 - (together[m:] - rankdata(negative)) / m
    variance = of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n
    half = _NORMAL_95 * float(np.sqrt(variance))
    return Effect(area, max(0.0, area - half), min(1.0, area + half))
