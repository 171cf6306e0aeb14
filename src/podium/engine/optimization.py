"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def build_optimizer(
    trainee: nn.Layer, params: TrainParams, peak_lr: float, depth_of: Callable[[str], int]
) -> Any:
    """The optimiser named by `train.optimizer` over the trainable parameters.

    Weight decay spares biases and normalisation (one-dimensional parameters), as timm and
    PaddleClas do: AdamW decouples it, SGD and Adam take it as an L2 term. A layer at distance d
    from the head learns at lr * layer_decay^d (Clark et al., ELECTRA, arXiv:2003.10555; timm's
    --layer-decay).

    Args:
        trainee: what learns.
        params: the choice.
        peak_lr: of the head.
        depth_of: parameter name -> d.
    """
    groups: dict[tuple[int, float], list[Any]] = {}
    for name, parameter in trainee.named_parameters():
        if not parameter.stop_gradient:
            decay = params.weight_decay if len(parameter.shape) > 1 else 0.0
            groups.setdefault((depth_of(name), decay), []).append(parameter)
    parameters: list[dict[str, Any]] = [
        {
            "params": group,
            "weight_decay": decay,
            "learning_rate": params.layer_decay**depth,
        }
        for (depth, decay), group in groups.items()
    ]
    if params.optimizer == "adamw":
        return paddle.optimizer.AdamW(learning_rate=peak_lr, parameters=parameters)
    if params.optimizer == "adam":
        return paddle.optimizer.Adam(learning_rate=peak_lr, parameters=parameters)
    return paddle.optimizer.Momentum(
        learning_rate=peak_lr, momentum=params.momentum, parameters=parameters
    )
