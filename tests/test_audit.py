"""The audit: what is planted is found, what is not stays quiet; its page and tables."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.commands.summary import print_summary
from podium.data.decode import RGB, decode
from podium.data.relabel import load_relabels
from podium.intake.demo.photo import render_photo
from podium.intake.demo.plan import make_plan
from podium.intake.demo.spec import DemoSpec
from podium.probes.findings import Effect, Finding, Scale
from podium.probes.near_duplicates import NearDuplicates
from podium.probes.shortcuts import BORDER, Probe
from podium.trust.audit import twins as twins_module
from podium.trust.audit.doctor import Audit, Case, audit, explain_probes, measure_drift
from podium.trust.audit.labels import explain_candidates, find_candidates
from podium.trust.audit.masks import make_mask, make_masks
from podium.trust.audit.occlusion import (
    BACKGROUND,
    BORDER_KEPT,
    CENTRE_KEPT,
    Subject,
    check_occlusion,
    keep_border,
    keep_centre,
    pick_donors,
    replace_backgrounds,
)
from podium.trust.audit.report import make_page, make_summary, write_audit
from podium.trust.audit.twins import Twins, explain_twins, find_twins

N, SIDE = 120, 64
TARGETS = np.arange(N) % 3
GAP = Scale(1 / 3, 1.0)


def draw_images() -> RGB:
    """A disc whose brightness is the class, before a background whose brightness is the class, too."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = draw.integers(0, 12, (N, SIDE, SIDE, 3))
    for image, target in zip(images, TARGETS, strict=True):
        cx, cy = draw.uniform(28, 36, 2)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < 17**2
        image[~disc, 2] += 40 + 60 * target
        image[disc, 0] += 100 + 50 * target
    return images.astype(np.uint8)


def read_background(images: RGB, _: object = None) -> npt.NDArray[np.int64]:
    """A model that looks at the corners."""
    blue = images[:, :5, :, 2].mean(axis=(1, 2))
    return np.digitize(blue, [76.0, 136.0]).astype(np.int64)


def read_object(images: RGB, _: object = None) -> npt.NDArray[np.int64]:
    """A model that looks at the centre."""
    red = images[:, 28:36, 28:36, 0].mean(axis=(1, 2))
    return np.digitize(red, [130.0, 180.0]).astype(np.int64)


def check(answer: object) -> dict[str, Finding]:
    images = draw_images()
    answers = answer(images)  # type: ignore[operator]
    assert (answers == TARGETS).all()
    groups = [str(k) for k in range(N)]
    subject = Subject(images, TARGETS, groups, draws=200, seed=0)
    found = check_occlusion(subject, make_masks(images), answer, GAP)  # type: ignore[arg-type]
    return {finding.check: finding for finding in found}


def test_a_model_that_reads_the_background_is_found_out() -> None:
    found = check(read_background)
    assert found[BORDER_KEPT].severity == "alarm"
    assert found[CENTRE_KEPT].severity == "alarm"
    assert found[BACKGROUND].severity == "alarm"
    assert "100.0% of its answers are then that background's class" in found[BACKGROUND].sentence
    assert "the mask fails on 0 of 50 images" in found[BACKGROUND].sentence
    assert all(finding.advice for finding in found.values())


def test_a_model_that_reads_the_object_stays_quiet() -> None:
    found = check(read_object)
    assert {finding.severity for finding in found.values()} == {"quiet"}
    assert found[BACKGROUND].effect is not None
    assert found[BACKGROUND].effect.value == 0


def test_what_changes_no_answer_loses_nothing() -> None:
    """Evaluate's predictions are means over views, and often better than the one look that is asked
    for here: what they gain is no loss."""
    images, numbers = draw_images(), np.arange(N)
    one_look = np.where(numbers % 4 == 0, (TARGETS + 1) % 3, TARGETS)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[20:44, 20:44] = True
    subject = Subject(images, TARGETS, [str(k) for k in numbers], draws=200, seed=0)
    found = check_occlusion(subject, [mask] * N, lambda shown, rows: one_look[rows], GAP)
    effects = {finding.check: finding.effect for finding in found}
    assert effects[CENTRE_KEPT] == effects[BACKGROUND] == Effect(0.0, 0.0, 0.0)


