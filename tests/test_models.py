"""Networks, safe weight reading, weights and cards."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from podium.data.preprocessing import Preprocessing
from podium.engine.weights import load_network, load_state, read_state, write_model
from podium.errors import PodiumError
from podium.models.catalogue import WITH_OFFLINE_WEIGHTS
from podium.models.efficientnet_lite import imagenet_weights_path
from podium.models.initial_weights import read_weights
from podium.models.networks import build_network, build_trunk, make_preprocessing
from podium.models.torch_state import load_torch_state
from tests.torch_files import Tensor, write_legacy, write_zip


@pytest.mark.parametrize("name", WITH_OFFLINE_WEIGHTS)
def test_lite_nets_take_all_pretrained_tensors(name: str) -> None:
    trunk = build_trunk(name, pretrained=True)
    state = read_weights(name, imagenet_weights_path(name)).state
    own = trunk.state_dict()
    assert set(own) == set(state)
    assert all(np.array_equal(np.array(own[name]), values) for name, values in state.items())


@pytest.mark.parametrize("name", WITH_OFFLINE_WEIGHTS)
def test_lite_nets_see_what_they_were_trained_on(name: str) -> None:
    """Features times ImageNet's own classifier: a plain yellow disc is no random class.

    A wrong padding, normalisation or weight order would scatter the answers; the right net puts
    round yellow things among fruit and balls.
    """
    trunk = build_trunk(name, pretrained=True)
    trunk.eval()
    raw = load_torch_state(imagenet_weights_path(name))
    y, x = np.mgrid[:224, :224]
    image = np.full((224, 224, 3), 250, np.uint8)
    shade = 1 - ((x - 90) ** 2 + (y - 90) ** 2)[..., None] / 60000
    lemon = ((x - 112) / 90) ** 2 + ((y - 112) / 68) ** 2 < 1
    image[lemon] = (np.array([245, 205, 40]) * shade)[lemon]
    inputs = make_preprocessing(name, 224).apply(image[None])
    with paddle.no_grad():
        features = np.array(trunk(paddle.to_tensor(inputs)))[0]
    logits = raw["_fc.weight"] @ features + raw["_fc.bias"]
    top = set(np.argsort(-logits)[:5].tolist())
    fruit_and_balls = {
        948,
        949,
        950,
        951,
        952,
        953,
        954,
        852,
        522,
        574,
        722,
        768,
        805,
        890,
        940,
        941,
    }
    assert top & fruit_and_balls, top


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_state_reader_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    magic = pickle.dumps(0x1950A86A20F9469CFC6C)
    path.write_bytes(magic + pickle.dumps(1001) + pickle.dumps({}) + pickle.dumps(Evil()))
    with pytest.raises(PodiumError, match=r"builtins\.print"):
        load_torch_state(path)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("keep", [0, 10, 1000, 20_000, 1_000_000])
def test_state_reader_refuses_a_cut_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(imagenet_weights_path("efficientnet_lite0").read_bytes()[:keep])
    with pytest.raises(PodiumError, match="legacy PyTorch state dict"):
        load_torch_state(path)


def test_state_reader_follows_strides(tmp_path: Path) -> None:
    path = tmp_path / "good.pth"
    write_legacy(path, {"a": Tensor(np.arange(6, dtype="<f4"), (3, 2), (1, 3))})
    assert load_torch_state(path)["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("write", [write_legacy, write_zip])
@pytest.mark.parametrize(
    ("shape", "stride"), [((7,), (1,)), ((2, 4), (4, 1)), ((2,), (-1,)), ((9, 10**9), (0, 0))]
)
def test_state_reader_stays_within_the_storage(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], write: Any
) -> None:
    path = tmp_path / "beyond.pth"
    write(path, {"a": Tensor(np.arange(6, dtype="<f4"), shape, stride)})
    with pytest.raises(PodiumError, match="than its storage|beyond its storage"):
        load_torch_state(path)


def write_small_model(folder: Path) -> dict[str, np.ndarray]:
    paddle.seed(3)
    network = build_network("mobilenet_v3_small", False, outputs=3, dropout=0.1)
    state = read_state(network)
    card = {
        "task": "classification",
        "classes": ["a", "b", "c"],
        "architecture": {"name": "mobilenet_v3_small", "outputs": 3, "dropout": 0.1},
        "preprocessing": make_preprocessing("mobilenet_v3_small", 32).to_card(),
    }
    write_model(folder, state, card)
    return state


def test_card_alone_rebuilds_model_and_preprocessing(tmp_path: Path) -> None:
    state = write_small_model(tmp_path)
    network, preprocessing, card = load_network(tmp_path)
    assert not network.training
    assert preprocessing == make_preprocessing("mobilenet_v3_small", 32)
    assert all(np.array_equal(values, state[name]) for name, values in read_state(network).items())
    assert card["classes"] == ["a", "b", "c"]


def test_damaged_weights_and_cards_are_refused(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    weights, card = tmp_path / "weights.safetensors", tmp_path / "card.json"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PodiumError, match="is not the file that"):
        load_network(tmp_path)
    weights.unlink()
    with pytest.raises(PodiumError, match="missing"):
        load_network(tmp_path)
    card.write_text("{}")
    with pytest.raises(PodiumError, match="format 1"):
        load_network(tmp_path)
    card.write_text("no json")
    with pytest.raises(PodiumError, match="not a model card"):
        load_network(tmp_path)
    card.unlink()
    with pytest.raises(PodiumError, match="missing"):
        load_network(tmp_path)


def test_state_of_another_net_lists_what_differs() -> None:
    network = build_network("mobilenet_v3_small", False, outputs=3, dropout=0.0)
    state = read_state(network)
    state["head.1.bias"] = np.zeros(4, np.float32)
    state["other"] = state.pop("head.1.weight")
    with pytest.raises(PodiumError) as caught:
        load_state(network, state)
    for part in ("missing head.1.weight", "unexpected other", "expected shape (3,), got (4,)"):
        assert part in str(caught.value)


def test_preprocessing_survives_its_card() -> None:
    preprocessing = Preprocessing(64, (1.5, 2.5, 3.5), (4.0, 5.0, 6.0))
    again = Preprocessing.from_card(json.loads(json.dumps(preprocessing.to_card())))
    assert again == preprocessing
    with pytest.raises(PodiumError, match="damaged"):
        Preprocessing.from_card({"image_size_px": 64, "mean": [1, 2]})


def test_preprocessing_is_per_channel_rgb() -> None:
    preprocessing = Preprocessing(2, (10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 11, 24, 38
    out = preprocessing.apply(image)
    assert out.shape == (1, 3, 2, 2)
    assert out.dtype == np.float32
    assert out[0, :, 0, 0].tolist() == [1.0, 2.0, 2.0]
