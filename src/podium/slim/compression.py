"""The candidates for deploy/, each judged on the files that would ship, and the choice among them.

In: the trained network, calibration and val images. Out: deploy/ with the chosen model and a card,
and one row of numbers per candidate.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from paddle import nn

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.views import Tta
from podium.engine.inference import ExportedModel, Predictor, export
from podium.engine.weights import CARD_FILE, CARD_FORMAT
from podium.files import replace_folder, write_json
from podium.slim.latency import measure_latency
from podium.slim.params import CompressParams
from podium.slim.quantization import quantize_static
from podium.tasks.protocol import MetricSpec

FLOAT32, INT8 = "float32", "int8"

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """How a candidate is judged: on these val images, by this task.

    Attributes:
        images: uint8 (N, H, W, 3).
        predict: outputs -> probabilities (N, k).
        metrics: probabilities -> metrics ready for JSON.
        metric: the primary one, a key of those.
        tta: the views of each image; they go into the card.
    """

    images: Images
    predict: Callable[[npt.NDArray[np.float32]], Probabilities]
    metrics: Callable[[Probabilities], dict[str, Any]]
    metric: MetricSpec
    tta: Tta = "none"


@dataclass(frozen=True)
class Candidate:
    """One way to ship the model, with what was measured on its files."""

    name: str
    model: ExportedModel
    probabilities: Probabilities
    metrics: dict[str, Any]

    @property
    def int8(self) -> bool:
        """Whether its quantised layers run in int8."""
        return self.name == INT8


@dataclass(frozen=True)
class Compressed:
    """What became of it.

    Attributes:
        shipped: name of the candidate in deploy/.
        reason: one sentence.
        rows: candidate -> its numbers, reproducible.
        latency: candidate -> its clocks, which are not.
    """

    shipped: str
    reason: str
    rows: dict[str, dict[str, Any]]
    latency: dict[str, dict[str, Any]]


def compress(
    network: nn.Layer,
    preprocessing: Preprocessing,
    card: dict[str, Any],
    calibration: Images,
    judge: Judge,
    params: CompressParams,
    folder: Path,
) -> Compressed:
    """Make and judge the candidates, and put the best legal one into `folder`."""
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        work = Path(name)
        float32 = export(network, preprocessing.image_size_px, _made(work / FLOAT32))
        candidates = [_judge(FLOAT32, float32, preprocessing, judge)]
        if params.quantize == INT8:
            int8 = quantize_static(float32, calibration, preprocessing, _made(work / INT8))
            candidates.append(_judge(INT8, int8, preprocessing, judge))
        shipped, reason = choose(candidates, judge.metric, params.max_drop)
        latency = {
            c.name: measure_latency(c.model, c.int8, preprocessing.image_size_px)
            for c in candidates
        }
        rows = {c.name: _row(c, candidates[0]) for c in candidates}
        _write_deploy(folder, shipped, card, rows[shipped.name], judge.tta)
    return Compressed(shipped.name, reason, rows, latency)


def choose(
    candidates: list[Candidate], metric: MetricSpec, max_drop: float
) -> tuple[Candidate, str]:
    """The smallest candidate whose primary score falls by at most `max_drop` from the first's."""
    reference = candidates[0]
    by_size = sorted(candidates, key=lambda candidate: candidate.model.size_bytes())
    refused: list[str] = []
    for candidate in by_size:
        drop = _score(reference, metric) - _score(candidate, metric)
        if not metric.higher_is_better:
            drop = -drop
        if candidate is reference or drop <= max_drop:
            why = "; ".join(
                [f"{candidate.name} ships: the smallest that keeps the score", *refused]
            )
            return candidate, why
        refused.append(
            f"{candidate.name} does not: it loses {drop:.4f} {metric.name}, "
            f"compress.max_drop allows {max_drop:g}"
        )
    raise AssertionError("the reference is always among the candidates")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _score(candidate: Candidate, metric: MetricSpec) -> float:
    return float(candidate.metrics[metric.name])


def _judge(
    name: str, model: ExportedModel, preprocessing: Preprocessing, judge: Judge
) -> Candidate:
    outputs = Predictor(model, int8=name == INT8).run_images(
        judge.images, preprocessing, f"judge {name}", judge.tta
    )
    probabilities = judge.predict(outputs)
    return Candidate(name, model, probabilities, judge.metrics(probabilities))


def _row(candidate: Candidate, reference: Candidate) -> dict[str, Any]:
    """Numbers of one candidate; `changed` counts val images with another answer than float32's."""
    ours, theirs = candidate.probabilities, reference.probabilities
    return {
        "bytes": candidate.model.size_bytes(),
        **{key: value for key, value in candidate.metrics.items() if key != "per_class"},
        "changed": int((ours.argmax(1) != theirs.argmax(1)).sum()),
        "max_probability_difference": round(float(np.abs(ours - theirs).max()), 6),
    }


def _write_deploy(
    folder: Path, shipped: Candidate, card: dict[str, Any], row: dict[str, Any], tta: Tta
) -> None:
    with replace_folder(folder) as fresh:
        files = {}
        for path in (shipped.model.program, shipped.model.weights):
            shutil.copyfile(path, fresh / path.name)
            content = path.read_bytes()
            files[path.name] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        kept = {key: value for key, value in card.items() if key not in ("format", "weights")}
        write_json(
            fresh / CARD_FILE,
            {
                "format": CARD_FORMAT,
                **kept,
                "trained_weights_sha256": card["weights"]["sha256"],
                "tta": tta,
                "runtime": {"engine": "paddle.inference", "int8": shipped.int8},
                "files": files,
                "measured": row,
            },
        )
