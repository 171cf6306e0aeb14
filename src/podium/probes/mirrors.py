"""Whether a mirrored picture still shows its class: what `train.flip: auto` goes by.

In: what is seen of images as they are and mirrored, classes, groups. Out: which mirrors the training
may use, and the evidence. A quick model learns from images as they are and answers images that it has
not seen, as they are and mirrored. A mirror whose pictures it answers no worse makes more of the same
classes; one that turns a 6 into a 9, or a sign upside down, shows at once. An ImageNet net has learned
to overlook left and right, so a second model sees bare pixels: both must be content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.probes.cross_validation import Codes, can_be_folded, make_folds, score_transfer
from podium.probes.findings import Effect
from podium.tasks.evidence import Evidence, gain_interval

MAX_IMAGES = 1000
# A mirror is used where what is lost on its pictures may be nothing, and is surely less than this.
MOST_LOST = 0.1
PLAIN, HORIZONTAL, VERTICAL = "plain", "horizontal", "vertical"
_DRAWS = 2000
_DECIMALS = 6


@dataclass(frozen=True)
class Answers:
    """How a quick model answers.

    Attributes:
        accuracy: on pictures as they are.
        gains: by mirror, accuracy on its pictures less `accuracy`, with the 95 % interval.
    """

    accuracy: float
    gains: dict[str, Effect]

    def allow(self, mirror: str) -> bool:
        """Whether the mirror may cost nothing, and surely costs little."""
        gain = self.gains[mirror]
        return gain.high >= 0 and gain.low > -MOST_LOST


@dataclass(frozen=True)
class Mirrors:
    """What quick models make of mirrored pictures.

    Attributes:
        flip: none | horizontal | both, as in `train.flip`; upside down alone is not used.
        n_images: that they were asked about; 0: too few of some class to ask.
        answers: by what the model sees.
    """

    flip: str
    n_images: int
    answers: dict[str, Answers]

    def __str__(self) -> str:
        if not self.n_images:
            return f"{self.flip}: some class has too few images to find out"
        told = "; ".join(
            f"{seen} {one.accuracy:.1%}, "
            + ", ".join(
                f"{mirror} {100 * gain.value:+.1f} points "
                f"({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
                for mirror, gain in one.gains.items()
            )
            for seen, one in self.answers.items()
        )
        return f"{self.flip}: of {self.n_images} images as they are and mirrored, by {told}"

    def to_json(self) -> dict[str, Any]:
        """Rounded to 6 decimals."""
        answers = {
            seen: {
                "accuracy": round(one.accuracy, _DECIMALS),
                **{
                    mirror: {key: round(value, _DECIMALS) for key, value in asdict(gain).items()}
                    for mirror, gain in one.gains.items()
                },
            }
            for seen, one in self.answers.items()
        }
        return {"n_images": self.n_images, **answers}


def probe_mirrors(
    seen: Mapping[str, Mapping[str, npt.NDArray[np.float32]]],
    codes: npt.NDArray[np.intp],
    group_names: Sequence[str],
    seed: int,
) -> Mirrors:
    """Cross-validate linear models, trained on images as they are.

    Args:
        seen: by what a model sees: numbers (n, d) of the same images under the keys plain,
            horizontal and vertical.
        codes: class numbers (n,), each of 0 .. the largest at least once.
        group_names: (n,); images of one group are no independent evidence.
        seed: of the folds and of the bootstrap over groups.

    Returns:
        Equal for equal arguments, whatever the number of cores.
    """
    groups = np.unique(np.asarray(group_names), return_inverse=True)[1]
    if not can_be_folded(codes, groups):
        return Mirrors("none", 0, {})
    folds = make_folds(codes, groups, seed)
    evidence = Evidence(codes.astype(np.int64), group_names, folds.astype(np.int64), _DRAWS, seed)
    answers = {name: _ask(parts, codes, folds, evidence) for name, parts in seen.items()}
    flip = "none"
    if all(one.allow(HORIZONTAL) for one in answers.values()):
        flip = "both" if all(one.allow(VERTICAL) for one in answers.values()) else HORIZONTAL
    return Mirrors(flip, len(codes), answers)


def _ask(
    parts: Mapping[str, npt.NDArray[np.float32]], codes: Codes, folds: Codes, evidence: Evidence
) -> Answers:
    doubles = {name: part.astype(np.float64) for name, part in parts.items()}
    plain = doubles.pop(PLAIN)
    hits = score_transfer(plain, doubles, codes, folds)
    gains = {mirror: _compare(hits[mirror], hits[PLAIN], evidence, mirror) for mirror in doubles}
    return Answers(float(hits[PLAIN].mean()), gains)


def _compare(
    mirrored: npt.NDArray[np.bool_], plain: npt.NDArray[np.bool_], evidence: Evidence, mirror: str
) -> Effect:
    gained = mirrored.astype(np.float64) - plain
    low, high = gain_interval(lambda rows: float(gained[rows].mean()), evidence, f"mirror {mirror}")
    return Effect(float(gained.mean()), low, high)
