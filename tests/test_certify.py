"""Certificates: the comparison, what it names, and `podium certify` on a DAG of two quick stages.

The real DAG is `make certify`, run by CI.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from podium.certify import clones
from podium.certify.certificate import find_unlike, load_certificate, read_given
from podium.certify.certify import SMALL, Options, certify, judge, recheck
from podium.certify.clones import check_committed, hash_folder, parse_overrides, set_params
from podium.certify.comparison import (
    Comparison,
    compare,
    explain,
    find_loss_difference,
    hash_outputs,
)
from podium.certify.tolerances import (
    Check,
    Tolerances,
    compare_loosely,
    exact_files,
    read_predictions,
    read_scores,
)
from podium.certify.trials import TRIALS
from podium.dag import declared_outputs
from podium.engine.loss_trace import StepLoss
from podium.errors import PodiumError
from podium.params import load_params, read_yaml
from podium.schema import AllParams
from tests.competition import commit, copy_clone, make_clone, run, running

ROOT = Path(__file__).resolve().parents[1]

DAG = """
stages:
  early:
    cmd: "true"
    outs: [model, data/list.csv: {cache: false}]
    metrics: [metrics/early.json: {cache: false}]
  train:
    cmd: "true"
    deps: [src/podium/engine]
    outs: [more.csv]
    plots: [curve.csv]
"""
STAGES = ("early", "train")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository after a run: a folder, and files of each kind."""
    (tmp_path / "dvc.yaml").write_text(DAG)
    files = "model/b.bin", "model/a.json", "data/list.csv", "metrics/early.json", "more.csv"
    for name in (*files, "curve.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def losses(*values: float, start: int = 0) -> list[StepLoss]:
    """Steps of epochs of two."""
    return [
        StepLoss(step // 2 + 1, 9, step, value) for step, value in enumerate(values, start=start)
    ]


def compared(before: Mapping[tuple[str, str], str], tree: Path) -> Comparison:
    return compare(before, hash_outputs(tree), {}, {}, STAGES)


def test_every_declared_output_is_compared(tree: Path) -> None:
    assert list(hash_outputs(tree)) == [
        ("early", "model/a.json"),
        ("early", "model/b.bin"),
        ("early", "data/list.csv"),
        ("early", "metrics/early.json"),
        ("train", "more.csv"),
        ("train", "curve.csv"),
    ]


def test_declared_outputs_stand_in_the_order_of_the_dag() -> None:
    # The first that differs is named: the order of dvc.yaml must be the order of the DAG.
    made_by = {output.path.as_posix(): output.stage for output in declared_outputs(ROOT)}
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    order = list(stages)
    for name, stage in stages.items():
        for dep in stage["deps"]:
            if dep in made_by:
                assert order.index(made_by[dep]) < order.index(name), f"{name} needs {dep}"


def test_equal_runs(tree: Path) -> None:
    found = compare(
        hash_outputs(tree), hash_outputs(tree), {"f": losses(1, 2)}, {"f": losses(1, 2)}, STAGES
    )
    assert found.is_same
    assert explain("b", found) == (
        "b: all 6 files of the declared outputs are the same, and the losses of 2 steps"
    )


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        (("curve.csv", "model/b.bin"), "model/b.bin (stage early)"),
        (("curve.csv",), "curve.csv (stage train)"),
    ],
)
def test_first_difference_in_dag_order_is_named(
    tree: Path, changed: tuple[str, ...], first: str
) -> None:
    before = hash_outputs(tree)
    for name in changed:
        (tree / name).write_text("another")
    found = compared(before, tree)
    assert not found.is_same
    assert explain("b", found) == (
        f"b: {len(changed)} of 6 files differ; the first in the order of the DAG is {first}"
    )


def test_missing_and_additional_files_differ(tree: Path) -> None:
    before = hash_outputs(tree)
    (tree / "curve.csv").unlink()
    (tree / "model/c.bin").write_text("more")
    found = compared(before, tree)
    assert [one.file for one in found.differences] == ["model/c.bin", "curve.csv"]
    assert "model/c.bin (stage early): it is missing in the reference" in explain("b", found)
    # Missing in both is no agreement.
    assert [one.file for one in compared(hash_outputs(tree), tree).differences] == ["curve.csv"]


