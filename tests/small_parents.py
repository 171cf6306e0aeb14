"""A trained net with data, small enough for tests of what is made from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from podium.engine.weights import build_from_card, read_state
from podium.models.networks import build_network, make_preprocessing
from podium.slim.parent import Parent
from podium.tasks.classification.net import ClassificationNet
from tests.trainings import PLAIN

SIZE = 32
NAME = "efficientnet_lite0"
TRAIN, VAL = 24, 12
# `compress` of params.yaml: how smaller nets are made.
NETS: dict[str, Any] = {
    "prune": {"method": "l1", "ratio": 0.4, "by": "uniform", "rounds": 1, "passes": 1},
    "student": {"depth": 0.5, "passes": 1, "temperature": 2.0, "alpha": 0.7},
    "qat": {"passes": 1},
}


def make_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark, middling and bright noise, uint8 (n, SIZE, SIZE, 3), and which of them it is."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 3
    noise = rng.integers(-30, 30, (n, SIZE, SIZE, 3))
    base = np.array([60, 128, 196])[targets][:, None, None, None]
    return (base + noise).astype(np.uint8), targets


def make_parent() -> Parent:
    """An ImageNet trunk with a head fitted to brightness: a net with real activations."""
    network = build_network(NAME, True, 3, 0.0)
    network.eval()
    preprocessing = make_preprocessing(NAME, SIZE)
    images, targets = make_images(TRAIN + VAL)
    with paddle.no_grad():
        features = np.array(network.trunk(paddle.to_tensor(preprocessing.apply(images))))
    features = features[:TRAIN]
    centred = features - features.mean(0)
    solution = np.linalg.lstsq(centred, 6 * (np.eye(3)[targets[:TRAIN]] - 1 / 3), rcond=0.1)[0]
    state = read_state(network)
    state["head.1.weight"] = solution.astype(np.float32)
    state["head.1.bias"] = (-(features.mean(0) @ solution)).astype(np.float32)
    card: dict[str, Any] = {
        "architecture": {"name": NAME, "outputs": 3, "dropout": 0.2},
        "preprocessing": preprocessing.to_card(),
        "params": {"train": {**PLAIN, "augment": "light", "flip": "horizontal", "views": 2}},
    }
    trained, _ = build_from_card(card, state)
    return Parent(
        network=trained,
        preprocessing=preprocessing,
        card=card,
        image_ids=[f"image{number}" for number in range(TRAIN + VAL)],
        images=images,
        targets=targets,
        train_rows=np.arange(TRAIN),
        val_rows=np.arange(TRAIN, TRAIN + VAL),
        net_task=ClassificationNet(3, 0.0),
        seed=0,
    )
