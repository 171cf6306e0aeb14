"""params.yaml: strict, typed, frozen, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from podium.data.image_size import choose_image_size
from podium.data.params import SplitParams
from podium.engine.fit import choose_epochs
from podium.engine.params import TrainParams
from podium.engine.phases import count_views, make_plan
from podium.errors import PodiumError, ProblemsError
from podium.params import ChosenImageSize, Epochs, LearningRate, Params, Seed, load_params


class Read(Params):
    seed: Seed
    lr: LearningRate
    split: SplitParams


GOOD = "seed: 0\nlr: 3e-4\nsplit:\n  folds: 5\n  val_fold: 0\n"


def load(tmp_path: Path, text: str) -> Read:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_params(Read, path)


@pytest.mark.parametrize("typed", ["3e-4", "3e-04", "3.0e-4", "0.0003"])
def test_scientific_notation_is_a_number(tmp_path: Path, typed: str) -> None:
    assert load(tmp_path, GOOD.replace("3e-4", typed)).lr == 3e-4


def test_frozen(tmp_path: Path) -> None:
    params = load(tmp_path, GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        params.split.folds = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD.replace("folds", "fold"), "unknown key 'split.fold'; did you mean 'folds'?"),
        (GOOD + "sede: 1\n", "unknown key 'sede'; did you mean 'seed'?"),
        (GOOD.replace("folds: 5", "folds: five"), "split.folds: expected a valid integer"),
        (GOOD.replace("folds: 5", "folds: '5'"), "split.folds: expected a valid integer"),
        (GOOD.replace("folds: 5", "folds: 1"), "greater than or equal to 2, got 1"),
        (GOOD.replace("folds: 5", "folds: true"), "split.folds: expected a valid integer"),
        (GOOD.replace("val_fold: 0", "val_fold: 5"), "split.val_fold below split.folds (5), got 5"),
        (GOOD.replace("seed: 0", "seed: -1"), "seed: expected greater than or equal to 0, got -1"),
        (GOOD.replace("lr: 3e-4", "lr: 0"), "lr: expected greater than 0, got 0"),
        (GOOD.replace("lr: 3e-4", "lr: .nan"), "lr: expected"),
        (GOOD.replace("seed: 0\n", ""), "seed is missing"),
        ("- a\n- b\n", "expected `key: value` lines, got list"),
        ("seed: [\n", "line 2, column 1: not valid YAML"),
        ("seed: 0\nseed: 1\n", "not valid YAML"),
        ("", "got NoneType"),
    ],
)
def test_bad_input_is_one_line_with_key_and_value(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(PodiumError) as caught:
        load(tmp_path, text)
    assert line in str(caught.value)
    assert "params.yaml" in str(caught.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("folds: 5", "folds: 1").replace("lr: 3e-4", "lr: high")
    with pytest.raises(ProblemsError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == 2


def test_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="run from the top folder"):
        load_params(Read, tmp_path / "params.yaml")


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes("seed: 0 # \xe9\n".encode("latin-1"))
    with pytest.raises(PodiumError, match="not UTF-8"):
        load_params(Read, tmp_path / "params.yaml")


def test_nan_is_refused_in_every_section() -> None:
    with pytest.raises(ValidationError):
        TrainParams(
            optimizer="adamw",
            momentum=0.9,
            weight_decay=float("nan"),
            schedule="cosine",
            warmup_epochs=1.0,
            label_smoothing=0.1,
            augment="none",
            flip="none",
            patience=0,
        )


class _WithEpochs(Params):
    epochs: Epochs


@pytest.mark.parametrize(("text", "epochs"), [("auto", None), ("30", 30)])
def test_epochs_may_be_left_to_podium(tmp_path: Path, text: str, epochs: int | None) -> None:
    (tmp_path / "params.yaml").write_text(f"epochs: {text}\n")
    assert load_params(_WithEpochs, tmp_path / "params.yaml").epochs == epochs


@pytest.mark.parametrize("text", ["", "0", "2.5", "Auto"])
def test_epochs_that_are_neither_a_number_nor_auto(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(f"epochs: {text}\n")
    with pytest.raises(PodiumError, match=r"params\.yaml: epochs: expected"):
        load_params(_WithEpochs, tmp_path / "params.yaml")


def test_auto_epochs_show_a_net_as_many_pictures_whatever_the_list() -> None:
    """Within bounds, fewer where models are averaged; a number is obeyed, and a head on features
    that are there costs nothing."""
    lists = {0: ["a"] * 1000, 1: ["a"] * 1800}
    assert choose_epochs(None, "trunk", {1: ["a"] * 2000}) == 8
    assert choose_epochs(None, "trunk", lists) == 5  # by the longest of them
    assert choose_epochs(None, "none", {0: ["a"]}) == 30
    assert choose_epochs(None, "trunk", {0: ["a"] * 1_000_000}) == 3
    assert choose_epochs(None, "all", lists) == 30
    assert choose_epochs(7, "trunk", lists) == 7


class _WithImageSize(Params):
    image_size: ChosenImageSize


@pytest.mark.parametrize(("text", "size_px"), [("auto", None), ("96", 96)])
def test_the_image_size_may_be_left_to_podium(
    tmp_path: Path, text: str, size_px: int | None
) -> None:
    (tmp_path / "params.yaml").write_text(f"image_size: {text}\n")
    assert load_params(_WithImageSize, tmp_path / "params.yaml").image_size == size_px


@pytest.mark.parametrize("text", ["", "33", "2000", "Auto", "[64]"])
def test_an_image_size_that_no_net_has(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(f"image_size: {text}\n")
    with pytest.raises(PodiumError, match=r"params\.yaml: image_size: expected"):
        load_params(_WithImageSize, tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("sizes", "size_px"),
    [
        ([(100, 100)], 96),
        ([(20, 20)], 64),
        ([(4000, 3000)], 160),
        ([(96, 400)], 96),
        ([(100, 100), (100, 100), (640, 640)], 96),  # the odd large one changes nothing
    ],
)
def test_auto_image_size_enlarges_nothing_but_thumbnails(
    sizes: list[tuple[int, int]], size_px: int
) -> None:
    rows = pd.DataFrame(sizes, columns=["width", "height"])
    assert choose_image_size(None, rows) == size_px
    assert choose_image_size(160, rows) == 160


@pytest.mark.parametrize(
    ("views", "n_images", "count"),
    [
        (None, 800, 6),
        (None, 6_666, 6),
        (None, 6_667, 5),  # as params.yaml says
        (None, 13_110, 3),
        (None, 10**6, 2),
        (0, 9, 0),
    ],
)
def test_auto_views_are_fewer_where_images_are_many(
    views: int | None, n_images: int, count: int
) -> None:
    plan = make_plan("trunk", True, [], [], 32)
    assert count_views(plan, views, n_images) == count


@pytest.mark.parametrize(("views", "count"), [(None, 0), (0, 0), (4, 4)])
def test_where_nothing_is_frozen_only_a_number_fixes_the_pictures(
    views: int | None, count: int
) -> None:
    assert count_views(make_plan("none", True, [], [], 32), views, 800) == count
