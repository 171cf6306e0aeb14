"""What the training loop and compression know about a task's tensors, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

if TYPE_CHECKING:
    import paddle


class NetTask(Protocol):
    """The tensor half of a task."""

    @property
    def outputs(self) -> int:
        """Numbers the net gives per image."""

    def fit_to(self, targets: npt.NDArray[Any]) -> NetTask:
        """The task with what its loss takes from the targets of a training list's rows (repeats
        included), such as weights of classes."""

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """A scalar to minimise: float32 outputs (n, k) against the data half's targets."""

    def distillation_loss(
        self, outputs: paddle.Tensor, taught: paddle.Tensor, temperature: float
    ) -> paddle.Tensor:
        """A scalar to minimise: how far float32 outputs (n, k) are from another net's (n, k); 0
        where they say the same."""
