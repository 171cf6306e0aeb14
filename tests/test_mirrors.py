"""`train.flip: auto`: mirrors that keep the class are used, those that do not are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from podium.engine.features import FeatureRecipe, settle_flip, write_features
from podium.engine.mirrors import find_mirrors
from podium.engine.params import TrainParams
from podium.engine.phases import make_plan
from podium.errors import PodiumError
from podium.probes.mirrors import probe_mirrors
from tests.trainings import params

N = 400
CODES = np.arange(N) % 4
GROUPS = [f"{k:04}" for k in range(N)]
CENTRES = 2.5 * np.eye(4, 12, dtype=np.float32)


def see(classes: np.ndarray, seed: int) -> np.ndarray:
    """Embeddings of pictures that look like these classes."""
    noise = np.random.default_rng(seed).normal(size=(len(classes), 12))
    return (CENTRES[classes] + noise).astype(np.float32)


def swap(first: int, second: int) -> np.ndarray:
    """The classes that pictures look like when these two are each other's mirror images."""
    looks = np.arange(4)
    looks[[first, second]] = second, first
    return looks[CODES]


@pytest.mark.parametrize(
    ("horizontal", "vertical", "flip"),
    [
        (CODES, CODES, "both"),
        (CODES, swap(0, 1), "horizontal"),
        (swap(2, 3), CODES, "none"),
        (swap(2, 3), swap(0, 1), "none"),
    ],
)
def test_two_classes_that_are_mirror_images(
    horizontal: np.ndarray, vertical: np.ndarray, flip: str
) -> None:
    sharp = {"plain": see(CODES, 0), "horizontal": see(horizontal, 1), "vertical": see(vertical, 2)}
    blind = {"plain": see(CODES, 3), "horizontal": see(CODES, 4), "vertical": see(CODES, 5)}
    found = probe_mirrors({"net": blind, "pixels": sharp}, CODES, GROUPS, 0)
    assert found.flip == flip, str(found)
    assert probe_mirrors({"net": blind}, CODES, GROUPS, 0).flip == "both"
    for one in found.answers.values():
        assert one.accuracy > 0.8
        for gain in one.gains.values():
            assert gain.low <= gain.value <= gain.high
    assert found == probe_mirrors({"net": blind, "pixels": sharp}, CODES, GROUPS, 0)
    assert str(found).startswith(f"{flip}: of 400 images as they are and mirrored, by net ")


def test_few_images_prove_nothing() -> None:
    """Nothing is lost, but as far as two dozen images can tell it might be a lot."""
    few = CODES[:24]
    seen = {name: see(few, seed) for seed, name in enumerate(("plain", "horizontal", "vertical"))}
    found = probe_mirrors({"net": seen}, few, GROUPS[:24], 0)
    assert any(gain.low < 0 < gain.high for gain in found.answers["net"].gains.values())
    assert found.flip == "none"
    assert found.n_images == 24


def test_a_class_of_one_cannot_be_asked() -> None:
    codes = np.array([0, 0, 0, 1])
    seen = dict.fromkeys(("plain", "horizontal", "vertical"), see(codes, 0))
    found = probe_mirrors({"net": seen}, codes, list("abcd"), 0)
    assert (found.flip, found.n_images) == ("none", 0)
    assert "some class has too few images" in str(found)


def draw_arrows(folder: Path) -> pd.DataFrame:
    """Two classes: arrows that point to the left and to the right."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        label, side = number % 2, 64
        canvas = Image.new("RGB", (side, side), tuple(rng.integers(90, 160, 3).tolist()))
        x, y = rng.integers(28, 37, 2).tolist()
        tip = 24 if label else -24
        ImageDraw.Draw(canvas).polygon(
            [(x + tip, y), (x - tip, y - 24), (x - tip, y + 24)],
            fill=tuple(rng.integers(0, 60, 3).tolist()),
        )
        path = folder / f"{number:03}.png"
        canvas.save(path)
        rows.append((path.name, str(path), str(number), str(label), path.name))
    columns = ["image_id", "path", "sha256", "label", "group_id"]
    return pd.DataFrame(rows, columns=columns).assign(source="train", problem="")


def test_arrows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrows = draw_arrows(tmp_path)
    found = find_mirrors(arrows, 64, 0)
    assert found.flip == "none"
    assert list(found.answers) == ["16 px thumbnails", "an ImageNet net"]
    (alone,) = find_mirrors(arrows, 64, 0, allows_pretrained=False).answers.items()
    assert alone == ("16 px thumbnails", found.answers["16 px thumbnails"])
    for one in found.answers.values():
        assert one.gains["horizontal"].high < -0.5
        assert one.allow("vertical")


def test_what_was_found_is_noted_and_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "features"
    recipe = FeatureRecipe("efficientnet_lite0", True, 6, 0, "none", "both", 0)
    plan = make_plan("none", True, [], [], 64)
    rows = draw_arrows(tmp_path)
    write_features(folder, rows, plan, recipe, 64, {"n_images": 1})
    noted = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    assert (noted["flip"], noted["mirrors"]) == ("both", {"n_images": 1})
    asks: TrainParams = params(flip="auto")
    assert settle_flip(folder, asks) == params(flip="both")
    said = params(flip="horizontal")
    assert settle_flip(tmp_path / "nothing", said) is said
    with pytest.raises(PodiumError, match=r"features\.json is missing: run `dvc repro`"):
        settle_flip(tmp_path / "nothing", asks)
    for damaged in ("{", '{"flip": "auto"}', "[]"):
        (folder / "features.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(PodiumError, match=r"features\.json is damaged: delete it"):
            settle_flip(folder, asks)
