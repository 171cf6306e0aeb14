"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle
from paddle import nn

from podium.engine.params import TrainParams

# OneCycleLR's defaults, in PyTorch and, but for the last, in fastai.
_RISE, _START_DIVISOR, _END_DIVISOR = 0.3, 25.0, 1e4


def learning_rate(
    params: TrainParams, peak: float, step: int, total_steps: int, warmup_steps: int
) -> float:
    """The learning rate of optimiser step `step` (from 0): a function of it and nothing else.

    Linear warm-up to `peak` over `warmup_steps`, then `constant`; a half `cosine` (Loshchilov &
    Hutter, arXiv:1608.03983, without restarts) or a `linear` way towards 0 at `total_steps`; or
    `step`: times `step_factor` after each of the `step_epochs`, shares of the whole training.

    `one_cycle` has a warm-up of its own (Smith & Topin, arXiv:1708.07120, as in PyTorch's
    OneCycleLR with cosine annealing and its defaults; momentum stays as it is): from peak / 25 up
    to `peak` over the first 30 % of the steps, and down to peak / 250000 with the last one.
    """
    if params.schedule == "one_cycle":
        return _one_cycle(peak, step, total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if params.schedule == "constant":
        return peak
    if params.schedule == "step":
        passed = sum(step >= round(share * total_steps) for share in params.step_epochs)
        return float(peak * params.step_factor**passed)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if params.schedule == "linear":
        return peak * (1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(peak: float, step: int, total_steps: int) -> float:
    start = peak / _START_DIVISOR
    last = total_steps - 1
    top = max(0.0, _RISE * total_steps - 1)
    if step < top:
        return _anneal(start, peak, step / top)
    return _anneal(peak, start / _END_DIVISOR, (step - top) / (last - top) if last else 0.0)


def _anneal(begin: float, end: float, done: float) -> float:
    """Half a cosine from `begin` to `end`; done 0..1."""
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * done))


def build_optimizer(
    trainee: nn.Layer, params: TrainParams, peak_lr: float, depth_of: Callable[[str], int]
) -> Any:
    """The optimiser named by `train.optimizer` over the trainable parameters.

    Weight decay spares biases and normalisation (one-dimensional parameters), as timm
    does: AdamW decouples it, SGD and Adam take it as an L2 term. A layer at distance d
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
