"""The pruned net: filters are cut, the rest is refitted and learns from the whole net, and again.

In: a parent. Out: the same architecture with fewer channels.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.engine.weights import State, load_state, read_state
from podium.files import write_json
from podium.models.networks import Network
from podium.runtime import derive_seed
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.distillation import (
    Schooling,
    count_epochs,
    keep_statistics,
    load_lesson,
    teach,
)
from podium.slim.params import PruneParams
from podium.slim.parent import Parent, Variant
from podium.slim.pruning import Cut, FilterCutter
from podium.slim.refit import InputProducts, measure_products
from podium.slim.shrinking import build_shrunk
from podium.slim.stored_folders import fill_folder

NAME = "pruned"
# The refitted net is near: larger steps lead away from the parent's answers.
_LR = 1e-4
# Training images that a layer's sensitivity is read from, and how its inputs go together.
_SENSITIVITY_IMAGES, _REFIT_IMAGES = 32, 256
_BATCH = 32


def make_pruned(parent: Parent, params: PruneParams) -> Variant:
    """Cut filters and let the rest learn, in rounds that each leave the same share.

    Raises:
        PodiumError: no layer can be pruned, or not that much can go.
    """
    size = parent.preprocessing.image_size_px
    network: Network = parent.network
    macs_before = count_macs(network, size)
    sensitivity: list[dict[str, Any]] = []
    rounds = []
    for number in range(1, params.rounds + 1):
        products = _measure_products(parent, network)
        cutter = FilterCutter(network, params.method, size, products)
        left = (1 - params.ratio) ** (number / params.rounds) * macs_before
        here = 1 - left / cutter.macs
        if params.by == "sensitivity":
            rows = _measure_sensitivity(parent, network, cutter, params.method)
            sensitivity += [{"round": number, **row} for row in rows]
            cut = cutter.cut_to(here, cutter.by_sensitivity(rows))
        else:
            cut = cutter.cut_to(here, cutter.uniform)
        passes = (
            params.passes * number // params.rounds - params.passes * (number - 1) // params.rounds
        )
        network, said = _recover(parent, cut, passes)
        rounds.append({"passes": passes, "macs": cut.macs, "ratios": _round(cut.ratios), **said})
    made_by = {
        "method": params.method,
        "by": params.by,
        "ratio_asked": params.ratio,
        "ratio": round(1 - count_macs(network, size) / macs_before, 6),
        "parameters_before": count_parameters(parent.network),
        "parameters": count_parameters(network),
        "macs_before": macs_before,
        "macs": count_macs(network, size),
        "rounds": rounds,
    }
    return Variant(NAME, network, made_by, sensitivity)


def _recover(parent: Parent, cut: Cut, passes: int) -> tuple[Network, dict[str, Any]]:
    """The narrow net, taught by the parent for so many passes, in evaluation mode."""
    network = build_shrunk(parent.card, cut.state)
    said: dict[str, Any] = {}
    if passes:
        schooling = Schooling(passes, _LR, temperature=1.0, alpha=1.0, ema=0.0)

        def build() -> Network:
            fresh = build_shrunk(parent.card, cut.state)
            keep_statistics(fresh)
            return fresh

        lesson = load_lesson(parent)
        trained = teach(lesson, build, schooling)
        state: State = {**cut.state, **trained.state}
        load_state(network, state)
        said = {
            "epochs": count_epochs(passes, lesson.views),
            "best_epoch": trained.epoch,
            "distance_from_parent": round(trained.score, 6),
        }
    network.eval()
    return network, said


def restore_pruned(parent: Parent, state: State) -> Network:
    """A pruned net with its weights, in evaluation mode.

    Raises:
        PodiumError: the weights are of another net.
    """
    network = build_shrunk(parent.card, state)
    network.eval()
    return network


def _measure_products(parent: Parent, network: Network) -> InputProducts:
    rows = _draw_rows(parent, "refit", _REFIT_IMAGES)
    return measure_products(
        network,
        (
            parent.preprocessing.apply(parent.images[rows[start : start + _BATCH]])
            for start in range(0, len(rows), _BATCH)
        ),
    )


def _measure_sensitivity(
    parent: Parent, network: Network, cutter: FilterCutter, method: str
) -> list[dict[str, Any]]:
    """The curves of a net, from the store where they are there: whatever ratio is asked for."""
    images = parent.images[_draw_rows(parent, "sensitivity", _SENSITIVITY_IMAGES)]
    inputs = parent.preprocessing.apply(images)
    made_from = hashlib.sha256(inputs.tobytes())
    made_from.update(parent.images[_draw_rows(parent, "refit", _REFIT_IMAGES)].tobytes())
    for name, values in read_state(network).items():
        made_from.update(f"{name} {values.shape}".encode() + values.tobytes())
    architecture = json.dumps(parent.card["architecture"])

    def build(folder: Path) -> None:
        write_json(folder / "curves.json", cutter.measure_sensitivity(inputs))

    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        folder = Path(name) / "curves"
        fill_folder(folder, build, "sensitivity", architecture, method, made_from.hexdigest())
        rows: list[dict[str, Any]] = json.loads((folder / "curves.json").read_text("utf-8"))
    return rows


def _draw_rows(parent: Parent, subject: str, most: int) -> npt.NDArray[np.int64]:
    """At most so many training images, drawn from the list by the seed, in order."""
    rng = np.random.default_rng(derive_seed(parent.seed, subject))
    rows = np.unique(parent.train_rows)
    return np.sort(rng.choice(rows, size=min(most, len(rows)), replace=False))


def _round(ratios: dict[str, float]) -> dict[str, float]:
    return {layer: round(ratio, 4) for layer, ratio in ratios.items()}
