"""What can be scored without looking at the object: the floor under every later number.

In: 32 px thumbnails and labels. Out: the accuracy of always saying the commonest class, of a
logistic regression on thumbnails, and of one that sees the border alone, cross-validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from podium.runtime import derive_seed
from podium.tasks.classification.metrics import accuracy_interval

FOLDS = 5
MAX_IMAGES = 4000  # enough for an interval of +-1.5 points, and seconds rather than minutes
COMPONENTS = 160
LINEAR_PX = 16
BORDER_SHARE = 0.1
_C = 0.1  # of scikit-learn's LogisticRegression: the more pixels than images, the stronger
_MAX_ITERATIONS = 60

Features = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """Accuracy, 0..1, with its exact 95 % interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Baselines:
    """Majority of all images; linear and border of `n_images` of them, None where not measured.

    Not measured: where some class has fewer than two groups, or a single class is left.
    """

    majority: float
    n_images: int
    linear: Baseline | None
    border: Baseline | None

    @property
    def border_tells_much(self) -> bool:
        """Whether the border surely closes half of the gap between majority and 100 %."""
        return self.border is not None and self.border.low >= (1 + self.majority) / 2


def measure_baselines(
    thumbnails: npt.NDArray[np.uint8],
    labels: Sequence[str],
    group_ids: Sequence[str],
    seed: int,
) -> Baselines:
    """Cross-validate both probes over the same grouped, stratified folds.

    Args:
        thumbnails: uint8 (n, s, s, 3).
        labels: (n,).
        group_ids: (n,); rows of one group stay in one fold.
        seed: decides which images are taken where there are more than `MAX_IMAGES`, and the folds.

    Returns:
        Equal for equal arguments, whatever the number of cores.
    """
    from threadpoolctl import threadpool_limits

    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    majority = float(np.bincount(codes).max() / len(codes))
    rows = _thin(codes, seed)
    groups = np.unique(np.asarray(group_ids)[rows], return_inverse=True)[1]
    class_of_pair = np.unique(np.c_[codes[rows], groups], axis=0)[:, 0]
    per_class = np.bincount(class_of_pair, minlength=len(names))
    if len(names) < 2 or per_class.min() < 2:
        return Baselines(majority, len(rows), None, None)
    folds = _make_folds(codes[rows], groups, seed)
    few = thumbnails[rows]
    with threadpool_limits(limits=1):  # the order of sums, and so the last bits, follows threads
        hits = [
            _count_hits(features, codes[rows], folds) for features in (_small(few), _border(few))
        ]
    linear, border = (Baseline(n / len(rows), *accuracy_interval(n, len(rows))) for n in hits)
    return Baselines(majority, len(rows), linear, border)


def _thin(codes: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.intp]:
    """At most `MAX_IMAGES` rows, classes in proportion, at least two of each."""
    if len(codes) <= MAX_IMAGES:
        return np.arange(len(codes))
    draw = np.random.default_rng(derive_seed(seed, "eda", "thin"))
    shuffled = draw.permutation(len(codes))
    taken = [
        members[: max(2, len(members) * MAX_IMAGES // len(codes))]
        for members in (shuffled[codes[shuffled] == code] for code in range(codes.max() + 1))
    ]
    return np.sort(np.concatenate(taken))


def _make_folds(
    codes: npt.NDArray[np.intp], groups: npt.NDArray[np.intp], seed: int
) -> npt.NDArray[np.intp]:
    """A fold for each row: whole groups, in an order drawn per class, dealt in turn."""
    draw = np.random.default_rng(derive_seed(seed, "eda", "folds"))
    firsts = np.unique(groups, return_index=True)[1]
    order = draw.permutation(len(firsts))
    order = order[np.argsort(codes[firsts[order]], kind="stable")]
    fold_of_group = np.empty(len(firsts), dtype=np.intp)
    fold_of_group[order] = np.arange(len(firsts)) % FOLDS
    return fold_of_group[groups]


def _small(thumbnails: npt.NDArray[np.uint8]) -> Features:
    """The whole picture at `LINEAR_PX`, by averaging."""
    n, side = len(thumbnails), thumbnails.shape[1]
    step = side // LINEAR_PX
    blocks = thumbnails.reshape(n, LINEAR_PX, step, LINEAR_PX, step, 3).astype(np.float64)
    return np.asarray(blocks.mean(axis=(2, 4))).reshape(n, -1)


def _border(thumbnails: npt.NDArray[np.uint8]) -> Features:
    """The outermost tenth of the side, all around."""
    side = thumbnails.shape[1]
    width = max(1, round(side * BORDER_SHARE))
    outside = np.ones((side, side), dtype=bool)
    outside[width:-width, width:-width] = False
    return thumbnails[:, outside].reshape(len(thumbnails), -1).astype(np.float64)


def _count_hits(
    features: Features, codes: npt.NDArray[np.intp], folds: npt.NDArray[np.intp]
) -> int:
    """Correct out-of-fold predictions: standardise, principal components, logistic regression."""
    import warnings

    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    hits = 0
    for fold in range(FOLDS):
        held_out = folds == fold
        if not held_out.any():
            continue
        rows, pixels = int((~held_out).sum()), features.shape[1]
        # The covariance costs pixels^3 however few the images are.
        solver = "full" if 2 * rows < pixels else "covariance_eigh"
        model = make_pipeline(
            StandardScaler(),
            PCA(min(COMPONENTS, pixels, rows - 1), svd_solver=solver),
            LogisticRegression(C=_C, max_iter=_MAX_ITERATIONS),
        )
        with warnings.catch_warnings():
            # Stopped early on purpose: a floor needs no last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[~held_out], codes[~held_out])
        hits += int((model.predict(features[held_out]) == codes[held_out]).sum())
    return hits
