"""Cross-validation of small models that stand for "this is all one needs to see".

In: features, classes and groups. Out: predictions for rows that the small model has not seen. Equal
for equal arguments, whatever the number of cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.runtime import derive_seed

FOLDS = 5
MAX_IMAGES = 4000  # enough for an interval of +-1.5 points, and seconds rather than minutes
COMPONENTS = 160
NOT_FOLDABLE = "fewer than two classes have two different images"
_C = 0.1  # of scikit-learn's LogisticRegression: the more pixels than images, the stronger
_MAX_ITERATIONS = 60
# A leaf of fewer rows learns the noise, one of more than 1 in 200 misses short runs in a list.
_LEAST_LEAF, _LEAF_SHARE = 5, 1 / 200

Features = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """What small models are cross-validated on.

    Attributes:
        rows: positions of its images, sorted; none where fewer than two classes can be asked about.
        codes: class number of each.
        folds: of each.
        groups: of each, its group_id.
        floor: the commonest class's share, of all images of the classes that are asked about.
        left_out: in words, how many images of which classes are not; "" where all are.
    """

    rows: Codes
    codes: Codes
    folds: Codes
    groups: Sequence[str]
    floor: float
    left_out: str


def draw_sample(labels: Sequence[str], group_ids: Sequence[str], seed: int) -> Sample:
    """At most about `MAX_IMAGES` images, of the classes that have two different images.

    One rare class shall not keep the others from being looked at.

    Args:
        labels, group_ids: of n images; rows of one group stay in one fold.
        seed: decides which images are taken where there are very many, and the folds.
    """
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    groups = np.unique(np.asarray(group_ids), return_inverse=True)[1]
    rows = find_foldable(codes, groups)
    if not len(rows):
        return Sample(rows, rows, rows, [], float(np.bincount(codes).max() / len(codes)), "")
    floor = float(np.bincount(codes[rows]).max() / len(rows))
    left_out = describe_left_out(codes, rows)
    rows = rows[thin(codes[rows], groups[rows], seed)]
    folds = make_folds(codes[rows], groups[rows], seed)
    names = [group_ids[row] for row in rows]
    return Sample(rows, codes[rows], folds, names, floor, left_out)


def describe_left_out(codes: Codes, rows: Codes) -> str:
    """Which images are not among `rows`, in words; "" where all are."""
    n_images = len(codes) - len(rows)
    n_classes = len(np.unique(codes)) - len(np.unique(codes[rows]))
    if not n_images:
        return ""
    images = "1 image" if n_images == 1 else f"{n_images} images"
    classes = "1 class" if n_classes == 1 else f"{n_classes} classes"
    return f"{images} of {classes} left out: a class needs two different images"


def thin(codes: Codes, groups: Codes, seed: int, most: int | None = None) -> Codes:
    """At most about `most` rows (`MAX_IMAGES`), classes in proportion; of each class two groups, if
    it has as many."""
    most = MAX_IMAGES if most is None else most
    if len(codes) <= most:
        return np.arange(len(codes))
    draw = np.random.default_rng(derive_seed(seed, "eda", "thin"))
    shuffled = draw.permutation(len(codes))
    taken = []
    for code in np.unique(codes):
        members = shuffled[codes[shuffled] == code]
        few = members[: max(2, len(members) * most // len(codes))]
        if (groups[few] == groups[few[0]]).all():
            others = members[groups[members] != groups[few[0]]]
            few = np.concatenate([few[: len(few) - len(others[:1])], others[:1]])
        taken.append(few)
    return np.sort(np.concatenate(taken))


def make_folds(codes: Codes, groups: Codes, seed: int) -> Codes:
    """A fold for each row: whole groups, in an order drawn per class, dealt in turn.

    A group of several classes counts as one of its rarest, of equally rare ones the first: so two
    groups that hold all there is of a class come into two folds.

    Args:
        codes: class numbers.
        groups: any numbers, as where some of the rows were left out.
    """
    draw = np.random.default_rng(derive_seed(seed, "eda", "folds"))
    names, numbers = np.unique(groups, return_inverse=True)
    by_rarity = np.argsort(np.bincount(codes), kind="stable")
    rarest = np.full(len(names), len(by_rarity))
    np.minimum.at(rarest, numbers, np.argsort(by_rarity)[codes])
    order = draw.permutation(len(names))
    order = order[np.argsort(by_rarity[rarest[order]], kind="stable")]
    fold_of_group = np.empty(len(names), dtype=np.intp)
    fold_of_group[order] = np.arange(len(names)) % FOLDS
    return fold_of_group[numbers]


def find_foldable(codes: Codes, groups: Codes) -> Codes:
    """Rows of the classes that hold two groups, one to learn from and one to be asked about; none
    where fewer than two classes do."""
    class_of_pair = np.unique(np.c_[codes, groups], axis=0)[:, 0]
    enough = np.flatnonzero(np.bincount(class_of_pair) >= 2)
    return np.flatnonzero(np.isin(codes, enough if len(enough) >= 2 else []))


def can_be_folded(codes: Codes, groups: Codes) -> bool:
    """Whether there are two classes, and two groups of each."""
    return len(find_foldable(codes, groups)) == len(codes)


def predict_linear(
    features: Features, codes: Codes, folds: Codes, components: int = COMPONENTS
) -> Codes:
    """Out of fold: standardise, principal components, logistic regression."""
    return _predict(
        lambda rows: _make_linear(rows, features.shape[1], components), features, codes, folds
    )


def score_linear(features: Features, codes: Codes, folds: Codes, components: int) -> Features:
    """Out of fold: how sure the same model is that a row is of class 1, of two classes: log odds,
    infinite where all that it learned from is of one class."""
    scores = np.zeros(len(codes))
    for fold in np.unique(folds):
        held_out = folds == fold
        rows = int((~held_out).sum())
        model = _fit(
            _make_linear(rows, features.shape[1], components), features[~held_out], codes[~held_out]
        )
        scores[held_out] = model.decision_function(features[held_out])
    return scores


def score_transfer(
    features: Features, others: Mapping[str, Features], codes: Codes, folds: Codes
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows the linear model of `predict_linear` gets right, out of fold: under `plain` by the
    features that it learned on, and by other features of the same rows under their names."""
    asked = {"plain": features, **others}
    hits = {name: np.zeros(len(codes), dtype=bool) for name in asked}
    for fold in np.unique(folds):
        held_out = folds == fold
        empty = _make_linear(int((~held_out).sum()), features.shape[1], COMPONENTS)
        model = _fit(empty, features[~held_out], codes[~held_out])
        for name, seen in asked.items():
            hits[name][held_out] = model.predict(seen[held_out]) == codes[held_out]
    return hits


