"""What is listed, what is wrong with it, and the manifest: everything found at once."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from podium.data.duplicates import ACROSS, WITHIN_TRAIN, find_duplicates, make_group_ids
from podium.data.inspection import inspect_file, inspect_files
from podium.data.listing import load_listing
from podium.data.manifest import (
    COLUMNS,
    PROBLEM_COLUMNS,
    Assembly,
    load_manifest,
    make_manifest,
    make_problem_table,
)
from podium.data.params import NO_RULES, CompetitionParams
from podium.errors import PodiumError, ProblemsError
from podium.files import write_csv

SOURCE = "data/raw"


def write_image(path: Path, seed: int, side: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


class Competition:
    """A competition in a folder of its own: 6 training images in 2 classes, 3 test images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / SOURCE
        for number in range(6):
            write_image(self.raw / f"train/a{number}.png", number)
        for number in range(3):
            write_image(self.raw / f"test/t{number}.png", 100 + number)
        self.train = [f"a{number}.png,{number % 2}" for number in range(6)]
        self.sample: list[str] | None = None
        self.settings: dict[str, Any] = {
            "name": "toy",
            "task": "classification",
            "source": SOURCE,
            "train_csv": "train.csv",
            "train_images": "train",
            "test_images": "test",
            "csv_header": False,
            "id_column": 0,
            "label_column": 1,
            "group_column": None,
            "sample_submission": None,
            "sample_header": False,
            "classes": ["0", "1"],
            "ordinal": False,
            "submission": "label",
            "rules": NO_RULES,
        }

    def assemble(self, on_problem: str = "stop") -> Assembly:
        (self.raw / "train.csv").write_text("".join(f"{line}\n" for line in self.train))
        if self.sample is not None:
            self.settings["sample_submission"] = "sample.csv"
            (self.raw / "sample.csv").write_text("".join(f"{line}\n" for line in self.sample))
        params = CompetitionParams.model_validate(self.settings)
        listing = load_listing(self.root, params)
        facts = inspect_files([self.raw / row.image_id for row in listing.rows])
        assert on_problem in ("stop", "drop")
        return make_manifest(listing, facts, SOURCE, on_problem)  # type: ignore[arg-type]

    def problems(self) -> list[str]:
        with pytest.raises(ProblemsError) as caught:
            self.assemble()
        return list(caught.value.problems)


@pytest.fixture
def toy(tmp_path: Path) -> Competition:
    return Competition(tmp_path)


def test_manifest_has_one_checked_row_per_image(toy: Competition) -> None:
    toy.train.reverse()
    assembly = toy.assemble()
    manifest = assembly.manifest
    assert tuple(manifest.columns) == COLUMNS
    assert list(manifest["image_id"]) == [
        *(f"train/a{n}.png" for n in range(6)),
        *(f"test/t{n}.png" for n in range(3)),
    ]
    first = manifest.iloc[0]
    assert first["listed_id"] == "a0.png"
    assert first["path"] == "data/raw/train/a0.png"
    assert (first["width"], first["height"], first["label"]) == (20, 20, "0")
    assert first["group_id"] == first["image_id"]
    assert (manifest["problem"] == "").all()
    assert assembly.problems == []


def test_manifest_survives_the_disk(toy: Competition, tmp_path: Path) -> None:
    manifest = toy.assemble().manifest
    path = tmp_path / "manifest.csv"
    write_csv(path, manifest)
    loaded = load_manifest(path)
    assert loaded.equals(manifest.astype({"width": "int64", "height": "int64"}))
    assert loaded["width"].dtype == np.int64
    assert list(loaded.loc[loaded["source"] == "test", "label"]) == ["", "", ""]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sha256", "sha", "expected the columns"),
        (",20,20,", ",20,twenty,", "line 2: height: expected a whole number"),
        ("train/a1.png,", "train/a0.png,", "occurs twice"),
        (",test,", ",probe,", "source: expected train or test"),
    ],
)
def test_damaged_manifest_is_named(
    toy: Competition, tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = tmp_path / "manifest.csv"
    write_csv(path, toy.assemble().manifest)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PodiumError, match=words):
        load_manifest(path)


def test_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="dvc repro eda"):
        load_manifest(tmp_path / "none.csv")


