"""The embedded demo competition: same bytes, hidden grade, truth on record."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from podium.errors import PodiumError, ProblemsError
from podium.intake.demo.photo import render_jpeg, render_photo
from podium.intake.demo.plan import (
    GRADE_SHARES,
    hide_defects,
    make_plan,
    near_duplicate_pairs,
    noisy_indices,
    observed_label,
    swap_background,
    true_label,
)
from podium.intake.demo.score import score_submission
from podium.intake.demo.spec import DemoSpec, load_spec
from podium.intake.demo.write import write_demo

SPEC = DemoSpec()
PINNED = "2c9f7ae0727d5903"
SMALL = DemoSpec(seed=5, train=40, test=12, size_px=48, near_duplicates=2)


def file_hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "lemons"
    write_demo(root, SMALL, workers=1)
    return root


# What is written


def test_layout_is_the_real_competitions(small_demo: Path) -> None:
    names = set(file_hashes(small_demo))
    assert {"train_images.csv", "sample_submit.csv", "demo.json"} <= names
    assert len(names) == 40 + 12 + 3
    train = (small_demo / "train_images.csv").read_bytes().decode().splitlines()
    assert train == [f"train_{i:04d}.jpg,{observed_label(SMALL, 'train', i)}" for i in range(40)]
    sample = (small_demo / "sample_submit.csv").read_bytes()
    assert sample == b"".join(b"test_%04d.jpg,0\n" % i for i in range(12))
    with Image.open(small_demo / "test_images" / "test_0011.jpg") as image:
        assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "JPEG")
    assert load_spec(small_demo) == SMALL


def test_bytes_depend_neither_on_workers_nor_on_the_count(small_demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", SMALL, workers=2)
    again = file_hashes(tmp_path / "again")
    assert again == file_hashes(small_demo)
    fewer = DemoSpec(seed=5, train=32, test=3, size_px=48, near_duplicates=2)
    write_demo(tmp_path / "fewer", fewer, workers=1)
    photos = {k: v for k, v in file_hashes(tmp_path / "fewer").items() if k.endswith(".jpg")}
    assert len(photos) == 35
    assert photos.items() <= again.items()


def test_bytes_of_one_photo_are_pinned() -> None:
    """The committed dvc.lock rests on these pixels: a change must be a decision."""
    pixels = render_photo(make_plan(SPEC, "train", 0), 64).pixels
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == PINNED


def test_seeds_splits_and_indices_differ() -> None:
    other = DemoSpec(seed=1)
    plans = [
        make_plan(SPEC, "train", 0),
        make_plan(SPEC, "train", 1),
        make_plan(SPEC, "test", 0),
        make_plan(other, "train", 0),
    ]
    assert len({render_jpeg(plan, 48) for plan in plans}) == 4


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(PodiumError, match="not a demo competition"):
        write_demo(tmp_path, SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_failure_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("podium.intake.demo.write.write_spec", fail)
    with pytest.raises(OSError, match="No space"):
        write_demo(tmp_path / "demo", DemoSpec(train=2, test=1, size_px=32, near_duplicates=0))
    assert list(tmp_path.iterdir()) == []


# The grade


def test_shares_are_exact_in_every_block() -> None:
    labels = [true_label(DemoSpec(near_duplicates=0), "train", i) for i in range(4 * 99)]
    for start in range(0, len(labels), 99):
        counts = Counter(labels[start : start + 99])
        assert tuple(counts[grade] for grade in range(4)) == GRADE_SHARES


def test_near_duplicates_keep_the_shares() -> None:
    without = DemoSpec(near_duplicates=0)
    grades = [[true_label(spec, "train", i) for i in range(99)] for spec in (SPEC, without)]
    assert grades[0] == grades[1]


def test_index_does_not_show_the_grade() -> None:
    labels = np.array([true_label(SPEC, "test", i) for i in range(1980)])
    correlation = np.corrcoef(np.arange(len(labels)), labels)[0, 1]
    assert abs(correlation) < 0.06
    for period in (2, 3, 4, 5, 99):
        means = [labels[offset::period].mean() for offset in range(period)]
        assert np.std(means) < 3 * labels.std() / np.sqrt(len(labels) / period)


def test_severity_keeps_clear_of_the_thresholds() -> None:
    """Neighbouring grades lie a factor of 1.7 or more apart in visible defects."""
    plans = [make_plan(SPEC, "test", i) for i in range(800)]
    by_grade = [[plan.severity for plan in plans if plan.grade == grade] for grade in range(4)]
    for lower, upper in pairwise(by_grade):
        assert min(upper) > 1.7 * max(lower)


def test_defects_stay_apart_and_on_the_lemon() -> None:
    for index in range(300):
        spots = [d for d in make_plan(SPEC, "test", index).defects if d.kind != "lump"]
        for number, spot in enumerate(spots):
            assert np.hypot(spot.x, spot.y) + np.sqrt(spot.area) < 0.95
            covered = sum(
                np.hypot(spot.x - other.x, spot.y - other.y)
                < 0.6 * (np.sqrt(spot.area) + np.sqrt(other.area))
                for other in spots[:number]
            )
            assert covered == 0


# Counterfactuals


@pytest.mark.parametrize("index", range(12))
def test_without_defects_the_grade_is_the_best(index: int) -> None:
    plan = make_plan(SPEC, "test", index)
    healthy = hide_defects(plan)
    assert healthy.grade == 0
    before, after = render_photo(plan, 96), render_photo(healthy, 96)
    changed = (before.pixels != after.pixels).any(axis=2)
    if plan.grade == 0:
        assert changed.mean() < 0.02
    else:
        assert changed.sum() > 20
    edge = 9
    changed[edge:-edge, edge:-edge] = False
    assert not changed.any(), "the border knows about the defects"


def test_worse_grades_change_more_of_the_lemon() -> None:
    shares: list[list[float]] = [[], [], [], []]
    for index in range(80):
        plan = make_plan(SPEC, "test", index)
        before, after = render_photo(plan, 96), render_photo(hide_defects(plan), 96)
        difference = np.abs(before.pixels.astype(int) - after.pixels).max(axis=2)
        shares[plan.grade].append(float((difference > 30).mean()))
    means = [float(np.mean(grade)) for grade in shares]
    for lower, upper in pairwise(means):
        assert upper > 1.6 * lower


@pytest.mark.parametrize("index", range(8))
def test_another_background_leaves_lemon_and_grade_alone(index: int) -> None:
    plan = make_plan(SPEC, "test", index)
    swapped = swap_background(plan, plan.background_seed + 1)
    assert swapped.grade == plan.grade
    before, after = render_photo(plan, 96), render_photo(swapped, 96)
    np.testing.assert_array_equal(before.lemon, after.lemon)
    assert 0.12 < before.lemon.mean() < 0.5
    np.testing.assert_array_equal(before.pixels[before.lemon], after.pixels[after.lemon])
    assert (before.pixels != after.pixels).any(axis=2)[~before.lemon].mean() > 0.8


# What is on record


def test_noise_moves_labels_by_one_grade_and_is_on_record() -> None:
    noisy = set(noisy_indices(SPEC))
    assert 10 <= len(noisy) <= 40  # 3 % of 800, 3.3 standard deviations either way
    for index in range(SPEC.train):
        step = abs(true_label(SPEC, "train", index) - observed_label(SPEC, "train", index))
        assert step == (index in noisy)
    assert noisy_indices(DemoSpec(label_noise=0.0)) == ()
    clean = [observed_label(SPEC, "test", i) == true_label(SPEC, "test", i) for i in range(200)]
    assert all(clean)


def test_noise_does_not_depend_on_the_count() -> None:
    fewer = noisy_indices(DemoSpec(train=300))
    assert fewer == tuple(index for index in noisy_indices(SPEC) if index < 300)


def test_near_duplicates_are_on_record_and_look_alike() -> None:
    pairs = near_duplicate_pairs(SPEC)
    assert len(pairs) == 6
    assert len({index for pair in pairs for index in pair}) == 12

    def thumbnail(index: int) -> npt.NDArray[np.float64]:
        image = Image.open(io.BytesIO(render_jpeg(make_plan(SPEC, "train", index), 96)))
        return np.asarray(image.resize((12, 12), Image.Resampling.BOX), dtype=np.float64)

    for original, twin in pairs:
        assert max(original, twin) < SPEC.train
        assert true_label(SPEC, "train", original) == true_label(SPEC, "train", twin)
        distance = np.abs(thumbnail(original) - thumbnail(twin)).mean()
        others = [np.abs(thumbnail(original) - thumbnail(i)).mean() for i in range(100, 110)]
        assert 1 < distance < 0.7 * min(others)


def test_near_duplicates_do_not_disturb_the_others() -> None:
    twins = {twin for _, twin in near_duplicate_pairs(SPEC)}
    without = DemoSpec(near_duplicates=0)
    for index in range(96):
        same = make_plan(SPEC, "train", index) == make_plan(without, "train", index)
        assert same == (index not in twins)


# What must not show the grade


def test_border_mean_colour_and_file_size_are_at_chance() -> None:
    """Cross-validated probes on 594 photos; 2,000 at full size: benchmarks/demo_difficulty.py."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    borders, means, grades = [], [], []
    for index in range(6 * 99):
        plan = make_plan(SPEC, "test", index)
        content = render_jpeg(plan, 64)
        rgb = np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64)
        inside = np.zeros((64, 64), dtype=bool)
        inside[6:-6, 6:-6] = True
        border = rgb.copy()
        border[inside] = 0
        blocks = border.reshape(16, 4, 16, 4, 3).mean((1, 3)).ravel()
        borders.append(np.concatenate([blocks, rgb[~inside].mean(0), rgb[~inside].std(0)]))
        means.append([*rgb.mean((0, 1)), rgb.mean(), len(content)])
        grades.append(plan.grade)
    chance = max(GRADE_SHARES) / sum(GRADE_SHARES)
    margin = 1.96 * np.sqrt(chance * (1 - chance) / len(grades))
    for features, regularisation in ((borders, 0.001), (means, 0.1)):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=200))
        assert cross_val_score(probe, np.array(features), grades, cv=5).mean() < chance + margin


