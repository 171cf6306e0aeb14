"""Every layout of docs/layouts.md is recognised, and what is not clear is listed, never guessed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podium.data.params import NO_RULES
from podium.errors import PodiumError, ProblemsError
from podium.intake.choice import Choice
from podium.intake.layout import Layout, find_base, recognise_layout, sort_classes

DOCS = Path(__file__).parents[1] / "docs/layouts.md"
Tree = dict[str, str]

TRAIN = {f"train_images/t{k}.jpg": "" for k in range(6)}
TEST = {f"test_images/x{k}.jpg": "" for k in range(2)}
LABELS = "".join(f"t{k}.jpg,{k % 2}\n" for k in range(6))
SAMPLE = "x0.jpg,0\nx1.jpg,0\n"
CSV_AND_FOLDER = {**TRAIN, **TEST, "train.csv": LABELS, "sample_submit.csv": SAMPLE}
CLASS_FOLDERS = {"train/cat/1.JPG": "", "train/dog/1.JPG": "", "test/1.jpg": ""}


@pytest.fixture
def recognise(tmp_path: Path) -> Callable[..., Layout]:
    def make(tree: Tree, **choice: str) -> Layout:
        for name, content in tree.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
        return recognise_layout(find_base(tmp_path), "fruit", "data/raw", Choice(**choice))

    return make


def facts(layout: Layout, *names: str) -> list[Any]:
    return [getattr(layout.params, name) for name in names]


def test_csv_and_folder_without_header(recognise: Callable[..., Layout]) -> None:
    layout = recognise(CSV_AND_FOLDER)
    assert layout.params.model_dump(mode="json") == {
        "name": "fruit",
        "task": "classification",
        "source": "data/raw",
        "train_csv": "train.csv",
        "train_images": "train_images",
        "test_images": "test_images",
        "csv_header": False,
        "id_column": 0,
        "label_column": 1,
        "label_columns": [],
        "group_column": None,
        "sample_submission": "sample_submit.csv",
        "sample_header": False,
        "classes": ["0", "1"],
        "ordinal": False,
        "submission": "label",
        "rules": NO_RULES.model_dump(),
    }
    assert layout.files == sorted(CSV_AND_FOLDER)
    assert "set competition.ordinal: true if the classes are grades in order" in layout.lines


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_header_without_extension_in_any_dialect(
    recognise: Callable[..., Layout], delimiter: str, newline: str, mark: str
) -> None:
    rows = [["label", "id"], *([f"sort {k % 2}", f"t{k}"] for k in range(6))]
    table = mark + newline.join(delimiter.join(row) for row in rows) + newline
    sample = mark + newline.join(["id,label", "x0,sort 0", "x1,sort 0"])
    layout = recognise({**TRAIN, **TEST, "train.csv": table, "sample.csv": sample})
    assert facts(layout, "csv_header", "id_column", "label_column") == [True, "id", "label"]
    assert facts(layout, "sample_header", "classes") == [True, ("sort 0", "sort 1")]


def test_utf8_names_and_spaces(recognise: Callable[..., Layout]) -> None:
    tree = {f"train bilder/柠檬 {k}.jpg": "" for k in range(4)}
    table = "".join(f"柠檬 {k}.jpg,süß {k % 2}\n" for k in range(4))
    layout = recognise({**tree, "test bilder/ü 1.png": "", "Meine Liste.csv": table})
    assert facts(layout, "train_csv", "train_images") == ["Meine Liste.csv", "train bilder"]
    assert facts(layout, "test_images", "classes") == ["test bilder", ("süß 0", "süß 1")]


def test_folder_per_class_with_upper_case_extensions(recognise: Callable[..., Layout]) -> None:
    layout = recognise(CLASS_FOLDERS)
    assert facts(layout, "train_csv", "train_images", "test_images") == [None, "train", "test"]
    assert facts(layout, "id_column", "label_column", "classes") == [None, None, ("cat", "dog")]
    assert facts(layout, "sample_submission", "sample_header") == [None, True]


def test_folder_per_class_with_a_sample_that_names_both_kinds(
    recognise: Callable[..., Layout],
) -> None:
    """Training and test images are named alike: class folders leave the CSV to be the sample."""
    layout = recognise(
        {"train/a/1.jpg": "", "train/b/2.jpg": "", "test/1.jpg": "", "s.csv": "1,a\n"}
    )
    assert facts(layout, "train_csv", "sample_submission") == [None, "s.csv"]


def test_labels_json_is_kept_and_mentioned(recognise: Callable[..., Layout]) -> None:
    layout = recognise({**CLASS_FOLDERS, "labels.json": '{"cat": "Katze"}'})
    assert "labels.json" in layout.files
    assert any(line.startswith("labels.json is kept") for line in layout.lines)


def test_everything_below_one_top_folder(recognise: Callable[..., Layout]) -> None:
    layout = recognise({f"x/training_data/{name}": text for name, text in CLASS_FOLDERS.items()})
    assert layout.files == sorted(CLASS_FOLDERS)


def test_images_and_tables_deeper_down(recognise: Callable[..., Layout]) -> None:
    tree = {f"images/{name}": "" for name in (*TRAIN, *TEST)}
    layout = recognise({**tree, "tables/labels.csv": LABELS})
    assert facts(layout, "train_csv", "train_images", "test_images") == [
        "tables/labels.csv",
        "images/train_images",
        "images/test_images",
    ]


def test_probability_sample(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "sample_submit.csv": "id,0,1\nx0.jpg,0,0\nx1.jpg,0,0\n"}
    assert facts(recognise(tree), "submission", "sample_header") == ["probability", True]
    with pytest.raises(PodiumError, match="one column headed by each class"):
        recognise({**tree, "sample_submit.csv": "id,0,2\nx0.jpg,0,0\nx1.jpg,0,0\n"})
    assert recognise(tree, sample="none").params.sample_submission is None


def test_classes_are_sorted_as_numbers_or_by_code_point() -> None:
    assert sort_classes(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert sort_classes(["b", "B", "10", "9"]) == ["10", "9", "B", "b"]


def test_label_among_several_columns(recognise: Callable[..., Layout]) -> None:
    rows = "".join(f"{k},t{k}.jpg,{k // 3},{k % 2}\n" for k in range(6))
    tree = {**CSV_AND_FOLDER, "train.csv": f",image,farm,label\n{rows}"}
    layout = recognise(tree)
    assert facts(layout, "id_column", "label_column", "group_column") == ["image", "label", None]
    assert any("competition.group_column" in line and "'farm'" in line for line in layout.lines)
    with pytest.raises(ProblemsError, match="--label-column NAME") as caught:
        recognise({**tree, "train.csv": f",image,farm,sort\n{rows}"})
    assert caught.value.problems == ("farm", "sort")
    assert recognise(tree, label_column="farm").params.label_column == "farm"
    with pytest.raises(PodiumError, match="did you mean 'farm'"):
        recognise(tree, label_column="fram")


def test_a_slip_does_not_become_a_class(recognise: Callable[..., Layout]) -> None:
    tree = {f"train/{k}.jpg": "" for k in range(60)} | TEST
    rows = [f"{k}.jpg,{k % 3}\n" for k in range(57)] + ["57.jpg,1.0\n", "58.jpg,\n", "59x.jpg,2\n"]
    layout = recognise({**tree, "train.csv": "".join(rows)})
    assert layout.params.classes == ("0", "1", "2")
    assert any("slips: '1.0'" in line for line in layout.lines)
    assert any("1 rows of train.csv name no image" in line for line in layout.lines)


def test_labels_that_look_alike_are_refused(recognise: Callable[..., Layout]) -> None:
    labels = ["cat", "cat ", " dog", "dog", "é", "e\u0301"]
    rows = "".join(f"t{k}.jpg,{label}\n" for k, label in enumerate(labels))
    with pytest.raises(ProblemsError, match="expected one spelling per class") as caught:
        recognise({**CSV_AND_FOLDER, "train.csv": rows})
    assert caught.value.problems == (
        "' dog' (train.csv, line 3), 'dog' (train.csv, line 4)",
        "'cat' (train.csv, line 1), 'cat ' (train.csv, line 2)",
        "'e\\u0301' (train.csv, line 6), 'é' (train.csv, line 5)",
    )


def test_class_folders_that_look_alike_are_refused(recognise: Callable[..., Layout]) -> None:
    with pytest.raises(ProblemsError, match="expected one spelling per class") as caught:
        recognise({**CLASS_FOLDERS, "train/cat /2.jpg": ""})
    assert caught.value.problems == ("'cat' (train/cat), 'cat ' (train/cat )",)


def test_labels_may_differ_in_case_and_a_blank_may_follow_each_delimiter(
    recognise: Callable[..., Layout],
) -> None:
    rows = "".join(f"t{k}.jpg, {'Aa'[k % 2]}\n" for k in range(6))
    layout = recognise({**CSV_AND_FOLDER, "train.csv": rows})
    assert layout.params.classes == ("A", "a")


def test_sample_values_that_are_no_class_are_mentioned(recognise: Callable[..., Layout]) -> None:
    layout = recognise({**CSV_AND_FOLDER, "sample_submit.csv": "x0.jpg,0.5\nx1.jpg,0.5\n"})
    assert any("values that are no class (0.5)" in line for line in layout.lines)


# --- several candidates -------------------------------------------------------------------------


def test_two_training_tables(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "more.csv": LABELS}
    with pytest.raises(ProblemsError, match="choose by --train-csv NAME") as caught:
        recognise(tree)
    assert caught.value.problems == ("more.csv", "train.csv")
    assert recognise(tree, train_csv="more.csv").params.train_csv == "more.csv"
    with pytest.raises(ProblemsError, match=r"no such CSV in .*did you mean 'more.csv'"):
        recognise(tree, train_csv="mor.csv")


def test_two_samples(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "submission_b.csv": SAMPLE}
    with pytest.raises(ProblemsError, match="choose by --sample NAME") as caught:
        recognise(tree)
    assert caught.value.problems == ("sample_submit.csv", "submission_b.csv")
    assert recognise(tree, sample="submission_b.csv").params.sample_submission == "submission_b.csv"


def test_a_chosen_table_must_fit(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "other.csv": "p,q\n", "ids.csv": "x0\nx1\n"}
    for choice, message in (
        ({"sample": "other.csv"}, "none of its cells names a test image"),
        ({"sample": "ids.csv"}, "one column: expected ids and predictions"),
        ({"train_csv": "other.csv"}, "none of its cells names a training image"),
    ):
        with pytest.raises(PodiumError, match=message):
            recognise(tree, **choice)


def test_a_list_of_test_ids_is_no_rival_of_the_sample(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "test.csv": SAMPLE, "test_ids.csv": "x0.jpg\nx1.jpg\n"}
    assert recognise(tree).params.sample_submission == "sample_submit.csv"


def test_two_folders_of_test_images(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "test_b/y.jpg": ""}
    with pytest.raises(ProblemsError, match="choose by --test-images DIR") as caught:
        recognise(tree)
    assert "test_b, test_images" in caught.value.problems[0]
    layout = recognise(tree, test_images="test_images/")
    assert layout.params.test_images == "test_images"
    assert any(line.startswith("1 images outside") for line in layout.lines)


def test_two_folders_of_training_images(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "train_b/y.jpg": ""}
    with pytest.raises(ProblemsError, match="choose by --train-images DIR"):
        recognise(tree)
    assert recognise(tree, train_images="train_images").params.train_images == "train_images"


def test_labels_in_a_table_and_in_folders(recognise: Callable[..., Layout]) -> None:
    tree = {f"train/part{k % 2}/t{k}.jpg": "" for k in range(6)} | TEST | {"l.csv": LABELS}
    with pytest.raises(ProblemsError, match="labels could be those of a table or") as caught:
        recognise(tree)
    assert len(caught.value.problems) == 2
    assert recognise(tree, train_csv="l.csv").params.classes == ("0", "1")
    assert recognise(tree, train_csv="none").params.classes == ("part0", "part1")
    # A table that says what the folders say is the labels.
    same = "".join(f"t{k}.jpg,part{k % 2}\n" for k in range(6))
    assert recognise({**tree, "l.csv": same}).params.train_csv == "l.csv"


# --- only part of it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"readme.txt": ""}, "holds no images"),
        ({"train.ZIP": "", "a.csv": ""}, "holds no images (jpg, png, ...): unpack train.ZIP"),
        ({**TRAIN, "train.csv": LABELS}, "no folder of test images"),
        ({**TEST}, "no folder of train images: expected one whose name starts with 'train'"),
        ({"a/1.jpg": "", "b/1.jpg": "", "test/x.jpg": ""}, "2 folders could hold the train images"),
        ({**TRAIN, **TEST}, "no labels found: expected a CSV of ids and labels, or one folder per"),
        ({**TRAIN, **TEST, "l.csv": "p,1\nq,2\n"}, "(none of the cells of l.csv names an image"),
        ({**TRAIN, **TEST, "l.csv": "t0\nt1\n"}, "l.csv has one column"),
        ({**TRAIN, **TEST, "l.csv": "t0,a\nt1,a\n"}, "expected at least 2 classes of images"),
        ({**TRAIN, **TEST, "train.csv": ""}, "train.csv is empty (0 bytes)"),
        ({**CSV_AND_FOLDER, "s.csv": "a,b\nc\n"}, "s.csv, line 2: 1 cells, line 1 has 2"),
    ],
)
def test_what_is_missing_is_said(
    recognise: Callable[..., Layout], tree: Tree, message: str
) -> None:
    with pytest.raises(PodiumError) as caught:
        recognise(tree)
    assert message in str(caught.value)


def test_an_unreadable_table_is_passed_over_by_choice(recognise: Callable[..., Layout]) -> None:
    tree = {**CSV_AND_FOLDER, "broken.csv": "a,b\nc\n"}
    layout = recognise(tree, train_csv="train.csv", sample="sample_submit.csv")
    assert layout.params.train_csv == "train.csv"


def test_points_are_not_supported_yet(recognise: Callable[..., Layout]) -> None:
    points = "image_id,x,y\n" + "".join(f"t{k % 6}.jpg,{k},{k}.5\n" for k in range(60))
    with pytest.raises(PodiumError, match=r"60 rows for 6 images .*counting is not supported yet"):
        recognise({**CSV_AND_FOLDER, "train.csv": points})


def test_many_different_values_are_no_classes(recognise: Callable[..., Layout]) -> None:
    tree = {f"train/{k}.jpg": "" for k in range(30)} | TEST
    rows = "".join(f"{k}.jpg,{k}.5\n" for k in range(30))
    with pytest.raises(PodiumError, match="30 different values in 30 rows: expected classes"):
        recognise({**tree, "train.csv": rows})


def test_names_and_kinds_of_files(recognise: Callable[..., Layout], tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "test/pipe.jpg")
    with pytest.raises(ProblemsError) as caught:
        recognise({**CLASS_FOLDERS, "test/two\nlines.jpg": ""})
    text = "\n".join(caught.value.problems)
    assert "leads nowhere" in text
    assert "no ordinary file" in text
    assert "control characters" in text


def test_every_example_of_the_docs_is_accepted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """docs/layouts.md: each ```tree block is a folder; `NAME: ROW | ROW` writes a table."""
    examples = re.findall(r"```tree\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    assert len(examples) >= 6
    for example in examples:
        folder = tmp_path_factory.mktemp("example")
        for line in example.splitlines():
            name, _, rows = line.partition(": ")
            path = folder / name.strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rows.strip().replace(" | ", "\n"), encoding="utf-8")
        layout = recognise_layout(find_base(folder), "example", "data/raw", Choice())
        assert len(layout.params.classes) >= 2


