"""Metrics of classification, from raw probabilities.

In: probabilities, float64 (n, k), rows sum to 1; targets, int64 (n,), 0..k-1. Out: numbers for
metrics/*.json and rows for plots. A predicted class is the one of highest probability, of equals
the first. Nothing here is NaN: what is not defined (the recall of a class that does not occur) is
None, null in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.runtime import derive_seed
from podium.tasks.evidence import HardOrSoft

Probabilities = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
CALIBRATION_BINS = 15
PR_POINTS = 200
# Metrics are rounded in JSON: further digits carry no meaning at any n that fits a competition.
DECIMALS = 6

# Rows of (draws x groups) held at once by the bootstrap: 32 MB of float64.
_BLOCK = 4_000_000


def make_confusion(targets: Targets, predicted: Targets, k: int) -> npt.NDArray[np.int64]:
    """Counts, int64 (k, k): rows are targets, columns predicted classes."""
    return np.bincount(targets * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)


def accuracy(targets: Targets, predicted: Targets) -> float:
    """Share of equal entries, 0..1; n must not be 0."""
    return float((targets == predicted).mean())


def accuracy_interval(hits: float, n: float) -> tuple[float, float]:
    """Exact 95 % interval of a binomial share (Clopper and Pearson 1934); 0 <= hits <= n."""
    # What scipy.stats.binomtest computes, without its half second of imports in each stage.
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def grouped_accuracy_interval(
    right: npt.NDArray[np.bool_], groups: Sequence[str]
) -> tuple[float, float]:
    """95 % interval of an accuracy whose rows are no independent evidence within a group: the exact one
    of as many rows as they are worth (Korn and Graubard 1998, as the NCHS uses it).

    They are worth n over the design effect, which is how much more the groups' hits vary than those
    of single rows would, and less where the groups are few. Groups of one: `accuracy_interval`.

    Args:
        right: (n,), whether the answer is.
        groups: of each row.
    """
    from scipy.special import stdtrit

    n, share = len(right), float(right.mean())
    _, number = np.unique(np.array(groups), return_inverse=True)
    sizes = np.bincount(number)
    k = len(sizes)
    if k == n:
        return accuracy_interval(int(right.sum()), n)
    if k == 1:
        return accuracy_interval(share, 1)
    excess = np.bincount(number, weights=right) - share * sizes
    varies, expected = k / (k - 1) * float(np.square(excess).sum()), n * share * (1 - share)
    effect = max(1.0, varies / expected) if expected else 1.0
    top = (1 + CONFIDENCE) / 2
    worth = n / effect * float(stdtrit(n - 1, top) / stdtrit(k - 1, top)) ** 2
    return accuracy_interval(share * worth, worth)


def class_table(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per class: label, precision, recall, f1 and support (images of that class).

    precision is None where the class was never predicted, recall where it does not occur, f1 where
    both.
    """
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)

    def share(part: np.int64, whole: np.int64) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "label": label,
            "precision": share(hits[c], predicted[c]),
            "recall": share(hits[c], support[c]),
            "f1": share(2 * hits[c], support[c] + predicted[c]),
            "support": int(support[c]),
        }
        for c, label in enumerate(classes)
    ]


