"""A greedy soup: the average of some of the best epochs' weights.

In: each epoch's judged weights and val score. Out: the average that no further ingredient makes
better. Wortsman et al., "Model soups" (arXiv:2203.05482), recipe 1; their ingredients are runs that
were fine-tuned alike, ours are epochs of one run, as in stochastic weight averaging
(arXiv:1803.05407).

Batch-norm statistics are averaged like weights, not computed anew: ingredients of one run lie close
together, statistics are moving averages already, and an average that they do not fit scores lower
and is turned down. Computing them anew would cost a pass over the training images per ingredient.

Where the net learns part by part, an early ingredient names fewer tensors than a late one; the
others were then as the net was built, and so they are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from podium.engine.weights import State


class Ingredients:
    """The weights of the best epochs so far.

    Args:
        size: how many are kept; 0: none.
        higher_is_better: of two scores. Of equals the earlier epoch is the better one.
    """

    def __init__(self, size: int, higher_is_better: bool) -> None:
        self._size, self._sign = size, -1.0 if higher_is_better else 1.0
        self._states: dict[int, State] = {}

    def __bool__(self) -> bool:
        return bool(self._states)

    def offer(self, epoch: int, state: Callable[[], State], scores: Sequence[float]) -> None:
        """Keep the weights of `epoch` (from 1) if it is among the best.

        Args:
            epoch: that has just ended.
            state: gives a copy of its judged weights.
            scores: of all epochs so far, the first one's first.
        """
        if not self._size:
            return
        best = self._order([*self._states, epoch], scores)[: self._size]
        if epoch in best:
            self._states[epoch] = state()
        self._states = {kept: self._states[kept] for kept in best}

    def stir(
        self, as_built: State, scores: Sequence[float], judge: Callable[[State], float]
    ) -> tuple[State, list[int], float]:
        """The greedy soup: from the best epoch on, each next one is averaged in if the val score
        does not fall.

        Args:
            as_built: what learns in the end, as it was before training.
            scores: of all epochs.
            judge: the val score of weights named as in `as_built`.

        Returns:
            the soup; its epochs, best first; its score, no worse than the best epoch's.
        """
        best, *others = self._order(self._states, scores)
        chosen, score = [best], scores[best - 1]
        soup = self._mix(chosen, as_built)
        for epoch in others:
            tried = self._mix([*chosen, epoch], as_built)
            its_score = judge(tried)
            if self._sign * its_score <= self._sign * score:
                chosen, soup, score = [*chosen, epoch], tried, its_score
        return soup, chosen, score

    def to_state(self) -> State:
        """All of it as one state, for a checkpoint."""
        return {
            f"{epoch}/{name}": values
            for epoch, state in self._states.items()
            for name, values in state.items()
        }

    def load(self, state: State) -> None:
        """Inverse of `to_state`."""
        self._states = {}
        for key, values in state.items():
            epoch, _, name = key.partition("/")
            self._states.setdefault(int(epoch), {})[name] = values

    def _order(
        self, epochs: Sequence[int] | dict[int, State], scores: Sequence[float]
    ) -> list[int]:
        return sorted(epochs, key=lambda epoch: (self._sign * scores[epoch - 1], epoch))

    def _mix(self, epochs: Sequence[int], as_built: State) -> State:
        """The mean, in float64 and in the order of the epochs' scores: to the same bits after a
        resumption."""
        mixed: State = {}
        for name, built in as_built.items():
            total = np.zeros(built.shape, np.float64)
            for epoch in epochs:
                total += self._states[epoch].get(name, built)
            mixed[name] = (total / len(epochs)).astype(built.dtype)
        return mixed
