"""Probes: what is planted is found, what is not stays quiet."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from podium.data.decode import decode, open_image
from podium.data.file_traits import FileTraits, read_traits
from podium.data.listing import Listing, Row
from podium.data.packed_times import PACKED_TIMES, count_seconds, load_packed_times
from podium.data.relabel import Relabel, apply_relabels, load_relabels
from podium.errors import PodiumError, ProblemsError
from podium.intake.archive import extract_archive
from podium.intake.demo.photo import render_jpeg
from podium.intake.demo.plan import make_plan, near_duplicate_pairs
from podium.intake.demo.spec import DemoSpec
from podium.probes import inflation
from podium.probes.auc import measure_auc
from podium.probes.baselines import measure_baselines
from podium.probes.cross_validation import (
    FOLDS,
    MAX_IMAGES,
    make_folds,
    predict_linear,
    score_linear,
    score_transfer,
    thin,
)
from podium.probes.findings import Effect, Finding, Scale, make_scale, order_findings
from podium.probes.inflation import measure_inflation
from podium.probes.near_duplicates import (
    confirm_pair,
    find_near_duplicates,
    make_groups,
)
from podium.probes.shortcuts import (
    SeenFile,
    make_probe_table,
    parse_probe_table,
    probe_drift,
    probe_shortcuts,
)
from podium.tasks.classification.metrics import accuracy_interval

N = 240
LABELS = [str(k * 7 % 3) for k in range(N)]
GROUPS = [f"{k:04}" for k in range(N)]


def make_files() -> list[SeenFile]:
    """Files whose traits are drawn without a look at the class."""
    draw = np.random.default_rng(1)
    return [
        SeenFile(
            f"train/{draw.integers(10**6):07}.jpg",
            int(draw.integers(90, 110)),
            100,
            tuple(draw.uniform(80, 160, 3).tolist()),
            FileTraits(
                int(draw.integers(5000, 9000)),
                ("JPEG", "RGB", 0, int(draw.integers(500, 600)), 700),
                (("00272", f"camera {draw.integers(4)}"),),
            ),
            listed_at=int(draw.integers(10**6)),
            packed_at=int(draw.integers(10**6)),
        )
        for _ in range(N)
    ]


def plant(name: str, files: list[SeenFile]) -> list[SeenFile]:
    """The same files, and one trait follows the class."""
    planted = []
    for file, label in zip(files, LABELS, strict=True):
        k = int(label)
        traits = file.traits
        changed = {
            "mean colour and brightness": {"mean_rgb": (100.0 + 20 * k, 100.0, 100.0)},
            "file size": {"traits": replace(traits, size_bytes=traits.size_bytes + 9000 * k)},
            "encoding": {"traits": replace(traits, encoding=("JPEG", "RGB", 0, 500 + k, 700))},
            "dimensions": {"width": 200 - 30 * k},
            "EXIF": {"traits": replace(traits, exif=(("00306", f"2024:01:0{k + 1} 10:00"),))},
            "times in the zip": {
                "packed_at": 10**7 * (1 + k % 2) + (file.packed_at or 0) * (k + 1)
            },
            "order in the list": {"listed_at": 10**7 * k + (file.listed_at or 0)},
            "file name": {"name": f"train/{'abc'[k]}_{file.name[6:]}"},
        }[name]
        planted.append(replace(file, **changed))
    return planted


PROBES = [probe.name for probe in probe_shortcuts(make_files(), LABELS, GROUPS, seed=0)]


def test_nothing_planted_is_quiet() -> None:
    scale = make_scale(80 / N, Effect(0.9, 0.85, 0.94))
    for probe in probe_shortcuts(make_files(), LABELS, GROUPS, seed=0):
        assert probe.effect is not None, probe.name
        assert scale.judge_score(probe.effect) == "quiet", probe


@pytest.mark.parametrize("name", PROBES)
def test_planted_shortcut_alarms_in_its_probe(name: str) -> None:
    probes = {p.name: p for p in probe_shortcuts(plant(name, make_files()), LABELS, GROUPS, seed=0)}
    effect = probes[name].effect
    assert effect is not None
    assert make_scale(80 / N, Effect(0.9, 0.85, 0.94)).judge_score(effect) == "alarm", probes[name]


@pytest.mark.parametrize("seed", [6, 18])
def test_what_few_patients_have_by_luck_is_no_shortcut(seed: int) -> None:
    """Of twelve patients nine are told by the size of their twenty files: 75 % of 240 images."""
    draw = np.random.default_rng(seed)
    of_patient = draw.permutation(np.arange(12) % 2)
    sizes = draw.integers(5000, 9000, 12).tolist()
    patients = [k // 20 for k in range(N)]
    files = [
        replace(file, traits=replace(file.traits, size_bytes=sizes[patient]))
        for file, patient in zip(make_files(), patients, strict=True)
    ]
    labels, groups = [str(of_patient[patient]) for patient in patients], [str(k) for k in patients]
    probes = {probe.name: probe for probe in probe_shortcuts(files, labels, groups, seed)}
    found, model = probes["file size"].effect, Effect(0.85, 0.8, 0.9)
    assert found is not None
    assert found.value == 0.75
    assert make_scale(0.5, model).judge_score(found) == "quiet"
    by_image = Effect(0.75, *accuracy_interval(180, N))
    assert make_scale(0.5, model).judge_score(by_image) == "alarm"


def test_baselines_of_few_patients_are_less_sure() -> None:
    """The same pictures, ten times each: no more is known."""
    draw = np.random.default_rng(0)
    thumbnails = draw.integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    thumbnails[:, :3] = (60 * (np.arange(24) % 2))[:, None, None, None]
    thumbnails[:2, :3] = 60 - thumbnails[:2, :3]
    one, ten = (
        measure_baselines(
            thumbnails.repeat(times, axis=0),
            [str(k % 2) for k in range(24) for _ in range(times)],
            [f"{k:02}" for k in range(24) for _ in range(times)],
            seed=0,
        ).border
        for times in (1, 10)
    )
    assert one is not None
    assert ten is not None
    assert 0.7 < one.accuracy == ten.accuracy < 1
    assert ten.low == pytest.approx(one.low, abs=0.02)
    assert ten.high == pytest.approx(one.high, abs=0.02)


def test_absent_traits_are_not_measured_and_say_why() -> None:
    bare = [
        replace(f, listed_at=None, packed_at=None, traits=replace(f.traits, exif=()))
        for f in make_files()
    ]
    notes = {probe.name: probe.note for probe in probe_shortcuts(bare, LABELS, GROUPS, seed=0)}
    assert notes["EXIF"] == "no file has any"
    assert notes["times in the zip"] == "the files came in no zip"
    assert notes["order in the list"].startswith("there is no list")
    few = probe_shortcuts(bare[:3], ["0", "1", "1"], GROUPS[:3], seed=0)
    assert {probe.note for probe in few} == {"fewer than two classes have two different images"}


def test_one_rare_class_hides_no_shortcut() -> None:
    """What cannot be both learned and asked about is left out, and the rest is looked at."""
    planted = plant("file size", make_files())
    files, labels = [*planted, *make_files()[:3]], [*LABELS, "rare", "pair", "pair"]
    groups = [*GROUPS, "a", "b", "b"]
    said = "3 images of 2 classes left out: a class needs two different images"
    probes = {probe.name: probe for probe in probe_shortcuts(files, labels, groups, seed=0)}
    effect = probes["file size"].effect
    assert effect is not None
    assert effect.value == 1.0
    assert {probe.note for probe in probes.values()} == {said}
    assert {probe.n_images for probe in probes.values()} == {N}
    assert probes["file size"].floor == pytest.approx(80 / N)
    without = probe_shortcuts(planted, LABELS, GROUPS, seed=0)
    assert [p.effect for p in without] == [p.effect for p in probes.values()]


def test_a_rare_class_does_not_hide_the_border_nor_lift_its_alarm() -> None:
    draw = np.random.default_rng(0)
    thumbnails = draw.integers(0, 256, (N + 300, 32, 32, 3)).astype(np.uint8)
    for thumbnail, label in zip(thumbnails, LABELS, strict=False):
        thumbnail[:3] = 60 * int(label)
    labels = [*LABELS, *(f"rare {k}" for k in range(300))]
    groups = [f"{k:04}" for k in range(N + 300)]
    found = measure_baselines(thumbnails, labels, groups, seed=0)
    assert found.border is not None
    assert found.border.accuracy == 1.0
    assert found.border_tells_much
    assert found.left_out.startswith("300 images of 300 classes left out")
    assert found.majority == pytest.approx(80 / (N + 300))
    assert found.floor == pytest.approx(1 / 3)  # of the classes that were asked about


def test_of_many_images_a_rare_class_keeps_two_groups() -> None:
    """Of 30 images of a class 29 are copies of one: a draw of some must hold the other, too."""
    codes = np.repeat([0, 1], [5000, 30])
    groups = np.concatenate([np.arange(5000), np.full(29, 5000), [5001]])
    for seed in range(12):
        rows = thin(codes, groups, seed)
        assert len(rows) <= MAX_IMAGES
        assert len(np.unique(groups[rows][codes[rows] == 1])) == 2


def test_class_folders_are_no_file_names() -> None:
    files = [
        replace(f, name=f"train/{label}/{f.name[6:]}")
        for f, label in zip(make_files(), LABELS, strict=True)
    ]
    name = next(p for p in probe_shortcuts(files, LABELS, GROUPS, seed=0) if p.name == "file name")
    assert name.effect is not None
    assert name.effect.low < 0.45


def test_drift_is_found_and_quiet_without() -> None:
    files = make_files()
    same = probe_drift(files[:160], files[160:], seed=0)
    assert same.effect is not None
    assert Scale(0.5, 1.0).judge_score(same.effect) == "quiet"
    brighter = [replace(f, mean_rgb=tuple(v + 60 for v in f.mean_rgb)) for f in files[160:]]
    other = probe_drift(files[:160], brighter, seed=0)
    assert other.effect is not None
    assert Scale(0.5, 1.0).judge_score(other.effect) == "alarm"
    assert probe_drift(files, files[:5], seed=0).note == "fewer than ten images of a kind"


def test_bursts_are_no_drift() -> None:
    """40 training and 20 test bursts of 8 photos from one place: whoever learns from a part of a
    burst knows the rest of it."""
    draw = np.random.default_rng(0)
    bursts = np.repeat(np.arange(60), 8)
    colours = draw.uniform(80, 160, (60, 3))[bursts] + draw.normal(0, 0.1, (480, 3))
    sizes = draw.integers(90, 110, 60)[bursts].tolist()
    files = [
        replace(file, mean_rgb=tuple(colour), width=size)
        for file, colour, size in zip(make_files() * 2, colours.tolist(), sizes, strict=True)
    ]
    groups = [f"burst {k}" for k in bursts]
    found = probe_drift(files[:320], files[320:], 0, groups)
    assert found.effect is not None
    assert Scale(0.5, 1.0).judge_score(found.effect) == "quiet"
    by_image = probe_drift(files[:320], files[320:], 0).effect
    assert by_image is not None
    assert found.effect.high - found.effect.low > 1.5 * (by_image.high - by_image.low)
    brighter = [replace(f, mean_rgb=tuple(v + 60 for v in f.mean_rgb)) for f in files[320:]]
    other = probe_drift(files[:320], brighter, 0, groups)
    assert other.effect is not None
    assert Scale(0.5, 1.0).judge_score(other.effect) == "alarm"
    few = probe_drift(files[:320], files[320:], 0, [*groups[:320], *(["one", "two"] * 80)])
    assert (few.effect, few.note) == (None, "fewer than ten groups of a kind")


def test_drift_of_single_images_is_by_delong_whatever_their_names() -> None:
    files = make_files()
    names = [f"{k * 7919 % N:03}" for k in range(N)]
    alone = probe_drift(files[:160], files[160:], 0)
    assert probe_drift(files[:160], files[160:], 0, names) == alone


def test_probe_table_comes_back() -> None:
    probes = [
        *probe_shortcuts(make_files(), LABELS, GROUPS, 0),
        probe_drift(make_files()[:9], [], 0),
    ]
    stream = io.StringIO(make_probe_table(probes).to_csv(index=False))
    table = pd.read_csv(stream, dtype=str, keep_default_na=False)
    back = parse_probe_table(table)
    assert [p.name for p in back] == [p.name for p in probes]
    assert back[-1].effect is None
    assert back[0].effect is not None
    assert back[0].effect.low == pytest.approx(probes[0].effect.low, abs=1e-6)  # type: ignore[union-attr]


@given(majority=st.floats(0.01, 0.9), model=st.floats(0.01, 1.0), low=st.floats(0.0, 1.0))
def test_alarm_means_that_the_lower_bound_closes_half_the_gap(
    majority: float, model: float, low: float
) -> None:
    scale = make_scale(majority, Effect(model, model - 0.01, 1.0))
    severity = scale.judge_score(Effect(1.0, low, 1.0))
    top = model if model - 0.01 > majority else 1.0
    assert (severity == "alarm") == (low >= majority + 0.5 * (top - majority))
    assert severity != "alarm" or low > majority  # what is no better than the majority never does


def test_findings_are_ordered_by_severity() -> None:
    severities = ("quiet", "not measured", "alarm", "notice", "alarm")
    found = order_findings([Finding(str(k), s, "") for k, s in enumerate(severities)])
    assert [f.check for f in found] == ["2", "4", "3", "0", "1"]


def test_auc_is_scikit_learns_and_its_interval_covers() -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        positive = draw.random(120) < 0.3
        scores = draw.normal(size=120) + positive  # true AUC: 0.7602
        effect = measure_auc(scores, positive)
        assert effect.value == pytest.approx(roc_auc_score(positive, scores))
        covered += effect.low <= 0.7602 <= effect.high
    assert 182 <= covered <= 199  # of 200, at 95 %
    with pytest.raises(ValueError, match="at least two"):
        measure_auc(np.zeros(3), np.array([True, False, False]))


@pytest.fixture(scope="module", params=[160, 64])
def demo(request: pytest.FixtureRequest) -> tuple[int, list[bytes], set[tuple[int, int]]]:
    """Photos at a size, and the pairs among them that show one lemon."""
    spec = DemoSpec(seed=4, train=96, size_px=request.param, near_duplicates=6)
    photos = [render_jpeg(make_plan(spec, "train", k), request.param) for k in range(96)]
    pairs = {(min(pair), max(pair)) for pair in near_duplicate_pairs(spec)}
    return request.param, photos, pairs


def test_reshot_lemons_are_found_and_no_others(
    demo: tuple[int, list[bytes], set[tuple[int, int]]],
) -> None:
    size, photos, pairs = demo
    images = np.stack([decode(photo, 64) for photo in photos])
    embeddings = images.reshape(len(images), -1).astype(np.float32)
    found = find_near_duplicates(
        list(images), embeddings, [size] * len(images), lambda k, side: decode(photos[k], side)
    )
    assert set(found.pairs) == pairs
    assert found.groups == sorted([list(pair) for pair in pairs])


def test_a_hash_alone_confirms_nothing() -> None:
    """Two lemons in one place: outlines agree, skins do not."""
    plan = make_plan(DemoSpec(), "train", 3)
    other = replace(plan, texture_seed=plan.texture_seed + 1, defects_shown=False)
    other = replace(other, background_seed=plan.background_seed)
    photos = [render_jpeg(p, 320) for p in (plan, replace(other, grain_seed=5))]
    images = [decode(photo, 128) for photo in photos]
    assert confirm_pair(0, 1, images, lambda k, side: decode(photos[k], side)) == 0.0
    again = Image.open(io.BytesIO(photos[0])).crop((6, 6, 314, 314)).point(lambda v: int(v * 0.93))
    stream = io.BytesIO()
    again.save(stream, "JPEG", quality=70)
    photos[1] = stream.getvalue()
    images[1] = decode(photos[1], 128)
    assert confirm_pair(0, 1, images, lambda k, side: decode(photos[k], side)) > 0.8


def test_flat_pictures_are_no_duplicates() -> None:
    flat = [np.full((64, 64, 3), value, np.uint8) for value in (90, 91)]
    assert confirm_pair(0, 1, flat, None) == 0.0


def test_groups_are_capped_and_strongest_first() -> None:
    chain = [(k, k + 1) for k in range(30)]
    groups = make_groups(chain, 20)
    assert [len(group) for group in groups] == [20, 11]
    assert make_groups([(5, 2), (2, 9), (0, 1)], 20) == [[0, 1], [2, 5, 9]]


def make_copies() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Noise of 80 things, two classes, four times each: embeddings, class numbers, group names."""
    seen = np.repeat(np.random.default_rng(0).normal(size=(80, 40)), 4, axis=0).astype(np.float32)
    return seen, np.repeat(np.arange(80) % 2, 4), [f"{k // 4:03}" for k in range(320)]