def test_nothing_declared_is_no_agreement() -> None:
    assert not compare({}, {}, {}, {}, STAGES).is_same


def test_first_step_whose_loss_differs_is_named() -> None:
    ours = {"fold0": losses(1.0, 0.9, 0.8), "fold1": losses(1.0, 0.9)}
    same, n_steps = find_loss_difference(ours, {k: list(v) for k, v in ours.items()})
    assert (same, n_steps) == (None, 5)
    other = {"fold0": losses(1.0, 0.9, 0.8000001), "fold1": losses(5.0, 0.9)}
    found, _ = find_loss_difference(ours, other)
    assert found
    assert (found.model, found.epoch, found.step) == ("fold0", 2, 2)
    assert (found.expected, found.found) == (0.8, 0.8000001)
    said = explain("b", Comparison(3, (), found, 3))
    assert said == (
        "b: training fold0: the first step whose loss differs is 2 (epoch 2): "
        "expected 0.8, got 0.8000001"
    )


def test_steps_that_a_resumed_run_repeats_are_compared_each_time() -> None:
    ours = {"fold0": losses(1.0, 0.9, 0.8, 0.7)}
    repeated = losses(1.0, 0.9, 0.8) + losses(0.8, 0.7, start=2)
    assert find_loss_difference(ours, {"fold0": repeated}) == (None, 4)
    parted = losses(1.0, 0.9, 0.8) + losses(0.81, 0.7, start=2)
    found, _ = find_loss_difference(ours, {"fold0": parted})
    assert found
    assert (found.step, found.found) == (2, 0.81)


def test_steps_that_are_missing_differ_and_nan_is_itself() -> None:
    nan = float("nan")
    assert find_loss_difference({"f": losses(nan)}, {"f": losses(nan)})[0] is None
    short, _ = find_loss_difference({"f": losses(1.0, 0.9)}, {"f": losses(1.0)})
    assert short
    assert "this run has no step 1" in explain("b", Comparison(1, (), short, 1))
    assert find_loss_difference({}, {"f": losses(1.0)})[0]


def test_a_difference_after_the_last_step_says_so(tree: Path) -> None:
    before = hash_outputs(tree)
    (tree / "curve.csv").write_text("another")
    found = compare(before, hash_outputs(tree), {"f": losses(1)}, {"f": losses(1)}, STAGES)
    assert explain("b", found).endswith(
        "the losses of all 1 steps are the same: what differs came after them"
    )


def test_what_is_exact_on_every_machine(tree: Path) -> None:
    assert exact_files(tree) == ["data/list.csv"]
    assert exact_files(ROOT)[:3] == ["data/manifest.csv", "data/problems.csv", "data/splits.csv"]


def loosely(
    scores: Mapping[str, float], rows: Mapping[str, Sequence[float]], tables: str = "a"
) -> list[Check]:
    """Against an accuracy of 0.9 over 4 images."""
    ours = {"1": [0.9, 0.1], "2": [0.6, 0.4], "3": [0.2, 0.8], "4": [0.5, 0.5]}
    return compare_loosely(
        ({("early", "data/list.csv"): "a"}, {("early", "data/list.csv"): tables}),
        ({"n": 4, "accuracy": 0.9}, scores),
        ({"predictions/val.csv": ours}, {"predictions/val.csv": rows}),
        ["data/list.csv"],
        Tolerances(score=0.05, mean_probability=0.03, answers_changed=0.25),
    )


NEAR = {"1": [0.88, 0.12], "2": [0.62, 0.38], "3": [0.2, 0.8], "4": [0.49, 0.51]}


def outside(checks: Sequence[Check]) -> list[str]:
    return [check.what for check in checks if not check.passes]


def test_another_class_of_cpus_may_round_differently() -> None:
    assert outside(loosely({"n": 4, "accuracy": 0.86}, NEAR)) == []


@pytest.mark.parametrize(("score", "near", "far"), [(1.3, 1.36, 25.0), (-0.1, -0.14, -0.2)])
def test_scores_beyond_0_and_1_are_compared_too(score: float, near: float, far: float) -> None:
    """A log loss of 1.3 and one of 25 are no agreement."""
    for other, passes in ((near, True), (far, False)):
        (check,) = compare_loosely(
            ({}, {}), ({"log_loss": score}, {"log_loss": other}), ({}, {}), [], Tolerances()
        )
        assert check.passes == passes, check


