"""Temperature and decoders: found where they help, left alone where they do not, never fitted on
the rows that they are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy.special import softmax

from podium.errors import PodiumError
from podium.tasks.answers import Answers, find_answers, load_answers, write_answers
from podium.tasks.calibration import apply_temperature, calibrate, fit_temperature
from podium.tasks.classification import metrics as measure
from podium.tasks.classification.data import ClassificationData
from podium.tasks.decoding import (
    FITS,
    ClassWeights,
    GradeThresholds,
    choose_decoder,
    decode_nested,
    fit_class_weights,
    fit_grade_thresholds,
    fit_grade_variance,
)
from podium.tasks.evidence import PARTS, Evidence, find_class_numbers, gain_interval, make_parts

K = 4
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "qwk", "log_loss"]
Array = np.ndarray[Any, Any]


def make_task(primary: Metric = "qwk", **changes: Any) -> ClassificationData:
    fields = {"classes": ("0", "1", "2", "3"), "ordinal": True, "primary_metric": primary}
    return ClassificationData(**{**fields, **changes})


def make_evidence(targets: Array, groups: list[str] | None = None, draws: int = 400) -> Evidence:
    groups = groups or [str(row) for row in range(len(targets))]
    parts = make_parts(find_class_numbers(targets), groups, [0] * len(targets), 0)
    return Evidence(targets, groups, parts, draws, 0)


def draw_targets(probabilities: Array, draw: np.random.Generator) -> Array:
    """Targets that the probabilities are true of."""
    edges = probabilities.cumsum(axis=1)
    return (draw.random((len(edges), 1)) > edges[:, :-1]).sum(axis=1)


def make_calibrated(n: int, seed: int, spread: float = 2.0) -> tuple[Array, Array]:
    draw = np.random.default_rng(seed)
    probabilities = softmax(spread * draw.normal(size=(n, K)), axis=1)
    return probabilities, draw_targets(probabilities, draw)


def make_biased_grades(n: int, seed: int) -> tuple[Array, Array]:
    """Grades seen through noise by a model that says one of the middle grades far too often."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, K, n)
    seen = targets + draw.normal(scale=0.45, size=n)
    logits = -((seen[:, None] - np.arange(K)) ** 2) + np.array([0, 2.5, 2.5, 0])
    return softmax(logits, axis=1), targets


def make_rare_class(n: int, seed: int) -> tuple[Array, Array]:
    """One class in twelve; the model knows it but, trained on odds of its own, says it too rarely."""
    draw = np.random.default_rng(seed)
    targets = (draw.random(n) < 1 / 6).astype(np.int64)
    signal = 2.5 * targets + draw.normal(size=n) - 3.2
    return softmax(np.stack([np.zeros(n), signal], axis=1), axis=1), targets


# --- temperature


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(true: float) -> None:
    probabilities, targets = make_calibrated(20_000, 0)
    wrong = apply_temperature(probabilities, 1 / true)  # logits times `true`
    assert fit_temperature(wrong, targets) == pytest.approx(true, rel=0.05)
    assert apply_temperature(wrong, true) == pytest.approx(probabilities, abs=1e-9)


def test_temperature_is_a_softmax_of_scaled_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(50, K)) * 4
    expected = softmax(logits / 1.7, axis=1)
    assert apply_temperature(softmax(logits, axis=1), 1.7) == pytest.approx(expected)


def test_overconfidence_is_mended_and_reported() -> None:
    probabilities, targets = make_calibrated(600, 1)
    sure = apply_temperature(probabilities, 1 / 3)
    temperature, report = calibrate(sure, make_evidence(targets))
    assert temperature == pytest.approx(3, rel=0.25)
    assert report["adopted"]
    assert report["ece_after"] < report["ece_before"]
    loss = report["log_loss"]
    assert loss["before"] == pytest.approx(measure.log_loss(targets, sure), abs=1e-6)
    assert loss["gain"] == pytest.approx(loss["before"] - loss["after"], abs=2e-6)
    assert 0 < loss["gain_low"] < loss["gain"] < loss["gain_high"]