def test_all_problems_come_together_with_file_and_line(toy: Competition) -> None:
    toy.train += ["a1.png,1", "a9.png,1", "a2.png,0"]
    toy.train[0], toy.train[3], toy.train[4] = "a0.png,1.0", "a3.png,", "a4.png,zero"
    (toy.raw / "train/a5.png").write_bytes(b"")
    toy.sample = ["t0.png,0", "t1.png,0", "t7.png,0"]
    problems = toy.problems()
    expected = [
        ("train.csv, line 1", "label '1.0': expected one of 0, 1; did you mean '1'?"),
        ("train.csv, line 4", "the label is missing: expected one of 0, 1"),
        ("train.csv, line 5", "label 'zero': expected one of 0, 1"),
        ("train.csv, line 7", "id 'a1.png' is already on line 2"),
        ("train.csv, line 8", "id 'a9.png' has no image file"),
        ("train.csv, line 9", "id 'a2.png' is already on line 3"),
        ("sample.csv, line 3", "id 't7.png' has no image file"),
        ("test/t2.png", "the test image is not in sample.csv"),
        ("train/a5.png", "the file is empty (0 bytes)"),
    ]
    assert len(problems) == len(expected)
    for line, (place, words) in zip(problems, expected, strict=True):
        assert line.startswith(f"data/raw/{place}: ")
        assert words in line


def test_drop_leaves_training_rows_out_and_keeps_test_rows(toy: Competition) -> None:
    toy.train[0] = "a0.png,7"
    (toy.raw / "train/a5.png").write_bytes(b"no image")
    (toy.raw / "test/t1.png").write_bytes(b"")
    toy.sample = ["t0.png,0", "t1.png,0", "t9.png,0"]
    assembly = toy.assemble("drop")
    manifest = assembly.manifest.set_index("image_id")
    assert list(manifest.index[manifest["source"] == "train"]) == [
        f"train/a{n}.png" for n in (1, 2, 3, 4)
    ]
    test = manifest[manifest["source"] == "test"]
    assert list(test.index) == ["test/t0.png", "test/t1.png", "test/t9.png"]
    assert test["problem"].str.len().gt(0).tolist() == [False, True, True]
    assert list(test["listed_id"]) == ["t0.png", "t1.png", "t9.png"]
    assert (test.loc["test/t1.png", ["width", "height"]] == 0).all()
    assert assembly.n_train_dropped == 2
    table = make_problem_table(assembly.problems)
    assert tuple(table.columns) == PROBLEM_COLUMNS
    actions = dict(zip(table["image_id"], table["action"], strict=True))
    assert actions == {
        "train/a0.png": "dropped",
        "train/a5.png": "dropped",
        "test/t1.png": "kept: gets the class prior",
        "test/t9.png": "kept: gets the class prior",
        "test/t2.png": "left out: the sample does not ask for it",
    }
    assert table.set_index("image_id").loc["train/a0.png", "row"] == "1"


def test_repeated_id_keeps_one_row_unless_the_labels_differ(toy: Competition) -> None:
    toy.train += ["a0.png,0", "a1.png,0"]
    manifest = toy.assemble("drop").manifest
    kept = list(manifest.loc[manifest["source"] == "train", "image_id"])
    assert kept == [f"train/a{n}.png" for n in (0, 2, 3, 4, 5)]


def test_dropping_all_of_a_class_but_one_is_an_error(toy: Competition) -> None:
    toy.train = [line.replace(",1", ",x") for line in toy.train]
    with pytest.raises(PodiumError, match="3 problems: .* of 1 classes: expected at least 2"):
        toy.assemble("drop")


def test_header_mistakes_are_named_both_ways(toy: Competition) -> None:
    toy.train.insert(0, "file,label")
    with pytest.raises(PodiumError, match="set competition.csv_header: true"):
        toy.assemble()
    toy.train.pop(0)
    toy.settings.update(csv_header=True, id_column="file", label_column="label")
    with pytest.raises(PodiumError, match="set competition.csv_header: false"):
        toy.assemble()


def test_header_of_the_sample_is_checked_too(toy: Competition) -> None:
    toy.sample = ["id,label", "t0.png,0", "t1.png,0", "t2.png,0"]
    with pytest.raises(PodiumError, match="set competition.sample_header: true"):
        toy.assemble()


def test_a_sample_may_head_classes_as_images_are_named(toy: Competition) -> None:
    for number in range(3):
        (toy.raw / f"test/t{number}.png").rename(toy.raw / f"test/{number}.png")
    toy.sample = ["id,0,1", "0,0.5,0.5", "1,0.5,0.5", "2,0.5,0.5"]
    toy.settings |= {"submission": "probability", "sample_header": True}
    assert toy.assemble().manifest["listed_id"].tolist()[6:] == ["0", "1", "2"]
    toy.settings["sample_header"] = False
    with pytest.raises(PodiumError, match="set competition.sample_header: true"):
        toy.assemble()