# Scoring


def write_submission(path: Path, labels: list[object]) -> Path:
    path.write_text("".join(f"test_{i:04d}.jpg,{label}\n" for i, label in enumerate(labels)))
    return path


def truth(spec: DemoSpec) -> list[int]:
    return [true_label(spec, "test", i) for i in range(spec.test)]


def test_score_of_the_truth_and_of_one_slip(tmp_path: Path) -> None:
    labels = truth(SPEC)
    perfect = score_submission(write_submission(tmp_path / "s.csv", [*labels]), SPEC)
    assert perfect == {"n": 200, "accuracy": 1.0, "macro_f1": 1.0, "quadratic_weighted_kappa": 1.0}
    labels[0] = (labels[0] + 1) % 4
    slip = score_submission(write_submission(tmp_path / "s.csv", [*labels]), SPEC)
    assert slip["accuracy"] == 199 / 200
    assert slip["quadratic_weighted_kappa"] < 1


def test_score_of_one_class_is_a_number(tmp_path: Path) -> None:
    spec = DemoSpec(train=1, test=1, near_duplicates=0)
    score = score_submission(write_submission(tmp_path / "s.csv", [*truth(spec)]), spec)
    assert score["accuracy"] == 1.0
    assert score["quadratic_weighted_kappa"] == 1.0


