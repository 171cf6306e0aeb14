"""What the program knows about a task; everything else is the task's own business.

This is the half that needs no tensors: eda, split, evaluate's numbers and submit see only this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.submission import SubmissionTask

# Positions of rows (m,), which may repeat -> a value for each metric that was asked for, float64.
Scorer = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class MetricSpec:
    """A metric's name, as in metrics/*.json, and its direction.

    Attributes:
        counts_right: whether it is the share of right answers: then tests of counts are exact.
        can_be_resampled: whether a bootstrap interval of it holds what it promises.
    """

    name: str
    higher_is_better: bool
    counts_right: bool = False
    can_be_resampled: bool = True


class DataTask(SubmissionTask, Protocol):
    """The data half of a task. Predictions are raw probabilities, float64 (n, k)."""

    @property
    def name(self) -> str:
        """As in `competition.task`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the net's outputs and of all prediction columns."""

    @property
    def primary(self) -> MetricSpec:
        """What `train.keep: best` follows and the headline says."""

    def targets(self, labels: Sequence[str]) -> npt.NDArray[Any]:
        """What the loss compares with: one entry for each of the manifest's labels."""

    def training_targets(
        self, labels: Sequence[str], soft_labels: Sequence[str]
    ) -> npt.NDArray[Any]:
        """What the loss learns from: as `targets`, or what the manifest's soft labels say, where
        there are any. `score`, `metrics`, `make_scorer` and `plots` take it too."""

    def predictions(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """What a net's raw outputs (n, k) say, as predictions (n, k)."""

    def score(self, predictions: npt.NDArray[np.float64], targets: npt.NDArray[Any]) -> float:
        """The primary metric alone: cheap enough for every epoch."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """Ways to labels, of `podium.tasks.decoding.FITS`, that may beat the most probable class;
        none where no labels are judged or submitted."""

    def score_labels(self, labels: npt.NDArray[np.int64], targets: npt.NDArray[Any]) -> float:
        """The primary metric of class numbers (n,), higher is better; asked for with `decoders`."""

    def metrics(
        self,
        predictions: npt.NDArray[np.float64],
        targets: npt.NDArray[Any],
        groups: Sequence[str],
        seed: int,
    ) -> dict[str, Any]:
        """All metrics with their intervals, ready for JSON; None where one is not defined."""

    @property
    def compared(self) -> tuple[MetricSpec, ...]:
        """What two runs are compared by, each with its direction; the primary metric first."""

    def make_scorer(
        self,
        names: Sequence[str],
        predictions: npt.NDArray[np.float64],
        labels: npt.NDArray[np.int64],
        targets: npt.NDArray[Any],
    ) -> Scorer:
        """Scores any choice of these n rows, fast enough for thousands of choices.

        Args:
            names: the metrics wanted, of `compared`.
            predictions: (n, k), as they would be submitted where probabilities are.
            labels: class numbers (n,), as they would be submitted where labels are.
            targets: as `training_targets` gives them.
        """

    def summary(self, metrics: dict[str, Any]) -> str:
        """The headline of `metrics` in a few words."""

    def plots(
        self, predictions: npt.NDArray[np.float64], targets: npt.NDArray[Any]
    ) -> dict[str, pd.DataFrame]:
        """Rows of each plot, by the plot's name."""

    def fallback_prediction(self, targets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The prediction (k,) of an image that cannot be read.

        Args:
            targets: of all training images, as `training_targets` gives them.
        """