def test_columns_by_name_with_a_hint(toy: Competition) -> None:
    toy.train = ["label,file", *(",".join(reversed(line.split(","))) for line in toy.train)]
    toy.settings.update(csv_header=True, id_column="file", label_column="label")
    assert len(toy.assemble().manifest) == 9
    toy.settings["label_column"] = "lable"
    with pytest.raises(PodiumError, match=r"did you mean 'label'.*competition\.label_column"):
        toy.assemble()


def test_sample_may_hold_its_ids_in_any_column(toy: Competition) -> None:
    toy.sample = ["0,t2.png", "0,t1.png", "0,t0.png"]
    assert toy.assemble().manifest["listed_id"].tolist()[6:] == ["t0.png", "t1.png", "t2.png"]


def test_labels_that_name_test_images_are_no_ids(toy: Competition) -> None:
    for number in range(3):
        (toy.raw / f"test/t{number}.png").rename(toy.raw / f"test/{number}.png")
    toy.settings["sample_header"] = True
    toy.sample = ["label,id", "0,0", "0,1", "0,2"]
    assert toy.assemble().manifest["listed_id"].tolist()[6:] == ["0", "1", "2"]
    toy.sample = ["id,label", "0,0", "1,0", "2,0", "3,0"]
    assert toy.problems() == ["data/raw/sample.csv, line 5: id '3' has no image file"]


def test_sample_with_an_id_twice_is_refused(toy: Competition) -> None:
    toy.sample = ["t0.png,0", "t1.png,0", "t0.png,1", "t2.png,0"]
    with pytest.raises(PodiumError, match=r"line 3: id 't0.png' is already on line 1"):
        toy.assemble("drop")


def test_empty_csv_and_missing_folder(toy: Competition) -> None:
    toy.train = []
    with pytest.raises(PodiumError, match="empty"):
        toy.assemble()
    toy.settings["test_images"] = "tests"
    with pytest.raises(PodiumError, match=r"data/raw/tests is no folder.*test_images"):
        toy.assemble()


def test_image_in_both_lists_is_refused(toy: Competition) -> None:
    toy.settings["test_images"] = "train"
    toy.sample = ["a0.png,0"]
    with pytest.raises(PodiumError, match="is a training and a test image"):
        toy.assemble()


def test_one_folder_for_both_lists(toy: Competition) -> None:
    toy.settings["test_images"] = "train"
    toy.train, toy.sample = toy.train[:4], ["a4.png,0", "a5.png,0"]
    manifest = toy.assemble().manifest
    assert manifest["source"].tolist() == ["train"] * 4 + ["test"] * 2


def test_class_folders(toy: Competition) -> None:
    for number in range(4):
        write_image(toy.raw / f"folders/{'cat' if number % 2 else 'dög 1'}/{number}.png", number)
    toy.settings.update(
        train_csv=None,
        train_images="folders",
        classes=["cat", "dög 1"],
    )
    manifest = toy.assemble().manifest
    assert manifest["label"].tolist()[:4] == ["cat", "cat", "dög 1", "dög 1"]
    write_image(toy.raw / "folders/cats/9.png", 9)
    write_image(toy.raw / "folders/loose.png", 9)
    problems = toy.problems()
    assert "stands in no class folder" in problems[0]
    assert problems[1].startswith("data/raw/folders/cats: folder of 1 images: label 'cats'")
    assert problems[1].endswith("did you mean 'cat'?")
    assert toy.assemble("drop").n_train_dropped == 2


def test_groups_of_class_folders_are_refused(toy: Competition) -> None:
    toy.settings.update(train_csv=None, group_column="patient")
    words = r"group_column empty without a train_csv.*got 'patient'.*set competition\.train_csv"
    with pytest.raises(ValueError, match=words):
        toy.assemble()


def test_test_folder_inside_the_class_folders_is_no_class(toy: Competition) -> None:
    for number in range(4):
        write_image(toy.raw / f"all/{number % 2}/{number}.png", number)
    write_image(toy.raw / "all/test/t.png", 9)
    toy.settings.update(train_csv=None, train_images="all", test_images="all/test")
    assert toy.assemble().manifest["source"].tolist() == ["train"] * 4 + ["test"]


def test_unlisted_files_are_a_note(toy: Competition) -> None:
    toy.train = toy.train[:5]
    (toy.raw / "train/notes.txt").write_text("hello")
    (toy.raw / "train.csv").write_text("\n".join(toy.train))
    listing = load_listing(toy.root, CompetitionParams.model_validate(toy.settings))
    assert listing.problems == []
    assert listing.odd_files == ["train/a5.png: no list names it", "train/notes.txt: no image"]


