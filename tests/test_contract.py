"""The contract: each rule broken once is named, all kept is legal, and nothing illegal is a file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from podium.commands.summary import print_summary
from podium.data.params import NO_RULES, RulesParams
from podium.data.rules import check_pseudo_labels, check_start, check_tta, describe_metric
from podium.data.submission import (
    FORMAT_RULES,
    check_submission,
    doubt_values,
    make_submission,
    prove_format,
)
from podium.data.table import Table, read_table
from podium.errors import PodiumError
from podium.files import write_json
from podium.tasks.answers import Answers
from podium.tasks.classification.data import ClassificationData
from podium.tasks.decoding import ClassWeights
from podium.trust.contract.answer_time import measure_answer_time
from podium.trust.contract.verdict import (
    CONTRACT_FILE,
    Line,
    Making,
    Submission,
    check_any_legal,
    describe_contract,
    hash_submission,
    judge_format,
    judge_making,
    load_contract,
    pick_val,
    write_contract,
)
from tests.competition import copy_clone, edit, error_lines, run, run_any

TASK = ClassificationData(("good", "bad"), ordinal=False)
TEST = pd.DataFrame({"listed_id": ["a", "b", "c"], "problem": [""] * 3})
ONE_HOT = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
LEGAL = b"id,label\nc,good\na,good\nb,bad\n"

STRICT = RulesParams(
    metric="accuracy",
    direction="higher",
    external_data=False,
    pretrained=False,
    tta=False,
    pseudo_labels=False,
    ensembling=False,
    max_model_mb=14.0,
    max_latency_ms=5.0,
    max_submissions_per_day=None,
)
CLEAN = Making(
    pretrained=False,
    weights=(),
    pseudo_threshold=0.0,
    tta="none",
    nets=1,
    model_bytes=14_000_000,
    latency_ms=5.0,
)


@pytest.fixture
def sample(tmp_path: Path) -> Table:
    (tmp_path / "sample.csv").write_bytes(b"id,label\nc,?\na,?\nb,?\n")
    return read_table(tmp_path / "sample.csv", True)


def judge(rules: RulesParams, making: Making, **changes: Any) -> dict[str, Line]:
    facts: dict[str, Any] = {
        "primary": "accuracy",
        "classes": TASK.classes,
        "ordinal": False,
        "submission": "label",
    }
    return {line.rule: line for line in judge_making(rules, making, **{**facts, **changes})}


def broken(lines: dict[str, Line]) -> set[str]:
    return {rule for rule, line in lines.items() if line.verdict == "broken"}


# --- rules about how it was made


def test_the_strictest_rules_can_be_kept() -> None:
    lines = judge(STRICT, CLEAN)
    assert {line.verdict for line in lines.values()} == {"met"}
    assert set(lines) == set(RulesParams.model_fields) | {"ordinal"}


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ("pretrained", {"pretrained": True}, "not allowed; the nets began with published weights"),
        ("tta", {"tta": "dihedral"}, "not allowed; 8 views of each image"),
        ("pseudo_labels", {"pseudo_threshold": 0.9}, "learned from test images"),
        ("ensembling", {"nets": 5}, "not allowed; the mean of 5 nets"),
        ("max_model_mb", {"model_bytes": 14_000_001}, "14.000 MB, 14 allowed"),
        ("max_latency_ms", {"latency_ms": 5.001}, "slower than 5"),
        ("max_latency_ms", {"latency_ms": None}, "only the model in deploy/ is timed"),
    ],
)
def test_each_breach_is_found_and_nothing_else(
    rule: str, change: dict[str, Any], words: str
) -> None:
    making = replace(CLEAN, **change)
    lines = judge(STRICT, making)
    assert broken(lines) == {rule}
    assert words in lines[rule].words
    assert not broken(judge(NO_RULES, making)), "what no rule forbids is allowed"


def test_weights_of_a_file_are_external_and_pretrained() -> None:
    making = replace(CLEAN, weights=("data/weights/mine.pdparams",))
    lines = judge(STRICT, making)
    assert broken(lines) == {"external_data", "pretrained"}
    assert "data/weights/mine.pdparams" in lines["external_data"].words
    allowed = STRICT.model_copy(update={"pretrained": True})
    assert broken(judge(allowed, making)) == {"external_data"}
    assert not broken(judge(allowed, replace(CLEAN, pretrained=True)))


def test_another_metric_is_a_warning() -> None:
    line = judge(STRICT, CLEAN, primary="log_loss")["metric"]
    assert line.verdict == "warned"
    assert "the organiser scores accuracy" in line.words
    assert judge(NO_RULES, CLEAN)["metric"].verdict == "open"
    probabilities = STRICT.model_copy(update={"metric": "log_loss"})
    line = judge(probabilities, CLEAN, primary="log_loss")["metric"]
    assert (line.verdict, line.words) == (
        "warned",
        "log_loss judges probabilities, and labels are submitted",
    )
    line = judge(probabilities, CLEAN, primary="log_loss", submission="probability")["metric"]
    assert "lower is better" in line.words


def test_the_direction_is_the_metrics_own() -> None:
    line = judge(STRICT, CLEAN)["direction"]
    assert (line.verdict, line.words) == (
        "met",
        "higher wins, and of accuracy the higher value is the better one",
    )
    misread = STRICT.model_copy(update={"metric": "log_loss"})  # params.yaml refuses it earlier
    assert judge(misread, CLEAN, primary="log_loss")["direction"].verdict == "broken"
    untyped = judge(STRICT.model_copy(update={"direction": None}), CLEAN)["direction"]
    assert (untyped.verdict, untyped.words) == ("met", "none typed in; higher, as accuracy says")
    assert judge(NO_RULES, CLEAN)["direction"].verdict == "open"


def test_order_of_grades_and_daily_limit_are_said() -> None:
    lines = judge(STRICT, CLEAN, ordinal=True)
    assert lines["ordinal"].words == "grades in order: good < bad"
    daily = STRICT.model_copy(update={"max_submissions_per_day": 3})
    line = judge(daily, CLEAN)["max_submissions_per_day"]
    assert str(line) == "open: 3: podium log-score counts them"


@given(
    rules=st.builds(
        RulesParams,
        metric=st.none(),
        direction=st.none(),
        external_data=st.booleans(),
        pretrained=st.booleans(),
        tta=st.booleans(),
        pseudo_labels=st.booleans(),
        ensembling=st.booleans(),
        max_model_mb=st.none() | st.floats(1, 30),
        max_latency_ms=st.none() | st.floats(1, 30),
        max_submissions_per_day=st.none() | st.integers(1, 9),
    ),
    making=st.builds(
        Making,
        pretrained=st.booleans(),
        weights=st.sampled_from([(), ("data/weights/a",)]),
        pseudo_threshold=st.sampled_from([0.0, 0.5, 1.0]),
        tta=st.sampled_from(["none", "both"]),
        nets=st.integers(1, 5),
        model_bytes=st.integers(1, 30_000_000),
        latency_ms=st.none() | st.floats(0, 30),
    ),
)
def test_stricter_rules_never_make_legal(rules: RulesParams, making: Making) -> None:
    """What the given rules forbid, the strictest do; what they allow, no rules do."""
    strictest = STRICT.model_copy(update={"max_model_mb": 1e-9, "max_latency_ms": 1e-9})
    now = broken(judge(rules, making))
    assert broken(judge(NO_RULES, making)) <= now <= broken(judge(strictest, making))


def test_cards_say_what_was_done_and_not_params() -> None:
    def card(pretrained: bool, weights: str | None, threshold: float) -> dict[str, Any]:
        return {
            "params": {
                "model": {"pretrained": pretrained, "weights": weights},
                "train": {"pseudo_threshold": threshold},
            }
        }

    cards = [card(False, "data/weights/b", 0), card(True, None, 0.9)]
    making = Making.from_cards(cards, "shift", 7)
    assert making == Making(True, ("data/weights/b",), 0.9, "shift", 2, 7)
    with pytest.raises(PodiumError, match=r"does not say how its net was trained .*: train again"):
        Making.from_cards([{"params": {"model": {}}}], "none", 7)


# --- rules that the sample fixes


def test_a_legal_file_is_described(sample: Table) -> None:
    made = make_submission(TEST, ONE_HOT, TASK, sample)
    assert made == LEGAL
    lines = {line.rule: str(line) for line in judge_format(prove_format(made, TEST, TASK, sample))}
    assert lines == {
        "encoding": "met: UTF-8 without a BOM",
        "line_ends": "met: LF, one after the last row",
        "header": "met: id, label",
        "columns": "met: 2 cells a row",
        "ids": "met: 3 test images, each once",
        "order": "met: as in the sample",
        "labels": "met: bad (1), good (2)",
    }
    plain = make_submission(TEST, ONE_HOT, TASK, None)
    assert "there is no sample" in prove_format(plain, TEST, TASK, None)["order"][1]


def test_a_sample_with_no_value_of_ours_is_doubted(tmp_path: Path) -> None:
    """Classes 1.0 and 0.0 in training, 0 in the sample: the file reads well and may score nothing."""
    (tmp_path / "sample.csv").write_bytes(b"id,label\nc,0\na,\nb,0\n")
    sample = read_table(tmp_path / "sample.csv", True)
    doubt = doubt_values(TEST, TASK, sample)
    assert doubt == "the sample's own values are '0', none of which we would write: placeholders?"
    made = make_submission(TEST, ONE_HOT, TASK, sample)
    lines = {
        line.rule: line for line in judge_format(prove_format(made, TEST, TASK, sample), doubt)
    }
    assert str(lines["labels"]) == f"warned: bad (1), good (2); {doubt}"
    assert {line.verdict for rule, line in lines.items() if rule != "labels"} == {"met"}
    for content in (b"id,label\nc,0\na,good\nb,0\n", b"id,label\nc,\na,\nb,\n"):
        (tmp_path / "sample.csv").write_bytes(content)
        assert doubt_values(TEST, TASK, read_table(tmp_path / "sample.csv", True)) == ""
    assert doubt_values(TEST, TASK, None) == ""


@pytest.mark.parametrize(
    ("content", "rules", "words"),
    [
        (b"\xef\xbb\xbf" + LEGAL, {"encoding"}, "expected UTF-8 without a BOM"),
        (LEGAL.replace(b"\n", b"\r\n"), {"line ends"}, "expected LF everywhere"),
        (LEGAL.replace(b"label", b"grade"), {"header"}, "expected id, label, got id, grade"),
        (LEGAL.replace(b"a,good", b"a,good,x"), {"columns"}, "row 3: expected 2 cells, got 3"),
        (LEGAL.replace(b"a,good", b'a,"go"od'), {"columns"}, "this is no CSV"),
        (LEGAL.replace(b"a,good", b"z,good"), {"ids"}, "1 not in the sample: 'z' (and 1 more)"),
        (b"id,label\na,good\nc,good\nb,bad\n", {"order"}, "expected 'c' at place 1, got 'a'"),
        (LEGAL.replace(b"b,bad", b"b,worse"), {"values"}, "label 'worse' is not in"),
    ],
)
def test_each_breach_of_format_is_found(
    sample: Table, content: bytes, rules: set[str], words: str
) -> None:
    proof = prove_format(content, TEST, TASK, sample)
    assert tuple(proof) == FORMAT_RULES
    (rule,) = rules
    assert proof[rule][0] is False
    assert words in proof[rule][1]
    hidden = {name for name, (is_met, said) in proof.items() if not is_met} - rules
    assert all(proof[name][1] == f"not looked at, since {rule} is broken" for name in hidden)
    assert all(FORMAT_RULES.index(name) > FORMAT_RULES.index(rule) for name in hidden)


@given(
    content=st.binary(max_size=60) | st.text(alphabet="abcid,lge\n\"'", max_size=60).map(str.encode)
)
def test_only_what_check_submission_takes_is_proven(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    proof = prove_format(content, TEST, TASK, None)
    try:
        check_submission(content, TEST, TASK, None)
        legal = True
    except PodiumError:
        legal = False
    assert all(is_met for is_met, _ in proof.values()) == legal


# --- the file


def submission(name: str, *lines: Line) -> Submission:
    val = pick_val({"accuracy": 0.9, "n": 7}, "accuracy", Answers(), "accuracy")
    return Submission(name, LEGAL, lines, val)


MET = Line("tta", "met", "one view")
TOO_LARGE = Line("max_model_mb", "broken", "14 MB, 3 allowed")


def test_contract_knows_the_hash_of_what_is_legal_only(tmp_path: Path) -> None:
    path = tmp_path / CONTRACT_FILE
    good, bad = submission("submission.csv", MET), submission("small.csv", MET, TOO_LARGE)
    write_contract(path, [good, bad])
    found = load_contract(path)
    assert found["submission.csv"]["sha256"] == hash_submission(LEGAL)
    assert found["submission.csv"]["val"] == {
        "metric": "accuracy",
        "score": 0.9,
        "low": None,
        "high": None,
        "n": 7,
    }
    assert found["small.csv"]["sha256"] is None
    assert found["small.csv"]["rules"] == {
        "tta": "met: one view",
        "max_model_mb": "broken: 14 MB, 3 allowed",
    }
    assert describe_contract(found) == (
        "submission.csv 1 of 1 rules met. small.csv 1 of 2 rules met; broken: max_model_mb "
        "(contract.json)"
    )
    assert describe_contract({"a": found["submission.csv"], "b": found["submission.csv"]}) == (
        "1 of 1 rules met (contract.json)"
    )


DECODED = Answers(decoder=ClassWeights((0.0, 0.5)))
WARMED = Answers(temperature=2.0)
# As evaluate writes it where all that was asked for was adopted, of two decoders the second.
EVALUATED = {
    "n": 90,
    "accuracy": 0.9,
    "accuracy_low": 0.8,
    "accuracy_high": 0.95,
    "macro_f1": 0.7,
    "macro_f1_low": 0.6,
    "macro_f1_high": 0.8,
    "log_loss": 0.5,
    "decoder": [
        {"name": "a", "before": 0.7, "after": 0.74, "adopted": False},
        {"name": "b", "before": 0.7, "after": 0.78, "adopted": True},
    ],
    "calibration": [{"adopted": True, "log_loss": {"before": 0.5, "after": 0.4}}],
}
MEASURED = {key: value for key, value in EVALUATED.items() if not isinstance(value, list)}


@pytest.mark.parametrize(
    ("metrics", "metric", "answers", "expected"),
    [
        (EVALUATED, "macro_f1", Answers(), (0.7, 0.6, 0.8)),
        (EVALUATED, "macro_f1", DECODED, (0.78, None, None)),
        (EVALUATED, "accuracy", DECODED, (None, None, None)),  # it was chosen by macro F1
        (MEASURED, "macro_f1", DECODED, (None, None, None)),  # judged on other answers than these
        (EVALUATED, "log_loss", WARMED, (0.4, None, None)),
        (MEASURED, "log_loss", WARMED, (None, None, None)),
        (EVALUATED, "macro_f1", WARMED, (0.7, 0.6, 0.8)),  # which no temperature changes
        (MEASURED, "accuracy", WARMED, (0.9, 0.8, 0.95)),
        # A decoder's labels are the same at any temperature.
        (EVALUATED, "macro_f1", replace(DECODED, temperature=2.0), (0.78, None, None)),
    ],
)
def test_the_val_score_is_of_what_is_handed_in(
    metrics: dict[str, Any], metric: str, answers: Answers, expected: tuple[float | None, ...]
) -> None:
    val = pick_val(metrics, metric, answers, "macro_f1")
    assert (val["score"], val["low"], val["high"]) == expected
    assert (val["metric"], val["n"]) == (metric, 90)


@pytest.mark.parametrize(
    ("answers", "rows"),
    [
        (Answers(), []),
        (DECODED, ["as submitted macro_f1 0.7800, after evaluate.decoder or calibrate"]),
    ],
)
def test_the_table_of_a_run_has_the_val_score_of_what_is_handed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: Answers, rows: list[str]
) -> None:
    val = pick_val(EVALUATED, "macro_f1", answers, "macro_f1")
    write_contract(tmp_path / CONTRACT_FILE, [Submission("submission.csv", LEGAL, (MET,), val)])
    write_json(tmp_path / "metrics/evaluate.json", EVALUATED)
    print_summary(tmp_path)
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in printed if line.startswith("as submitted")] == rows


def test_what_is_illegal_is_never_a_submission() -> None:
    good, bad = submission("submission.csv", MET), submission("small.csv", TOO_LARGE)
    assert good.file_content == LEGAL
    assert bad.file_content == (b"not to be handed in: max_model_mb is broken: 14 MB, 3 allowed\n")
    check_any_legal([good, bad])
    with pytest.raises(PodiumError) as caught:
        check_any_legal([bad])
    assert "\n" not in str(caught.value)
    assert "small.csv: max_model_mb is broken: 14 MB, 3 allowed" in str(caught.value)


def test_the_table_of_a_run_has_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_contract(tmp_path / CONTRACT_FILE, [submission("submission.csv", MET, TOO_LARGE)])
    print_summary(tmp_path)
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("contract")]
    assert line.split(maxsplit=1)[1].strip() == (
        "1 of 2 rules met; broken: max_model_mb (contract.json)"
    )


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "submissions": 3}']
)
def test_a_damaged_contract_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "contract.json"
    with pytest.raises(PodiumError, match="is missing: run `dvc repro`"):
        load_contract(path)
    path.write_text(content)
    with pytest.raises(PodiumError, match="is damaged"):
        load_contract(path)


# --- before any work


def test_forbidden_beginnings_are_refused() -> None:
    check_start(True, None, True, False)
    check_start(False, None, False, False)
    check_start(False, "data/weights/a", True, True)
    with pytest.raises(PodiumError, match=r"competition\.rules\.pretrained is false, got true"):
        check_start(True, None, False, True)
    with pytest.raises(PodiumError, match=r"rules\.pretrained is false, got data/weights/a"):
        check_start(False, "data/weights/a", False, True)
    with pytest.raises(PodiumError, match=r"rules\.external_data is false, got data/weights/a"):
        check_start(False, "data/weights/a", True, False)


def test_allowed_is_not_refused() -> None:
    check_tta("both", True)
    check_pseudo_labels(0.9, True)
    assert describe_metric("accuracy", None) == describe_metric("qwk", "qwk") == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"direction": "lower"}, "direction higher with accuracy, whose higher value"),
        ({"metric": None}, "no competition.rules.direction without a metric"),
        ({"metric": "log_loss"}, "direction lower with log_loss"),
        ({"metric": "acuracy"}, "accuracy"),
        ({"max_model_mb": 0.0}, "greater than 0"),
        ({"max_submissions_per_day": 0}, "greater than or equal to 1"),
        ({"tta": "no"}, "valid boolean"),
    ],
)
def test_rules_without_sense_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RulesParams.model_validate({**STRICT.model_dump(), **change})


def test_answer_time_is_of_one_image_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = set()

    def answer(images: np.ndarray, label: str) -> None:
        shapes.add(images.shape)
        print(label, file=sys.stderr)

    found = measure_answer_time(answer, 8)
    assert shapes == {(1, 8, 8, 3)}
    assert 0 <= found["answer_p50_ms"] <= found["answer_p95_ms"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "log_loss"])
def test_the_primary_metric_has_an_interval(metric: Any) -> None:
    """The ledger compares public scores with it, whichever metric it is."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 200)
    probabilities = np.full((200, 2), 0.2)
    probabilities[np.arange(200), np.where(random.random(200) < 0.8, targets, 1 - targets)] = 0.8
    task = ClassificationData(("a", "b"), ordinal=False, primary_metric=metric, bootstrap_draws=200)
    groups = [str(number) for number in range(200)]
    found = task.metrics(probabilities, targets, groups, seed=1)
    assert found[f"{metric}_low"] < found[metric] < found[f"{metric}_high"]
    assert found[f"{metric}_high"] - found[f"{metric}_low"] < 0.3
    assert found == task.metrics(probabilities, targets, groups, seed=1)