def test_soft_labels_say_how_sure_to_be() -> None:
    """All answers are right, so that against the likeliest class no temperature would be too low."""
    shares, _ = make_calibrated(400, 2)
    sure = apply_temperature(shares, 1 / 3)
    assert fit_temperature(sure, shares) == pytest.approx(3, rel=1e-3)
    temperature, report = calibrate(sure, make_evidence(shares))
    assert report["adopted"]
    assert temperature == pytest.approx(3, rel=1e-3)
    entropy = -(shares * np.log(shares)).sum(axis=1).mean()
    assert report["log_loss"]["after"] == pytest.approx(entropy, abs=1e-3)


def test_soft_labels_that_are_certain_and_right_give_no_temperature() -> None:
    shares = np.eye(K)[np.arange(100) % K]
    probabilities = softmax(3.0 * shares, axis=1)
    assert calibrate(probabilities, make_evidence(shares))[0] == 1


def test_answers_for_soft_labels() -> None:
    """The temperature from the shares, the decoder from the likeliest class."""
    probabilities, targets = make_biased_grades(300, 0)
    shares = 0.9 * np.eye(K)[targets] + 0.1 / K
    groups = [str(row) for row in range(300)]
    asked = {"calibrated": True, "decoded": True, "draws": 200, "seed": 0}
    rows = groups, [0] * 300, make_task("accuracy")
    soft = find_answers(probabilities, shares, *rows, **asked)  # type: ignore[arg-type]
    hard = find_answers(probabilities, targets, *rows, **asked)  # type: ignore[arg-type]
    assert soft.answers.decoder == hard.answers.decoder is not None
    assert (
        soft.report["calibration"][0]["temperature"] > hard.report["calibration"][0]["temperature"]
    )


def test_what_is_calibrated_stays() -> None:
    adopted = 0
    for seed in range(20):
        probabilities, targets = make_calibrated(300, seed)
        temperature, report = calibrate(probabilities, make_evidence(targets))
        assert (temperature == 1) or report["adopted"]
        adopted += report["adopted"]
    assert adopted <= 1  # 2.5 % of 20


def test_rows_that_are_all_right_give_no_temperature() -> None:
    """Their log loss falls for ever, and one wrong test row would pay for it."""
    targets = np.arange(100) % K
    probabilities = softmax(3.0 * np.eye(K)[targets], axis=1)
    temperature, report = calibrate(probabilities, make_evidence(targets))
    assert report["log_loss"]["gain_low"] > 0
    assert (temperature, report["adopted"]) == (1, False)


def test_a_probability_of_zero_is_no_infinity() -> None:
    probabilities = np.tile([[1.0, 0.0, 0.0, 0.0]], (60, 1))
    targets = np.arange(60) % 2
    assert np.isfinite(fit_temperature(probabilities, targets))
    assert np.isfinite(apply_temperature(probabilities, 0.05)).all()


# --- decoders


def test_variance_matching_by_hand() -> None:
    # Expected grades 1.2 and 1.8 for grades 0 and 3: centre 1.5, spread 0.3 where 1.5 is wanted.
    probabilities = np.array([[0, 0.8, 0.2, 0], [0, 0.2, 0.8, 0]])
    decoder = fit_grade_variance(probabilities, np.array([0, 3]), measure.accuracy)
    assert decoder.cuts == pytest.approx([1.3, 1.5, 1.7])
    assert decoder.decode(probabilities).tolist() == [0, 3]
    flat = np.full((5, K), 0.25)
    assert fit_grade_variance(flat, np.array([0, 1, 2, 3, 3]), measure.accuracy).decode(flat).size


def test_thresholds_are_at_least_as_good_where_they_were_fitted() -> None:
    probabilities, targets = make_biased_grades(300, 0)
    task = make_task()
    start = fit_grade_variance(probabilities, targets, task.score_labels)
    end = fit_grade_thresholds(probabilities, targets, task.score_labels)
    assert list(end.cuts) == sorted(end.cuts)
    assert task.score_labels(end.decode(probabilities), targets) >= task.score_labels(
        start.decode(probabilities), targets
    )