def test_equal_pixels_and_equal_groups_stay_together(toy: Competition) -> None:
    # a0 = a1 by pixels (other bytes); a1 ~ a2 by group; a5 = a test image, which ties nothing.
    Image.open(toy.raw / "train/a0.png").save(toy.raw / "train/a1.png", compress_level=0)
    Image.open(toy.raw / "test/t0.png").save(toy.raw / "train/a5.png")
    groups = ["", "g", "g ", "", "h", ""]  # a blank behind a name parts no patient
    toy.train = [f"{line},{group}" for line, group in zip(toy.train, groups, strict=True)]
    toy.settings["group_column"] = 2
    manifest = toy.assemble().manifest.set_index("image_id")
    assert manifest.loc["train/a0.png", "sha256"] != manifest.loc["train/a1.png", "sha256"]
    assert manifest["group_id"].tolist() == [
        *["train/a0.png"] * 3,
        "train/a3.png",
        "train/a4.png",
        "train/a5.png",
        *(f"test/t{n}.png" for n in range(3)),
    ]
    duplicates = find_duplicates(manifest.reset_index())
    assert [(group.place, group.conflicting) for group in duplicates] == [
        (ACROSS, False),
        (WITHIN_TRAIN, True),
    ]


def test_nearly_equal_large_images_are_not_duplicates(tmp_path: Path) -> None:
    """One pixel of 512 x 512 vanishes in a JPEG decoded to an eighth; it must still count."""
    pixels = np.full((512, 512), 128, dtype=np.uint8)
    other = pixels.copy()
    other[8:16:2, 8:16:2] = 140
    other[9:16:2, 9:16:2] = 116
    for name, values in (("a", pixels), ("b", other), ("c", other)):
        Image.fromarray(values).save(tmp_path / f"{name}.jpg", quality=95)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "b.jpg").read_bytes() + b"\0")
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    alone = [inspect_file(path).pixel_hash for path in paths]
    assert alone[0] == alone[1]
    a, b, c = (facts.pixel_hash for facts in inspect_files(paths))
    assert a != b
    assert b == c


def test_a_copy_of_a_jpeg_as_png_is_a_duplicate(tmp_path: Path) -> None:
    """Large JPEGs are decoded at a fraction of their size, a PNG cannot be."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((1200, 900)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as photo:
        photo.save(tmp_path / "b.png")
    a, b = inspect_files([tmp_path / "a.jpg", tmp_path / "b.png"])
    assert a.reduced
    assert not b.reduced
    assert a.pixel_hash == b.pixel_hash


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # pytest undoes decode's own filter
def test_inspection_of_damaged_bytes_never_raises(tmp_path: Path) -> None:
    draw = random.Random(0)
    frames = [Image.effect_noise((40, 30), 50).convert("RGB") for _ in range(2)]
    path = tmp_path / "image"
    for options in (
        {"format": "JPEG", "progressive": True},
        {"format": "GIF", "save_all": True, "append_images": frames[1:]},
        {"format": "TIFF", "save_all": True, "append_images": frames[1:]},
        {"format": "WEBP"},
        {"format": "BMP"},
    ):
        stream = io.BytesIO()
        frames[0].save(stream, **options)
        for _ in range(60):
            content = bytearray(stream.getvalue())
            for _ in range(draw.randint(1, 10)):
                content[draw.randrange(len(content))] = draw.randrange(256)
            path.write_bytes(content[: draw.randrange(1, len(content) + 1)])
            facts = inspect_file(path)
            assert (facts.thumbnail is None) == (facts.problem != "")


def test_inspection_does_not_depend_on_workers(toy: Competition) -> None:
    paths = sorted(toy.raw.rglob("*.png")) * 5
    hashes = {
        tuple(facts.pixel_hash for facts in inspect_files(paths, workers)) for workers in (1, 2, 5)
    }
    assert len(hashes) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc "), st.sampled_from("xyz ")), min_size=1, max_size=12)
)
def test_groups_are_the_connected_ones(rows: list[tuple[str, str]]) -> None:
    ids = [f"{number:02}" for number in range(len(rows))]
    ties = [[value.strip() for value in column] for column in zip(*rows, strict=True)]
    groups = make_group_ids(ids, ties)
    for column in ties:
        frame = pd.DataFrame({"value": column, "group": groups})
        tied = frame[frame["value"] != ""]
        assert (tied.groupby("value")["group"].nunique() == 1).all()
    for name in set(groups):
        assert min(i for i, group in zip(ids, groups, strict=True) if group == name) == name
    loners = [n for n in range(len(rows)) if all(column[n] == "" for column in ties)]
    assert all(groups[n] == ids[n] for n in loners)
