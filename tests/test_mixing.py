"""Mixup and CutMix in the loop, and the sheet that shows what the net sees."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
import pytest
from PIL import Image

from podium.data.augment import make_augment
from podium.data.image_cache import FileImages
from podium.data.preprocessing import Preprocessing
from podium.data.recipes import ImageRecipes
from podium.engine import contact_sheet, training
from podium.engine.batches import FeatureSource, ImageSource, ViewedImages
from podium.engine.checkpoint import Checkpoints
from podium.engine.contact_sheet import draw_inputs
from podium.engine.fit import TrainingInputs
from podium.engine.mixing import Mix, draw_mix, read_mixed
from podium.engine.optimization import build_optimizer
from podium.engine.phases import Phase
from podium.engine.processes import Alone
from podium.engine.session import Pass, Session
from podium.engine.training import Job, Part, TrainingData, mix_of_step, train
from podium.errors import PodiumError
from podium.models.params import ModelParams
from podium.tasks.classification.net import ClassificationNet
from tests.test_checkpoint import DyingCheckpoints, KilledError, same
from tests.trainings import NO_RECIPES, ONE_PHASE, TASK, params, recipe, toy_head, toy_job

AS_PIXELS = Preprocessing(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def image_source(n: int = 12, augmented: bool = True) -> ImageSource:
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    augment = make_augment("light", "both", 0) if augmented else None
    return ImageSource(images, images, [f"{i}" for i in range(n)], AS_PIXELS, augment)


def mixes(mixup: float, cutmix: float, count: int = 400) -> list[Mix | None]:
    return [draw_mix(mixup, cutmix, 0, step, 12) for step in range(count)]


# --- draws


def test_a_mix_is_a_function_of_seed_and_step() -> None:
    assert mixes(0.5, 0.5) == mixes(0.5, 0.5)
    assert len({str(mix) for mix in mixes(0.5, 0.5)}) == 400
    assert draw_mix(1.0, 0.0, 1, 0, 12) != draw_mix(1.0, 0.0, 0, 0, 12)


def test_steps_are_mixed_as_often_as_params_say() -> None:
    drawn = mixes(0.3, 0.5, 1000)
    assert sum(mix is None for mix in drawn) == pytest.approx(200, abs=40)
    assert sum(mix is not None and mix.centre is None for mix in drawn) == pytest.approx(
        300, abs=50
    )
    assert mixes(0.0, 0.0) == [None] * 400
    for mix in drawn:
        if mix:
            assert sorted(mix.partners) == list(range(12))
            assert 0 <= mix.kept <= 1


def test_shares_are_drawn_from_the_papers_distributions() -> None:
    """Beta(0.2, 0.2) lies mostly at the ends, Beta(1, 1) is uniform."""
    blended = np.array([mix.kept for mix in mixes(1.0, 0.0, 1000) if mix])
    cut = np.array([mix.kept for mix in mixes(0.0, 1.0, 1000) if mix])
    assert (np.abs(blended - 0.5) > 0.4).mean() == pytest.approx(0.66, abs=0.06)
    assert (np.abs(cut - 0.5) > 0.4).mean() == pytest.approx(0.2, abs=0.05)


def test_recipes_of_batches_follow_epoch_and_phase() -> None:
    how = recipe(epochs=10, recipes={**NO_RECIPES, "mixup": 0.5, "cutmix": 0.5}, augment_until=0.8)
    plan = (Phase(0.0, "head", 32, 1.0), Phase(0.4, "all", 32, 1.0))
    seen: dict[int, set[str]] = {}
    for epoch in range(1, 11):
        drawn = [mix_of_step(how, plan, epoch, step, 12) for step in range(60)]
        kinds = {"none" if m is None else "mixup" if m.centre is None else "cutmix" for m in drawn}
        seen[epoch] = kinds
    assert all(seen[epoch] == {"none", "mixup"} for epoch in range(1, 5)), "features have no boxes"
    assert all(seen[epoch] == {"mixup", "cutmix"} for epoch in range(5, 9))
    assert all(seen[epoch] == {"none"} for epoch in (9, 10))


# --- inputs


def test_mixup_blends_each_row_with_its_partner() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    rows, mix = [3, 7, 11, 3], Mix([1, 0, 3, 2], 0.25, None)
    mixed = read_mixed(FeatureSource(features), rows, [0, 0, 0, 1], 1, range(4), mix)
    assert mixed.partners == [7, 3, 3, 11]
    assert mixed.kept == 0.25
    expected = 0.25 * features[rows] + 0.75 * features[[7, 3, 3, 11]]
    assert mixed.inputs == pytest.approx(expected, rel=1e-6)
    assert mixed.inputs.dtype == np.float32


def test_cutmix_pastes_one_box_and_counts_its_pixels() -> None:
    source = image_source(augmented=False)
    plain = source.plain_inputs(range(12))
    shares = []
    for step in range(60):
        mix = draw_mix(0.0, 1.0, 0, step, 12)
        assert mix
        mixed = read_mixed(source, list(range(12)), [0] * 12, 1, range(12), mix)
        assert mixed.partners == list(mix.partners)
        other = plain[mix.partners]
        pasted = (mixed.inputs == other).all(axis=1) & (other != plain).any(axis=1)
        kept = (mixed.inputs == plain).all(axis=1)
        assert (pasted | kept).all(), "each pixel is one image's or the other's"
        moved = [i for i in range(12) if mix.partners[i] != i]
        area = pasted[moved].any(axis=0)
        rows, columns = area.any(1), area.any(0)
        assert np.array_equal(area, rows[:, None] & columns), "one box, the same for all"
        assert mixed.kept == pytest.approx(1 - area.mean())
        assert mixed.kept >= mix.kept - 0.1, "but for whole pixels: over the edge nothing is pasted"
        shares.append(mixed.kept)
    assert min(shares) < 0.3
    assert max(shares) > 0.9


@pytest.mark.parametrize("centre", [None, (0.4, 0.7)])
def test_parts_of_a_batch_are_what_the_whole_is(centre: Any) -> None:
    """However the batch is cut, a row meets the same partner, augmented as that row is."""
    source = image_source()
    rows, uses = [0, 5, 5, 9, 2, 7, 1], [0, 0, 1, 0, 0, 2, 0]
    mix = Mix([3, 2, 6, 0, 4, 1, 5], 0.6, centre)
    whole = read_mixed(source, rows, uses, 2, range(7), mix)
    for bounds in ([0, 2, 7], [0, 1, 3, 5, 7]):
        parts = [read_mixed(source, rows, uses, 2, range(a, b), mix) for a, b in pairwise(bounds)]
        assert np.array_equal(np.concatenate([part.inputs for part in parts]), whole.inputs)
        assert [row for part in parts for row in part.partners or []] == whole.partners
        assert {part.kept for part in parts} == {whole.kept}
    plain = read_mixed(source, rows, uses, 2, range(7), None)
    assert plain.partners is None
    assert np.array_equal(plain.inputs, source.training_inputs(rows, uses, 2))


# --- learning


def test_the_loss_is_blended_as_the_inputs_are() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 8)).astype(np.float32)
    targets, other = np.arange(6) % 3, np.arange(6)[::-1] % 3

    def gradients(part: Pass) -> tuple[float, list[Any]]:
        head = toy_head(dropout=0.0)
        optimizer = build_optimizer(head, params(), 0.1, lambda name: 0)
        session = Session(head, head, optimizer, ClassificationNet(3, 0.1), Alone(), False)
        loss = session.add_gradients([part], lambda number: 0)
        return loss, [parameter.grad.numpy() for parameter in head.parameters()]

    loss, mixed = gradients(Pass(inputs, targets, 1.0, other, 0.3))
    one, of_one = gradients(Pass(inputs, targets, 1.0))
    two, of_two = gradients(Pass(inputs, other, 1.0))
    assert loss == pytest.approx(0.3 * one + 0.7 * two, rel=1e-5)
    for got, a, b in zip(mixed, of_one, of_two, strict=True):
        assert got == pytest.approx(0.3 * a + 0.7 * b, rel=1e-4, abs=1e-6)


def test_a_net_learns_from_mixed_batches() -> None:
    job = toy_job(recipe(epochs=25, recipes={**NO_RECIPES, "mixup": 1.0}))
    mixed = train(job, lambda row: None)
    plain = train(toy_job(recipe(epochs=25)), lambda row: None)
    assert mixed.score > 0.85
    assert mixed.curve[-1].train_loss > plain.curve[-1].train_loss
    for name, values in plain.state.items():
        assert not np.array_equal(values, mixed.state[name])


def test_the_last_epochs_are_not_mixed() -> None:
    changes: dict[str, Any] = {"epochs": 4, "recipes": {**NO_RECIPES, "mixup": 1.0}}
    curves = [
        train(toy_job(recipe(**changes, augment_until=until)), lambda row: None).curve
        for until in (1.0, 0.5)
    ]
    same_epochs = [a.train_loss == b.train_loss for a, b in zip(*curves, strict=True)]
    assert same_epochs == [True, True, False, False]


@pytest.mark.parametrize("saves", [1, 3])
def test_killed_between_mixed_steps_the_bits_are_the_same(saves: int, tmp_path: Path) -> None:
    how = recipe(epochs=4, recipes={**NO_RECIPES, "mixup": 0.6}, checkpoint_every=3)
    job = toy_job(how, dropout=0.3, norm=True)
    undisturbed = train(job, lambda row: None)
    with pytest.raises(KilledError):
        train(job, lambda row: None, checkpoints=DyingCheckpoints(tmp_path, saves))
    assert same(undisturbed, train(job, lambda row: None, checkpoints=Checkpoints(tmp_path)))


# --- the sheet


TILE, GAP, CAPTION = 80, 2, 14


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingInputs:
    """Ten training images of 80 px: a tile holds them as they are."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(10)]
    for number, name in enumerate(names):
        # Few colours, so that the sheet's 256 hold them.
        pixels = rng.integers(0, 2, (8, 8, 1), dtype=np.uint8) * 200 + np.uint8(number * 5)
        Image.fromarray(np.kron(np.repeat(pixels, 3, 2), np.ones((10, 10, 1), np.uint8))).save(name)
    manifest = pd.DataFrame(
        {"image_id": names, "path": names, "source": "train", "problem": "", "label": "a"}
    )
    return TrainingInputs(manifest, pd.DataFrame(), {0: [*names[:8], names[3]]}, Path("features"))


