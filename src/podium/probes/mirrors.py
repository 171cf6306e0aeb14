"""Whether a mirrored picture still shows its class: what `train.flip: auto` goes by.

In: embeddings of images as they are and mirrored, classes, groups. Out: which mirrors the training may
use, and the evidence. A quick model learns from images as they are and answers images that it has not
seen, as they are and mirrored. A mirror whose pictures it answers no worse makes more of the same
classes; one that turns a 6 into a 9, or a sign upside down, shows at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.probes.cross_validation import can_be_folded, make_folds, score_transfer
from podium.probes.findings import Effect
from podium.tasks.evidence import Evidence, gain_interval

MAX_IMAGES = 1000
# A mirror is used where what is lost on its pictures may be nothing, and is surely less than this.
MOST_LOST = 0.05
_DRAWS = 2000
_DECIMALS = 6


@dataclass(frozen=True)
class Mirrors:
    """What a quick model makes of mirrored pictures.

    Attributes:
        flip: none | horizontal | both, as in `train.flip`; upside down alone is not used.
        n_images: that it was asked about; 0: too few of some class to ask.
        accuracy: on pictures as they are.
        gains: for each mirror, accuracy on its pictures less `accuracy`, with the 95 % interval.
    """

    flip: str
    n_images: int
    accuracy: float
    gains: dict[str, Effect]

    def __str__(self) -> str:
        if not self.n_images:
            return f"{self.flip}: some class has too few images to find out"
        told = ", ".join(
            f"{mirror} {100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
            for mirror, gain in self.gains.items()
        )
        return (
            f"{self.flip}: a quick model that answers {self.accuracy:.1%} of {self.n_images} images "
            f"answers mirrored ones with {told}"
        )

    def to_json(self) -> dict[str, Any]:
        """Rounded to 6 decimals."""
        gains = {
            mirror: {key: round(value, _DECIMALS) for key, value in asdict(gain).items()}
            for mirror, gain in self.gains.items()
        }
        accuracy = round(self.accuracy, _DECIMALS)
        return {"n_images": self.n_images, "accuracy": accuracy, "gains": gains}


def probe_mirrors(
    plain: npt.NDArray[np.float32],
    mirrored: Mapping[str, npt.NDArray[np.float32]],
    codes: npt.NDArray[np.intp],
    group_names: Sequence[str],
    seed: int,
) -> Mirrors:
    """Cross-validate a linear model, trained on images as they are.

    Args:
        plain: embeddings (n, d).
        mirrored: of the same images, under the keys horizontal and vertical.
        codes: class numbers (n,), each of 0 .. the largest at least once.
        group_names: (n,); images of one group are no independent evidence.
        seed: of the folds and of the bootstrap over groups.

    Returns:
        Equal for equal arguments, whatever the number of cores.
    """
    groups = np.unique(np.asarray(group_names), return_inverse=True)[1]
    if not can_be_folded(codes, groups):
        return Mirrors("none", 0, 0.0, {})
    folds = make_folds(codes, groups, seed)
    hits = score_transfer(
        plain.astype(np.float64),
        {mirror: seen.astype(np.float64) for mirror, seen in mirrored.items()},
        codes,
        folds,
    )
    evidence = Evidence(codes.astype(np.int64), group_names, folds.astype(np.int64), _DRAWS, seed)
    gains = {mirror: _compare(hits[mirror], hits["plain"], evidence, mirror) for mirror in mirrored}
    is_safe = {mirror: gain.high >= 0 and gain.low > -MOST_LOST for mirror, gain in gains.items()}
    flip = "none"
    if is_safe["horizontal"]:
        flip = "both" if is_safe["vertical"] else "horizontal"
    return Mirrors(flip, len(codes), float(hits["plain"].mean()), gains)


def _compare(
    mirrored: npt.NDArray[np.bool_], plain: npt.NDArray[np.bool_], evidence: Evidence, mirror: str
) -> Effect:
    gained = mirrored.astype(np.float64) - plain
    low, high = gain_interval(lambda rows: float(gained[rows].mean()), evidence, f"mirror {mirror}")
    return Effect(float(gained.mean()), low, high)
