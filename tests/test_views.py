"""Test-time augmentation: the same views everywhere, averaged, and refused where forbidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import paddle
import pytest
from pydantic import ValidationError

from podium.data.rules import check_tta
from podium.data.views import Tta, count_views, describe_cost, make_views
from podium.engine.ensemble import Ensemble
from podium.engine.inference import ExportedModel, Predictor
from podium.engine.weights import (
    fold_folder,
    load_network,
    read_state,
    settle_tta,
    write_model,
)
from podium.errors import PodiumError
from podium.models.networks import build_network, make_preprocessing
from podium.slim.compression import Judge, compress
from podium.slim.deployment import Deployment
from podium.slim.nets import Maker
from podium.slim.params import CompressParams, SelectParams
from podium.tasks.classification.data import ClassificationData
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.evidence import Evidence
from tests.small_parents import NETS

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 255, (5, SIZE, SIZE, 3), dtype=np.uint8)
TASK = ClassificationData(("a", "b", "c"), ordinal=False)
MODES = get_args(Tta)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Pixel by pixel: what was at (y, x) is at (y + down, x + right), the gap reflected."""

    def reflect(place: int) -> int:
        return -place if place < 0 else 2 * (SIZE - 1) - place if place >= SIZE else place

    rows = [reflect(y - down) for y in range(SIZE)]
    columns = [reflect(x - right) for x in range(SIZE)]
    return image[np.ix_(rows, columns)]


BY_HAND = {
    "none": lambda x: [x],
    "horizontal": lambda x: [x, np.fliplr(x)],
    "both": lambda x: [x, np.fliplr(x), np.flipud(x), np.flipud(np.fliplr(x))],
    "dihedral": lambda x: [
        turned
        for quarters in range(4)
        for turned in (np.rot90(x, quarters), np.fliplr(np.rot90(x, quarters)))
    ],
    "shift": lambda x: [x, *(shifted(x, *move) for move in ((0, 1), (0, -1), (1, 0), (-1, 0)))],
}


@pytest.mark.parametrize("tta", MODES)
def test_views_are_those_made_by_hand(tta: Tta) -> None:
    views = make_views(IMAGES, tta)
    assert len(views) == count_views(tta)
    assert np.array_equal(views[0], IMAGES)
    for number, image in enumerate(IMAGES):
        made = {view[number].tobytes() for view in views}
        assert made == {np.ascontiguousarray(view).tobytes() for view in BY_HAND[tta](image)}
        assert len(made) == count_views(tta)


def test_a_shift_is_a_few_pixels_of_a_large_image() -> None:
    image = np.random.default_rng(1).integers(0, 255, (1, 128, 128, 3), dtype=np.uint8)
    left = make_views(image, "shift")[1]
    assert np.array_equal(left[:, :, :-4], image[:, :, 4:])


def test_forbidden_views_are_refused_in_one_line() -> None:
    with pytest.raises(PodiumError) as caught:
        check_tta("horizontal", is_allowed=False)
    said = str(caught.value)
    assert "\n" not in said
    assert "competition.rules.tta is false" in said
    assert "set evaluate.tta: none" in said
    check_tta("none", is_allowed=False)
    check_tta("dihedral", is_allowed=True)


def test_cost_is_said() -> None:
    assert describe_cost("none") == ""
    assert describe_cost("dihedral") == "tta dihedral: 8 views of each image, 8 times the work"


