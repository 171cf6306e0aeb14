"""train_list.csv: the label shuffling of PaddlePaddle's course, and its generalisation."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.data.label_shuffle import (
    label_shuffle,
    load_train_lists,
    make_label_shuffle_report,
    make_train_lists,
    make_train_rows,
    rows_per_class,
    write_train_lists,
)
from podium.data.manifest import COLUMNS
from podium.errors import PodiumError

ROOT = Path(__file__).resolve().parents[1]
SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 50), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


def make_rows(sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    labels = [label for label, size in sizes.items() for _ in range(size)]
    return [f"img {row}" for row in range(len(labels))], labels


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, seed=SEEDS, shuffle=st.randoms(use_true_random=False))
def test_full_balance(sizes: dict[str, int], seed: int, shuffle: random.Random) -> None:
    ids, labels = make_rows(sizes)
    listed = label_shuffle(ids, labels, 1.0, seed)
    largest = max(sizes.values())
    label_of = dict(zip(ids, labels, strict=True))
    assert Counter(label_of[name] for name in listed) == dict.fromkeys(sizes, largest)
    times = Counter(listed)
    assert set(times) == set(ids)
    for name, label in label_of.items():
        assert times[name] in (largest // sizes[label], -(-largest // sizes[label]))
    pairs = list(zip(ids, labels, strict=True))
    shuffle.shuffle(pairs)
    again = label_shuffle([name for name, _ in pairs], [label for _, label in pairs], 1.0, seed)
    assert again == listed


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, seed=SEEDS, balance=st.floats(0, 1))
def test_any_balance(sizes: dict[str, int], seed: int, balance: float) -> None:
    ids, labels = make_rows(sizes)
    listed = label_shuffle(ids, labels, balance, seed)
    largest = max(sizes.values())
    label_of = dict(zip(ids, labels, strict=True))
    times = Counter(listed)
    for label, size in sizes.items():
        rows = round(size ** (1 - balance) * largest**balance)
        assert size <= rows <= largest
        members = [name for name in ids if label_of[name] == label]
        assert sum(times[name] for name in members) == rows
        assert {times[name] for name in members} <= {rows // size, -(-rows // size)}


def test_no_balance_lists_each_image_once_in_random_order() -> None:
    ids, labels = make_rows({"a": 50, "b": 3})
    listed = label_shuffle(ids, labels, 0.0, 0)
    assert sorted(listed) == sorted(ids)
    assert listed != sorted(listed)


def test_rows_are_mixed_and_seeded() -> None:
    ids, labels = make_rows({"a": 100, "b": 10})
    first, second = (label_shuffle(ids, labels, 1.0, seed) for seed in (0, 1))
    assert first != second
    label_of = dict(zip(ids, labels, strict=True))
    head = Counter(label_of[name] for name in first[:100])
    assert 30 <= head["b"] <= 70


def test_rows_per_class_by_hand() -> None:
    assert rows_per_class({"a": 400, "b": 100, "c": 1}, 0.5) == {"a": 400, "b": 200, "c": 20}
    assert rows_per_class({"a": 1154, "b": 9}, 1.0) == {"a": 1154, "b": 1154}
    assert rows_per_class({"a": 1154, "b": 9}, 0.0) == {"a": 1154, "b": 9}


def test_nothing_from_val() -> None:
    ids, labels = make_rows({"a": 12, "b": 6})
    manifest = pd.DataFrame({"image_id": [*ids, "test 0"], "label": [*labels, ""]})
    splits = pd.DataFrame({"image_id": ids[:-1], "fold": [row % 3 for row in range(len(ids) - 1)]})
    rows = make_train_rows(manifest, splits, 1)
    kept = set(rows["image_id"])
    assert kept == set(splits.loc[splits["fold"] != 1, "image_id"])
    assert set(label_shuffle(rows["image_id"], rows["label"], 1.0, 0)) == kept


def test_val_fold_must_exist() -> None:
    splits = pd.DataFrame({"image_id": ["a", "b"], "fold": [0, 1]})
    manifest = pd.DataFrame({"image_id": ["a", "b"], "label": ["x", "x"]})
    with pytest.raises(PodiumError, match=r"split.val_fold: expected a fold .* \(0 to 1\), got 4"):
        make_train_rows(manifest, splits, 4)
    with pytest.raises(PodiumError, match=r"'b' is not in data/manifest\.csv"):
        make_train_rows(manifest[:1], splits, 0)


def test_report() -> None:
    assert make_label_shuffle_report(["b", "a", "a"], ["a", "a", "b", "b"]) == {
        "images": 3,
        "rows": 4,
        "images_per_class": {"a": 2, "b": 1},
        "rows_per_class": {"a": 2, "b": 2},
    }


def test_train_lists(tmp_path: Path) -> None:
    path = tmp_path / "train_list.csv"
    with pytest.raises(PodiumError, match="is missing"):
        load_train_lists(path)
    for bad in ("image_id,val_fold\n", "image_id\nb.jpg\n", "image_id,val_fold\nb.jpg,x\n"):
        path.write_text(bad)
        with pytest.raises(PodiumError, match="expected rows of image_id and a fold's number"):
            load_train_lists(path)
    lists = {0: ["b.jpg", "NA", "b.jpg"], 3: ["c,d"]}
    write_train_lists(path, lists)
    assert load_train_lists(path) == lists


def test_all_folds_are_held_out_once() -> None:
    ids, labels = make_rows({"a": 12, "b": 6})
    manifest = pd.DataFrame({"image_id": ids, "label": labels})
    splits = pd.DataFrame({"image_id": ids, "fold": [row % 3 for row in range(len(ids))]})
    lists, report = make_train_lists(manifest, splits, "all", 1.0, 0)
    assert list(lists) == [0, 1, 2]
    for fold, listed in lists.items():
        assert set(listed) == set(splits.loc[splits["fold"] != fold, "image_id"])
        (one,) = make_train_lists(manifest, splits, fold, 1.0, 0)[0].values()
        assert one == listed
    assert report["images"] == 18
    assert report["rows"] == sum(map(len, lists.values()))


PARAMS = """\
seed: 3
data: {subset: 1.0}
split: {folds: 5, val_fold: 1}
label_shuffle: {balance: 1.0}
"""
HEADER = ",".join(COLUMNS)


def write_manifest(folder: Path, sizes: dict[str, int]) -> None:
    """data/manifest.csv of as many images of each class; every third shares a group with a twin."""
    ids, labels = make_rows(sizes)
    groups = [ids[number - number % 3 // 2] for number in range(len(ids))]
    rows = [
        f"{name},{name},raw/{name},{number:064x},{number:x},9,9,{label},,{group},train,"
        for number, (name, label, group) in enumerate(zip(ids, labels, groups, strict=True))
    ]
    rows = [*sorted(rows), f"test 0,test 0,raw/test 0,{99999:064x},f,9,9,,,test 0,test,"]
    (folder / "data").mkdir()
    (folder / "data/manifest.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def run_stage(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"stages.{name}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def read_column(path: Path, column: str) -> list[str]:
    with path.open(newline="") as stream:
        return [row[column] for row in csv.DictReader(stream)]


def test_the_two_stages(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"0": 60, "1": 30})
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name in ("split", "label_shuffle"):
        done = run_stage(name, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{name}: 90 " if name == "split" else f"{name}: 7")
    folds = dict(
        zip(
            read_column(tmp_path / "data/splits.csv", "image_id"),
            read_column(tmp_path / "data/splits.csv", "fold"),
            strict=True,
        )
    )
    listed = read_column(tmp_path / "data/train_list.csv", "image_id")
    assert set(listed) == {name for name, fold in folds.items() if fold != "1"}
    report = json.loads((tmp_path / "metrics/label_shuffle.json").read_text())
    assert report["rows"] == len(listed) == 2 * report["details"][0]["images_per_class"]["0"]
    assert json.loads((tmp_path / "metrics/split.json").read_text())["n_images"] == 90


def test_a_stage_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"0": 9, "1": 1})
    (tmp_path / "params.yaml").write_text(PARAMS)
    done = run_stage("split", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: split: class '1' has 1 image, expected at least")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data/splits.csv").exists()