def macro_f1(confusion: npt.NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur among targets or predictions (sklearn's default)."""
    sizes = confusion.sum(axis=1) + confusion.sum(axis=0)
    present = sizes > 0
    return float((2 * confusion.diagonal()[present] / sizes[present]).mean())


def balanced_accuracy(confusion: npt.NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur among the targets, also called macro accuracy."""
    support = confusion.sum(axis=1)
    present = support > 0
    return float((confusion.diagonal()[present] / support[present]).mean())


def row_losses(targets: HardOrSoft, probabilities: Probabilities) -> Floats:
    """-ln of each target's probability, nats (n,); a probability of 0 counts as 2.2e-16.

    Of soft labels (n, k) the mean over the classes as they say: their entropy is the least.
    """
    if targets.ndim == 2:
        logs = np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1.0))
        soft: Floats = -(targets * logs).sum(axis=1)
        return soft
    chosen = probabilities[np.arange(len(targets)), targets]
    losses: Floats = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))
    return losses


def log_loss(targets: HardOrSoft, probabilities: Probabilities) -> float:
    """Mean of `row_losses`."""
    return float(row_losses(targets, probabilities).mean())


def confidence_bins(confidence: Floats) -> npt.NDArray[np.int64]:
    """The calibration bin, 0..14, of each top probability (n,)."""
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def reliability(targets: Targets, probabilities: Probabilities) -> pd.DataFrame:
    """Confidence against accuracy in 15 equal bins of the top probability, (low, high].

    Returns:
        Columns bin_low, bin_high, confidence (mean), accuracy and count; empty bins left out.
    """
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    bins = confidence_bins(confidence)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = np.flatnonzero(counts)
    return pd.DataFrame(
        {
            "bin_low": used / CALIBRATION_BINS,
            "bin_high": (used + 1) / CALIBRATION_BINS,
            "confidence": (np.bincount(bins, confidence, CALIBRATION_BINS) / counts.clip(1))[used],
            "accuracy": (np.bincount(bins, correct, CALIBRATION_BINS) / counts.clip(1))[used],
            "count": counts[used],
        }
    )


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error, 0..1, of `reliability` bins (Guo et al. 2017)."""
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["count"]
    return float(gaps.sum() / bins["count"].sum())


def weighted_kappas(confusions: Floats) -> Floats:
    """Quadratic weighted kappa (Cohen 1968) of each of many confusion matrices.

    Args:
        confusions: (m, k, k) counts.

    Returns:
        (m,) values, at most 1; NaN where one class holds all targets and all predictions.
    """
    k = confusions.shape[1]
    grades = np.arange(k)
    weights = (grades[:, None] - grades[None, :]) ** 2.0
    observed = (confusions * weights).sum(axis=(1, 2))
    rows, columns = confusions.sum(axis=2), confusions.sum(axis=1)
    expected = ((rows @ weights) * columns).sum(axis=1) / rows.sum(axis=1)
    kappas = np.full(len(confusions), np.nan)
    defined = expected > 0
    kappas[defined] = 1.0 - observed[defined] / expected[defined]
    return kappas


def weighted_kappa(confusion: npt.NDArray[np.int64]) -> float | None:
    """`weighted_kappas` of one matrix (k, k); None where it is not defined."""
    kappa = float(weighted_kappas(confusion[None].astype(np.float64))[0])
    return None if np.isnan(kappa) else kappa


def weighted_kappa_interval(
    targets: Targets,
    predicted: Targets,
    groups: Sequence[str],
    k: int,
    draws: int,
    seed: int,
) -> tuple[float, float] | None:
    """95 % percentile interval of the kappa by a bootstrap that draws whole groups.

    Images of one group (duplicates, one patient) are not independent: drawing single images would
    make the interval too narrow (Efron and Tibshirani 1993, ch. 8; Field and Welsh 2007).

    Args:
        targets, predicted: int64 (n,).
        groups: group of each of the n images.
        k: number of classes.
        draws: bootstrap repetitions; those without a defined kappa are left out.
        seed: the run's seed.

    Returns:
        Low and high; None where no draw has a defined kappa.
    """
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    numbers = np.array([names[name] for name in groups], dtype=np.int64)
    n_groups, cells = len(names), k * k
    places = numbers * cells + targets * k + predicted
    by_group = np.bincount(places, minlength=n_groups * cells).reshape(n_groups, cells)
    by_group = by_group.astype(np.float64)
    random = np.random.default_rng(derive_seed(seed, "bootstrap", "qwk"))
    block = max(1, _BLOCK // n_groups)
    kappas = []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = random.integers(0, n_groups, (size, n_groups))
        drawn += np.arange(size)[:, None] * n_groups
        times = np.bincount(drawn.ravel(), minlength=size * n_groups).reshape(size, n_groups)
        # Sums of whole numbers in float64 are exact, whatever order BLAS adds them in.
        kappas.append(weighted_kappas((times.astype(np.float64) @ by_group).reshape(size, k, k)))
    defined = np.concatenate(kappas)
    defined = defined[~np.isnan(defined)]
    if not len(defined):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def precision_recall(
    targets: Targets, probabilities: Probabilities, classes: Sequence[str]
) -> pd.DataFrame:
    """One-against-rest precision-recall curves, each up to its first point of full recall.

    Returns:
        Columns label, recall, precision: by class in the order of `classes`, recall rising from
        the customary (0, 1); at most `PR_POINTS` points each. A class that does not occur has none.
    """
    curves = []
    for c, label in enumerate(classes):
        positive = targets == c
        if not positive.any():
            continue
        order = np.argsort(-probabilities[:, c], kind="stable")
        scores = probabilities[order, c]
        hits = np.cumsum(positive[order])
        # Images of equal score pass a threshold together: only the last of them is a point.
        last = np.flatnonzero(np.append(np.diff(scores) != 0, True))
        last = last[: np.searchsorted(hits[last], hits[-1]) + 1]
        recall = np.concatenate([[0.0], hits[last] / hits[-1]])
        precision = np.concatenate([[1.0], hits[last] / (last + 1)])
        count = min(PR_POINTS, len(recall))
        kept = np.round(np.linspace(0, len(recall) - 1, count)).astype(np.int64)
        curves.append(
            pd.DataFrame(
                {
                    "label": label,
                    "recall": recall[kept].round(DECIMALS),
                    "precision": precision[kept].round(DECIMALS),
                }
            )
        )
    return pd.concat(curves, ignore_index=True)
