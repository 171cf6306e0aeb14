"""Smaller nets, made from a trained one: what they keep, and that they go on to int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pandas as pd
import pytest
from pydantic import ValidationError

from podium.engine.inference import Predictor, export
from podium.engine.training import Job
from podium.engine.weights import read_state
from podium.errors import PodiumError
from podium.models.networks import build_network
from podium.slim import distillation, pruned, student
from podium.slim.arithmetic import count_parameters
from podium.slim.distillation import Lesson, Schooling, count_epochs, load_lesson, teach
from podium.slim.params import CompressParams, PruneParams, QatParams, StudentParams
from podium.slim.parent import Parent, Variant, hash_lesson
from podium.slim.qat import add_quantisation_errors, measure_ranges, teach_int8
from podium.slim.quantization import quantize_static
from podium.slim.variants import restore_variant
from podium.tasks.classification.net import ClassificationNet
from tests.small_parents import NETS, SIZE, TRAIN, VAL, make_parent

STUDENT = StudentParams(depth=1 / 3, passes=2, temperature=2.0, alpha=0.7)
PRUNE = PruneParams(method="l1", ratio=0.4, by="uniform", rounds=1, passes=2)


@pytest.fixture(scope="module")
def parent() -> Parent:
    return make_parent()


@pytest.fixture(scope="module")
def made(parent: Parent) -> Variant:
    return student.make_student(parent, STUDENT)


def outputs_of(network: paddle.nn.Layer, inputs: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network(paddle.to_tensor(inputs)).numpy()


def val_inputs(parent: Parent) -> np.ndarray:
    return parent.preprocessing.apply(parent.images[parent.val_rows])


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    return float((one.argmax(1) == two.argmax(1)).mean())


# --- the lesson


def test_a_lesson_has_each_view_with_the_parents_answer_for_it(parent: Parent) -> None:
    lesson = load_lesson(parent)
    n = TRAIN + VAL
    assert len(lesson.source) == len(lesson.taught) == 3 * n  # two views, and the plain images
    assert lesson.train_rows(2).tolist() == [*range(TRAIN), *range(n, n + TRAIN)]
    assert lesson.val_rows() == list(range(2 * n + TRAIN, 3 * n))
    rows = [0, n, 2 * n]  # of one image
    views = lesson.source.plain_inputs(rows)
    assert not np.array_equal(views[0], views[1])
    assert np.array_equal(views[2:], parent.preprocessing.apply(parent.images[:1]))
    said = outputs_of(parent.network, views[:2])
    assert lesson.taught[rows[:2]] == pytest.approx(said, rel=1e-3, abs=1e-3)
    assert not lesson.taught[2 * n].any()  # nobody learns from a training image as it is
    plain = lesson.taught[lesson.val_rows()]
    assert plain == pytest.approx(
        outputs_of(parent.network, val_inputs(parent)), rel=1e-3, abs=1e-3
    )
    assert np.array_equal(lesson.source.training_inputs(rows, [0, 0, 0], 5), views)
    assert lesson.train_rows(3).tolist() == [*lesson.train_rows(2), *range(TRAIN)]


@pytest.mark.parametrize(
    ("passes", "epochs"),
    [(1, 1), (6, 1), (8, 1), (9, 1), (12, 2), (13, 1), (15, 1), (18, 3), (100, 10)],
)
def test_passes_are_parted_into_epochs_that_see_every_view(passes: int, epochs: int) -> None:
    assert count_epochs(passes, views=6) == epochs
    assert passes % epochs == 0


def test_so_many_passes_are_trained_as_were_asked_for(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def note(job: Job, _: object) -> None:
        jobs.append(job)
        raise InterruptedError

    monkeypatch.setattr(distillation, "train", note)
    n = TRAIN + VAL
    source = SimpleNamespace()  # of two views, that nobody reads
    lesson = Lesson(parent, 2, source, np.zeros((3 * n, 3), np.float32))
    for passes in (1, 3, 4, 9):
        with pytest.raises(InterruptedError):
            teach(lesson, make_parent, Schooling(passes, 0.1, 1.0, 1.0))
        assert jobs[-1].recipe.epochs * len(jobs[-1].data.train_rows) == passes * TRAIN


def test_nothing_is_lost_on_who_says_the_same() -> None:
    task = ClassificationNet(3, 0.0)
    said = paddle.to_tensor(np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))
    assert float(task.distillation_loss(said, said, 3.0)) == pytest.approx(0, abs=1e-6)
    assert float(task.distillation_loss(said, said + 7, 1.0)) == pytest.approx(0, abs=1e-6)
    other = paddle.flip(said, axis=[1])
    log_p, log_q = (paddle.nn.functional.log_softmax(x / 2, axis=1).numpy() for x in (said, other))
    expected = 4 * (np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean()
    assert float(task.distillation_loss(said, other, 2.0)) == pytest.approx(expected, rel=1e-4)


# --- the student


def test_a_student_is_small_and_has_learned(parent: Parent, made: Variant) -> None:
    state = read_state(made.network)
    assert count_parameters(made.network) == sum(v.size for v in state.values())
    assert made.made_by["parameters"] < made.made_by["parameters_before"] / 20
    assert made.made_by["macs"] < made.made_by["macs_before"]
    assert not any(
        name.startswith(("trunk.whole.blocks.5", "trunk.whole.conv_head")) for name in state
    )
    fixed = "trunk.blocks.0.project_conv.weight"
    learned = "trunk.blocks.4.project_conv.weight"
    before = read_state(parent.network)
    now = {name.replace("trunk.whole.", "trunk."): values for name, values in state.items()}
    assert np.array_equal(now[fixed], before[fixed])
    assert not np.array_equal(now[learned], before[learned])


def test_a_student_is_the_same_every_time(parent: Parent, made: Variant) -> None:
    paddle.seed(99)
    paddle.nn.Linear(2, 2)  # names and draws of others do not matter
    again = student.make_student(parent, STUDENT)
    assert again.made_by == made.made_by
    one, two = read_state(made.network), read_state(again.network)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_variants_come_back_from_their_weights(parent: Parent, made: Variant) -> None:
    inputs = val_inputs(parent)
    params = make_compress_params(student=STUDENT)
    back = restore_variant("student", parent, params, read_state(made.network))
    assert np.array_equal(outputs_of(back, inputs), outputs_of(made.network, inputs))
    back = restore_variant("pruned", parent, params, read_state(parent.network))  # nothing is cut
    assert np.array_equal(outputs_of(back, inputs), outputs_of(parent.network, inputs))


def make_compress_params(**changes: object) -> CompressParams:
    select = {"max_mb": None, "max_mflops": None, "max_drop": 0.1, "max_ms": None}
    return CompressParams.model_validate(
        {
            "nets": ["trained"],
            "precisions": ["float32"],
            "formats": ["paddle"],
            "calibration_images": 8,
            "select": {**select, "prefer": "bytes"},
            **NETS,
            **changes,
        }
    )


def test_a_student_goes_on_to_int8(parent: Parent, made: Variant, tmp_path: Path) -> None:
    for name in ("float32", "int8"):
        (tmp_path / name).mkdir()
    inputs = val_inputs(parent)
    model = export(made.network, SIZE, tmp_path / "float32")
    assert Predictor(model).run(inputs) == pytest.approx(
        outputs_of(made.network, inputs), rel=1e-3, abs=1e-3
    )
    int8 = quantize_static(model, parent.images[:16], parent.preprocessing, tmp_path / "int8")
    assert int8.weights.stat().st_size < 1.7 * made.made_by["parameters"]
    assert Predictor(int8, int8=True).run(inputs).shape == (VAL, 3)


def test_nets_of_one_layer_have_no_student(parent: Parent) -> None:
    network = build_network("squeezenet1_1", False, 3, 0.0)
    card = {**parent.card, "architecture": {"name": "squeezenet1_1", "outputs": 3, "dropout": 0.0}}
    one = replace(parent, network=network, card=card)
    with pytest.raises(PodiumError, match=r"compress.student: squeezenet1_1 is one layer, which"):
        student.make_student(one, STUDENT)


@pytest.mark.parametrize("depth", [0, 1, 1.5, "half"])
def test_depths_that_are_none(depth: object) -> None:
    with pytest.raises(ValidationError, match="depth"):
        StudentParams.model_validate({**STUDENT.model_dump(), "depth": depth})


# --- pruned, taught, quantised


def test_pruned_then_taught_then_int8(parent: Parent, tmp_path: Path) -> None:
    variant = pruned.make_pruned(parent, PRUNE)
    said = variant.made_by
    assert said["ratio"] == pytest.approx(0.4, abs=0.03)
    assert said["ratio_asked"] == 0.4
    assert said["parameters"] < 0.75 * said["parameters_before"]
    assert said["rounds"][0]["distance_from_parent"] > 0
    before = read_state(parent.network)
    learned = teach_int8(parent, variant.network, QatParams(passes=1), 16)
    assert list(read_state(learned)) == list(read_state(variant.network))
    for name in ("float32", "int8"):
        (tmp_path / name).mkdir()
    model = export(learned, SIZE, tmp_path / "float32")
    int8 = quantize_static(model, parent.images[:16], parent.preprocessing, tmp_path / "int8")
    assert int8.weights.stat().st_size < 1.3 * said["parameters"]
    outputs = Predictor(int8, int8=True).run(val_inputs(parent))
    assert np.isfinite(outputs).all()
    after = read_state(parent.network)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_rounds_share_what_goes(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without training: a pass per round is what is asked for, and none is given."""
    monkeypatch.setattr(pruned, "_recover", lambda p, cut, n: (_built(p, cut), {"seen": n}))
    params = PRUNE.model_copy(update={"rounds": 2, "passes": 3, "ratio": 0.5})
    said = pruned.make_pruned(parent, params).made_by
    assert [one["seen"] for one in said["rounds"]] == [1, 2]
    left = [one["macs"] / said["macs_before"] for one in said["rounds"]]
    assert left == pytest.approx([0.5**0.5, 0.5], abs=0.03)


