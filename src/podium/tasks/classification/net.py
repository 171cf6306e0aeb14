"""Classification with tensors: how many outputs, which loss.

Every loss compares k logits with a target distribution over the k classes, and its predictions are
the logits' softmax: what follows training need not know which loss it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import paddle
from paddle.nn import functional

from podium.errors import PodiumError

Targets = npt.NDArray[Any]

# Cui et al. measure beta in 0.9 .. 0.9999; 0.999 takes a class for covered by some 1000 images.
_BETA = 0.999
# Keeps the slope of (1 - p)^gamma finite at p = 1 where gamma < 1.
_LEAST_MISS = 1e-7


@dataclass(frozen=True)
class ClassificationNet:
    """The tensor half of a classification task (see `podium.tasks.net_protocol.NetTask`).

    Attributes:
        n_classes: k.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al.,
            arXiv:1512.00567), in [0, 1). Not with `ordinal`, whose targets are soft already: a
            share spread evenly would ask for far grades a hundred times as much as they do.
        loss_name: cross_entropy; focal: Lin et al. (arXiv:1708.02002), which passes over what is
            learned already; ordinal: SORD, soft targets that fall off with the squared distance
            between grades (Diaz & Marathe, CVPR 2019).
        focal_gamma: of focal, >= 0; 0 is cross-entropy.
        class_weights: none; balanced: n / (k n_c); effective: the inverse of the effective number
            of samples (Cui et al., arXiv:1901.05555).
        ordinal: whether the classes are grades in order.
        weights: of each class, as `fit_to` found them; empty: all 1.

    Raises:
        PodiumError: the ordinal loss for classes without an order.
    """

    n_classes: int
    label_smoothing: float
    loss_name: Literal["cross_entropy", "focal", "ordinal"] = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: Literal["none", "balanced", "effective"] = "none"
    ordinal: bool = False
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.loss_name == "ordinal" and not self.ordinal:
            raise PodiumError(
                "train.loss: ordinal is for grades in order, but competition.ordinal is false: "
                "set it to true or choose cross_entropy or focal"
            )

    @property
    def outputs(self) -> int:
        """Logits per image."""
        return self.n_classes

    def fit_to(self, targets: Targets) -> ClassificationNet:
        """This task with the class weights that go with a training list.

        The list's rows are counted as label shuffling left them, repeats included: what it has
        balanced is not balanced a second time. The rows' mean weight is 1, so that `lr` keeps its
        meaning; a class of less than one row, as soft labels may have, is weighed as if it stood there
        once.

        Args:
            targets: of the list's rows, class numbers (n,) or distributions (n, k).
        """
        if self.class_weights == "none":
            return self
        counts = (
            np.bincount(targets, minlength=self.n_classes).astype(np.float64)
            if targets.ndim == 1
            else targets.sum(axis=0, dtype=np.float64)
        )
        sizes = np.maximum(counts, 1.0)
        if self.class_weights == "effective":
            sizes = (1 - _BETA**sizes) / (1 - _BETA)
        weights = 1 / sizes
        weights *= counts.sum() / (counts * weights).sum()
        return replace(self, weights=tuple(weights.tolist()))

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """Mean loss of float32 logits (n, k) against int64 class numbers (n,) or
        distributions (n, k), of any float.

        A row weighs as its class does. The mean goes over the rows and not over their weights:
        so a batch may be cut into any passes.
        """
        if targets.ndim == 1:
            hard = functional.one_hot(targets, self.n_classes)
        else:
            hard = targets.astype("float32")
        wanted = self._soften(hard)
        if self.loss_name == "focal":
            log_p = functional.log_softmax(outputs, axis=1)
            miss = paddle.clip(-paddle.expm1(log_p), min=_LEAST_MISS)
            each = -(wanted * miss**self.focal_gamma * log_p).sum(axis=1)
        else:
            each = functional.cross_entropy(outputs, wanted, soft_label=True, reduction="none")
            each = each.squeeze(1)
        if self.weights:
            each = each * paddle.matmul(hard, paddle.to_tensor(self.weights, "float32"))
        return each.mean()

    def distillation_loss(
        self, outputs: paddle.Tensor, taught: paddle.Tensor, temperature: float
    ) -> paddle.Tensor:
        """Mean Kullback-Leibler divergence of the softmaxes at a temperature, times its square, so
        that gradients keep their size (Hinton et al., arXiv:1503.02531, section 2)."""
        wanted = functional.softmax(taught / temperature, axis=1)
        said = functional.log_softmax(outputs / temperature, axis=1)
        return functional.kl_div(said, wanted, reduction="batchmean") * temperature**2

    def _soften(self, hard: paddle.Tensor) -> paddle.Tensor:
        """What the net should say, (n, k), of distributions over the true class."""
        if self.loss_name == "ordinal":
            grades = np.arange(self.n_classes)
            near = np.exp(-np.square(grades[:, None] - grades, dtype=np.float64))
            near /= near.sum(axis=1, keepdims=True)
            return paddle.matmul(hard, paddle.to_tensor(near, "float32"))
        if self.label_smoothing:
            return hard * (1 - self.label_smoothing) + self.label_smoothing / self.n_classes
        return hard
