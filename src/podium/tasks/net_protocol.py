"""What the training loop and compression know about a task's tensors, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import paddle


class NetTask(Protocol):
    """The tensor half of a task."""

    @property
    def outputs(self) -> int:
        """Numbers the net gives per image."""

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """A scalar to minimise: float32 outputs (n, k) against the data half's targets."""
