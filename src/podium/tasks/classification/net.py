"""Classification with tensors: how many outputs, which loss."""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle.nn import functional


@dataclass(frozen=True)
class ClassificationNet:
    """The tensor half of a classification task (see `podium.tasks.net_protocol.NetTask`).

    Attributes:
        n_classes: k.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al.,
            arXiv:1512.00567), in [0, 1).
    """

    n_classes: int
    label_smoothing: float

    @property
    def outputs(self) -> int:
        """Logits per image."""
        return self.n_classes

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """Mean cross-entropy of float32 logits (n, k) against int64 class numbers (n,)."""
        if self.label_smoothing == 0:
            return functional.cross_entropy(outputs, targets)
        hard = functional.one_hot(targets, self.n_classes)
        soft = hard * (1 - self.label_smoothing) + self.label_smoothing / self.n_classes
        return functional.cross_entropy(outputs, soft, soft_label=True)
