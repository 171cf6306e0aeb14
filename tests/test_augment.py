"""Augmentation: presets from their file, and each recipe as its paper says."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from podium.data import policies, presets
from podium.data.augment import Augment, make_augment
from podium.data.preprocessing import Preprocessing
from podium.data.presets import NO_PRESET, apply_transform, build_transforms, preset_names
from podium.data.recipes import ImageRecipes, recipes_that_act
from podium.engine.batches import ImageSource, ViewedImages
from podium.engine.features import FeatureRecipe, _make_source
from podium.engine.params import RecipeParams, TrainParams
from podium.engine.phases import (
    check_augmentation,
    check_image_recipes,
    count_augmented_epochs,
    make_plan,
)
from podium.engine.runs import make_training_key
from podium.errors import PodiumError
from podium.params import Params, load_params
from podium.runtime import derive_seed
from tests.trainings import NO_RECIPES, PLAIN, params

RECIPES = [field.name for field in fields(ImageRecipes)]
HOLES = ["cutout", "hide_and_seek", "grid_mask"]
# No colour of it is MEAN, so that holes can be told.
PICTURE = np.random.default_rng(0).integers(130, 256, (56, 56, 3), dtype=np.uint8)


def recipe(name: str, probability: float = 1.0, preset: str = "none", **more: Any) -> Augment:
    """One recipe alone, or after a preset."""
    made = make_augment(preset, "none", 0, 1.0, ImageRecipes(**{name: probability}), **more)
    assert made
    return made


def draws(augment: Augment, count: int = 60) -> list[Any]:
    return [augment(PICTURE, epoch, "a", 0) for epoch in range(1, count + 1)]


def holes(changed: Any) -> Any:
    """bool (h, w): where the picture is blank; all else must be as it was."""
    blank = (changed == policies.MEAN).all(axis=2)
    assert np.array_equal(changed[~blank], PICTURE[~blank])
    return blank


def rectangle(where: Any) -> tuple[int, int]:
    """Height and width of what must be one full rectangle."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    assert where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return len(rows), len(columns)


# --- draws


@pytest.mark.parametrize("name", [*preset_names()[1:], *RECIPES])
def test_a_draw_is_a_function_of_its_four_arguments(name: str) -> None:
    """In any order, from any thread."""

    def make(seed: int) -> Augment:
        is_recipe = name in RECIPES
        recipes = ImageRecipes(**{name: 1.0}) if is_recipe else ImageRecipes()
        made = make_augment("none" if is_recipe else name, "both", seed, 1.0, recipes)
        assert made
        return made

    augment = make(7)
    uses = [(e, i, o) for e in (1, 2, 3) for i in ("a", "b") for o in (0, 1)]
    first = {use: augment(PICTURE, *use).tobytes() for use in uses}
    assert first == {use: augment(PICTURE, *use).tobytes() for use in reversed(uses)}
    with ThreadPoolExecutor(3) as pool:
        others = list(pool.map(lambda use: augment(PICTURE, *use).tobytes(), uses))
    assert list(first.values()) == others
    assert len(set(first.values())) >= 9, "each use of a picture is a draw of its own"
    reseeded = make(8)
    assert sum(reseeded(PICTURE, *use).tobytes() != first[use] for use in uses) >= 9


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_acts_as_often_as_it_says(name: str) -> None:
    assert make_augment("none", "none", 0, 1.0, ImageRecipes(**{name: 0.0})) is None
    always = [not np.array_equal(d, PICTURE) for d in draws(recipe(name), 200)]
    half = [not np.array_equal(d, PICTURE) for d in draws(recipe(name, 0.5), 200)]
    assert sum(always) > (170 if name not in ("autoaugment", "randaugment") else 140)
    assert 0.35 * sum(always) < sum(half) < 0.65 * sum(always)
    assert {d.shape for d in draws(recipe(name))} == {PICTURE.shape}
    assert {d.dtype for d in draws(recipe(name))} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_leaves_its_input_alone(name: str) -> None:
    before = PICTURE.copy()
    draws(recipe(name), 5)
    assert np.array_equal(PICTURE, before)