def test_class_weights_by_hand() -> None:
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.95, 0.05]])
    targets = np.array([1, 1, 0, 0])
    decoder = fit_class_weights(probabilities, targets, make_task("accuracy").score_labels)
    assert decoder.decode(probabilities).tolist() == [1, 1, 0, 0]
    unchanged = fit_class_weights(
        probabilities, np.zeros(4, np.int64), make_task("accuracy").score_labels
    )
    assert unchanged.log_weights == (0, 0)
    assert ClassWeights((0.0, 0.0)).decode(np.array([[0.5, 0.5]])).tolist() == [0]  # as argmax


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_adopted_where_they_matter(seed: int) -> None:
    task = make_task()
    probabilities, targets = make_biased_grades(400, seed)
    decoder, reports = choose_decoder(
        probabilities, make_evidence(targets), task.decoders, task.score_labels
    )
    assert isinstance(decoder, GradeThresholds)
    (best,) = [row for row in reports if row["adopted"]]
    assert best["gain"] == max(row["gain"] for row in reports)
    assert best["gain_low"] > 0
    # On rows that nothing was fitted on.
    fresh, truth = make_biased_grades(4000, 100 + seed)
    plain = task.score_labels(fresh.argmax(axis=1), truth)
    assert task.score_labels(decoder.decode(fresh), truth) > plain + 0.02


@pytest.mark.parametrize("seed", range(4))
def test_class_weights_are_adopted_where_they_matter(seed: int) -> None:
    task = make_task("macro_f1", classes=("a", "b"), ordinal=False)
    probabilities, targets = make_rare_class(600, seed)
    decoder, (report,) = choose_decoder(
        probabilities, make_evidence(targets), task.decoders, task.score_labels
    )
    assert isinstance(decoder, ClassWeights)
    assert report["adopted"]
    fresh, truth = make_rare_class(6000, 100 + seed)
    plain = task.score_labels(fresh.argmax(axis=1), truth)
    assert task.score_labels(decoder.decode(fresh), truth) > plain + 0.02


@pytest.mark.parametrize("primary", ["accuracy", "macro_f1", "qwk"])
def test_noise_is_not_adopted(primary: Metric) -> None:
    """Probabilities that say nothing of the targets: whatever fits them is chance."""
    task = make_task(primary)
    adopted = 0
    for seed in range(12):
        draw = np.random.default_rng(seed)
        probabilities = softmax(draw.normal(size=(150, K)), axis=1)
        targets = draw.integers(0, K, 150)
        decoder, _ = choose_decoder(
            probabilities, make_evidence(targets, draws=200), task.decoders, task.score_labels
        )
        adopted += decoder is not None
    assert adopted <= 2  # 7 % of 500 seeds for accuracy, where it is most


@pytest.mark.parametrize("seed", range(5))
def test_a_calibrated_accuracy_has_nothing_to_gain(seed: int) -> None:
    """Of true probabilities the most probable class is right most often."""
    task = make_task("accuracy")
    probabilities, targets = make_calibrated(400, seed)
    decoder, _ = choose_decoder(
        probabilities, make_evidence(targets), task.decoders, task.score_labels
    )
    assert decoder is None


@pytest.mark.parametrize("name", FITS)
def test_a_part_is_judged_by_what_the_others_say(name: str) -> None:
    """With the labels of one part shuffled its own answers stay; those of the others do not."""
    task = make_task("qwk" if name.startswith("grade") else "macro_f1")
    probabilities, targets = make_biased_grades(300, 0)
    evidence = make_evidence(targets)
    part = evidence.parts == 2
    shuffled = targets.copy()
    shuffled[part] = 3 - shuffled[part]  # the relation turned round
    other = Evidence(shuffled, evidence.groups, evidence.parts, evidence.draws, evidence.seed)
    before = decode_nested(probabilities, evidence, FITS[name], task.score_labels)
    after = decode_nested(probabilities, other, FITS[name], task.score_labels)
    assert np.array_equal(before[part], after[part])
    assert not np.array_equal(before[~part], after[~part])