def sheet(inputs: TrainingInputs, freeze: str, epochs: int = 6, **changes: Any) -> bytes:
    model = ModelParams(
        name="efficientnet_lite0",
        pretrained=True,
        freeze=freeze,
        top_layers=6,
        dropout=0.0,
        weights=None,
        allow_download=False,
    )
    recipes = {**NO_RECIPES, **changes.pop("recipes", {})}
    how = recipe(epochs=epochs, batch_size=4, recipes=recipes, **changes)
    return draw_inputs(inputs, model, how, 80)


def tiles(png: bytes) -> list[list[Any]]:
    """By column and row."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    pitch = TILE + GAP
    height, width = (pixels.shape[0] - CAPTION + GAP) // pitch, (pixels.shape[1] + GAP) // pitch
    return [
        [pixels[CAPTION + row * pitch :, column * pitch :][:TILE, :TILE] for row in range(height)]
        for column in range(width)
    ]


EVERYTHING = dict.fromkeys(NO_RECIPES, 0.5) | {"mixup": 0.4, "cutmix": 0.4}


@pytest.mark.parametrize(
    ("freeze", "changes"),
    [
        ("none", {"augment": "heavy", "flip": "both", "recipes": EVERYTHING}),
        ("all", {"augment": "medium", "views": 3}),
        ("all", {}),
    ],
)
def test_the_sheet_is_the_same_bytes_twice(
    inputs: TrainingInputs, freeze: str, changes: dict[str, Any]
) -> None:
    first = sheet(inputs, freeze, **dict(changes))
    assert first == sheet(inputs, freeze, **dict(changes))
    assert first.startswith(b"\x89PNG")
    made = tiles(first)
    assert (len(made), len(made[0])) == (7, 6)


def test_the_sheet_is_small_even_of_noise(inputs: TrainingInputs) -> None:
    rng = np.random.default_rng(0)
    for name in inputs.manifest["path"]:
        Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(name)
    assert len(sheet(inputs, "none", augment="heavy")) <= 300_000


def test_the_sheet_shows_what_the_loop_reads(
    inputs: TrainingInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {
        "augment": "light",
        "recipes": {**NO_RECIPES, "cutout": 0.5, "mixup": 0.4, "cutmix": 0.4},
        "augment_until": 0.7,
    }
    how = recipe(lr=1e-6, epochs=4, batch_size=4, optimizer="sgd", **changes)
    images = FileImages(inputs.manifest["path"].tolist(), 80)
    augment = make_augment("light", "none", 0, 1.0, ImageRecipes(cutout=0.5), 3)
    as_pixels = Preprocessing(80, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    names = inputs.manifest["image_id"].tolist()
    source = ImageSource(images, images, names, as_pixels, augment)
    seen: dict[int, list[Any]] = {epoch: [] for epoch in range(1, 5)}
    mixed_epochs = set()
    real = training.read_mixed

    def note(source: Any, rows: Any, uses: Any, epoch: int, part: range, mix: Any) -> Any:
        mixed = real(source, rows, uses, epoch, part, mix)
        seen[epoch] += [np.rint(x).transpose(1, 2, 0) for x in mixed.inputs]
        mixed_epochs.update([epoch] if mix else [])
        return mixed

    monkeypatch.setattr(training, "read_mixed", note)
    net = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(3 * 80 * 80, 3))
    data = TrainingData(
        names, np.arange(10) % 3, np.array([*range(8), 3]), [8, 9], lambda o, t: 1.0
    )
    part = Part(net, net, lambda name: 0, source)
    task = ClassificationNet(3, 0.0)
    train(Job(lambda phase: part, ONE_PHASE, task, data, how, TASK.primary), lambda row: None)
    shown: list[Any] = []
    monkeypatch.setattr(contact_sheet, "_encode", lambda columns: shown.extend(columns) or b"")
    sheet(inputs, "none", epochs=4, **changes)
    assert [caption for caption, _ in shown] == ["as it is", *(f"epoch {e}" for e in range(1, 5))]
    for epoch, (_, drawn) in enumerate(shown[1:], start=1):
        assert len(drawn) == 6
        for tile in drawn:
            assert any(np.array_equal(np.asarray(tile), pixels) for pixels in seen[epoch])
    assert mixed_epochs == {1, 2, 3}


def test_the_last_epochs_in_the_sheet_are_clean(inputs: TrainingInputs) -> None:
    made = tiles(sheet(inputs, "none", recipes={"cutout": 1.0}, augment_until=0.5))
    plain = made[0]
    for epoch in range(1, 7):
        for before, after in zip(plain, made[epoch], strict=True):
            changed = (np.abs(before.astype(int) - after) > 12).any(axis=2)
            assert changed.any() == (epoch <= 3)
            assert changed.mean() <= 0.26


def test_an_end_of_mixing_leaves_what_was_drawn_ahead(inputs: TrainingInputs) -> None:
    never = {"recipes": {"mixup": 1e-9}, "augment_until": 0.2}
    made = tiles(sheet(inputs, "none", augment="medium", views=4, **never))
    for epoch in (1, 2, 3, 4):
        assert any(not np.array_equal(a, b) for a, b in zip(made[0], made[epoch], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(made[1], made[5], strict=True))


def test_frozen_layers_see_their_views_again_and_again(inputs: TrainingInputs) -> None:
    made = tiles(sheet(inputs, "all", augment="medium", views=2))
    for row in range(6):
        assert np.array_equal(made[1][row], made[3][row])
        assert not np.array_equal(made[1][row], made[2][row])
    plain = tiles(sheet(inputs, "all", augment="medium"))
    assert all(np.array_equal(plain[0][row], plain[6][row]) for row in range(6))


def test_views_in_the_sheet_are_those_of_the_features() -> None:
    """As the features stage draws them: view v as epoch v + 1, whatever the use."""
    source = image_source(n=4)
    views = np.concatenate([source.training_inputs(range(4), [0] * 4, v) for v in (1, 2, 3)])
    features = FeatureSource(source.plain_inputs(range(4)), views)
    for epoch in (1, 2, 5):
        arguments = [0, 3, 3], [0, 0, 1], epoch
        expected = features.training_inputs(*arguments)
        assert np.array_equal(ViewedImages(source, 3).training_inputs(*arguments), expected)


def test_a_file_that_is_gone_is_one_line(inputs: TrainingInputs) -> None:
    for name in inputs.manifest["path"]:
        Path(name).unlink()
    with pytest.raises(PodiumError, match="is in the manifest but gone"):
        sheet(inputs, "none")