def test_border_of_few_groups_is_less_sure() -> None:
    """A model that knows the borders of 10 of 12 bursts of ten photos alarms by image only."""
    bursts = np.arange(N) // 10
    known = np.where(bursts < 10, TARGETS, (TARGETS + 1) % 3)
    severities = []
    for groups in (np.arange(N), bursts):
        subject = Subject(draw_images(), TARGETS, [str(k) for k in groups], draws=20, seed=0)
        found = check_occlusion(subject, [None] * N, lambda images, rows: known[rows], GAP)
        assert found[0].effect is not None
        assert found[0].effect.value == 100 / N
        severities.append(found[0].severity)
    assert severities == ["alarm", "quiet"]


def test_a_model_that_knows_nothing_can_lose_nothing() -> None:
    """Right by chance on a third, it could not lose the third that would alarm: quiet says too much."""
    subject = Subject(draw_images(), TARGETS, [str(k) for k in range(N)], draws=20, seed=0)
    answers = np.where(np.arange(N) % 4 == 0, TARGETS, (TARGETS + 1) % 3)
    found = check_occlusion(subject, [None] * N, lambda images, rows: answers[rows], GAP)
    assert [one.severity for one in found[1:]] == ["not measured", "not measured"]
    assert "right on 25.0% of these images" in found[1].sentence
    nothing = explain_candidates(find_candidates([], TARGETS[:0], np.empty((0, 3)), "abc"), 9, True)
    assert nothing.severity == "not measured"
    assert "not surely better than the commonest class" in nothing.sentence


def test_without_masks_nothing_is_claimed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3)).astype(np.uint8)
    subject = Subject(noise, TARGETS, [str(k) for k in range(N)], 200, 0)
    found = check_occlusion(subject, [None] * N, lambda images, rows: TARGETS[rows], GAP)
    assert found[2].severity == "not measured"
    assert "nothing is claimed" in found[2].sentence
    assert "fails on 50 of 50" in found[2].sentence