def test_a_recipe_does_not_change_what_the_preset_draws() -> None:
    light = make_augment("light", "none", 0)
    assert light
    for plain, cut in zip(draws(light), draws(recipe("cutout", preset="light")), strict=True):
        changed = (plain != cut).any(axis=2)
        assert 0 < changed.mean() <= 0.26


def test_preset_and_recipes_end_with_their_epochs_and_mirrors_go_on() -> None:
    cutout = ImageRecipes(cutout=1.0)
    whole = make_augment("light", "both", 0, 1.0, cutout)
    ending = make_augment("light", "both", 0, 1.0, cutout, 4)
    mirrors = make_augment("none", "both", 0)
    assert whole
    assert ending
    assert mirrors
    seen = draws(ending, 12)
    for like, epochs in ((whole, range(4)), (mirrors, range(4, 12))):
        drawn = draws(like, 12)
        assert all(np.array_equal(seen[e], drawn[e]) == (e in epochs) for e in range(12))


# --- presets


def test_light_is_what_it_has_always_been() -> None:
    """The preset in the file against the same transforms written out."""
    import albumentations
    import cv2

    for strength in (1.0, 1 / 3):
        written = [
            albumentations.Affine(
                scale=(1 - 0.1 * strength, 1 + 0.1 * strength),
                rotate=(-15 * strength, 15 * strength),
                translate_percent=(-0.05 * strength, 0.05 * strength),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.9,
            ),
            albumentations.ColorJitter(
                brightness=0.15 * strength,
                contrast=0.15 * strength,
                saturation=0.15 * strength,
                hue=0.02 * strength,
                p=0.8,
            ),
        ]
        augment = make_augment("light", "none", 5, strength)
        assert augment
        for epoch in range(20):
            image = PICTURE
            for number, step in enumerate(written):
                step.set_random_seed(derive_seed(5, "augment", epoch, "a", 0, number))
                image = step(image=image)["image"]
            assert np.array_equal(image, augment(PICTURE, epoch, "a", 0))


def test_presets_grow_and_shrink_with_strength() -> None:
    def change(preset: str, strength: float) -> float:
        augment = make_augment(preset, "none", 0, strength)
        assert augment
        return float(np.mean([np.abs(d.astype(int) - PICTURE).mean() for d in draws(augment)]))

    assert preset_names() == (NO_PRESET, "light", "medium", "heavy", "crops")
    for preset in preset_names()[1:]:
        assert 0 < change(preset, 0.02) < change(preset, 1.0)
    # Noise has nothing to blur or to turn: a smooth picture tells how far it is moved.
    ramp = np.broadcast_to(np.linspace(0, 255, 56).astype(np.uint8)[:, None, None], (56, 56, 3))
    moved = []
    for preset in ("light", "medium", "heavy"):
        augment = make_augment(preset, "none", 0)
        assert augment
        seen = [augment(ramp, epoch, "a", 0).astype(int) for epoch in range(60)]
        moved.append(np.mean([np.abs(s - ramp).mean() for s in seen]))
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"transform": "Affin", "p": 0.5}, "got 'Affin'; did you mean 'Affine'?"),
        ({"p": 0.5}, "expected a transform of albumentations, got 'None'"),
        ("Affine", "x: expected a list of transforms, each `transform: NAME` and more"),
        ({"transform": "Compose", "p": 0.5}, "expected a transform of albumentations"),
        ({"transform": "Affine", "rotat": 3}, "got 'rotat'; did you mean 'rotate'?"),
        ({"transform": "Affine", "p": 3}, "x: Affine: a value that it does not take"),
        (
            {"transform": "Affine", "scale": {"up_to": 2}},
            "a value that it does not take: 'neutral'",
        ),
    ],
)
def test_a_preset_with_a_mistake_is_one_line(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(PodiumError) as caught:
        build_transforms("x", [entry], 1.0, (56, 56))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"transform": "RandomCrop", "height": 48, "width": 48, "p": 0.5},
            "RandomCrop: expected size and type of the picture that it is given, 56 x 56 x 3 uint8, "
            "got 48 x 48 x 3 uint8: leave it out; to crop, list RandomResizedCrop with "
            "`size: image_size`",
        ),
        (
            {"transform": "Normalize"},
            "56 x 56 x 3 float32: leave it out: pixels are normalised after augmentation",
        ),
        (
            {"transform": "ToGray", "num_output_channels": 1, "p": 1},
            "got 56 x 56 uint8: leave it out",
        ),
    ],
)
def test_a_preset_that_changes_size_or_type_is_one_line(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], said: str
) -> None:
    assert said in str(refuse(monkeypatch, entry))