@pytest.mark.parametrize(
    ("checks", "what"),
    [
        (loosely({"n": 4, "accuracy": 0.84}, NEAR), "metrics/evaluate.json: accuracy"),
        (loosely({"n": 5, "accuracy": 0.9}, NEAR), "metrics/evaluate.json: n"),
        (loosely({"n": 4}, NEAR), "metrics/evaluate.json: accuracy in both"),
        (loosely({"n": 4, "accuracy": 0.9}, NEAR, tables="b"), "data/list.csv: bytes"),
        (
            loosely({"n": 4, "accuracy": 0.9}, {**NEAR, "1": [0.4, 0.6]}),
            "predictions/val.csv: share of answers changed",
        ),
        (
            loosely({"n": 4, "accuracy": 0.9}, {"5": [0.5, 0.5]}),
            "predictions/val.csv: ids in one only",
        ),
    ],
)
def test_but_not_more_than_the_tolerances_say(checks: list[Check], what: str) -> None:
    assert what in outside(checks)


def test_of_many_predictions_the_same_ones_are_kept(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    lines = [f"{number},0,0.123456789,0.876543211" for number in range(3000)]
    for order in (lines, lines[::-1]):
        text = "\n".join(["image_id,fold,p_a,p_b", *order])
        (tmp_path / "predictions/val.csv").write_text(text)
        found = read_predictions(tmp_path)["predictions/val.csv"]
        assert len(found) == 2000
        assert found["2999"] == [0.12346, 0.87654]
    assert read_scores(tmp_path) == {}


def test_needs_a_commit(tree: Path) -> None:
    options = Options(output=tree / "out")
    with pytest.raises(PodiumError, match="clones the last commit"):
        certify(tree, options)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    with pytest.raises(PodiumError, match="clones the last commit"):
        certify(tree, options)


def test_overrides(tmp_path: Path) -> None:
    words = ["epochs=4", "lr=3e-4", "competition.name=x", "train.unfreeze=[[0, head]]"]
    changes = parse_overrides(words)
    assert changes == {
        "epochs": 4, "lr": 3e-4, "competition.name": "x", "train.unfreeze": [[0, "head"]],
    }  # fmt: skip
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    set_params(path, changes)
    assert read_yaml(path)["train"]["unfreeze"] == [[0, "head"]]
    assert "# 0 .. 2^32-1" in path.read_text()
    for bad in ("epochs", "=4", "a=[", ""):
        with pytest.raises(PodiumError, match="--set: expected KEY=VALUE"):
            parse_overrides([bad])
    with pytest.raises(PodiumError, match="has no epoch; did you mean 'epochs'"):
        set_params(path, {"epoch": 4})
    with pytest.raises(PodiumError, match="has no lr.x"):
        set_params(path, {"lr.x": 4})


def test_what_certify_changes_are_params_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", path)
    set_params(path, SMALL)
    assert load_params(AllParams, path).epochs == 4


def test_hash_of_a_folder_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    first = hash_folder(tmp_path)
    assert (first["files"], first["bytes"]) == (1, 1)
    (tmp_path / "a/x").rename(tmp_path / "a/y")
    assert hash_folder(tmp_path)["sha256"] != first["sha256"]
    assert hash_folder(tmp_path / "nowhere")["files"] == 0


# A DAG that is run in no time: a listing, and a "training" that notes its losses, has checkpoints
# and goes on from them.
QUICK_DAG = """
stages:
  list:
    cmd: exec python -m stages.list
    deps: [data/raw, stages/list.py]
    outs: [data/list.csv]
  train:
    cmd: exec python -m stages.train
    deps: [data/list.csv, stages/train.py, src/podium/engine]
    params: [epochs]
    outs: [models/w.json, predictions/val.csv]
    metrics: [metrics/evaluate.json: {cache: false}]
"""
LISTING = """
from pathlib import Path
files = sorted(path.name for path in Path("data/raw").iterdir())
Path("data/list.csv").write_text("\\n".join(files) + "\\n")
"""
TRAINING = """
import json, os, time
from pathlib import Path
from ruamel.yaml import YAML
epochs = YAML(typ="safe").load(Path("params.yaml").read_text())["epochs"]
seed, value = len(Path("data/list.csv").read_text()), 1.0
saved = Path(".podium/saved.json")
saved.parent.mkdir(exist_ok=True)
done, value = json.loads(saved.read_text()) if saved.exists() else (0, value)
if done:
    print(f"going on after epoch {done}/{epochs}", flush=True)
folder = Path(os.environ["PODIUM_LOSS_TRACE"])
folder.mkdir(parents=True, exist_ok=True)
for epoch in range(done, epochs):
    for step in range(epoch * 8, epoch * 8 + 8):
        value *= 1 - 1 / (seed + step)
        FAULT
        with (folder / "fold0.csv").open("a") as stream:
            stream.write(f"{epoch + 1},{epochs},{step},{value.hex()}\\n")
        time.sleep(0.03)
    saved.write_text(json.dumps([epoch + 1, value]))
saved.unlink()
Path("models").mkdir(exist_ok=True)
Path("models/w.json").write_text(json.dumps(value))
Path("predictions").mkdir(exist_ok=True)
Path("predictions/val.csv").write_text(f"image_id,p_a,p_b\\n1,{value},{1 - value}\\n")
Path("metrics").mkdir(exist_ok=True)
Path("metrics/evaluate.json").write_text(json.dumps({"n": 1, "accuracy": value}))
"""
QUICK = {"epochs": 4}


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed repository with the quick DAG."""
    root = tmp_path_factory.mktemp("certify") / "repository"
    for folder in ("stages", "data/raw", "data/weights", ".dvc"):
        (root / folder).mkdir(parents=True)
    for name in ("params.yaml", "requirements.lock", ".gitignore", ".dvc/config", ".dvcignore"):
        shutil.copyfile(ROOT / name, root / name)
    (root / "src/podium/engine").mkdir(parents=True)
    (root / "src/podium/engine/x.py").write_text("")
    (root / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (root / "data/raw/1.jpg").write_text("no picture")
    (root / "data/raw/2.jpg").write_text("nor this")
    (root / "data/weights/.gitkeep").write_text("")
    (root / "dvc.yaml").write_text(QUICK_DAG)
    # Stages die with their dvc; the working folder's own src is no podium.
    (root / "stages/__init__.py").write_text(
        "from podium.stage import die_with_parent\ndie_with_parent()\n"
    )
    (root / "stages/list.py").write_text(LISTING)
    (root / "stages/train.py").write_text(TRAINING.replace("FAULT", "pass"))
    run(root, "git", "init", "--quiet")
    for key, value in {"user.name": "Test", "user.email": "t@example.com"}.items():
        run(root, "git", "config", key, value)
    run(root, sys.executable, "-m", "dvc", "add", "--quiet", "data/raw")
    commit(root)
    return root


def test_data_of_no_commit_is_refused(quick: Path, tmp_path: Path) -> None:
    """The revision names its data by data/raw.dvc: a certificate must not be of other files."""
    root = copy_clone(quick, tmp_path / "repository")
    (root / "data/weights/mine.bin").write_text("in no commit, and none need be")
    (root / "data/weights/.gitkeep").write_text("another one than the commit's")
    head = check_committed(root)
    clones.make_clone(root, tmp_path / "same", QUICK, head)
    assert (tmp_path / "same/data/weights/mine.bin").is_file()
    assert (tmp_path / "same/data/weights/.gitkeep").read_text() == ""
    (root / "data/raw/2.jpg").write_text("another picture")
    (root / "data/raw.dvc").write_text("outs: []\n")  # as if added, and still not committed
    said = r"data/raw is not what data/raw\.dvc of the last commit records.*`dvc add data/raw`"
    with pytest.raises(PodiumError, match=said):
        clones.make_clone(root, tmp_path / "other", QUICK, head)


def plant(quick: Path, folder: Path, stage: str, line: str) -> Path:
    """A copy of the quick repository with a fault in a stage."""
    root = copy_clone(quick, folder)
    path = root / f"stages/{stage}.py"
    if stage == "train":
        path.write_text(TRAINING.replace("FAULT", line))
    else:
        path.write_text(path.read_text() + textwrap.dedent(line) + "\n")
    commit(root)
    return root


def load(folder: Path, name: str = "certificate") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return content


@pytest.mark.dag
def test_a_reproducible_dag_gets_its_certificate_and_keeps_it(
    quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = Options(QUICK, output, jobs=4)
    assert certify(quick, options) == 0
    said = capsys.readouterr().out
    found = load(output)
    assert found["verdict"] == "same"
    assert [run["name"] for run in found["runs"]] == [trial.name for trial in TRIALS]
    killed = found["runs"][2]
    assert [kill["target"] for kill in killed["kills"]] == ["python", "dvc", "group"]
    assert all(kill["went_on"].startswith("after epoch ") for kill in killed["kills"]), killed
    assert killed["steps_compared"] == 32
    assert [row["file"] for row in found["outputs"]] == [
        "data/list.csv", "models/w.json", "predictions/val.csv", "metrics/evaluate.json",
    ]  # fmt: skip
    assert found["overrides"] == QUICK
    assert found["hashes"].keys() == {"code", "inputs", "params", "lock", "environment"}
    assert found["params"]["epochs"] == 4
    assert "kill -9 of group in epoch 4" in said
    page = (output / "certificate.html").read_text()
    assert "Same bytes in every run" in page
    assert "http" not in page.replace("http-equiv", "")
    check_again(quick, output, capsys)


def check_again(quick: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the certificate: of this class of CPUs, and as if of another one."""
    path, content = output / "certificate.json", load(output)
    assert recheck(quick, path, Options(output=output)) == 0
    assert load(output, "recheck")["verdict"] == "same"
    content["cpu_class"] = "SomeoneElse/avx2"
    row = next(row for row in content["outputs"] if row["file"] == "models/w.json")
    row["sha256"] = "0" * 64  # another class has other weights
    path.write_text(json.dumps(content))
    content["scores"]["accuracy"] += 0.2
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert recheck(quick, path, Options(output=output)) == 1
    assert "OUTSIDE  metrics/evaluate.json: accuracy: 0.2, allowed 0.05" in capsys.readouterr().out
    assert (
        "Outside: metrics/evaluate.json: accuracy, by 0.2" in (output / "recheck.html").read_text()
    )
    again = load(output, "recheck")
    assert (again["verdict"], again["compared_by"]) == ("different", "tolerances")
    assert [check["passes"] for check in again["checks"]] == [True, True, False, True, True]


def test_verdicts() -> None:
    same, other = Comparison(3, (), None, 0), Comparison(0, (), None, 0)
    near, far = Check("score", 0.01, 0.05), Check("score", 0.06, 0.05)
    assert judge(same, [], same_class=True) == "same"
    assert judge(same, [near], same_class=False) == "same"
    assert judge(other, [], same_class=True) == "different"
    assert judge(other, [near], same_class=False) == "within tolerances"
    assert judge(other, [near, far], same_class=False) == "different"
    assert judge(other, [], same_class=False) == "different"


@pytest.mark.dag
@pytest.mark.parametrize(
    ("stage", "fault", "file", "step"),
    [
        (
            "list",
            "import os; Path('data/list.csv').open('a').write(f'{os.getpid()}\\n')",
            "data/list.csv",
            None,
        ),
        ("train", "value += os.getpid() * 1e-12 if step >= 11 else 0", "models/w.json", 11),
    ],
)
def test_planted_faults_are_caught_and_named(
    quick: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    fault: str,
    file: str,
    step: int | None,
) -> None:
    root = plant(quick, tmp_path / "repository", stage, fault)
    output = tmp_path / "out"
    assert certify(root, Options({"epochs": 2}, output, jobs=2), TRIALS[:2]) == 1
    said = capsys.readouterr().out
    assert f"the first in the order of the DAG is {file} (stage {stage})" in said
    row = load(output)["runs"][1]
    assert row["differences"][0]["file"] == file
    if step is not None:
        assert row["first_loss"].startswith(
            f"training fold0: the first step whose loss differs is {step} (epoch 2)"
        )
    assert "Not reproducible" in (output / "certificate.html").read_text()
    with pytest.raises(PodiumError, match="certifies nothing"):
        load_certificate(output / "certificate.json")


@pytest.mark.dag
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_leave_nothing_running(
    quick: Path, tmp_path: Path, number: signal.Signals
) -> None:
    work = (
        "from pathlib import Path; from podium.certify.certify import Options, certify; "
        "from podium.certify.trials import TRIALS; "
        f"certify(Path({str(quick)!r}), Options({{'epochs': 999}}, jobs=2), TRIALS[:2])"
    )
    words = ["env", f"TMPDIR={tmp_path}", sys.executable, "-c", work]
    with running(quick, *words) as process:
        assert process.stdout
        for line in process.stdout:
            if line.endswith(": train\n"):
                break
        os.kill(process.pid, number)
        process.wait(timeout=60)
        deadline = time.monotonic() + 20
        while left := [one for one in psutil.process_iter(["cwd"]) if is_below(one, tmp_path)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    if number == signal.SIGINT:
        assert list(tmp_path.glob("podium-certify-*")) == []


def is_below(process: psutil.Process, folder: Path) -> bool:
    """Whether a living process works in that folder."""
    cwd = process.info["cwd"]
    return cwd is not None and folder in Path(cwd).parents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing: `podium certify` makes one"),
        ("", "is no certificate"),
        ("[1]", "expected a certificate of format 1"),
        ('{"format": 1, "verdict": "same"}', "is damaged"),
    ],
)
def test_wrong_certificates(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "certificate.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PodiumError, match=message):
        load_certificate(path)
    with pytest.raises(PodiumError, match="is a folder"):
        load_certificate(tmp_path)


@pytest.mark.parametrize("name", ["competition.source", "model.allow_download"])
def test_a_certificate_does_not_choose_what_is_read_here(tmp_path: Path, name: str) -> None:
    keys = "competition cpu_class hashes given tolerances outputs exact scores measured params"
    content = {key: {} for key in (*keys.split(), "losses", "predictions")}
    path = tmp_path / "certificate.json"
    path.write_text(
        json.dumps({"format": 1, "verdict": "same", **content, "overrides": {name: "/etc"}})
    )
    with pytest.raises(PodiumError, match=f"changes {name}, which a certificate may not"):
        load_certificate(path)


def test_a_certificate_of_something_else_is_refused(quick: Path, tmp_path: Path) -> None:
    given = read_given(quick)
    theirs: dict[str, Any] = {
        "hashes": dict(given.hashes),
        "params": {**given.params, "lr": 7.0, "train": {**given.params["train"], "ema": 0.5}},
        "given": {"files": 9, "bytes": 8, "source": "data/raw"},
        "measured": {"revision": "abc"},
    }
    assert find_unlike(theirs, given) == []
    theirs["hashes"]["code"] = theirs["hashes"]["environment"] = "another"
    assert find_unlike(theirs, given) == [
        "the code is another one",
        "other packages, or another Python, are installed",
    ]
    theirs["hashes"]["inputs"] = "another"
    with pytest.raises(PodiumError, match="of other data: 9 files of 8 bytes"):
        find_unlike(theirs, given)
    theirs["hashes"]["params"] = "another"
    with pytest.raises(PodiumError, match=r"of other params \(lr, train.ema\)"):
        find_unlike(theirs, given)


@pytest.mark.dag
@pytest.mark.slow
def test_planted_in_the_real_dag(tmp_path: Path) -> None:
    """A step of the real training that draws its dropout from the process id, from step 3 on."""
    root = make_clone(tmp_path / "clone")
    path = root / "src/podium/engine/training.py"
    text = path.read_text()
    line = 'derive_seed(self._job.recipe.seed, "step", step, self._group.rank, number)'
    assert line in text
    faulty = line.replace('"step", step,', '"step", step + (os.getpid() if step > 2 else 0),')
    text = text.replace(line, faulty).replace("import math\n", "import math\nimport os\n", 1)
    path.write_text(text)
    commit(root)
    output = tmp_path / "out"
    assert certify(root, Options({"epochs": 2}, output, jobs=2), TRIALS[:2]) == 1
    # The weights may be the same: those of the first epoch, if no later one was better.
    row = load(output)["runs"][1]
    assert row["differences"][0]["stage"] == "train", row
    assert "the first step whose loss differs is 3 (epoch 2)" in row["first_loss"], row