# --- which column is what


PHOTOS = {f"train/{k}.jpg": "" for k in range(8)} | {f"test/{k}.jpg": "" for k in range(8, 10)}
SHUFFLED = (3, 1, 7, 0, 6, 2, 5, 4)


def rows_of(*cells: Callable[[int, int], str]) -> str:
    """A line for each image: cells are made of the row's number and the image's."""
    return "".join(
        ",".join(cell(row, image) for cell in cells) + "\n" for row, image in enumerate(SHUFFLED)
    )


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        (",image,label\n", (lambda r, i: f"{r}", lambda r, i: f"{i}.jpg"), "image"),
        ("id,file_name,label\n", (lambda r, i: f"{r}", lambda r, i: f"{i}.jpg"), "file_name"),
        ("Unnamed: 0,image,label\n", (lambda r, i: f"{r}", lambda r, i: f"{i}"), "image"),
        ("", (lambda r, i: f"{r}", lambda r, i: f"{i}.jpg"), 1),
    ],
)
def test_row_numbers_are_no_ids(
    recognise: Callable[..., Layout],
    header: str,
    cells: tuple[Callable[[int, int], str], ...],
    expected: str | int,
) -> None:
    """They name files, too (0 means 0.jpg), and every image would get another one's label."""
    table = header + rows_of(*cells, lambda row, image: "ab"[image % 2])
    assert facts(recognise({**PHOTOS, "train.csv": table}), "id_column") == [expected]