def test_a_part_is_calibrated_by_the_others() -> None:
    """Four overconfident parts and one that is as sure as it should be: judged with the others'
    temperature it loses; a temperature of its own could not lose."""
    probabilities, targets = make_calibrated(1000, 3)
    evidence = make_evidence(targets)
    part = evidence.parts == 2
    mixed = apply_temperature(probabilities, 1 / 3)
    mixed[part] = probabilities[part]
    _, report = calibrate(mixed, evidence)
    theirs = fit_temperature(mixed[~part], targets[~part])
    lost = measure.log_loss(targets[part], apply_temperature(mixed[part], theirs))
    assert lost > measure.log_loss(targets[part], mixed[part])
    by_hand = np.empty_like(mixed)
    for number in range(PARTS):
        held = evidence.parts == number
        by_hand[held] = apply_temperature(
            mixed[held], fit_temperature(mixed[~held], targets[~held])
        )
    assert report["log_loss"]["after"] == pytest.approx(
        measure.log_loss(targets, by_hand), abs=1e-6
    )


@pytest.mark.parametrize("primary", ["accuracy", "macro_f1", "qwk"])
def test_scores_of_labels_go_up_with_quality(primary: Metric) -> None:
    task = make_task(primary)
    targets = np.arange(40) % K
    worse = np.where(np.arange(40) < 10, (targets + 1) % K, targets)
    assert task.score_labels(targets, targets) == 1 > task.score_labels(worse, targets)
    assert task.score_labels(worse, targets) == task.score(np.eye(K)[worse], targets)


def test_decoders_follow_metric_and_submission() -> None:
    assert make_task("qwk").decoders == ("grade_variance", "grade_thresholds")
    for primary in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert make_task(primary).decoders == ("class_weights",)
    assert make_task("log_loss").decoders == ()
    assert make_task("qwk", submission="probability").decoders == ()
    with pytest.raises(ValueError, match="log_loss judges probabilities"):
        make_task("log_loss").score_labels(np.array([0]), np.array([0]))


# --- parts and intervals


def test_parts_are_the_folds_where_there_are_several() -> None:
    assert make_parts(np.zeros(4, np.int64), list("abcd"), [3, 0, 3, 0], 0).tolist() == [3, 0, 3, 0]


def test_parts_keep_groups_and_spread_classes() -> None:
    targets = np.arange(103) % 3
    groups = [f"g{row // 2}" if row < 40 else f"s{row}" for row in range(103)]
    parts = make_parts(targets, groups, [0] * 103, 0)
    assert all(len({parts[r] for r in range(103) if groups[r] == g}) == 1 for g in set(groups))
    sizes = np.bincount(parts)
    assert len(sizes) == PARTS
    assert sizes.max() - sizes.min() <= 1
    alone = make_parts(targets, [str(row) for row in range(103)], [0] * 103, 0)
    for c in range(3):
        counts = np.bincount(alone[targets == c], minlength=PARTS)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(103)
    again = make_parts(targets[order], [groups[row] for row in order], [0] * 103, 0)
    assert np.array_equal(again, parts[order])  # not by the rows' order


def test_interval_draws_whole_groups() -> None:
    gains = np.random.default_rng(0).normal(0.1, 1, 60).repeat(5)
    together = make_evidence(np.zeros(300, np.int64), [f"g{row // 5}" for row in range(300)])
    alone = make_evidence(np.zeros(300, np.int64))

    def width(evidence: Evidence, comparisons: int = 1) -> float:
        low, high = gain_interval(lambda rows: gains[rows].mean(), evidence, "x", comparisons)
        return high - low

    assert width(together) > 1.7 * width(alone)
    assert width(alone, 2) > width(alone)
    assert width(alone) == width(alone)
    # Of 60 groups the mean of normal values: 2 x 1.96 standard errors.
    expected = 2 * 1.96 * gains.std() / np.sqrt(60)
    assert width(together) == pytest.approx(expected, rel=0.15)


# --- what evaluate writes and submit reads


def find(primary: Metric, n: int = 400, **changes: Any) -> Any:
    probabilities, targets = make_biased_grades(n, 0)
    wanted = {"calibrated": True, "decoded": True, "draws": 200, "seed": 0}
    groups = [str(row) for row in range(n)]
    task = make_task(primary)
    return find_answers(
        probabilities, targets, groups, [0] * n, task, **{**wanted, **changes}
    ), probabilities


