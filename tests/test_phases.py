"""Schedules: which part of the net learns when, at which size, from which inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from podium.data.augment import make_augment
from podium.engine.batches import FeatureSource
from podium.engine.features import FeatureRecipe, load_features, write_features
from podium.engine.optimization import build_optimizer
from podium.engine.phases import Phase, check_phases, describe_last_size, make_plan, phase_of
from podium.engine.processes import Alone
from podium.engine.session import Pass, Session
from podium.errors import PodiumError
from podium.models.networks import (
    LowerTrunk,
    Network,
    UpperNetwork,
    build_network,
    depth_below_head,
)
from podium.tasks.classification.net import ClassificationNet
from tests.trainings import params

# --- the plan


def test_no_schedule_is_one_phase() -> None:
    assert make_plan("none", False, [], [], 96) == (Phase(0.0, "all", 96, 1.0),)
    assert make_plan("trunk", True, [], [], 96) == (Phase(0.0, "top", 96, 1.0),)
    assert make_plan("all", True, [], [], 96) == (Phase(0.0, "head", 96, 1.0),)


def test_two_schedules_cross() -> None:
    plan = make_plan(
        "none",
        True,
        [(0.0, "head"), (0.4, "all")],
        [(0.0, 64), (0.2, 96), (0.8, 128)],
        128,
    )
    assert [(p.start, p.part, p.image_size_px) for p in plan] == [
        (0.0, "head", 64),
        (0.2, "head", 96),
        (0.4, "all", 96),
        (0.8, "all", 128),
    ]
    assert [round(p.strength, 3) for p in plan] == [0.333, 0.667, 0.667, 1.0]


def test_epochs_fall_into_phases() -> None:
    plan = make_plan("none", False, [], [(0.0, 64), (0.4, 128), (0.8, 224)], 224)
    sizes = [phase_of(plan, epoch, 10).image_size_px for epoch in range(1, 11)]
    assert sizes == [64] * 4 + [128] * 4 + [224] * 2


def test_a_phase_that_no_epoch_falls_into_is_refused() -> None:
    """`epochs: auto` may mean three: the net would be judged at a size that it never learned at."""
    plan = make_plan("none", False, [], [(0.0, 64), (0.4, 96), (0.8, 128)], 128)
    check_phases(plan, 5)
    with pytest.raises(
        PodiumError, match=r"got none of 4 for the one that begins at the share 0\.8: set epochs"
    ):
        check_phases(plan, 4)
    check_phases(make_plan("none", False, [], [], 96), 1)


def test_sizes_end_where_the_net_is_judged() -> None:
    """More than that is refused; less is said, since it may be meant."""
    sizes = [(0.0, 64), (0.5, 96)]
    assert describe_last_size(make_plan("none", False, [], sizes, 96), 96) == ""
    assert describe_last_size(make_plan("none", False, [], [], 96), 96) == ""
    said = describe_last_size(make_plan("none", False, [], sizes, 160), 160)
    assert "ends at 96 px, but the net is judged at image_size 160 px" in said
    with pytest.raises(PodiumError, match="expected 64 px at most.* got 96: .*image_size: 96"):
        make_plan("none", False, [], sizes, 64)


@pytest.mark.parametrize(
    ("freeze", "pretrained", "unfreeze", "words"),
    [
        ("all", True, [(0.0, "head"), (0.5, "top")], "expected 'head' at most"),
        ("trunk", True, [(0.0, "all")], "expected 'top' at most"),
        ("none", False, [(0.0, "head"), (0.5, "all")], "expected no 'head' while model.pretrained"),
    ],
)
def test_schedules_that_the_model_cannot_follow(
    freeze: str, pretrained: bool, unfreeze: list[tuple[float, str]], words: str
) -> None:
    with pytest.raises(PodiumError, match=words):
        make_plan(freeze, pretrained, unfreeze, [], 96)


@pytest.mark.parametrize(
    "changes",
    [
        {"size_schedule": [[0.1, 64]]},
        {"size_schedule": [[0, 64], [0.5, 96], [0.5, 128]]},
        {"size_schedule": [[0, 63]]},
        {"size_schedule": [[0, 8]]},
        {"size_schedule": [[0, 64], [1, 128]]},
        {"size_schedule": [64, 128]},
        {"unfreeze": [[0, "top"], [0.5, "head"]]},
        {"unfreeze": [[0, "bottom"]]},
    ],
)
def test_bad_schedules(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        params(**changes)


# --- parts of a net


def lite() -> Network:
    paddle.seed(0)
    return build_network("efficientnet_lite0", False, 3, 0.0)


def test_a_net_in_two_parts_is_the_net() -> None:
    network = lite()
    network.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype("float32"))
    whole = network(x).numpy()
    for top_layers in (1, 6, 17):
        lower, upper = LowerTrunk(network.trunk, top_layers), UpperNetwork(network, top_layers)
        assert np.array_equal(upper(lower(x)).numpy(), whole)


def test_what_is_below_does_not_learn() -> None:
    network = lite()
    upper = UpperNetwork(network, 2)
    learning = {n for n, p in upper.named_parameters() if not p.stop_gradient}
    layers = {int(n.split(".")[2]) for n in learning if n.startswith("trunk.blocks.")}
    assert layers == {15}
    assert {"trunk.conv_head.weight", "trunk.bn1.weight", "head.1.weight"} <= learning
    assert not any("conv_stem" in name or "trunk.bn0" in name for name in learning)


def test_layer_decay_slows_what_is_far_from_the_head() -> None:
    """With a unit gradient, plain SGD moves a parameter by its own learning rate."""
    network = lite()
    choice = params(optimizer="sgd", momentum=0.0, weight_decay=0.0, layer_decay=0.5)
    optimizer = build_optimizer(network, choice, 1.0, lambda n: depth_below_head(network, n))
    before = {n: np.array(p) for n, p in network.named_parameters()}
    for parameter in network.parameters():
        if not parameter.stop_gradient:
            parameter.grad = paddle.ones_like(parameter)
    optimizer.step()
    moved = {n: float((before[n] - p.numpy()).mean()) for n, p in network.named_parameters()}
    assert moved["head.1.weight"] == pytest.approx(1.0, rel=1e-4)
    assert moved["trunk.conv_head.weight"] == pytest.approx(0.5, rel=1e-4)
    assert moved["trunk.blocks.15.project_conv.weight"] == pytest.approx(0.25, rel=1e-4)
    assert moved["trunk.blocks.0.project_conv.weight"] == pytest.approx(0.5**17, rel=1e-2)
    assert moved["trunk.conv_stem.weight"] == pytest.approx(0.5**18, rel=2e-2)


def test_a_milder_augmentation_moves_pixels_less() -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)

    def change(strength: float) -> float:
        augment = make_augment("light", "none", 0, strength)
        assert augment
        changed = [augment(image, epoch, "a", 0).astype(int) for epoch in range(30)]
        return float(np.mean([np.abs(other - image).mean() for other in changed]))

    assert 0 < change(0.05) < change(1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_an_optimiser_takes_up_what_begins_to_learn(optimizer: str) -> None:
    """Head, then all: the head keeps its moments, the others start fresh."""
    choice, task = params(optimizer=optimizer), ClassificationNet(3, 0.0)
    rng = np.random.default_rng(0)

    def session(part: str) -> Session:
        paddle.utils.unique_name.switch()
        network = lite()
        trainee = network.head if part == "head" else network
        built = build_optimizer(trainee, choice, 0.1, lambda name: 0)
        return Session(network, trainee, built, task, Alone(), amp=False)

    def step(one: Session, inputs: np.ndarray) -> None:
        batch = Pass(inputs.astype(np.float32), np.array([0, 1]), 1.0)
        one.add_gradients([batch], lambda number: 0)
        one.update(0.1, 0)

    head = session("head")
    step(head, rng.normal(size=(2, 1280)))
    whole = session("all")
    whole.load(head.network_state(), head.optimizer_state(), {})
    taken = whole.optimizer_state()
    for name, values in head.optimizer_state().items():
        assert np.array_equal(taken[name], values)
    assert len(taken) > len(head.optimizer_state())
    step(whole, rng.normal(size=(2, 3, 32, 32)))


# --- what frozen layers make of the images


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{number}.png")
    return pd.DataFrame(
        {
            "image_id": [f"{n}.png" for n in range(5)],
            "path": [f"{n}.png" for n in range(5)],
            "sha256": [str(n) for n in range(5)],
            "source": "train",
            "problem": "",
        }
    )


def recipe(views: int) -> FeatureRecipe:
    return FeatureRecipe("efficientnet_lite0", True, 6, views, "light", "both", 0)


def test_features_are_what_the_frozen_part_gives(manifest: pd.DataFrame, tmp_path: Path) -> None:
    """Plain ones at the judged size, views at the phase's size, and each epoch its own view."""
    (phase,) = make_plan("trunk", True, [], [(0.0, 32)], 64)
    said = write_features(tmp_path / "f", manifest, [phase], recipe(3), 64)
    assert said == "5 train images: top-64-plain, top-32-views"
    source = load_features(tmp_path / "f", phase, 5, 64)
    assert source.plain_inputs([0, 4]).shape == (2, 112, 4, 4)
    first = source.training_inputs([0, 4, 0], [0, 0, 1], 1)
    assert first.shape == (3, 112, 2, 2)
    assert first.dtype == np.float32
    assert np.array_equal(first[2], source.training_inputs([0], [0], 2)[0])
    assert not np.array_equal(first[0], first[2])
    assert np.array_equal(first[0], source.training_inputs([0], [0], 4)[0])
    again = write_features(tmp_path / "g", manifest, [phase], recipe(3), 64)
    assert again == said
    for name in ("features.json", "top-64-plain.npy", "top-32-views.npy"):
        assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "g" / name).read_bytes()


