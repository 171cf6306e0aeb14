"""The models of several folds together give what each gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from podium.data.preprocessing import Preprocessing
from podium.engine.ensemble import Ensemble
from podium.engine.inference import Outputs, load_predictor
from podium.engine.weights import find_folds, fold_folder, load_network, read_state, write_model
from podium.errors import PodiumError
from podium.models.networks import Network, build_network, make_preprocessing

IMAGES = np.random.default_rng(0).integers(0, 255, (7, 32, 32, 3), dtype=np.uint8)


def write(models: Path, shared_trunk: bool) -> Path:
    for fold in (0, 2, 10):
        paddle.seed(0 if shared_trunk else fold)
        network = build_network("mobilenet_v3_small", False, 3, 0.0)
        paddle.seed(fold)
        network.head[1].weight.set_value(paddle.randn(network.head[1].weight.shape))
        card = {
            "architecture": {"name": "mobilenet_v3_small", "outputs": 3, "dropout": 0.0},
            "preprocessing": make_preprocessing("mobilenet_v3_small", 32).to_card(),
        }
        write_model(fold_folder(models, fold), read_state(network), card)
    return models


def answer_alone(network: Network, preprocessing: Preprocessing) -> Outputs:
    """Without the others."""
    return load_predictor(network, 32).run_images(IMAGES, preprocessing, "alone")


@pytest.mark.parametrize("shared_trunk", [True, False])
def test_each_models_outputs(tmp_path: Path, shared_trunk: bool) -> None:
    models = write(tmp_path, shared_trunk)
    ensemble = Ensemble(models)
    assert ensemble.folds == [0, 2, 10]
    assert len(ensemble._groups) == (1 if shared_trunk else 3)
    alone = []
    for fold in ensemble.folds:
        network, preprocessing, _ = load_network(fold_folder(models, fold))
        alone.append(answer_alone(network, preprocessing))
    for outputs, expected in zip(ensemble.run(IMAGES, "all"), alone, strict=True):
        assert outputs == pytest.approx(expected, rel=1e-4, abs=1e-5)
    positions = [np.array([5, 1]), np.array([0]), np.array([1, 2, 6])]
    each = ensemble.run_each(IMAGES, positions, "each")
    for outputs, expected, places in zip(each, alone, positions, strict=True):
        assert outputs == pytest.approx(expected[places], rel=1e-4, abs=1e-5)


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    models = write(tmp_path, True)
    files = models.glob("*/weights.safetensors")
    assert Ensemble(models).size_bytes() == sum(path.stat().st_size for path in files)


def test_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="holds no model: run `dvc repro`"):
        find_folds(tmp_path)
    (tmp_path / "foldx").mkdir()
    with pytest.raises(PodiumError, match="holds no model"):
        Ensemble(tmp_path)


def test_one_net_where_the_rules_forbid_more(tmp_path: Path) -> None:
    models = write(tmp_path, False)
    one = Ensemble(models, one=True)
    assert one.folds == [0]
    assert one.size_bytes() == (models / "fold0/weights.safetensors").stat().st_size
    network, preprocessing, _ = load_network(fold_folder(models, 0))
    (outputs,) = one.run(IMAGES, "one")
    assert outputs == pytest.approx(answer_alone(network, preprocessing))