def test_ids_that_only_a_person_can_tell_are_refused(recognise: Callable[..., Layout]) -> None:
    table = "no,image,label\n" + rows_of(
        lambda row, _: f"{row}", lambda _, image: f"{image}", lambda _, image: "ab"[image % 2]
    )
    with pytest.raises(
        PodiumError, match="the columns 'no', 'image' name images, and not the same"
    ):
        recognise({**PHOTOS, "train.csv": table})


def test_the_sample_says_which_column_is_the_label(recognise: Callable[..., Layout]) -> None:
    table = "id,grade,species\n" + rows_of(
        lambda _, image: f"{image}.jpg", lambda row, _: f"{row % 2}", lambda _, i: f"{i % 2}"
    )
    sample = "id,species\n8.jpg,0\n9.jpg,0\n"
    layout = recognise({**PHOTOS, "train.csv": table, "sample_submission.csv": sample})
    assert facts(layout, "label_column") == ["species"]


def test_a_sample_that_is_an_excerpt_is_named_as_such(recognise: Callable[..., Layout]) -> None:
    layout = recognise({**CSV_AND_FOLDER, "sample_submit.csv": "x0.jpg,0\n"})
    assert any("it lists 1 of the images" in line for line in layout.lines)


def test_folders_of_the_same_name_within_each_other(recognise: Callable[..., Layout]) -> None:
    tree = {"seg_train/seg_train/a/1.jpg": "", "seg_train/seg_train/b/2.jpg": ""}
    layout = recognise({**tree, "seg_test/seg_test/3.jpg": ""})
    assert facts(layout, "train_images", "classes") == ["seg_train/seg_train", ("a", "b")]
    assert facts(layout, "test_images") == ["seg_test/seg_test"]


