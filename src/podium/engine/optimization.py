"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import nn

from podium.engine.params import TrainParams


def learning_rate(
    peak: float, step: int, total_steps: int, warmup_steps: int, schedule: str
) -> float:
    """The learning rate of optimiser step `step` (from 0).

    Linear warm-up to `peak` over `warmup_steps`, then `constant`, or a half `cosine` towards 0 at
    `total_steps` (Loshchilov & Hutter, arXiv:1608.03983, without restarts).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(network: nn.Layer, params: TrainParams, peak_lr: float) -> Any:
    """The optimiser named by `train.optimizer` over the trainable parameters.

    Weight decay spares biases and normalisation (one-dimensional parameters), as timm and
    PaddleClas do: AdamW decouples it, SGD and Adam take it as an L2 term.
    """
    trainable = [p for p in network.parameters() if not p.stop_gradient]
    decayed = [p for p in trainable if len(p.shape) > 1]
    spared = [p for p in trainable if len(p.shape) <= 1]
    groups: list[dict[str, Any]] = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((decayed, params.weight_decay), (spared, 0.0))
        if group
    ]
    if params.optimizer == "adamw":
        return paddle.optimizer.AdamW(learning_rate=peak_lr, parameters=groups)
    if params.optimizer == "adam":
        return paddle.optimizer.Adam(learning_rate=peak_lr, parameters=groups)
    return paddle.optimizer.Momentum(
        learning_rate=peak_lr, momentum=params.momentum, parameters=groups
    )
