"""splits.csv: stratified, group-aware, balanced, a function of seed and content alone."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.data.splits import describe_gaps, load_splits, make_split_report, make_splits
from podium.data.subset import make_subset
from podium.errors import PodiumError, ProblemsError
from podium.files import write_csv

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def make_train(sizes: dict[str, int], groups: dict[int, str] | None = None) -> pd.DataFrame:
    """Rows of each label; row numbers in `groups` share a group."""
    labels = [label for label, size in sizes.items() for _ in range(size)]
    ids = [f"train/{row:05d}.jpg" for row in range(len(labels))]
    group_ids = [(groups or {}).get(row, image_id) for row, image_id in enumerate(ids)]
    return pd.DataFrame({"image_id": ids, "label": labels, "group_id": group_ids})


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(6, 60), min_size=1)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, folds=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_single_images_are_dealt_out_evenly(sizes: dict[str, int], folds: int, seed: int) -> None:
    train = make_train(sizes)
    splits = make_splits(train, folds, seed, 1.0)
    assert splits["image_id"].tolist() == sorted(train["image_id"])
    rows = splits.merge(train, on="image_id")
    fold_sizes = Counter(rows["fold"])
    assert set(fold_sizes) == set(range(folds))
    assert max(fold_sizes.values()) - min(fold_sizes.values()) <= 1
    for label in sizes:
        counts = Counter(rows.loc[rows["label"] == label, "fold"])
        per_fold = [counts[fold] for fold in range(folds)]
        assert max(per_fold) - min(per_fold) <= 1


@settings(max_examples=60, deadline=None)
@given(
    sizes=SIZES,
    group_numbers=st.lists(st.integers(0, 40), min_size=360, max_size=360),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.randoms(use_true_random=False),
    subset=st.sampled_from([1.0, 0.5]),
)
def test_groups_stay_together_whatever_the_order(
    sizes: dict[str, int],
    group_numbers: list[int],
    seed: int,
    shuffle: random.Random,
    subset: float,
) -> None:
    # Half of the rows are their own group; the others share one, of one or several labels.
    groups = {row: f"g{number}" for row, number in enumerate(group_numbers) if row % 2}
    train = make_train(sizes, groups)
    groups_per_class = train.groupby("label")["group_id"].nunique()
    if groups_per_class.min() < 3:
        with pytest.raises(PodiumError, match=r"groups? that must not be parted"):
            make_splits(train, 3, seed, 1.0)
        return
    splits = make_splits(train, 3, seed, subset)
    rows = splits.merge(train, on="image_id")
    assert rows.groupby("group_id")["fold"].nunique().max() == 1
    order = list(range(len(train)))
    shuffle.shuffle(order)
    again = make_splits(train.iloc[order].reset_index(drop=True), 3, seed, subset)
    pd.testing.assert_frame_equal(splits, again)


def test_as_well_stratified_as_sklearn_with_large_groups() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    draw = random.Random(0)
    train = make_train({"a": 600, "b": 300, "c": 100})
    train["group_id"] = [f"student {draw.randrange(100)}" for _ in range(len(train))]
    ours = make_split_report(train, make_splits(train, 5, 0, 1.0))
    folds = [0] * len(train)
    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, rows) in enumerate(theirs.split(train, train["label"], train["group_id"])):
        for row in rows:
            folds[row] = fold
    reference = make_split_report(
        train, pd.DataFrame({"image_id": train["image_id"], "fold": folds})
    )
    assert ours["max_class_share_deviation"] <= 1.2 * reference["max_class_share_deviation"]
    assert max(ours["fold_sizes"].values()) <= 1.05 * len(train) / 5


def test_seed_decides() -> None:
    train = make_train({"a": 40, "b": 40})
    first, second = (make_splits(train, 4, seed, 1.0)["fold"].tolist() for seed in (0, 1))
    assert first != second
    # The folds themselves, so that a change of method is a decision and no accident.
    assert first[:12] == [3, 0, 3, 0, 1, 2, 0, 3, 3, 3, 2, 0]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    train = make_train({"a": 30, "b": 20})
    for name in ("one.csv", "two.csv"):
        write_csv(tmp_path / name, make_splits(train, 5, 7, 1.0))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert (tmp_path / "one.csv").read_bytes().startswith(b"image_id,fold\ntrain/00000.jpg,")


@pytest.mark.parametrize("share", [0.1, 0.33])
def test_subset_is_stratified_and_keeps_enough_of_small_classes(share: float) -> None:
    train = make_train({"big": 500, "mid": 100, "tiny": 9})
    kept = Counter(make_subset(train, share, 5, 0)["label"])
    assert kept["big"] == -(-500 * share // 1)
    assert kept["mid"] == -(-100 * share // 1)
    assert kept["tiny"] == 5
    assert len(make_splits(train, 5, 0, share)) == kept.total()


def test_smaller_subset_is_part_of_a_larger_one() -> None:
    train = make_train({"a": 300, "b": 50}, {row: f"g{row % 20}" for row in range(0, 300, 3)})
    parts = [set(make_subset(train, share, 2, 3)["image_id"]) for share in (0.1, 0.4, 1.0)]
    assert parts[0] < parts[1] < parts[2]
    for part in parts:
        rows = train[train["image_id"].isin(part)]
        assert len(train[train["group_id"].isin(rows["group_id"])]) == len(rows)


def test_classes_too_small_are_all_named() -> None:
    train = make_train({"fine": 20, "one": 1, "three": 3, "twins": 6}, {24: "t", 25: "t", 26: "t"})
    with pytest.raises(ProblemsError) as caught:
        make_splits(train, 5, 0, 1.0)
    lines = caught.value.problems
    assert len(lines) == 3
    assert lines[0] == (
        "class 'one' has 1 image, expected at least split.folds (5): "
        "add images, or merge or remove the class"
    )
    assert "class 'three' has 3 images" in lines[1]
    assert "set split.folds to 3 or less" in lines[1]
    assert "class 'twins' has 6 images in 4 groups that must not be parted" in lines[2]


def test_no_training_rows() -> None:
    with pytest.raises(PodiumError, match="no training rows"):
        make_splits(make_train({}), 5, 0, 1.0)


def test_report_counts_by_hand() -> None:
    train = make_train({"a": 4, "b": 2}, {0: "g", 1: "g"})
    splits = pd.DataFrame({"image_id": train["image_id"], "fold": [0, 0, 1, 1, 0, 0]})
    assert make_split_report(train, splits) == {
        "n_images": 6,
        "n_groups": 5,
        "largest_group": 2,
        "max_class_share_deviation": 0.333333,  # b: 0 of fold 1, 1/3 of all
        "fold_sizes": {"0": 4, "1": 2},
        "class_counts": {"a": [2, 2], "b": [2, 0]},
    }


def test_a_fold_without_a_class_is_told() -> None:
    train = pd.DataFrame(
        {"image_id": list("abcdef"), "group_id": list("aabbcd"), "label": list("xyxyxz")}
    )
    splits = pd.DataFrame({"image_id": list("abcdef"), "fold": [0, 0, 1, 1, 2, 0]})
    assert describe_gaps(make_split_report(train, splits)) == [
        "no image of class y in folds [2]: scores there leave it out",
        "no image of class z in folds [1, 2]: scores there leave it out",
    ]
    assert describe_gaps(make_split_report(train[:4], splits[:4])) == []


def test_load_splits_round_trip(tmp_path: Path) -> None:
    splits = make_splits(make_train({"NA": 6, "b": 6}), 2, 0, 1.0)
    write_csv(tmp_path / "splits.csv", splits)
    pd.testing.assert_frame_equal(load_splits(tmp_path / "splits.csv"), splits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing or empty: run `dvc repro split`"),
        ("image_id,part\na,0\n", "expected columns image_id, fold, got image_id, part"),
        ("image_id,fold\na,x\n", "expected fold numbers"),
        ("image_id,fold\na,0\na,1\n", "expected each image_id once"),
    ],
)
def test_load_splits_errors(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "splits.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PodiumError, match=message):
        load_splits(path)


def test_real_lemon_folds() -> None:
    path = DATA / "lemon" / "train_images.csv"
    if not path.exists():
        pytest.skip("the real lemon set is not on this machine")
    with path.open() as stream:
        rows = list(csv.reader(stream))
    train = pd.DataFrame(rows, columns=["image_id", "label"])
    train["group_id"] = train["image_id"]
    report = make_split_report(train, make_splits(train, 5, 0, 1.0))
    assert sorted(report["fold_sizes"].values()) == [176, 176, 176, 177, 177]
    assert report["max_class_share_deviation"] < 0.005