def test_masks_find_the_lemon_or_say_that_they_do_not() -> None:
    photos = [render_photo(make_plan(DemoSpec(), "train", k), 128) for k in range(12)]
    masks = make_masks(np.stack([photo.pixels for photo in photos]))
    overlaps = [
        (mask & photo.lemon).sum() / (mask | photo.lemon).sum()
        for mask, photo in zip(masks, photos, strict=True)
        if mask is not None
    ]
    assert len(overlaps) >= 10
    assert float(np.median(overlaps)) > 0.9
    assert make_mask(np.full((64, 64, 3), 128, np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert make_mask(noise) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
@settings(deadline=None)
def test_donors_are_of_another_class(targets: list[int]) -> None:
    codes = np.array(targets)
    donors = pick_donors(codes)
    assert (donors is None) == (len(set(targets)) == 1)
    if donors is not None:
        assert (codes[donors] != codes).all()


def test_painting_keeps_what_it_says() -> None:
    images = draw_images()[:4]
    edge, inner = round(SIDE * 0.1), slice(round(SIDE * 0.1), -round(SIDE * 0.1))
    assert (keep_border(images)[:, :edge] == images[:, :edge]).all()
    assert len(np.unique(keep_border(images)[:, inner, inner].reshape(-1, 3), axis=0)) == 1
    assert (keep_centre(images)[:, inner, inner] == images[:, inner, inner]).all()
    assert len(np.unique(keep_centre(images)[:, :edge].reshape(-1, 3), axis=0)) == 1
    masks = make_masks(images)
    assert all(mask is not None for mask in masks)
    donors = np.array([1, 0, 3, 2])
    changed = replace_backgrounds(images, masks, donors)  # type: ignore[arg-type]
    few = replace_backgrounds(images, masks, donors, 3)  # type: ignore[arg-type]
    assert (few == changed[:3]).all()
    assert abs(float(changed[0, :5, :, 2].mean()) - float(images[1, :5, :, 2].mean())) < 3
    assert (
        abs(float(changed[0, 30:34, 30:34, 0].mean()) - float(images[0, 30:34, 30:34, 0].mean()))
        < 3
    )


def make_predictions(noisy: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], set[str]]:
    """Given labels, good probabilities, and whose label is wrong."""
    draw = np.random.default_rng(2)
    truth = np.arange(400) % 4
    logits = 6.0 * np.eye(4)[truth] + draw.normal(size=(400, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = draw.choice(400, noisy, replace=False)
    given = truth.copy()
    given[wrong] = (given[wrong] + draw.integers(1, 4, noisy)) % 4
    return given, probabilities, {f"{k:03}" for k in wrong}


def test_planted_label_noise_is_found() -> None:
    given, probabilities, wrong = make_predictions(20)
    ids = [f"{k:03}" for k in range(400)]
    found = find_candidates(ids, given, probabilities, list("abcd"))
    hits = wrong & set(found["image_id"])
    assert len(hits) / len(wrong) >= 0.8
    assert len(hits) / len(found) >= 0.6
    assert found["quality"].is_monotonic_increasing
    assert (found["given"] != found["label"]).all()
    assert explain_candidates(found, 400).severity == "notice"


def test_clean_labels_stay_quiet() -> None:
    truth = np.arange(400) % 4
    sure = np.full((400, 4), 0.02) + 0.92 * np.eye(4)[truth]
    found = find_candidates([str(k) for k in range(400)], truth, sure, list("abcd"))
    assert found.empty
    assert explain_candidates(found, 400).severity == "quiet"
    few = find_candidates(["x", "y"], np.array([0, 1]), sure[:2], list("abcd"))
    assert few.empty


def test_candidates_can_be_copied_into_relabel_csv(tmp_path: Path) -> None:
    given, probabilities, _ = make_predictions(20)
    found = find_candidates([f"{k:03}" for k in range(400)], given, probabilities, list("abcd"))
    path = tmp_path / "relabel.csv"
    found.to_csv(path, index=False)
    assert len(load_relabels(path)) == len(found)


def make_rows(n_train: int, n_test: int) -> pd.DataFrame:
    ids = [f"train/{k:03}.jpg" for k in range(n_train)] + [
        f"test/{k:03}.jpg" for k in range(n_test)
    ]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": ids,
            "sha256": ids,
            "pixel_hash": ids,
            "width": 64,
            "height": 64,
            "label": ["abc"[k % 3] for k in range(n_train)] + [""] * n_test,
            "group_id": ids,
            "source": ["train"] * n_train + ["test"] * n_test,
        }
    )


def test_drift_of_embeddings() -> None:
    rows = make_rows(150, 80)
    seen = np.random.default_rng(0).normal(size=(230, 40)).astype(np.float32)
    assert measure_drift(rows, seen, seed=0).severity == "quiet"
    seen[150:, :5] += 1.5
    assert measure_drift(rows, seen, seed=0).severity == "alarm"
    assert measure_drift(rows.head(152), seen[:152], seed=0).severity == "not measured"


def test_bursts_are_no_drift_of_embeddings() -> None:
    """Of one distribution, and all of a burst alike: by image, the AUC is 1."""
    rows = make_rows(320, 160)
    bursts = np.repeat(np.arange(60), 8)
    draw = np.random.default_rng(0)
    seen = (draw.normal(size=(60, 64))[bursts] + draw.normal(0, 0.1, (480, 64))).astype(np.float32)
    assert measure_drift(rows, seen, seed=0).severity == "alarm"
    grouped = rows.assign(group_id=[f"burst {k:02}" for k in bursts])
    assert measure_drift(grouped, seen, seed=0).severity == "quiet"
    seen[320:, :5] += 3
    assert measure_drift(grouped, seen, seed=0).severity == "alarm"
    few = grouped.tail(320).reset_index(drop=True)
    few.loc[160:, "group_id"] = "one"
    told = measure_drift(few, seen[160:], seed=0)
    assert (told.severity, told.sentence) == ("not measured", "fewer than ten groups of a kind")


def test_border_alarm_is_in_plain_words() -> None:
    model = Effect(0.997, 0.99, 0.999)
    probe = Probe(BORDER, Effect(0.986, 0.976, 0.993), 0.363, 882)
    (finding,) = explain_probes([probe], model, Scale(0.363, 0.997))
    assert finding.severity == "alarm"
    assert "the outermost tenth of the pictures alone, without the object" in finding.sentence
    assert "98.6%" in finding.sentence
    assert "can come from the background alone and proves nothing" in finding.sentence
    assert finding.advice
    (rare,) = explain_probes(
        [replace(probe, note="1 image of 1 class left out")], model, Scale(0.363, 0.997)
    )
    assert rare.sentence == f"{finding.sentence} (1 image of 1 class left out)"


def sees_centre(images: RGB) -> npt.NDArray[np.bool_]:
    """Whether the middle is not painted over."""
    shown: npt.NDArray[np.bool_] = images[:, 28:36, 28:36].std(axis=(1, 2)).sum(axis=1) > 0
    return shown


def test_pictures_that_are_too_small_are_not_compared() -> None:
    """Like glyphs have like pixels: nothing is claimed of them, and the reason is said."""
    rows = make_rows(4, 0).assign(width=20, height=20)
    images = list(draw_images()[[0, 0, 1, 1]])
    twins = find_twins(rows, images, np.eye(4, dtype=np.float32), {}, lambda *_: images[0], 10, 0)
    finding, test, inflation = explain_twins(twins, rows, [], {}, GAP)
    assert finding.severity == "not measured"
    assert "smaller than 48 px" in finding.sentence
    assert not twins.groups
    assert (test.severity, test.sentence) == ("not measured", "no test image")
    assert inflation.sentence.startswith("no group of equal images")


@pytest.mark.parametrize("why", ["small", "many"])
def test_equal_pixels_are_found_where_alike_ones_are_not_looked_for(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leak of whole pictures: two in test, and copies in train that random folds part."""
    rows = make_rows(60, 6)
    if why == "small":
        rows = rows.assign(width=20, height=20)
    else:
        monkeypatch.setattr(twins_module, "MAX_IMAGES", 10)
    rows.loc[61, "pixel_hash"], rows.loc[64, "pixel_hash"] = rows["pixel_hash"][0], "train/007.jpg"
    seen = np.random.default_rng(0).normal(size=(66, 20)).astype(np.float32)
    rows.loc[30:59, "group_id"], seen[30:60] = rows["group_id"][:30].tolist(), seen[:30]
    images = list(draw_images()[:66])
    twins = find_twins(rows, images, seen, {}, lambda *_: images[0], 200, 0)
    found = {one.check: one for one in explain_twins(twins, rows, [], {}, GAP)}
    assert found["near-duplicates"].severity == "not measured"
    assert "only equal pixels were looked for" in found["near-duplicates"].sentence
    test = found["near-duplicates across train and test"]
    assert (test.severity, test.sentence) == (
        "notice",
        "2 of 6 test images are a training image, pixel for pixel",
    )
    inflation = found["inflation by random folds"]
    assert inflation.effect is not None
    assert inflation.effect.low > 0


def make_twins(rows: pd.DataFrame, groups: list[list[str]], folds: dict[str, int]) -> Twins:
    """Groups as if found."""
    table = twins_module._make_table(rows, groups, folds)
    names = rows["image_id"][rows["source"] == "train"].tolist()
    return Twins(groups, [], names, table, None, "")


@pytest.mark.parametrize(
    ("count", "severity"), [(0, "quiet"), (3, "notice"), (15, "notice"), (24, "alarm")]
)
def test_many_twins_across_alarm_and_few_do_not(count: int, severity: str) -> None:
    """Who looks up 24 of 30 and says the commonest class of the rest closes half the gap."""
    rows = make_rows(60, 30)
    ids = rows["image_id"].tolist()
    folds = {name: k // 30 for k, name in enumerate(ids[:60])}  # val: fold 1
    groups = [[ids[k], ids[30 + k], ids[60 + k]] for k in range(count)]
    twins = make_twins(rows, groups, folds)
    found = {one.check: one for one in explain_twins(twins, rows, ids[30:60], folds, GAP)}
    for place in ("val", "test"):
        finding = found[f"near-duplicates across train and {place}"]
        assert finding.severity == severity, finding
        assert finding.alarm_at == pytest.approx(0.5)
        assert bool(finding.advice) == (severity != "quiet")
    assert found["near-duplicates within train"].alarm_at is None


def test_a_series_longer_than_a_group_leaks_all_the_same() -> None:
    """Frames of a video: a group ends after 20, and the next frame is in another fold, or in test."""
    rows = make_rows(60, 30)
    ids = rows["image_id"].tolist()
    folds = {name: int(k >= 20) for k, name in enumerate(ids[:60])}  # val: fold 1
    twins = make_twins(rows, [ids[:20], ids[20:40], ids[60:80]], folds)
    apart = [(ids[19], ids[20]), (ids[20], ids[21]), (ids[60], ids[5]), (ids[60], ids[61])]
    found = {
        one.check: one
        for one in explain_twins(replace(twins, apart=apart), rows, ids[20:60], folds, GAP)
    }
    val = found["near-duplicates across train and val"]
    assert val.sentence == "1 of 40 val images have a near-duplicate in training"
    assert "2 pairs that are alike are in no common group" in val.advice
    within = found["near-duplicates within train"]
    assert within.sentence.startswith("40 of 60 training images show the same thing")
    test = found["near-duplicates across train and test"]
    assert test.sentence.startswith("1 of 30 test images show the same thing as a training image")


def test_pairs_that_a_full_group_leaves_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        twins_module,
        "find_near_duplicates",
        lambda *_: NearDuplicates(4, [(0, 1), (1, 2), (2, 3), (3, 4)], [[0, 1], [2, 3]]),
    )
    rows = make_rows(6, 0).assign(width=300, height=300)
    rows.loc[5, "pixel_hash"] = rows["pixel_hash"][2]
    seen = np.eye(6, dtype=np.float32)
    images = list(draw_images()[:6])
    twins = find_twins(rows, images, seen, {}, lambda *_: images[0], 10, 0)
    ids = rows["image_id"].tolist()
    assert twins.groups == [ids[:2], [ids[2], ids[3], ids[5]]]
    assert twins.apart == [(ids[1], ids[2]), (ids[1], ids[5]), (ids[3], ids[4])]


def test_equal_pixels_alone_alarm_where_they_are_most_of_the_test_images() -> None:
    rows = make_rows(60, 30)
    rows.loc[60:83, "pixel_hash"] = rows["pixel_hash"][:24].tolist()
    twins = replace(make_twins(rows, [], {}), skipped="too many")
    found = {one.check: one for one in explain_twins(twins, rows, [], {}, GAP)}
    assert found["near-duplicates across train and test"].severity == "alarm"


@pytest.mark.parametrize(("count", "severity"), [(0, "quiet"), (2, "notice"), (9, "alarm")])
def test_labels_that_mostly_conflict_alarm(count: int, severity: str) -> None:
    rows = make_rows(60, 0)
    ids = rows["image_id"].tolist()
    rows.loc[30 : 30 + count - 1, "label"] = "other"
    groups = [[ids[k], ids[30 + k]] for k in range(12)]
    twins = make_twins(rows, groups, {})
    found = {one.check: one for one in explain_twins(twins, rows, [], {}, GAP)}
    assert found["labels of near-duplicates"].severity == severity


@given(floor=st.floats(0.0, 0.99), top=st.floats(0.0, 1.0), share=st.floats(0.0, 1.0))
def test_what_is_looked_up_alarms_as_a_shortcut_does(
    floor: float, top: float, share: float
) -> None:
    scale = Scale(floor, max(floor, top))
    scored = floor + share * (1 - floor)  # known ones right, of the others the commonest class
    alarms = scale.judge_score(Effect(scored, scored, scored)) == "alarm"
    if abs(share - scale.looked_up_that_alarms()) > 1e-9:
        assert alarms == (share > scale.looked_up_that_alarms())


def test_inflation_that_cannot_be_measured_is_not_called_quiet() -> None:
    """Two equal pictures, and one class has no other."""
    rows = make_rows(4, 0).assign(label=["a", "a", "b", "b"], group_id=["0", "1", "2", "2"])
    images = list(draw_images()[:4])
    twins = find_twins(rows, images, np.eye(4, dtype=np.float32), {}, lambda *_: images[0], 10, 0)
    finding = explain_twins(twins, rows, [], {}, GAP)[-1]
    assert (finding.check, finding.severity) == ("inflation by random folds", "not measured")
    assert "fewer than two classes have two different images" in finding.sentence


@pytest.fixture(scope="module")
def case() -> Case:
    """Lemons of three sorts, two of which stand in train and val, and two in train and test."""
    spec = DemoSpec(seed=9, train=16, size_px=64, near_duplicates=0)
    rows = make_rows(N, 30)
    plans = [make_plan(spec, "train", k) for k in range(N)]
    shown = [render_photo(plan, SIDE).pixels for plan in plans]
    tests = [render_photo(make_plan(spec, "test", k), SIDE).pixels for k in range(30)]
    shown[7] = render_photo(replace(plans[1], grain_seed=3), SIDE).pixels  # same label
    shown[8] = render_photo(replace(plans[3], grain_seed=3), SIDE).pixels  # another label
    tests[4] = render_photo(replace(plans[2], grain_seed=3), SIDE).pixels
    images = np.stack([*shown, *tests])
    rows.loc[N + 5, "pixel_hash"] = rows.loc[0, "pixel_hash"]
    probabilities = np.full((N, 3), 0.05) + 0.85 * np.eye(3)[TARGETS]
    return Case(
        rows=rows,
        train_images=images[:N],
        test_images=images[N:],
        embeddings=images.reshape(N + 30, -1).astype(np.float32)[:, ::7],
        folds={name: k % 5 for k, name in enumerate(rows["image_id"][:N])},
        val_rows=np.arange(N),
        targets=TARGETS,
        probabilities=probabilities,
        classes=["a", "b", "c"],
        probes=[
            Probe(BORDER, Effect(0.9, 0.85, 0.95), 1 / 3, N),
            Probe("EXIF", None, 1 / 3, N, "none"),
        ],
        answer=lambda images, numbers: np.where(sees_centre(images), TARGETS[numbers], 0),
        load_large=lambda path, side: decode(b"", side),
        seed=0,
    )


@pytest.fixture(scope="module")
def audited(case: Case) -> Audit:
    """What the doctor says of it."""
    return audit(case)


def test_audit_finds_planted_twins_where_they_stand(audited: Audit) -> None:
    found = {finding.check: finding for finding in audited.findings}
    across_val = found["near-duplicates across train and val"]
    assert across_val.severity == "notice"
    assert across_val.sentence.startswith("2 of 120")  # 3 and 8 are of one fold
    assert found["near-duplicates across train and test"].sentence.startswith("2 of 30 test images")
    assert "(1 of them pixel for pixel)" in found["near-duplicates across train and test"].sentence
    assert found["labels of near-duplicates"].sentence.startswith("1 of 2 groups")
    assert found["border"].severity == "alarm"
    assert found["labels"].severity == "quiet"


def test_audit_is_quiet_where_nothing_is_planted(case: Case) -> None:
    spec = DemoSpec(seed=9, train=16, size_px=64, near_duplicates=0)
    images = np.array(case.train_images)
    tests = np.array(case.test_images)
    for k in (7, 8):
        images[k] = render_photo(make_plan(spec, "train", k), SIDE).pixels
    tests[4] = render_photo(make_plan(spec, "test", 4), SIDE).pixels
    rows = case.rows.copy()
    rows.loc[N + 5, "pixel_hash"] = "own"
    together = np.concatenate([images, tests])
    clean = replace(
        case,
        rows=rows,
        train_images=images,
        test_images=tests,
        embeddings=together.reshape(len(together), -1).astype(np.float32)[:, ::7],
        probes=[Probe(BORDER, Effect(0.3, 0.25, 0.35), 1 / 3, N)],
    )
    found = audit(clean)
    assert {finding.severity for finding in found.findings} == {"quiet"}, [
        finding for finding in found.findings if finding.severity != "quiet"
    ]
    assert found.twins.groups == []


def test_a_model_must_be_better_than_the_commonest_class_by_groups(case: Case) -> None:
    """Right on 7 of 12 bursts of ten photos, 58 % by luck where the commonest class has 33 %."""
    rows = case.rows.copy()
    rows.loc[: N - 1, "group_id"] = [f"{k // 10:02}" for k in range(N)]
    said = np.where(np.arange(N) < 70, TARGETS, (TARGETS + 1) % 3)
    wrong = replace(case, probabilities=0.05 + 0.85 * np.eye(3)[said])
    assert audit(wrong).scale.top == 70 / N
    by_groups = audit(replace(wrong, rows=rows))
    assert by_groups.model.value == 70 / N
    assert by_groups.model.low < 1 / 3
    assert by_groups.scale.top == 1


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_is_written_repeats_itself_and_loads_nothing(
    audited: Audit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = audited
    contents = []
    for root in (tmp_path / "a", tmp_path / "b c"):
        write_audit(root, "toy <script>", found)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        contents.append({str(p.relative_to(root)): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    assert list(contents[0]) == [
        "metrics/audit.json",
        "reports/audit/audit.html",
        "reports/audit/findings.csv",
        "reports/audit/masks.png",
        "reports/audit/near_duplicates.csv",
        "reports/audit/near_duplicates.png",
        "reports/audit/occlusion.png",
        "reports/audit/relabel_candidates.csv",
    ]
    page = _Page(make_page("toy <script>", found))
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & page.tags
    assert "toy <script>: leaks and shortcuts" in page.text
    assert "What to do:" in page.text
    assert make_summary(found)[0].startswith("ALARM: the outermost tenth")
    metrics = json.loads(contents[0]["metrics/audit.json"])
    assert metrics["n_alarm"] == 1
    print_summary(tmp_path / "a")
    table = " ".join(capsys.readouterr().out.split())
    assert "ALARM: border the outermost tenth of the pictures alone" in table
    assert "not measured: EXIF" in table
