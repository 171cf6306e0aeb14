"""Mixup and CutMix: each row of a step's batch is mixed with another row of the same batch.

Who is mixed with whom, and how much, is a function of seed and step alone: the number of processes
and passes that share the batch does not change it. The loss of a mixed batch is the mean of its
losses against both rows' targets, weighted alike, so the task need not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from podium.engine.batches import Inputs, Source
from podium.runtime import derive_seed

# Beta(a, a), from which the share is drawn. Zhang et al. (arXiv:1710.09412), section 3.1: 0.1 .. 0.4
# on ImageNet; Yun et al. (arXiv:1905.04899), section 3.1: 1.
_MIXUP_ALPHA = 0.2
_CUTMIX_ALPHA = 1.0


@dataclass(frozen=True)
class Mix:
    """How a step's batch is mixed.

    Attributes:
        partners: for each place in the batch, the place of the row that is mixed in.
        kept: the share of the row itself, 0..1.
        centre: of the box that comes from the partner, as shares of height and width; None: the
            whole images are blended.
    """

    partners: Sequence[int]
    kept: float
    centre: tuple[float, float] | None


@dataclass(frozen=True)
class Mixed:
    """Some rows of a batch, ready to learn from.

    Attributes:
        inputs: (n, ...).
        partners: row number of each one's partner; None where nothing is mixed.
        kept: the weight of the rows' own targets, 0..1.
    """

    inputs: Inputs
    partners: list[int] | None = None
    kept: float = 1.0


def draw_mix(mixup: float, cutmix: float, seed: int, step: int, n_rows: int) -> Mix | None:
    """The mix of step number `step`; None: the batch stays as it is.

    Args:
        mixup, cutmix: probabilities, together at most 1.
        seed: of all draws.
        step: from 0 over all epochs.
        n_rows: of the whole batch.
    """
    rng = np.random.default_rng(derive_seed(seed, "mix", step))
    chance = rng.random()
    if chance >= mixup + cutmix:
        return None
    partners = [int(place) for place in rng.permutation(n_rows)]
    if chance < mixup:
        return Mix(partners, float(rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA)), None)
    kept = float(rng.beta(_CUTMIX_ALPHA, _CUTMIX_ALPHA))
    return Mix(partners, kept, (float(rng.random()), float(rng.random())))


def read_mixed(
    source: Source,
    rows: Sequence[int],
    occurrences: Sequence[int],
    epoch: int,
    part: range,
    mix: Mix | None,
) -> Mixed:
    """The inputs of a part of a batch.

    Features of frozen layers are blended like images (Verma et al., Manifold Mixup,
    arXiv:1806.05236).

    Args:
        source: of the inputs.
        rows, occurrences: of the whole batch.
        epoch: from 1.
        part: places in the batch.
        mix: of the whole batch.
    """

    def read(places: Sequence[int]) -> Inputs:
        return source.training_inputs(
            [rows[place] for place in places], [occurrences[place] for place in places], epoch
        )

    if mix is None:
        return Mixed(read(part))
    partners = [mix.partners[place] for place in part]
    places = sorted({*part, *partners})  # each is read once, though it may be row and partner
    where = {place: number for number, place in enumerate(places)}
    inputs = read(places)
    own, other = (inputs[[where[place] for place in half]] for half in (part, partners))
    if mix.centre is None:
        kept = np.float32(mix.kept)
        inputs, share = kept * own + (1 - kept) * other, float(kept)
    else:
        inputs, share = _paste(own, other, mix.kept, mix.centre)
    return Mixed(inputs, [rows[place] for place in partners], share)


def _paste(
    own: npt.NDArray[np.float32],
    other: npt.NDArray[np.float32],
    kept: float,
    centre: tuple[float, float],
) -> tuple[Inputs, float]:
    """`own` images (n, c, h, w) with a box of `other`; the share of `own` that can still be seen.

    The box has the images' aspect and may lie over the edge (Yun et al., section 3.1).
    """
    bounds = []
    for side, middle in zip(own.shape[2:], centre, strict=True):
        reach = round(side * (1 - kept) ** 0.5) // 2
        at = int(middle * side)
        bounds.append((max(0, at - reach), min(side, at + reach)))
    (top, bottom), (left, right) = bounds
    own[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    hidden = (bottom - top) * (right - left) / (own.shape[2] * own.shape[3])
    return own, 1 - hidden
