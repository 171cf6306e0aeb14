"""A linear model on 16 px thumbnails, for scale: what a few kilobytes can do.

In: training images with targets, the judge. Out: a row as the candidates have it. It never ships.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from podium.data.decode import resize
from podium.data.image_cache import Images
from podium.slim.compression import Judge

NAME = "linear-thumbnail"
# More images than this are seconds of work and hardly another number.
MOST_IMAGES = 2000
_SIDE_PX = 16
_C = 0.1  # of scikit-learn's LogisticRegression, as eda's baseline has it
_MAX_ITERATIONS = 60
_BYTES_PER_WEIGHT = 4


def judge_thumbnails(
    images: Images, targets: npt.NDArray[Any], classes: int, judge: Judge
) -> dict[str, Any]:
    """Fit on the training images and judge on the val images.

    Args:
        images: uint8 (n, S, S, 3).
        targets: class numbers (n,).
        classes: how many there are.
        judge: val images and metrics.

    Returns:
        bytes (float32 weights and biases), parameters, mflops, and the judge's metrics; empty where
        fewer than two classes are there to learn.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(targets)) < 2:
        return {}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=_MAX_ITERATIONS))
    # The order of sums, and so the last bits, follows threads.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early on purpose
        model.fit(_shrink(images), targets)
        known = model.predict_proba(_shrink(judge.images))
    probabilities = np.full((len(known), classes), 1e-6)
    probabilities[:, model.classes_] = known
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    weights = classes * (3 * _SIDE_PX**2 + 1)
    metrics = judge.metrics(probabilities)
    return {
        "bytes": _BYTES_PER_WEIGHT * weights,
        "parameters": weights,
        "mflops": round(2 * weights / 1e6, 6),
        **{key: value for key, value in metrics.items() if key != "per_class"},
    }


def _shrink(images: Images) -> npt.NDArray[np.float64]:
    small = [
        np.asarray(resize(Image.fromarray(images[row]), _SIDE_PX)).ravel()
        for row in range(len(images))
    ]
    return np.array(small, np.float64)
