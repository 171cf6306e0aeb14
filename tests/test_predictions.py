"""predictions/*.csv: exactly the ids asked for, exactly the floats written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from podium.data.predictions import load_predictions, write_predictions
from podium.errors import PodiumError, ProblemsError

CLASSES = ("good", "not, good", "3")


def test_round_trip_is_exact_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    draw = np.random.default_rng(0)
    values = draw.dirichlet([0.05, 1, 3], 200)
    values[0] = [1, 0, 0]
    ids = [f"train/{number} ü.jpg" for number in draw.permutation(200)]
    write_predictions(path, ids, values, CLASSES)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == 'image_id,p_good,"p_not, good",p_3'
    assert [line.split(",")[0] for line in lines[1:]] == sorted(ids)
    assert np.array_equal(load_predictions(path, ids, CLASSES), values)
    assert np.array_equal(load_predictions(path, ids[::-1], CLASSES), values[::-1])


def test_float32_is_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).dirichlet([1, 1], 5).astype(np.float32)
    write_predictions(tmp_path / "a.csv", list("abcde"), values, ("x", "y"))
    loaded = load_predictions(tmp_path / "a.csv", list("abcde"), ("x", "y"))
    assert loaded.dtype == np.float64
    assert np.array_equal(loaded, values.astype(np.float64))


def test_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    values = np.array([[0.25, 0.75], [1.0, 0.0]])
    write_predictions(tmp_path / "a.csv", ["a", "b"], values, ("x", "y"))
    write_predictions(tmp_path / "b.csv", ["b", "a"], values[::-1], ("x", "y"))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize(
    ("ids", "values"),
    [
        (["a", "a"], [[0.5, 0.5], [0.5, 0.5]]),
        (["a", "b"], [[0.5, 0.5], [0.5, float("nan")]]),
        (["a", "b"], [[0.5, 0.5], [0.5, 0.6]]),
        (["a", "b"], [[0.5, 0.5], [-0.5, 1.5]]),
        (["a", "b"], [[0.5, 0.5]]),
    ],
)
def test_our_own_mistakes_are_not_written(
    tmp_path: Path, ids: list[str], values: list[list[float]]
) -> None:
    with pytest.raises(ValueError, match=r"twice|not probabilities|values for 2 x 2"):
        write_predictions(tmp_path / "a.csv", ids, np.array(values), ("x", "y"))
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing or empty"),
        ("", "is missing or empty"),
        ("image_id,p_x\na,1\nb,1\n", "expected columns image_id, p_x, p_y, got image_id, p_x"),
        ("image_id,p_x,p_y\na,0.5,0.5\n", "'b' is missing"),
        ("image_id,p_x,p_y\na,0.5,0.5\nb,0.5,0.5\nc,0.5,0.5\n", "'c' was not asked for"),
        ("image_id,p_x,p_y\na,0.5,0.5\nb,0.5,0.5\nb,0.5,0.5\n", "'b' occurs twice"),
        ("image_id,p_x,p_y\na,0.5,0.5\nb,,0.5\n", "'b': expected numbers from 0 to 1"),
        ("image_id,p_x,p_y\na,0.5,0.5\nb,nan,0.5\n", "'b': expected numbers from 0 to 1"),
        ("image_id,p_x,p_y\na,0.5,0.5\nb,0.5,0.52\n", "'b': probabilities sum to 1.0200"),
    ],
)
def test_errors_name_the_image(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "val.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PodiumError, match=message):
        load_predictions(path, ["a", "b"], ("x", "y"))


def test_all_problems_at_once(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("image_id,p_x,p_y\nc,0.5,0.5\nc,0.5,0.5\n")
    with pytest.raises(ProblemsError) as caught:
        load_predictions(tmp_path / "val.csv", ["a", "b"], ("x", "y"))
    assert len(caught.value.problems) == 4
