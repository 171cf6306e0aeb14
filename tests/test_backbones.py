"""Every trunk that `model.name` may say: it runs, learns, ships, and is what the catalogue says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
import pytest
from pydantic import ValidationError

from podium.engine.features import FeatureRecipe, write_features
from podium.engine.inference import Predictor, export
from podium.engine.phases import make_plan
from podium.engine.processes import Alone
from podium.engine.session import Pass, Session
from podium.errors import PodiumError
from podium.models.catalogue import (
    TRUNK_DEPTHS,
    WITH_OFFLINE_WEIGHTS,
    WITHOUT_WEIGHTS,
    least_image_size_px,
)
from podium.models.networks import (
    LowerTrunk,
    UpperNetwork,
    build_network,
    build_trunk,
    feature_dim,
)
from podium.models.params import ModelParams
from podium.models.zoo import find_weights_source
from podium.params import Params, load_params
from podium.tasks.classification.net import ClassificationNet

FEATURES = {
    **dict.fromkeys(WITH_OFFLINE_WEIGHTS, 1280),
    **{name: 512 for name in TRUNK_DEPTHS if name.startswith(("resnet18", "resnet34", "vgg"))},
    **{
        name: 2048
        for name in TRUNK_DEPTHS
        if name.startswith(("resnet50", "resnet101", "resnet152", "resnext", "wide"))
    },
    "mobilenet_v1": 1024,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 576,
    "mobilenet_v3_large": 960,
    "densenet121": 1024,
    "densenet161": 2208,
    "densenet169": 1664,
    "densenet201": 1920,
    "densenet264": 2688,
    "alexnet": 256,
    "squeezenet1_0": 512,
    "squeezenet1_1": 512,
    "googlenet": 1024,
    "shufflenet_v2_x0_25": 512,
    "shufflenet_v2_x0_33": 512,
    "shufflenet_v2_x0_5": 1024,
    "shufflenet_v2_x1_0": 1024,
    "shufflenet_v2_x1_5": 1024,
    "shufflenet_v2_x2_0": 2048,
    "shufflenet_v2_swish": 1024,
}
MODEL = {
    "name": "efficientnet_lite0",
    "pretrained": True,
    "weights": None,
    "allow_download": False,
    "freeze": "all",
    "top_layers": 6,
    "dropout": 0.2,
}


def is_big(name: str) -> bool:
    """Built of the same parts as its smaller kin, in five times the time."""
    sizes = ("101", "152", "161", "169", "201", "264", "64x4d", "wide", "vgg13", "vgg19")
    return any(size in name for size in sizes)


def test_the_catalogue_is_paddles_zoo() -> None:
    models = paddle.vision.models
    functions = {name for name in models.__all__ if inspect.isfunction(getattr(models, name))}
    assert set(TRUNK_DEPTHS) == (functions - {"inception_v3"}) | set(WITH_OFFLINE_WEIGHTS)
    zoo = set(TRUNK_DEPTHS) - set(WITH_OFFLINE_WEIGHTS)
    assert {name for name in zoo if find_weights_source(name) is None} == set(WITHOUT_WEIGHTS)
    assert set(FEATURES) == set(TRUNK_DEPTHS)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v3_large", "resnet18"])
def test_no_net_keeps_the_statistics_of_its_start(name: str) -> None:
    """Paddle's MobileNetV3 would keep 99 % of them at a step: a short training ends at chance."""
    layers = build_trunk(name, False).sublayers()
    kept = {layer._momentum for layer in layers if isinstance(layer, paddle.nn.BatchNorm2D)}
    assert kept == {0.9}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if is_big(name) else ()) for name in TRUNK_DEPTHS],
)
def test_a_trunk_runs_learns_and_ships(name: str, tmp_path: Path) -> None:
    """At 64 px as in the inference engine; at 224 px; and a step of training."""
    paddle.seed(0)
    network = build_network(name, False, 3, 0.0)
    trunk = network.trunk
    assert trunk.depth == TRUNK_DEPTHS[name]
    assert trunk.training, "asking for the feature count must not leave evaluation mode on"

    network.eval()
    x = paddle.randn([2, 3, 64, 64])
    with paddle.no_grad():
        features, eager = trunk(x), network(x).numpy()
        assert features.shape == [2, FEATURES[name]]
        assert feature_dim(trunk) == FEATURES[name]
        assert trunk(paddle.randn([1, 3, 224, 224])).shape == [1, FEATURES[name]]
    shipped = Predictor(export(network, 64, tmp_path)).run(x.numpy())
    np.testing.assert_allclose(shipped, eager, atol=1e-3 * np.abs(eager).max())

    network.train()
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    session = Session(network, network, optimizer, ClassificationNet(3, 0.0), Alone(), False)
    before = session.network_state()
    batch = Pass(x.numpy(), np.array([0, 2]), 1.0)
    loss, _ = session.exchange(session.add_gradients([batch], lambda number: number), False)
    session.update(0.01, 0)
    after = session.network_state()
    assert np.isfinite(loss)
    assert set(after) == set(network.state_dict())
    unchanged = [key for key in before if np.array_equal(before[key], after[key])]
    assert not [key for key in unchanged if key.endswith(("_mean", "_variance"))]
    assert len(unchanged) < len(before) / 4  # a shift before a ReLU may be without effect

    if trunk.depth > 1:
        network.eval()
        lower = LowerTrunk(trunk, trunk.depth // 2)
        upper = UpperNetwork(network, trunk.depth // 2)
        with paddle.no_grad():
            np.testing.assert_array_equal(upper(lower(x)).numpy(), network(x).numpy())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_lite1", "alexnet"])
def test_every_parameter_has_its_layer(name: str) -> None:
    """In order, none left over: the rates of `train.layer_decay` go by it."""
    trunk = build_trunk(name, False)
    layers = [trunk.layer_of(parameter) for parameter, _ in trunk.named_parameters()]
    assert set(layers) == set(range(trunk.depth))


def test_too_small_images_are_one_line_before_any_is_read(tmp_path: Path) -> None:
    assert least_image_size_px("resnet18") == 16
    recipe = FeatureRecipe("alexnet", False, 6, 0, "none", "none", 0)
    plan = make_plan("none", False, [], [(0.0, 48), (0.5, 64)], 64)
    with pytest.raises(PodiumError, match="alexnet: expected image_size .* 64 px .* got 48"):
        write_features(tmp_path / "features", pd.DataFrame(), plan, recipe, 64)
    assert not (tmp_path / "features").exists()


class Read(Params):
    model: ModelParams


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "resnet19"}, "paddle.vision.models but inception_v3; did you mean 'resnet1"),
        ({"name": "inception_v3"}, "model.name: expected efficientnet_lite0..2 or a"),
        ({"top_layers": 18}, r"model.top_layers 1 .. 17 with efficientnet_lite0, whose trunk has"),
        ({"name": "efficientnet_lite1", "top_layers": 23}, r"1 .. 22 with efficientnet_lite1"),
        ({"top_layers": 0}, "model.top_layers: expected greater than or equal to 1"),
        ({"name": "resnet18"}, "offline weights exist for efficientnet_lite0, efficientnet_lite1"),
        ({"name": "vgg11", "allow_download": True}, "of which there are no weights to download"),
        ({"pretrained": False}, "a frozen random trunk learns nothing"),
        ({"weights": "data/weights/a.pdparams"}, "model.pretrained false with model.weights"),
        ({"weights": "models/fold0/weights.safetensors"}, "a file in data/weights: copy it there"),
        ({"weights": "/data/weights/a"}, "a file in data/weights"),
        ({"weights": "data/weights"}, "a file in data/weights"),
        ({"weights": "data/weights/../a"}, "a file in data/weights"),
        ({"weights": ""}, "a file in data/weights"),
        (
            {
                "name": "alexnet",
                "pretrained": False,
                "weights": "data/weights/a",
                "freeze": "trunk",
            },
            "model.freeze all or none with alexnet",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    lines = [f"  {key}: {write_yaml(value)}" for key, value in {**MODEL, **changes}.items()]
    path.write_text("\n".join(["model:", *lines, ""]))
    with pytest.raises(PodiumError, match=words) as caught:
        load_params(Read, path)
    assert "\n" not in str(caught.value)


def write_yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return {None: "", "": "''"}.get(value, str(value))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "efficientnet_lite2", "top_layers": 22, "freeze": "trunk"},
        {"name": "resnet18", "allow_download": True},
        {"name": "resnet18", "pretrained": False, "weights": "data/weights/a", "freeze": "trunk"},
        {"name": "alexnet", "pretrained": False, "freeze": "none", "top_layers": 9},
    ],
)
def test_what_goes_together_is_taken(changes: dict[str, Any]) -> None:
    assert ModelParams.model_validate({**MODEL, **changes})


def test_params_are_strict() -> None:
    with pytest.raises(ValidationError):
        ModelParams.model_validate({**MODEL, "allow_download": "yes"})