def test_random_folds_flatter_where_groups_are_copies() -> None:
    seen, codes, names = make_copies()
    found = measure_inflation(seen, codes, names, draws=200, seed=0)
    assert found is not None
    assert found.random > 0.7
    assert found.difference.low > 0.15
    assert found.left_out == ""
    rare = measure_inflation(
        np.concatenate([seen, seen[:1]]), np.append(codes, 7), [*names, "rare"], 200, 0
    )
    assert rare is not None
    assert (rare.random, rare.n_images) == (found.random, 320)
    assert rare.left_out.startswith("1 image of 1 class left out")
    alone = [f"{k:03}" for k in range(320)]
    assert measure_inflation(seen, codes, alone, draws=200, seed=0) is None
    draw = np.random.default_rng(1)
    two = measure_inflation(
        draw.normal(size=(320, 40)).astype(np.float32), codes, ["000", *alone[:-1]], 200, 0
    )
    assert two is not None
    assert two.difference.low < 0.02


def test_of_many_images_whole_groups_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real set of 13,000 characters was the first that was larger, and had doubles."""
    monkeypatch.setattr(inflation, "MAX_IMAGES", 100)
    seen, codes, names = make_copies()
    found = measure_inflation(seen, codes, names, draws=100, seed=0)
    assert found is not None
    assert found.n_images == 100
    assert found.difference.low > 0.05


def test_folds_keep_groups_whatever_their_numbers() -> None:
    codes, groups = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 3])
    folds = make_folds(codes, groups, 0)
    assert np.array_equal(make_folds(codes, groups * 1000 + 7, 0), folds)
    assert folds[0] == folds[1]
    assert folds[2] == folds[3]


def test_folds_of_groups_of_one_class_stay_as_they_are() -> None:
    """Metrics that are in git were measured on them."""
    codes = np.array([2, 0, 0, 1, 1, 2, 0, 1, 2, 2, 0, 1, 0, 0])
    groups = np.array([9, 4, 4, 1, 0, 9, 7, 6, 3, 2, 8, 5, 7, 11])
    assert make_folds(codes, groups, 0).tolist() == [4, 1, 1, 4, 2, 4, 2, 0, 0, 3, 0, 1, 2, 3]
    alone = make_folds(codes, np.arange(14), 3)
    assert alone.tolist() == [1, 4, 3, 2, 3, 2, 0, 1, 0, 3, 0, 4, 2, 1]


def test_two_groups_that_hold_all_of_a_class_come_into_two_folds() -> None:
    """Two of ten patients have one positive image each, which is not their first."""
    codes, groups = np.zeros(40, np.intp), np.repeat(np.arange(10), 4)
    codes[[14, 31]] = 1
    for seed in range(60):
        folds = make_folds(codes, groups, seed)
        assert folds[14] != folds[31]
        assert (np.bincount(folds) == 40 // FOLDS).all()


def test_who_learned_from_one_class_says_that_one() -> None:
    """The other class is commoner, but in two groups of six, and those in one fold."""
    codes = np.array([0, *[1] * 4, 0, 0, 0, 0, 0, *[1] * 4])
    groups = np.array([0, *[0] * 4, 1, 2, 3, 4, 5, *[5] * 4])
    folds = np.where(np.isin(groups, [0, 5]), 0, groups)
    assert any((make_folds(codes, groups, seed)[codes == 1] == 0).all() for seed in range(60))
    features = np.random.default_rng(0).normal(size=(14, 3))
    assert (predict_linear(features, codes, folds)[folds == 0] == 0).all()
    assert (score_linear(features, codes, folds, 2)[folds == 0] == -np.inf).all()
    assert (score_linear(features, 1 - codes, folds, 2)[folds == 0] == np.inf).all()
    hits = score_transfer(features, {"mirrored": -features}, codes, folds)
    assert (hits["mirrored"][folds == 0] == (codes == 0)[folds == 0]).all()


def test_traits_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "X" * 500
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:02:03 04:05:06"
    coarse = []
    for quality in (95, 40):
        stream = io.BytesIO()
        Image.new("RGB", (20, 10)).save(stream, "JPEG", quality=quality, exif=exif)
        traits = read_traits(open_image(stream.getvalue()), 7)
        coarse.append(traits.encoding[3])
    assert coarse[1] > coarse[0] > 0
    assert traits.size_bytes == 7
    assert dict(traits.exif)["00272"] == "X" * 64
    assert "2024:02:03 04:05:06" in dict(traits.exif).values()
    stream = io.BytesIO()
    Image.new("L", (20, 10)).save(stream, "PNG")
    assert read_traits(open_image(stream.getvalue()), 7).encoding == ("PNG", "L", 0, 0, 0)


def test_zip_times_are_kept_with_the_images(tmp_path: Path) -> None:
    from podium.data.packed_times import write_packed_times

    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for day in (1, 2):
            info = zipfile.ZipInfo(f"train/{day}.png", (2024, 1, day, 10, 30, 0))
            stream = io.BytesIO()
            Image.new("RGB", (8, 8)).save(stream, "PNG")
            writer.writestr(info, stream.getvalue())
    seconds = extract_archive(archive, tmp_path / "out")
    assert seconds["train/2.png"] - seconds["train/1.png"] == 24 * 3600
    assert count_seconds((1980, 0, 0, 0, 0, 0)) < count_seconds((1980, 1, 1, 0, 0, 0))
    write_packed_times(tmp_path / "out", seconds)
    assert load_packed_times(tmp_path / "out") == seconds
    assert load_packed_times(tmp_path) == {}
    (tmp_path / PACKED_TIMES).write_text("file,seconds\na,b\n")
    with pytest.raises(PodiumError, match="is damaged"):
        load_packed_times(tmp_path)


def make_listing() -> Listing:
    rows = [Row(f"train/{k}.png", str(k), "train", label="ab"[k % 2]) for k in range(4)]
    return Listing([*rows, Row("test/9.png", "9", "test")])


def test_relabel_changes_rows_and_records_them() -> None:
    listing, records = apply_relabels(
        make_listing(), [Relabel("train/1.png", "b", "a", 2)], ["a", "b"]
    )
    assert [row.label for row in listing.rows] == ["a", "a", "a", "b", ""]
    assert str(records[0]) == "data/relabel.csv, line 2: given 'b'"
    assert records[0].action == "now 'a'"


def test_relabel_of_soft_labels_is_sure() -> None:
    listing = make_listing()
    listing.rows = [replace(row, soft_label="0.4 0.6") for row in listing.rows]
    changed, _ = apply_relabels(listing, [Relabel("train/1.png", "b", "a", 2)], ["a", "b"])
    assert changed.rows[1].soft_label == "1.0 0.0"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Relabel("train/7.png", "a", "b", 3), "line 3: 'train/7.png' is no training image"),
        (Relabel("test/9.png", "", "b", 3), "line 3: 'test/9.png' is no training image"),
        (Relabel("train/0.png", "a", "c", 3), "line 3: label 'c' is not in competition.classes"),
        (Relabel("train/0.png", "b", "a", 3), "line 3: 'train/0.png' is given as 'a', not 'b'"),
    ],
)
def test_bad_relabels_are_one_line_each(row: Relabel, said: str) -> None:
    with pytest.raises(PodiumError, match=said) as caught:
        apply_relabels(make_listing(), [row], ["a", "b"])
    assert "\n" not in str(caught.value)
    twice = [Relabel("train/0.png", "a", "b", 2), Relabel("train/0.png", "a", "b", 3), row]
    with pytest.raises(ProblemsError, match="has 2 rows that do not fit") as both:
        apply_relabels(make_listing(), twice, ["a", "b"])
    assert "'train/0.png' is already on line 2" in str(both.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: expected image_id,given,label,quality, got nothing"),
        (b"id,label\n", "line 1: expected image_id,given,label,quality, got id,label"),
        (b"image_id,given,label,quality\na,b\n", "line 2: expected 4 cells"),
        (b'image_id,given,label,quality\na,b,"c\n', "no CSV"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_damaged_relabel_files_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "relabel.csv"
    path.write_bytes(content)
    with pytest.raises(PodiumError, match=said):
        load_relabels(path)
    path.write_text("image_id,given,label,quality\n\nx,0,1,0.02\n")
    assert load_relabels(path) == [Relabel("x", "0", "1", 3)]
    assert load_relabels(tmp_path / "none.csv") == []


@pytest.mark.parametrize("columns", [30, 90], ids=["by columns", "by rows"])
def test_the_linear_probe_keeps_the_largest_components(columns: int) -> None:
    """Of two signals it keeps the one that varies most, by whichever matrix they are found."""
    draw = np.random.default_rng(0)
    codes, nuisance = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    features = draw.normal(0, 1, (80, columns))
    features[:, : columns // 2] += 6 * nuisance[:, None]
    features[:, columns // 2 :] += 3 * codes[:, None]
    folds = make_folds(codes, np.arange(80), 0)
    one, two = (predict_linear(features, codes, folds, components) for components in (1, 2))
    assert (two == codes).all()
    assert (one == codes).mean() < 0.9