def test_nothing_asked_for_nothing_done(tmp_path: Path) -> None:
    found, probabilities = find("qwk", calibrated=False, decoded=False)
    assert (found.answers, found.report, found.lines) == (Answers(), {}, [])
    assert np.array_equal(found.answers.apply([probabilities]), probabilities)
    write_answers(tmp_path / "decoder.json", found.answers)
    assert load_answers(tmp_path / "decoder.json") == Answers()


@pytest.mark.parametrize("primary", ["qwk", "macro_f1"])
def test_answers_survive_the_file(tmp_path: Path, primary: Metric) -> None:
    found, probabilities = find(primary)
    assert found.answers.decoder is not None
    path = tmp_path / "decoder.json"
    write_answers(path, found.answers)
    again = load_answers(path)
    assert again == found.answers
    applied = again.apply([probabilities])
    assert np.array_equal(applied.argmax(axis=1), found.answers.decoder.decode(probabilities))
    assert (applied.sum(axis=1) == 1).all()
    assert not np.array_equal(applied.argmax(axis=1), probabilities.argmax(axis=1))
    assert sorted(found.report) == ["calibration", "decoder"]
    assert sum(line.endswith(": adopted") for line in found.lines) >= 1


def test_calibration_alone_keeps_the_labels() -> None:
    probabilities, _ = make_biased_grades(100, 0)
    applied = Answers(temperature=2.0).apply([probabilities])
    assert np.array_equal(applied.argmax(axis=1), probabilities.argmax(axis=1))
    assert applied == pytest.approx(apply_temperature(probabilities, 2.0))


def test_each_of_several_models_has_its_own_temperature() -> None:
    """Their mean, divided by what cools one of them, would be cooled twice where they disagree."""
    one, other = (make_biased_grades(100, seed)[0] for seed in (0, 1))
    applied = Answers(temperature=2.0).apply([one, other])
    expected = (apply_temperature(one, 2.0) + apply_temperature(other, 2.0)) / 2
    assert np.array_equal(applied, expected)
    assert not np.allclose(applied, apply_temperature((one + other) / 2, 2.0))


def test_a_decoder_sees_the_mean_of_several_models() -> None:
    found, probabilities = find("qwk", calibrated=False)
    assert found.answers.decoder is not None
    other = probabilities[:, ::-1]
    applied = found.answers.apply([probabilities, other]).argmax(axis=1)
    mean = (probabilities + other) / 2
    assert np.array_equal(applied, found.answers.decoder.decode(mean))


def test_too_few_rows_are_one_line() -> None:
    found, _ = find("qwk", n=49)
    assert found.answers == Answers()
    assert found.report == {}
    assert found.lines == [
        "calibrate and decoder need 50 val rows in 20 groups, got 49 in 49: submissions keep the raw "
        "answers; split.val_fold: all gives more"
    ]


@pytest.mark.parametrize("n_groups", [1, 19])
def test_too_few_groups_are_one_line(n_groups: int) -> None:
    """One group: nothing is left to fit on when it is held out, and its bootstrap knows no doubt."""
    probabilities, targets = make_biased_grades(80, 0)
    found = find_answers(
        probabilities,
        targets,
        [str(row % n_groups) for row in range(80)],
        [0] * 80,
        make_task("qwk"),
        calibrated=True,
        decoded=True,
        draws=200,
        seed=0,
    )
    assert found.answers == Answers()
    (line,) = found.lines
    assert f"need 50 val rows in 20 groups, got 80 in {n_groups}" in line


def test_log_loss_has_nothing_to_decode() -> None:
    found, _ = find("log_loss")
    assert found.answers.decoder is None
    assert "decoder" not in found.report
    assert "nothing to decide" in found.lines[-1]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"temperature": 1}', '{"temperature": 1, "decoder": {"kind": "x"}}']
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "decoder.json"
    with pytest.raises(PodiumError, match="decoder.json is missing: run `dvc repro`"):
        load_answers(path)
    path.write_text(content)
    with pytest.raises(PodiumError, match="decoder.json is damaged"):
        load_answers(path)