def test_score_takes_any_order_crlf_and_bom(tmp_path: Path) -> None:
    rows = [f"test_{i:04d}.jpg,{grade}\r\n" for i, grade in enumerate(truth(SMALL))]
    path = tmp_path / "s.csv"
    path.write_bytes("".join(reversed(rows)).encode("utf-8-sig"))
    assert score_submission(path, SMALL)["accuracy"] == 1.0


def test_every_problem_of_a_submission_is_named(tmp_path: Path) -> None:
    rows = [f"test_{i:04d}.jpg,0" for i in range(12)]
    rows[1] = "test_0000.jpg,0"
    rows[2] = "test_0002.jpg,1.0"
    rows[3] = "test_0003.jpg"
    rows[4] = "test_9999.jpg,0"
    path = tmp_path / "s.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(ProblemsError) as caught:
        score_submission(path, SMALL)
    text = str(caught.value)
    assert "row 2: id 'test_0000.jpg' was given in row 1 already" in text
    assert "row 3: expected a grade of 0, 1, 2, 3, got '1.0'" in text
    assert "row 4: expected `file,label`, got 1 cell" in text
    assert "row 5: unknown id 'test_9999.jpg'" in text
    assert "2 test photos have no row: test_0001.jpg, test_0004.jpg" in text
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), (b"", "is empty"), (b"\xff\xfe\x00", "not UTF-8")],
)
def test_unreadable_submission(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "s.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PodiumError, match=message):
        score_submission(path, SMALL)


# The spec


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train", 0, "train: expected 1 to"),
        ("test", 2.5, "test: expected a whole number"),
        ("seed", -1, "seed: expected 0 to"),
        ("size_px", True, "size_px: expected a whole number"),
        ("label_noise", 0.9, "label_noise: expected 0.0 to 0.5"),
        ("near_duplicates", 51, "pairs need train to be at least 816"),
    ],
)
def test_bad_spec_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ProblemsError, match=message):
        DemoSpec(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no demo competition"),
        ("{", "not valid JSON"),
        ("[1]", "expected the keys seed"),
        (json.dumps({"seeed": 1}), "unknown key 'seeed'; did you mean 'seed'"),
        (json.dumps({"seed": 1}), "train, test, size_px, label_noise, near_duplicates missing"),
    ],
)
def test_bad_record_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "demo.json").write_text(content)
    with pytest.raises(PodiumError, match=message):
        load_spec(tmp_path)