def predict_by_tree(features: Features, codes: Codes, folds: Codes) -> Codes:
    """Out of fold: a decision tree (Breiman et al. 1984), for few numbers whose order may matter and
    whose line with the class need not be straight."""
    from sklearn.tree import DecisionTreeClassifier

    def make(rows: int) -> Any:
        leaf = max(_LEAST_LEAF, round(rows * _LEAF_SHARE))
        return DecisionTreeClassifier(min_samples_leaf=leaf, random_state=0)

    return _predict(make, features, codes, folds)


def _predict(make: Callable[[int], Any], features: Features, codes: Codes, folds: Codes) -> Codes:
    predicted = np.zeros(len(codes), dtype=np.intp)
    for fold in range(FOLDS):
        held_out = folds == fold
        if held_out.any():
            model = _fit(make(int((~held_out).sum())), features[~held_out], codes[~held_out])
            predicted[held_out] = model.predict(features[held_out])
    return predicted


def _make_linear(rows: int, columns: int, components: int) -> Any:
    from sklearn.decomposition import PCA, KernelPCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    used = min(components, columns, rows - 1)
    # The same components, by whichever matrix is the smaller: of columns or, a linear kernel, of rows.
    reduce = (
        PCA(used, svd_solver="covariance_eigh")
        if columns < rows
        else KernelPCA(used, kernel="linear", eigen_solver="dense")
    )
    return make_pipeline(
        StandardScaler(), reduce, LogisticRegression(C=_C, max_iter=_MAX_ITERATIONS)
    )


def _fit(model: Any, features: Features, codes: Codes) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if (codes == codes[0]).all():
        return _Constant(int(codes[0]))
    # The order of sums, and so the last bits, follows threads.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Stopped early on purpose: a floor needs no last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, codes)


@dataclass(frozen=True)
class _Constant:
    """What one class can teach, where one fold holds all groups of the others: its own number.
    Scikit-learn's logistic regression refuses."""

    code: int

    def predict(self, features: Features) -> Codes:
        return np.full(len(features), self.code)

    def decision_function(self, features: Features) -> Features:
        return np.full(len(features), np.inf if self.code else -np.inf)
