"""Label triage: images whose given label the models, that have not seen them, doubt.

In: out-of-fold probabilities and given labels. Out: candidates, the most doubtful first, in the very
columns of data/relabel.csv.

Method: confident learning (Northcutt, Jiang and Chuang 2021) by cleanlab: thresholds per class find
the candidates, the probability of the given label orders them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.relabel import COLUMNS, RELABEL
from podium.probes.findings import Effect, Finding
from podium.tasks.classification.metrics import accuracy_interval

CANDIDATES = "relabel_candidates.csv"
# Fewer rows of a class say too little about what its label looks like.
_LEAST_PER_CLASS = 5


def find_candidates(
    image_ids: Sequence[str],
    targets: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Candidates: image_id, given, label (what the models say), quality (their probability, 0..1, of
    the given one), by rising quality.

    Args:
        image_ids, targets: of n val images; class numbers.
        probabilities: (n, k), out of fold.
        classes: k names.
    """
    counts = np.bincount(targets, minlength=len(classes))
    known = np.flatnonzero(counts >= _LEAST_PER_CLASS)
    rows = np.flatnonzero(np.isin(targets, known))
    if len(known) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    # cleanlab wants every class to occur: rare ones are left out of labels and probabilities.
    shares = probabilities[np.ix_(rows, known)]
    shares = np.clip(shares, 1e-12, None)
    shares /= shares.sum(axis=1, keepdims=True)
    given = np.searchsorted(known, targets[rows])
    doubted = _doubt(given, shares)
    quality = shares[np.arange(len(rows)), given]
    names = [image_ids[row] for row in rows.tolist()]
    order = sorted(np.flatnonzero(doubted).tolist(), key=lambda k: (quality[k], names[k]))
    lines = []
    for k in order:
        row, said = int(rows[k]), int(known[shares[k].argmax()])
        lines.append(
            (names[k], classes[int(targets[row])], classes[said], round(float(quality[k]), 6))
        )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def explain_candidates(
    candidates: pd.DataFrame, n_images: int, knows_nothing: bool = False
) -> Finding:
    """The finding. A count of suspicions is no measure of harm: it never alarms.

    Args:
        candidates: from `find_candidates`.
        n_images: that were looked at.
        knows_nothing: the models are not surely better than the commonest class.
    """
    if knows_nothing:
        said = (
            "no label can be doubted by models that are not surely better than the commonest class"
        )
        return Finding("labels", "not measured", said)
    count = len(candidates)
    effect = Effect(count / n_images, *accuracy_interval(count, n_images))
    if not count:
        return Finding("labels", "quiet", f"no label of {n_images} is doubted", effect=effect)
    return Finding(
        "labels",
        "notice",
        f"{count} of {n_images} labels are doubted by models that have not seen them: {effect}",
        f"look at labels.png, and copy the rows of {CANDIDATES} that you agree with into {RELABEL}",
        effect,
    )


def _doubt(given: npt.NDArray[np.intp], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    from cleanlab.filter import find_label_issues

    return np.asarray(find_label_issues(given, shares, filter_by="low_self_confidence", n_jobs=1))