# --- through the DAG


@pytest.mark.dag
def test_submit_writes_nothing_that_breaks_a_rule(plain: Path, tmp_path: Path) -> None:
    assert not [line for line in _rules(plain, "submission.csv") if "broken" in line]
    assert hash_submission((plain / "submission.csv").read_bytes()) == _sha256(plain)
    clone = copy_clone(plain, tmp_path / "clone")
    sizes = {
        name: _megabytes(plain, name) for name in ("submission.csv", "submission_compressed.csv")
    }
    assert sizes["submission.csv"] < sizes["submission_compressed.csv"]  # here float32 ships

    # One of two may be handed in: the other's file is there, as DVC wants it, but no submission.
    between = sum(sizes.values()) / 2
    edit(clone / "params.yaml", {"    max_model_mb:\n": f"    max_model_mb: {between:.3f}\n"})
    said = run(clone, sys.executable, "-m", "stages.submit")
    assert "submission_compressed.csv: not to be handed in: max_model_mb is broken" in said
    assert (clone / "submission.csv").read_bytes() == (plain / "submission.csv").read_bytes()
    assert (clone / "submission_compressed.csv").read_text().startswith("not to be handed in: ")
    assert (
        json.loads((clone / CONTRACT_FILE).read_text())["submissions"]["submission_compressed.csv"][
            "sha256"
        ]
        is None
    )

    # The stage before keeps to it, too. Here it has nothing smaller, and its rows are there to see.
    code, said = run_any(clone, sys.executable, "-m", "stages.compress")
    assert code == 2
    (line,) = error_lines(said)
    assert f"MB, competition.rules.max_model_mb is {round(between, 3):g}: loosen that" in line
    assert "compress: trained-float32-paddle: 13." in said
    found = json.loads((clone / "metrics/compress.json").read_text())
    assert found["shipped"] is None
    assert list(found["details"][0]["candidates"]) == ["trained-float32-paddle"]

    # Nothing may be handed in: one line, no file, and the contract says why, without a clock's figure.
    edit(
        clone / "params.yaml",
        {
            f"    max_model_mb: {between:.3f}\n": "    max_model_mb:\n",
            "    max_latency_ms:\n": "    max_latency_ms: 0.001\n",
        },
    )
    code, said = run_any(clone, sys.executable, "-m", "stages.submit")
    assert code == 2
    (line,) = error_lines(said)
    assert "nothing may be handed in" in line
    assert "max_latency_ms is broken: slower than 0.001" in line
    assert not list(clone.glob("submission*.csv"))
    assert "max_latency_ms: broken: slower than 0.001: choose a smaller" in "\n".join(
        _rules(clone, "submission_compressed.csv")
    )
    assert (clone / "metrics/measured/answer_time.json").exists()


@pytest.mark.dag
def test_features_refuses_before_any_work(plain: Path, tmp_path: Path) -> None:
    clone = copy_clone(plain, tmp_path / "clone")
    edit(clone / "params.yaml", {"    pretrained: true": "    pretrained: false"})
    code, said = run_any(clone, sys.executable, "-m", "stages.features")
    assert code == 2
    assert error_lines(said) == [
        "error: features: model.pretrained: expected false, since competition.rules.pretrained is "
        "false, got true: set model.pretrained: false and model.freeze: none"
    ]


def _facts(clone: Path, name: str) -> Any:
    return load_contract(clone / CONTRACT_FILE)[name]


def _rules(clone: Path, name: str) -> list[str]:
    return [f"{rule}: {text}" for rule, text in _facts(clone, name)["rules"].items()]


def _sha256(clone: Path) -> str:
    return str(_facts(clone, "submission.csv")["sha256"])


def _megabytes(clone: Path, name: str) -> float:
    (details,) = json.loads((clone / "metrics/submit.json").read_text())["details"]
    return float(details[name]["model_mb"])