def test_another_ratio_does_not_measure_the_same_curves(
    parent: Parent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are stored under the net, the ranking and the images, whatever is asked for."""
    monkeypatch.chdir(tmp_path)  # where the store stands
    measured: list[str] = []
    other = paddle.nn.Linear(2, 2)

    def curves_of(network: paddle.nn.Layer, method: str, of: Parent = parent) -> list[dict]:
        def measure(_: np.ndarray) -> list[dict]:
            measured.append(method)
            return [{"layer": "a", "filters": 8, "ratio": 0.125, "loss": len(measured)}]

        cutter = SimpleNamespace(measure_sensitivity=measure)
        return pruned._measure_sensitivity(of, network, cutter, method)

    first = curves_of(parent.network, "l1")
    assert curves_of(parent.network, "l1") == first
    assert measured == ["l1"]
    rows = [curves_of(parent.network, "fpgm"), curves_of(other, "l1")]
    rows.append(curves_of(parent.network, "l1", replace(parent, images=255 - parent.images)))
    assert [row["loss"] for (row,) in rows] == [2, 3, 4]


def _built(parent: Parent, cut: pruned.Cut) -> paddle.nn.Layer:
    network = pruned.build_shrunk(parent.card, cut.state)
    network.eval()
    return network


# --- int8's errors


def test_simulated_errors_are_those_of_the_int8_program(parent: Parent, tmp_path: Path) -> None:
    """A net with the errors put in answers more like the int8 program than the net without."""
    images = parent.images[:16]
    inputs = val_inputs(parent)
    without = outputs_of(parent.network, inputs)
    for name in ("float32", "int8"):
        (tmp_path / name).mkdir()
    model = export(parent.network, SIZE, tmp_path / "float32")
    int8 = quantize_static(model, images, parent.preprocessing, tmp_path / "int8")
    real = Predictor(int8, int8=True).run(inputs)
    twin = make_parent().network
    add_quantisation_errors(twin, measure_ranges(parent.network, images, parent))
    twin.eval()
    simulated = outputs_of(twin, inputs)
    assert np.abs(simulated - real).mean() < 0.7 * np.abs(without - real).mean()
    assert "weight" not in vars(twin.trunk.conv_stem)  # the hiding entry is gone
    assert np.array_equal(outputs_of(parent.network, inputs), without)


def test_int8_is_not_learned_from_too_few_images(parent: Parent) -> None:
    few = replace(parent, train_rows=np.array([0, 1, 2, 0, 1, 2, 0, 1, 2]))
    with pytest.raises(PodiumError, match="3 training images are too few to calibrate int8 on"):
        teach_int8(few, parent.network, QatParams(passes=1), 16)


def test_a_lesson_is_told_from_tables() -> None:
    manifest = pd.DataFrame(
        {
            "image_id": list("abc"),
            "source": "train",
            "problem": "",
            "sha256": list("123"),
            "label": list("xyx"),
            "soft_label": "",
        }
    )
    splits = pd.DataFrame({"image_id": list("abc"), "fold": [0, 1, 1]})
    card = {"weights": {"sha256": "w"}, "params": {"train": {"flip": "none"}}}
    given = {
        "card": card,
        "manifest": manifest,
        "splits": splits,
        "train_list": list("bc"),
        "fold": 0,
        "seed": 0,
    }
    others = [
        {"card": {**card, "params": {"train": {"flip": "both"}}}},
        {"card": {**card, "weights": {"sha256": "v"}}},
        {"manifest": manifest.assign(sha256=list("124"))},
        {"manifest": manifest.assign(label=list("xyy"))},
        {"splits": splits.assign(fold=[1, 0, 1])},
        {"train_list": list("bcc")},
        {"seed": 1},
    ]
    hashes = [hash_lesson(**{**given, **change}) for change in ({}, *others)]
    assert len(set(hashes)) == len(hashes)
    scored = {**given, "card": {**card, "score": 0.9, "params": {**card["params"], "seed": 5}}}
    assert hash_lesson(**scored) == hashes[0]


def test_cards_of_another_podium(parent: Parent) -> None:
    train = {**parent.card["params"]["train"], "gone": 1}
    old = replace(parent, card={**parent.card, "params": {"train": train}})
    with pytest.raises(PodiumError, match=r"card's params.train.gone is not this Podium's: train"):
        student.make_student(old, STUDENT)