# --- PaddlePaddle's lists


@pytest.mark.parametrize("delimiter", [" ", "\t"])
def test_a_list_of_images_in_a_txt(recognise: Callable[..., Layout], delimiter: str) -> None:
    rows = "".join(f"train/{k}.jpg{delimiter}{k % 2}\n" for k in range(8))
    notes = {"readme.txt": "Thanks, all!\n\nSee you", "classes.txt": "cat\ndog\n"}
    layout = recognise({**PHOTOS, "train_list.txt": rows, **notes})
    assert facts(layout, "train_csv", "id_column", "label_column") == ["train_list.txt", 0, 1]
    assert facts(layout, "classes") == [("0", "1")]
    assert "train_list.txt" in layout.files
    assert not {*notes} & {*layout.files}


def test_a_csv_wins_over_a_txt(recognise: Callable[..., Layout]) -> None:
    lists = "".join(f"t{k}.jpg {k % 2}\n" for k in range(6))
    layout = recognise({**CSV_AND_FOLDER, "train.txt": lists})
    assert facts(layout, "train_csv") == ["train.csv"]


def test_a_txt_that_says_what_folders_say_is_not_needed(recognise: Callable[..., Layout]) -> None:
    same = "train/cat/1.JPG 0\ntrain/dog/1.JPG 1\n"
    layout = recognise({**CLASS_FOLDERS, "train.txt": same})
    assert facts(layout, "train_csv", "classes") == [None, ("cat", "dog")]


def test_folders_that_are_no_classes_are_asked_about(recognise: Callable[..., Layout]) -> None:
    tree = {f"train/part{k % 2}/{k}.jpg": "" for k in range(8)} | {"test/9.jpg": ""}
    rows = "".join(f"part{k % 2}/{k}.jpg {k // 4}\n" for k in range(8))
    with pytest.raises(ProblemsError, match="could be those of a table or the names of folders"):
        recognise({**tree, "train_list.txt": rows})