def refuse(monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]) -> PodiumError:
    """What is said, in one line, when a preset of this transform alone augments."""
    monkeypatch.setattr(presets, "_read_presets", lambda: {"mine": [entry]})
    augment = make_augment("mine", "none", 0)
    assert augment
    with pytest.raises(PodiumError) as caught:
        draws(augment)
    assert str(caught.value).startswith("augment_presets.yaml: mine: ")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"transform": "RandomCrop", "height": 200, "width": 200, "p": 1},
            "RandomCrop: fails on a picture of 56 x 56 x 3 uint8: Crop size",
        ),
        (
            {"transform": "HistogramMatching", "p": 1},
            "HistogramMatching: fails on a picture of 56 x 56 x 3 uint8: ",
        ),
    ],
)
def test_a_transform_that_fails_on_a_picture_is_one_line(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any], said: str
) -> None:
    """It was built without a complaint: only a picture shows that it cannot be used."""
    error = refuse(monkeypatch, entry)
    assert str(error).startswith(f"augment_presets.yaml: mine: {said}")
    assert error.__cause__ is not None
    assert str(error).endswith(" ".join(str(error.__cause__).split()))


def test_lack_of_memory_is_not_the_presets_fault() -> None:
    def fail(image: Any) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        apply_transform("mine", fail, PICTURE)