def test_unknown_views_are_refused() -> None:
    good = {
        "primary": "accuracy",
        "bootstrap_draws": 100,
        "tta": "shift",
        "calibrate": False,
        "decoder": "auto",
    }
    assert EvaluateParams.model_validate(good).tta == "shift"
    assert EvaluateParams.model_validate({**good, "tta": "auto"}).tta is None
    for change in ({"tta": "flip"}, {"decoder": "best"}, {"calibrate": "yes"}):
        with pytest.raises(ValidationError):
            EvaluateParams.model_validate({**good, **change})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads on a pretrained trunk: its features are those of a real net, not all alike."""
    folder = tmp_path_factory.mktemp("models")
    for fold in (0, 1):
        paddle.seed(fold)
        network = build_network("efficientnet_lite0", True, 3, 0.0)
        network.head[1].weight.set_value(paddle.randn(network.head[1].weight.shape))
        card = {
            "task": "classification",
            "classes": list(TASK.classes),
            "architecture": {"name": "efficientnet_lite0", "outputs": 3, "dropout": 0.0},
            "preprocessing": make_preprocessing("efficientnet_lite0", SIZE).to_card(),
        }
        write_model(fold_folder(folder, fold), read_state(network), card)
    return folder


def test_auto_is_what_the_first_model_learned_from(tmp_path: Path) -> None:
    """Asked for by name it is what was asked for; where the rules forbid views it is the image."""
    network = build_network("mobilenet_v3_small", False, 3, 0.0)

    def write(fold: int, flip: str, freeze: str = "trunk", views: int | None = None) -> None:
        card = {"params": {"model": {"freeze": freeze}, "train": {"flip": flip, "views": views}}}
        write_model(fold_folder(tmp_path, fold), read_state(network), card)

    write(1, "horizontal")
    write(3, "none")
    check_tta(None, is_allowed=False)
    assert settle_tta(None, tmp_path, True) == "horizontal"
    assert settle_tta(None, tmp_path, False) == "none"
    assert settle_tta("dihedral", tmp_path, True) == "dihedral"
    assert settle_tta("none", tmp_path / "nothing", True) == "none"
    write(1, "both", "all", 0)
    assert settle_tta(None, tmp_path, True) == "none"
    write(1, "both", "none", 0)
    assert settle_tta(None, tmp_path, True) == "both"
    with pytest.raises(PodiumError, match="holds no model: run `dvc repro`"):
        settle_tta(None, tmp_path / "nothing", True)


def views_by_hand(tta: str) -> np.ndarray:
    """All views of the first image, then of the second, and so on; the first is the image."""
    return np.array([view for image in IMAGES for view in BY_HAND[tta](image)])


@pytest.mark.parametrize("tta", ["horizontal", "shift"])
def test_outputs_are_the_mean_over_the_views(models: Path, tta: Tta) -> None:
    together = Ensemble(models, tta).run(IMAGES, "all")
    alone = Ensemble(models).run(views_by_hand(tta), "by hand")
    for outputs, of_views in zip(together, alone, strict=True):
        by_image = of_views.reshape(len(IMAGES), -1, 3)
        assert outputs.dtype == np.float32
        assert outputs == pytest.approx(by_image.mean(axis=1), rel=1e-5, abs=1e-5)
        assert np.abs(outputs - by_image[:, 0]).max() > 1e-2


def test_the_shipped_model_keeps_its_views(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What compress judged is what deploy/, and with it `podium predict`, answers."""
    network, preprocessing, card = load_network(fold_folder(models, 0))
    targets = np.array([0, 1, 2, 0, 1])
    seen = []

    def note(probabilities: np.ndarray) -> dict[str, object]:
        seen.append(probabilities)
        return TASK.metrics(probabilities, targets, list("abcde"), 0)

    evidence = Evidence(targets, list("abcde"), np.zeros(5, np.int64), 100, 0)
    judge = Judge(IMAGES, TASK.predictions, note, TASK.score, TASK.primary, evidence, "horizontal")
    select = SelectParams(max_mb=None, max_mflops=None, max_drop=0.1, max_ms=None, prefer="bytes")
    params = CompressParams(
        nets=["trained"],
        precisions=["float32"],
        formats=["paddle"],
        calibration_images=8,
        select=select,
        **NETS,
    )
    folder = tmp_path / "deploy"
    monkeypatch.chdir(tmp_path)
    maker = Maker(network, lambda: pytest.fail("no training here"), "", params)
    compress(maker, preprocessing, card, IMAGES, judge, folder, None)
    outputs = Deployment(folder).run_images(IMAGES, "again")
    assert np.array_equal(TASK.predictions(outputs), seen[0])
    predictor = Predictor(ExportedModel.in_folder(folder))
    of_views = predictor.run_images(views_by_hand("horizontal"), preprocessing, "by hand")
    by_hand = of_views.reshape(len(IMAGES), -1, 3).mean(axis=1)
    assert outputs == pytest.approx(by_hand, rel=1e-5, abs=1e-5)
    assert json.loads((folder / "card.json").read_text())["tta"] == "horizontal"


def test_a_card_with_unknown_views_is_refused(models: Path, tmp_path: Path) -> None:
    card = json.loads((fold_folder(models, 0) / "card.json").read_text())
    content = {**card, "tta": "spiral", "files": {}, "runtime": {"int8": False}}
    (tmp_path / "card.json").write_text(json.dumps(content))
    with pytest.raises(PodiumError, match=r"card.json: expected tta of none, .* got 'spiral'"):
        Deployment(tmp_path)