def test_top_inputs_and_upper_net_are_the_whole_net(manifest: pd.DataFrame, tmp_path: Path) -> None:
    (phase,) = make_plan("trunk", True, [], [], 64)
    write_features(tmp_path / "f", manifest, [phase], recipe(0), 64)
    source = load_features(tmp_path / "f", phase, 5, 64)
    assert source.views is None
    network = build_network("efficientnet_lite0", True, 3, 0.0)
    network.eval()
    from podium.data.image_cache import load_images
    from podium.models.networks import make_preprocessing

    images = load_images(manifest, 64, "decode")[:]
    whole = network(paddle.to_tensor(make_preprocessing("efficientnet_lite0", 64).apply(images)))
    maps = paddle.to_tensor(source.training_inputs(range(5), [0] * 5, 1))
    assert UpperNetwork(network, 6)(maps).numpy() == pytest.approx(whole.numpy(), abs=0.02)


def test_nothing_frozen_nothing_computed(manifest: pd.DataFrame, tmp_path: Path) -> None:
    plan = make_plan("none", True, [], [], 64)
    said = write_features(tmp_path / "f", manifest, plan, recipe(3), 64)
    assert said.startswith("the whole net learns")
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["features.json"]


def test_damaged_or_missing_features(manifest: pd.DataFrame, tmp_path: Path) -> None:
    (phase,) = make_plan("all", True, [], [], 32)
    with pytest.raises(PodiumError, match=r"head-32-plain\.npy is missing: run `dvc repro`"):
        load_features(tmp_path / "f", phase, 5, 32)
    write_features(tmp_path / "f", manifest, [phase], recipe(0), 32)
    path = tmp_path / "f" / "head-32-plain.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PodiumError, match="is damaged .*cut short"):
        load_features(tmp_path / "f", phase, 5, 32)
    write_features(tmp_path / "f", manifest[:3], [phase], recipe(0), 32)
    with pytest.raises(PodiumError, match="has 3 rows, the manifest 5"):
        load_features(tmp_path / "f", phase, 5, 32)


def test_features_without_views_are_plain() -> None:
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    source = FeatureSource(features)
    assert np.array_equal(source.training_inputs([2, 2], [0, 1], 5), features[[2, 2]])