def test_crops_keep_the_size_of_each_picture() -> None:
    """Of a ramp from left to right, a piece has a part of the range; the same preset takes any size."""
    augment = make_augment("crops", "none", 0)
    assert augment
    for side in (56, 32):
        row = np.linspace(0, 240, side).astype(np.uint8)
        ramp = np.broadcast_to(row[:, None], (side, side, 3))
        shares = []
        for epoch in range(100):
            made = augment(ramp, epoch, "a", 0)
            assert made.shape == ramp.shape
            shares.append(float(np.ptp(made[side // 2, :, 0].astype(int))) / 240)
        assert 0.4 < min(shares) < 0.8
        assert max(shares) > 0.95


def test_a_checkpoint_of_other_presets_is_not_used(tmp_path: Path) -> None:
    preset = tmp_path / "code" / "data" / "presets.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("light: []\n")
    before = make_training_key({"train": {}}, [tmp_path / "code"], [])
    preset.write_text("light: [{transform: ToGray}]\n")
    assert make_training_key({"train": {}}, [tmp_path / "code"], []) != before


# --- recipes, as their papers say


def test_cutout_is_one_square_of_half_the_side_that_may_hang_over() -> None:
    sizes = Counter(rectangle(holes(d)) for d in draws(recipe("cutout"), 300))
    assert sizes[(28, 28)] > 40
    assert max(max(size) for size in sizes) == 28
    assert min(min(size) for size in sizes) == 14, "the centre is always in the picture"


def test_random_erasing_puts_noise_into_one_rectangle() -> None:
    shares, aspects = [], []
    for changed in draws(recipe("random_erasing"), 200):
        where = (changed != PICTURE).any(axis=2)
        tall, wide = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        box = changed[tall[0] : tall[-1] + 1, wide[0] : wide[-1] + 1]
        shares.append(box.shape[0] * box.shape[1] / 56**2)
        aspects.append(box.shape[0] / box.shape[1])
        assert where[tall[0] : tall[-1] + 1, wide[0] : wide[-1] + 1].mean() > 0.9
        assert 50 < box.std() < 95, "uniform noise of bytes has 74"
    assert 0.015 < min(shares) < 0.06
    assert 0.3 < max(shares) < 0.42
    assert min(aspects) < 0.6
    assert max(aspects) > 2.5


def test_hide_and_seek_hides_half_of_the_cells() -> None:
    hidden = []
    for changed in draws(recipe("hide_and_seek"), 200):
        blank = holes(changed)
        hidden.append(blank.mean())
        # Each cell is hidden or it is not, for one of the paper's grids.
        assert any(
            all(
                cell.all() or not cell.any()
                for band in np.array_split(blank, cells)
                for cell in np.array_split(band, cells, axis=1)
            )
            for cells in (14, 7, 4)
        ) or is_grid_of_5(blank)
    assert np.mean(hidden) == pytest.approx(0.5, abs=0.03)


def is_grid_of_5(blank: Any) -> bool:
    """56 pixels are no multiple of 5 cells: the first pixel of a cell is the one at or after it."""
    edges = [-(-56 * cell // 5) for cell in range(6)]
    cells = [blank[a:b, c:d] for a, b in pairwise(edges) for c, d in pairwise(edges)]
    return all(cell.all() or not cell.any() for cell in cells)


def test_grid_mask_is_a_grid_of_squares() -> None:
    kept = []
    for changed in draws(recipe("grid_mask"), 300):
        blank = holes(changed)
        kept.append(1 - blank.mean())
        rows, columns = blank.any(1), blank.any(0)
        assert np.array_equal(blank, rows[:, None] & columns), "holes stand in rows and columns"
        starts = [np.flatnonzero(np.diff(line.astype(int)) == 1) for line in (rows, columns)]
        pitches = {int(pitch) for line in starts for pitch in np.diff(line)}
        assert len(pitches) <= 1
        assert pitches <= set(range(24, 57))
    # A hole is 0.4 of the pitch on each side: 0.84 is kept on average.
    assert np.mean(kept) == pytest.approx(0.84, abs=0.02)


def test_autoaugment_draws_from_its_25_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(policies._AUTOAUGMENT) == 25
    seen: Counter[tuple[str, float]] = Counter()

    def note(name: str, operation: Any) -> Any:
        def noted(image: Image.Image, level: float) -> Image.Image:
            seen[(name, round(abs(level) * 9))] += 1
            changed: Image.Image = operation(image, level)
            return changed

        return noted

    noting = {name: note(name, operation) for name, operation in policies._OPERATIONS.items()}
    monkeypatch.setattr(policies, "_OPERATIONS", noting)
    draws(recipe("autoaugment"), 2000)
    possible = {(n, lv) for pair in policies._AUTOAUGMENT for n, p, lv in pair if p > 0}
    assert set(seen) == possible
    expected = sum(p for pair in policies._AUTOAUGMENT for _, p, _ in pair) / 25
    assert sum(seen.values()) / 2000 == pytest.approx(expected, abs=0.05)


def test_randaugment_does_two_of_fourteen_alike_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(policies._RANDAUGMENT) == 14
    seen: Counter[str] = Counter()
    levels = set()

    def note(image: Image.Image, name: str, level: float, rng: Any) -> Image.Image:
        seen[name] += 1
        levels.add(level)
        return image

    monkeypatch.setattr(policies, "_apply", note)
    draws(recipe("randaugment"), 1400)
    assert levels == {0.3}
    assert set(seen) == set(policies._RANDAUGMENT) - {"identity"}
    assert all(120 < count < 280 for count in seen.values()), "200 of 2800 draws each"


@pytest.mark.parametrize("name", policies._SIGNED)
def test_operations_that_go_both_ways(name: str) -> None:
    image = Image.fromarray(PICTURE)
    operation = policies._OPERATIONS[name]
    assert np.array_equal(np.asarray(operation(image, 0.0)), np.asarray(image))
    there, back = (np.asarray(operation(image, level)).astype(int) for level in (0.9, -0.9))
    assert not np.array_equal(there, back)
    assert np.abs(there - np.asarray(image)).mean() > 0.5


def test_operations_without_a_sign() -> None:
    image = Image.fromarray(PICTURE)
    posterized = np.asarray(policies._posterize(image, 1.0))
    assert set(np.unique(posterized)) <= set(range(0, 256, 16)), "4 of 8 bits are left"
    solarized = np.asarray(policies._solarize(image, 1.0))
    assert np.array_equal(solarized, 255 - PICTURE)
    assert np.array_equal(
        np.asarray(policies._solarize(image, 0.0)), np.where(PICTURE < 255, PICTURE, 0)
    )
    for name in ("equalize", "autocontrast", "invert"):
        expected = np.asarray(getattr(ImageOps, name)(image))
        assert np.array_equal(np.asarray(policies._OPERATIONS[name](image, 0.5)), expected)


def test_a_list_expanded_ahead_shows_each_picture_again() -> None:
    """`train.views: 2` where all layers learn: two pictures by seed and recipe, whatever the epoch."""
    images = np.stack([PICTURE, PICTURE])
    augment = make_augment("none", "none", 0, recipes=ImageRecipes(random_erasing=1.0))
    size = PICTURE.shape[0]
    as_pixels = Preprocessing(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    source = ViewedImages(ImageSource(images, images, ["a", "b"], as_pixels, augment), 2)

    def see(epoch: int, occurrence: int) -> bytes:
        return source.training_inputs([0, 1], [occurrence, 0], epoch).tobytes()

    assert see(1, 0) == see(3, 0) == see(5, 2)
    assert see(2, 0) == see(4, 0) != see(1, 0)
    assert see(1, 1) != see(1, 0), "a second use in one epoch is the next picture"


def test_views_of_frozen_layers_hold_recipes() -> None:
    images = PICTURE[None]
    made = [
        _make_source(
            images,
            ["a"],
            FeatureRecipe("resnet18", False, 6, 2, "none", "none", 0, recipes),
            56,
            1.0,
        )
        for recipes in (ImageRecipes(), ImageRecipes(cutout=1.0))
    ]
    plain, cut = (source.training_inputs([0], [0], 1) for source in made)
    assert not np.array_equal(plain, cut)
    assert np.array_equal(made[1].plain_inputs([0]), plain)


# --- params


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"augment": "ligth"},
            "none | light | medium | heavy | crops, got 'ligth'; did you mean 'light'?",
        ),
        ({"augment": 3}, "train.augment: expected a valid string, got 3"),
        ({"recipes": {**NO_RECIPES, "mixup": 1.5}}, "train.recipes.mixup: expected less than or"),
        ({"recipes": {**NO_RECIPES, "cutout": -0.1}}, "train.recipes.cutout: expected greater"),
        (
            {"recipes": {**NO_RECIPES, "cutot": 0.1}},
            "'train.recipes.cutot'; did you mean 'cutout'?",
        ),
        (
            {"recipes": {**NO_RECIPES, "mixup": 0.6, "cutmix": 0.5}},
            "train.recipes.cutmix: expected at most 1 - mixup (0.4): a step is mixed one way, got 0.5",
        ),
        ({"augment_until": 0.0}, "train.augment_until: expected greater than 0, got 0.0"),
        ({"augment_until": 1.1}, "train.augment_until: expected less than or equal to 1"),
    ],
)
def test_bad_params_are_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    from ruamel.yaml import YAML

    class Read(Params):
        train: TrainParams

    path = tmp_path / "params.yaml"
    YAML().dump({"train": {**PLAIN, **changes}}, path)
    with pytest.raises(PodiumError) as caught:
        load_params(Read, path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_of_images_are_the_six() -> None:
    given = {name: (number + 1) / 10 for number, name in enumerate(NO_RECIPES)}
    given |= {"mixup": 0.1, "cutmix": 0.2}
    of_images = RecipeParams(**given).of_images()
    acting = [(name, probability) for name, probability, _ in recipes_that_act(of_images)]
    assert acting == [(name, given[name]) for name in RECIPES]


@pytest.mark.parametrize(
    ("until", "epochs", "count"),
    [(1.0, 30, 30), (0.5, 30, 15), (0.7, 10, 7), (0.55, 20, 11), (0.01, 5, 1), (0.34, 3, 2)],
)
def test_recipes_act_in_epochs_that_begin_before_the_share(
    until: float, epochs: int, count: int
) -> None:
    assert count_augmented_epochs(until, epochs) == count


FROZEN = make_plan("all", True, [], [], 32)
LATER_ALL = make_plan("none", True, [(0.0, "head"), (0.5, "all")], [], 32)
WHOLE = make_plan("none", True, [], [], 32)


@pytest.mark.parametrize(
    ("plan", "changes", "views", "until", "said"),
    [
        (FROZEN, {"cutout": 0.5}, 0, 1.0, r"train\.recipes\.cutout: expected 0 while .* got 0\.5"),
        (FROZEN, {"grid_mask": 1.0}, 0, 1.0, r"set train\.views, or model\.freeze: none"),
        (FROZEN, {"cutmix": 0.5}, 4, 1.0, r"train\.recipes\.cutmix: expected 0 while"),
        (FROZEN, {"cutout": 0.5}, 4, 0.5, r"train\.augment_until: expected 1\.0 .* got 0\.5"),
        (LATER_ALL, {"cutout": 0.5}, 4, 0.4, r"train\.augment_until: expected 1\.0 .* got 0\.4"),
        (WHOLE, {"cutout": 0.5}, 4, 0.9, r"train\.augment_until: expected 1\.0 .* got 0\.9"),
        (FROZEN, {}, 4, 0.9, r"while train\.augment or recipes act in train\.views, got 0\.9"),
    ],
)
def test_recipes_that_cannot_act_are_refused(
    plan: Any, changes: dict[str, float], views: int, until: float, said: str
) -> None:
    recipes = params(recipes={**NO_RECIPES, **changes}).recipes
    with pytest.raises(PodiumError, match=said) as caught:
        check_augmentation(plan, "light", recipes, views, until)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("plan", "changes", "views", "until"),
    [
        (FROZEN, {}, 0, 0.5),
        (FROZEN, {"mixup": 1.0}, 0, 0.5),
        (FROZEN, {"mixup": 1.0}, 4, 0.5),
        (WHOLE, {}, 0, 0.5),
        (FROZEN, {"cutout": 0.5, "mixup": 0.5}, 4, 1.0),
        (LATER_ALL, {"cutout": 0.5}, 0, 0.7),
        (LATER_ALL, {"cutout": 0.5, "cutmix": 0.5}, 4, 0.7),
        (WHOLE, {"cutout": 0.5, "cutmix": 0.5}, 0, 0.1),
    ],
)
def test_recipes_that_can_act_are_taken(
    plan: Any, changes: dict[str, float], views: int, until: float
) -> None:
    recipes = params(recipes={**NO_RECIPES, **changes}).recipes
    check_augmentation(plan, "light", recipes, views, until)
    check_image_recipes(plan, recipes.of_images(), views)
