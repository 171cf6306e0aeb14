"""submission.csv: the organiser's bytes with our labels, and a check that catches every breach."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from podium.data.submission import check_submission, fill_unreadable, make_submission
from podium.data.table import Table, read_table
from podium.errors import PodiumError, ProblemsError
from podium.tasks.classification.data import ClassificationData

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LABELS = ClassificationData(("good", "bad", "ugly one"), ordinal=False, submission="label")
PROBABILITIES = ClassificationData(("good", "bad"), ordinal=False, submission="probability")
ONE_HOT = np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
HALVES = np.array([[0.25, 0.75], [1.0, 0.0], [0.1, 0.9]])


def make_test(ids: list[str], problems: list[str] | None = None) -> pd.DataFrame:
    """Test rows as the manifest sorts them."""
    return pd.DataFrame({"listed_id": sorted(ids), "problem": problems or [""] * len(ids)})


def make_sample(folder: Path, content: bytes, has_header: bool) -> Table:
    path = folder / "sample.csv"
    path.write_bytes(content)
    return read_table(path, has_header)


BOM = b"\xef\xbb\xbf"
DIALECTS = {
    "plain": (b"id,label\na.jpg,x\nb.jpg,x\nc.jpg,x\n", True),
    "no header": (b"c.jpg,0\na.jpg,0\nb.jpg,0\n", False),
    "no final newline": (b"id,label\nb.jpg,x\na.jpg,x\nc.jpg,x", True),
    "bom and crlf": (BOM + b"id,label\r\na.jpg,x\r\nb.jpg,x\r\nc.jpg,x\r\n", True),
    "semicolon": (b"id;label\na.jpg;x\nb.jpg;x\nc.jpg;x\n", True),
    "tab": (b"id\tlabel\na.jpg\tx\nb.jpg\tx\nc.jpg\tx\n", True),
    "space behind comma": (b"id, label\na.jpg, x\nb.jpg, x\nc.jpg, x\n", True),
    "quoted": (b'"id","label"\n"a.jpg","x"\n"b.jpg","x"\n"c.jpg","x"\n', True),
    "label first": (b"label,id\nx,c.jpg\nx,b.jpg\nx,a.jpg\n", True),
    "spaces in the header": (b"image name,the grade\na.jpg,x\nc.jpg,x\nb.jpg,x\n", True),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_kept(tmp_path: Path, name: str) -> None:
    content, has_header = DIALECTS[name]
    test = make_test(["a.jpg", "b.jpg", "c.jpg"])
    sample = make_sample(tmp_path, content, has_header)
    made = make_submission(test, ONE_HOT, LABELS, sample)
    check_submission(made, test, LABELS, sample)
    # The sample's own bytes, but for the labels: put the dummies back and compare.
    dummy = b"0" if name == "no header" else b"x"
    for label in LABELS.classes:
        made = made.replace(label.encode(), dummy)
    assert made == content


def test_labels_go_to_their_ids(tmp_path: Path) -> None:
    content = b"id,label\nc.jpg,x\na.jpg,x\nb.jpg,x\n"
    made = make_submission(
        make_test(["a.jpg", "b.jpg", "c.jpg"]),
        ONE_HOT,
        LABELS,
        make_sample(tmp_path, content, True),
    )
    assert made == b"id,label\nc.jpg,good\na.jpg,bad\nb.jpg,ugly one\n"


def test_utf8_names_and_spaces(tmp_path: Path) -> None:
    content = "név;osztály\nfile one.jpg;?\nレモン.jpg;?\n柠檬.jpg;?\n".encode()
    task = ClassificationData(("jó", "rossz", "柠 檬"), ordinal=False, submission="label")
    test = make_test(["柠檬.jpg", "レモン.jpg", "file one.jpg"])
    sample = make_sample(tmp_path, content, True)
    made = make_submission(test, ONE_HOT, task, sample)
    assert made.decode() == "név;osztály\nfile one.jpg;rossz\nレモン.jpg;柠 檬\n柠檬.jpg;jó\n"
    check_submission(made, test, task, sample)


def test_without_a_sample() -> None:
    test = make_test(["b 1.jpg", "a,2.jpg", "c.jpg"])
    made = make_submission(test, ONE_HOT, LABELS, None)
    assert made == b'id,label\n"a,2.jpg",bad\nb 1.jpg,ugly one\nc.jpg,good\n'
    check_submission(made, test, LABELS, None)
    made = make_submission(test, HALVES, PROBABILITIES, None)
    assert made.startswith(b"id,good,bad\n")
    check_submission(made, test, PROBABILITIES, None)


def test_probabilities_in_the_order_of_the_sample(tmp_path: Path) -> None:
    sample = make_sample(tmp_path, b"bad,id,good\n0,b,0\n0,a,0\n0,c,0\n", True)
    test = make_test(["a", "b", "c"])
    made = make_submission(test, HALVES, PROBABILITIES, sample)
    assert made == b"bad,id,good\n0.0,b,1.0\n0.75,a,0.25\n0.9,c,0.1\n"
    check_submission(made, test, PROBABILITIES, sample)


def test_probabilities_without_header_stand_in_the_order_of_the_classes(tmp_path: Path) -> None:
    sample = make_sample(tmp_path, b"a,0.5,0.5\nb,0.5,0.5\nc,0.5,0.5\n", False)
    made = make_submission(make_test(["a", "b", "c"]), HALVES, PROBABILITIES, sample)
    assert made == b"a,0.25,0.75\nb,1.0,0.0\nc,0.1,0.9\n"


@pytest.mark.parametrize(
    ("content", "task", "message"),
    [
        (b"id,label\nx,0\ny,0\n", LABELS, "no column holds the test ids .such as 'a'."),
        (b"id,label\na,0\nb,0\nb,0\nc,0\n", LABELS, "line 4: id 'b' occurs twice"),
        (b"id,label\na,0\nb,0\nd,0\n", LABELS, "line 4: id 'd' is no test image"),
        (b"id,label,more\na,0,0\nb,0,0\n", LABELS, r"expected 1 column.* got 2 \(label, more\)"),
        (b"id\na\nb\n", LABELS, r"expected 1 column.* got 0 \(none\)"),
        (
            b"id,good\na,0\nb,0\n",
            PROBABILITIES,
            r"a column for each class \(good, bad\), got good:",
        ),
        (b"id,good,evil\na,0,0\n", PROBABILITIES, "got good, evil"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, content: bytes, task: Any, message: str) -> None:
    sample = make_sample(tmp_path, content, True)
    predictions = ONE_HOT if task is LABELS else HALVES
    with pytest.raises(PodiumError, match=message):
        make_submission(make_test(["a", "b", "c"]), predictions, task, sample)


def test_a_sample_may_leave_test_images_out(tmp_path: Path) -> None:
    sample = make_sample(tmp_path, b"id,label\nc,0\na,0\n", True)
    test = make_test(["a", "b", "c"])
    made = make_submission(test, ONE_HOT, LABELS, sample)
    assert made == b"id,label\nc,good\na,bad\n"
    check_submission(made, test, LABELS, sample)


def test_two_files_with_one_id() -> None:
    with pytest.raises(PodiumError, match="test id 'a' stands for 2 files"):
        make_submission(make_test(["a", "a", "b"]), ONE_HOT, LABELS, None)


def test_no_test_images() -> None:
    with pytest.raises(PodiumError, match="no test images"):
        make_submission(make_test([]), ONE_HOT[:0], LABELS, None)


LEGAL = b"id,label\na,bad\nb,good\nc,bad\n"


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (BOM + LEGAL, "encoding: expected UTF-8 without a BOM"),
        (LEGAL.replace(b"bad", b"b\xe4d"), "encoding: byte 13 is not UTF-8"),
        (LEGAL.replace(b"\n", b"\r\n"), "line ends: expected LF everywhere"),
        (LEGAL[:-1], "line ends: expected a line end after the last row"),
        (LEGAL.removeprefix(b"id,label\n"), "header: expected id, label, got a, bad"),
        (LEGAL.replace(b"label", b"Label"), "header: expected id, label, got id, Label"),
        (b"", "line ends: expected a line end"),
        (b"\n", "header: expected id, label, got $"),
        (LEGAL.replace(b",", b";"), "header: expected id, label, got id;label"),
        (LEGAL.replace(b"b,good", b"b,good,1"), "columns: row 3: expected 2 cells, got 3"),
        (LEGAL.replace(b"b,good\n", b""), "ids: 1 missing: 'b'"),
        (LEGAL + b"d,bad\n", "ids: 1 not in the sample: 'd'"),
        (LEGAL + b"c,bad\n", "ids: 1 listed twice: 'c'"),
        (b"id,label\nb,good\na,bad\nc,bad\n", "order: expected 'a' at place 1, got 'b'"),
        (LEGAL.replace(b"good", b"god"), "values: row 3 .'b'.: label 'god' .*mean 'good'"),
        (LEGAL.replace(b"good", b""), "values: row 3 .'b'.: label ''"),
        (LEGAL.replace(b"a,bad", b'a,"bad'), "is no CSV"),
    ],
)
def test_each_rule_is_named(tmp_path: Path, content: bytes, rule: str) -> None:
    test = make_test(["a", "b", "c"])
    sample = make_sample(tmp_path, b"id,label\na,0\nb,0\nc,0\n", True)
    check_submission(LEGAL, test, LABELS, sample)
    with pytest.raises(PodiumError, match=rule):
        check_submission(content, test, LABELS, sample)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (b"b,x,0.5", "expected a number in each class's column, got x, 0.5"),
        (b"b,1.5,-0.5", "expected probabilities from 0 to 1"),
        (b"b,nan,0.5", "expected probabilities from 0 to 1"),
        (b"b,0.5,0.6", "probabilities sum to 1.1000"),
    ],
)
def test_probability_rules(tmp_path: Path, row: bytes, rule: str) -> None:
    test = make_test(["a", "b", "c"])
    sample = make_sample(tmp_path, b"id,good,bad\na,0,1\nb,0,1\nc,0,1\n", True)
    content = b"id,good,bad\na,0.5,0.5\nb,0.5,0.5\nc,0.5,0.5\n"
    check_submission(content, test, PROBABILITIES, sample)
    with pytest.raises(ProblemsError, match=f"values: row 3 .'b'.: {rule}"):
        check_submission(content.replace(b"b,0.5,0.5", row), test, PROBABILITIES, sample)


def test_unreadable_images_get_the_prior() -> None:
    test = make_test(["a", "b", "c"], ["", "truncated", ""])
    prior = LABELS.fallback_prediction(LABELS.targets(["good", "good", "bad", "ugly one"]))
    filled = fill_unreadable(ONE_HOT[[0, 2]], test, prior)
    assert filled.tolist() == [ONE_HOT[0].tolist(), [0.5, 0.25, 0.25], ONE_HOT[2].tolist()]
    assert make_submission(test, filled, LABELS, None) == b"id,label\na,bad\nb,good\nc,good\n"


def test_real_lemon_sample() -> None:
    path = DATA / "lemon" / "sample_submit.csv"
    if not path.exists():
        pytest.skip("the real lemon set is not on this machine")
    sample = read_table(path, has_header=False)
    with path.open() as stream:
        ids = [row[0] for row in csv.reader(stream)]
    task = ClassificationData(("0", "1", "2", "3"), ordinal=True, submission="label")
    test = make_test(ids)
    all_best = np.tile([1.0, 0, 0, 0], (len(ids), 1))
    made = make_submission(test, all_best, task, sample)
    assert made == path.read_bytes()  # the sample says 0 everywhere
    check_submission(made, test, task, sample)
