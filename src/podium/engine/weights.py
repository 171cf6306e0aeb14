"""Weights and their model card: safetensors beside JSON. The card alone rebuilds the model.

models/foldK/weights.safetensors   every parameter and buffer, float32, by name
models/foldK/card.json             task, architecture, classes, preprocessing, params, hashes of data,
                                   params and lock, score; K is the fold that was held out
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from paddle import nn
from safetensors import SafetensorError

from podium.data.preprocessing import Preprocessing
from podium.data.views import Tta, parse_tta
from podium.engine.runner import CARD_FILE, CARD_FORMAT, load_card
from podium.errors import PodiumError
from podium.files import write_bytes, write_json
from podium.models.initial_weights import find_differences, list_differences
from podium.models.networks import Network, build_network

WEIGHTS_FILE = "weights.safetensors"

State = dict[str, npt.NDArray[Any]]


def read_state(network: nn.Layer) -> State:
    """A copy of the network's parameters and buffers, by name, sorted."""
    return {name: np.array(tensor) for name, tensor in sorted(network.state_dict().items())}


def load_state(network: nn.Layer, state: State) -> None:
    """Put `state` into the network, exactly.

    Raises:
        PodiumError: names or shapes differ; the first ten differences are listed.
    """
    differences = find_differences(network, state)
    if differences:
        raise PodiumError(f"weights do not fit the network: {list_differences(differences)}")
    network.set_state_dict(state)


def write_model(folder: Path, state: State, card: dict[str, Any]) -> None:
    """Write weights and card to `folder`; the card gets the format and the weights' hash."""
    content = safetensors.numpy.save(dict(sorted(state.items())))
    write_bytes(folder / WEIGHTS_FILE, content)
    weights = {
        "file": WEIGHTS_FILE,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_json(folder / CARD_FILE, {"format": CARD_FORMAT, **card, "weights": weights})


def fold_folder(models: Path, fold: int) -> Path:
    """Where the model that was trained without `fold` stands."""
    return models / f"fold{fold}"


def find_folds(models: Path) -> list[int]:
    """The folds that have a model, in order.

    Raises:
        PodiumError: none has.
    """
    names = (path.name.removeprefix("fold") for path in models.glob("fold*"))
    folds = sorted(int(name) for name in names if name.isdecimal())
    if not folds:
        raise PodiumError(f"{models} holds no model: run `dvc repro` to make it")
    return folds


def settle_tta(tta: Tta | None, models: Path, is_allowed: bool) -> Tta:
    """The views that `evaluate.tta` means; of auto (None) the mirrors that the first model learned
    from, or the plain image where it learned from no view, or `competition.rules.tta` forbids more.

    Raises:
        PodiumError: there is no model, or its card is damaged.
    """
    if tta is not None:
        return tta
    if not is_allowed:
        return "none"
    path = fold_folder(models, find_folds(models)[0]) / CARD_FILE
    params = load_card(path)["params"]
    if params["model"]["freeze"] != "none" and params["train"]["views"] == 0:
        return "none"  # frozen layers have seen the images as they are
    return parse_tta(params["train"]["flip"], str(path))


def load_network(folder: Path) -> tuple[Network, Preprocessing, dict[str, Any]]:
    """The trained network in evaluation mode, its preprocessing and its card.

    Raises:
        PodiumError: a file is missing, damaged, or does not belong to the card.
    """
    card = load_card(folder / CARD_FILE)
    path = folder / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    if hashlib.sha256(content).hexdigest() != card["weights"]["sha256"]:
        raise PodiumError(f"{path} is not the file that {CARD_FILE} describes: train again")
    try:
        state = safetensors.numpy.load(content)
    except SafetensorError as error:
        raise PodiumError(f"{path} is damaged: {error}") from None
    return *build_from_card(card, state), card


def build_from_card(card: dict[str, Any], state: State) -> tuple[Network, Preprocessing]:
    """The network that a card describes, with these weights and in evaluation mode, and its
    preprocessing.

    Raises:
        PodiumError: the weights do not fit.
    """
    architecture = card["architecture"]
    network = build_network(
        architecture["name"],
        pretrained=False,
        outputs=int(architecture["outputs"]),
        dropout=float(architecture["dropout"]),
    )
    load_state(network, state)
    network.eval()
    return network, Preprocessing.from_card(card["preprocessing"])
