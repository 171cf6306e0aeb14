"""Params and experiments, as the commands of the README, in a clone with a small competition.

One plain run and one experiment are shared by the tests that only look; a test that changes
something works on its own copy.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.competition import (
    copy_clone,
    edit,
    error_lines,
    half_written,
    metrics,
    offline_prefix,
    run,
    run_any,
    stages_run,
)

pytestmark = pytest.mark.dag

STAGES = [
    "eda",
    "split",
    "label_shuffle",
    "features",
    "train",
    "evaluate",
    "audit",
    "compress",
    "submit",
]
FROM_TRAIN = STAGES[4:]


@pytest.fixture(scope="module")
def experiment(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy after `dvc exp run -S lr=3e-4`, and what dvc said."""
    clone = copy_clone(plain, tmp_path_factory.mktemp("experiment") / "clone")
    return clone, run(clone, "dvc", "exp", "run", "-S", "lr=3e-4")


def experiments(clone: Path) -> dict[str, dict[str, Any]]:
    """Name -> params and metrics of each finished experiment in `dvc exp show`."""
    # A warning may stand before the JSON.
    said = run(clone, "dvc", "exp", "show", "--json")
    rows = json.loads(said[said.index("[") :])
    found = {}
    for row in rows:
        for group in row["experiments"] or []:
            last = group["revs"][0]
            data = last["data"]
            if data is None:
                raise AssertionError(f"{group['name']} failed: {last['error']}")
            found[group["name"]] = {
                "params": data["params"]["params.yaml"]["data"],
                "metrics": {
                    Path(name).stem: values["data"] for name, values in data["metrics"].items()
                },
            }
    return found


def test_first_repro_runs_every_stage(first_repro: str, copy: Path) -> None:
    assert stages_run(first_repro) == STAGES
    assert half_written(copy) == []
    assert run(copy, "git", "status", "--short") == ""


def test_whole_run_needs_no_network(first_repro: str) -> None:
    if not offline_prefix():
        pytest.skip("this machine gives no network namespace: unshare --map-root-user --net fails")
    assert stages_run(first_repro) == STAGES  # it ran in one


def test_second_repro_does_nothing(copy: Path) -> None:
    said = run(copy, "dvc", "repro")
    assert stages_run(said) == []
    assert "up to date" in said


def test_lr_runs_train_and_what_follows(experiment: tuple[Path, str]) -> None:
    clone, said = experiment
    assert stages_run(said) == FROM_TRAIN
    assert json.loads((clone / "models/fold0/card.json").read_text())["params"]["lr"] == 3e-4


def test_exp_show_lists_the_experiment(experiment: tuple[Path, str]) -> None:
    (found,) = experiments(experiment[0]).values()
    assert found["params"]["lr"] == 3e-4
    assert (
        found["metrics"]["evaluate"]["accuracy"] == metrics(experiment[0], "evaluate")["accuracy"]
    )


def test_params_diff_shows_lr(experiment: tuple[Path, str]) -> None:
    said = run(experiment[0], "dvc", "params", "diff", "--json")
    change = json.loads(said)
    assert list(change) == ["params.yaml"]
    assert list(change["params.yaml"]) == ["lr"]
    assert (change["params.yaml"]["lr"]["old"], change["params.yaml"]["lr"]["new"]) == (3e-3, 3e-4)


def test_metrics_diff_shows_numbers(experiment: tuple[Path, str]) -> None:
    said = json.loads(run(experiment[0], "dvc", "metrics", "diff", "--json"))
    change = said["metrics/evaluate.json"]["log_loss"]
    assert change["new"] - change["old"] == pytest.approx(change["diff"])
    assert change["diff"] != 0


def test_plots_diff_writes_a_page(experiment: tuple[Path, str]) -> None:
    clone = experiment[0]
    run(clone, "dvc", "plots", "diff", "HEAD", "workspace", "-o", "plots")
    page = (clone / "plots" / "index.html").read_text()
    for plot in ("train/curve.csv", "evaluate/confusion.csv", "evaluate/reliability.csv"):
        assert f"reports/{plot}" in page or plot.replace("/", "_") in page, plot
    shutil.rmtree(clone / "plots")


def wait_for_queue(clone: Path, seconds: float) -> str:
    """`dvc queue status` once no task is queued or running."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = run(clone, "dvc", "queue", "status")
        if "Queued" not in said and "Running" not in said:
            return said
        time.sleep(1)
    raise AssertionError(f"the queue did not end in {seconds:.0f} s:\n{said}")


@pytest.fixture
def queue(copy: Path) -> Iterator[Path]:
    """A copy whose queue workers end with the test."""
    yield copy
    run_any(copy, "dvc", "queue", "stop", "--kill")


def test_queue_and_temp_run_the_code_they_were_given(queue: Path) -> None:
    run(queue, "dvc", "exp", "run", "--queue", "-S", "lr=1e-4,1e-3", "evaluate")
    stored = {path: path.stat().st_ino for path in (queue / ".podium/store").glob("*.npy")}
    assert stored
    # Code that the queued experiments must not see, and the temporary one must.
    edit(queue / "src/podium/engine/fit.py", {'"epochs_run":': '"edited": 1, "epochs_run":'})
    run(queue, "dvc", "queue", "start", "-j", "2")
    status = wait_for_queue(queue, seconds=200)
    assert status.count("Success") == 2, status
    found = experiments(queue)
    assert sorted(e["params"]["lr"] for e in found.values()) == [1e-4, 1e-3]
    assert len({e["metrics"]["evaluate"]["log_loss"] for e in found.values()}) == 2
    assert not any("edited" in e["metrics"]["train"] for e in found.values())

    said = run(queue, "dvc", "exp", "run", "--temp", "-S", "lr=2e-3", "evaluate")
    assert stages_run(said)[-2:] == ["train", "evaluate"]
    (new,) = experiments(queue).keys() - found.keys()
    assert experiments(queue)[new]["metrics"]["train"]["edited"] == 1

    # What is shared and what is looked at while it runs stands in the checkout of the user.
    logs = {path.name for path in (queue / ".podium/visualdl").iterdir()}
    assert logs == {"workspace", new, *found}
    now = {path: path.stat().st_ino for path in (queue / ".podium/store").glob("*.npy")}
    assert now == stored, "decoded again, although the store had it"
    assert half_written(queue) == []


def test_compress_key_runs_compress_and_submit(copy: Path) -> None:
    changes = ("compress.precisions=[int8]", "compress.formats=[onnx]")
    words = [
        word for change in (*changes, "compress.select.max_drop=1.0") for word in ("-S", change)
    ]
    said = run(copy, "dvc", "exp", "run", *words)
    assert stages_run(said) == ["compress", "submit"]
    assert metrics(copy, "compress")["shipped"] == "trained-int8-onnx"


def test_size_limit_runs_what_keeps_to_it(copy: Path) -> None:
    said = run(copy, "dvc", "exp", "run", "-S", "competition.rules.max_model_mb=20")
    assert stages_run(said) == ["compress", "submit"]


def test_mistyped_override_is_refused(copy: Path) -> None:
    code, said = run_any(copy, "dvc", "exp", "run", "-S", "lrr=1")
    assert code != 0
    assert "lrr" in said
    assert stages_run(said) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("folds: 5 ", "folds: 1 ", "split.folds: expected greater than or equal to 2, got 1"),
        ("folds: 5 ", "folds: five ", "split.folds: expected a valid integer, got 'five'"),
        (
            "folds: 5 ",
            "folds: 4\n  fold: 3 ",
            "unknown key 'split.fold'; did you mean 'folds'?",
        ),
    ],
    ids=["range", "type", "typo"],
)
def test_bad_value_stops_the_stage_with_one_line(
    copy: Path, old: str, new: str, words: str
) -> None:
    edit(copy / "params.yaml", {old: new})
    code, said = run_any(copy, "dvc", "repro")
    assert code not in (0, 2)  # dvc's own
    assert "exited with 2" in said
    assert error_lines(said) == [f"error: split: params.yaml: {words}"]
    assert "Traceback" not in said
    assert stages_run(said) == ["split"]


def test_podium_run_checks_all_of_params_first(copy: Path) -> None:
    # A key that no stage declares makes none of them dirty: dvc alone would not notice it.
    edit(copy / "params.yaml", {"lr: 3e-3 ": "lrr: 1\nlr: 3e-3 "})
    code, said = run_any(copy, "podium", "run")
    assert code == 2
    assert said == "error: params.yaml: unknown key 'lrr'; did you mean 'lr'?\n"


def podium(clone: Path, *words: str) -> tuple[int, str]:
    """The clone's own `podium`, which may know more commands than the installed one."""
    script = "import sys; sys.path.insert(0, 'src'); from podium.cli import main; main()"
    return run_any(clone, sys.executable, "-c", script, *words)


def test_compare_tells_experiments_apart(experiment: tuple[Path, str], tmp_path: Path) -> None:
    """An experiment with another lr, and one that was judged on another fold."""
    clone = copy_clone(experiment[0], tmp_path / "clone")
    (name,) = experiments(clone)
    run(clone, "dvc", "exp", "run", "--name", "other-fold", "-S", "split.val_fold=1", "evaluate")
    code, said = podium(clone, "compare", "HEAD", name, "--html", "page.html")
    assert code == 0, said
    assert f"{name} against HEAD: " in said
    assert "param lr: 0.003 -> 0.0003" in said
    assert "other code" not in said
    changed = re.search(r"(\d+) turned right, (\d+) turned wrong .* (\d+) are wrong with", said)
    assert changed is not None
    shown = (clone / "page.html").read_text().count("data:image/jpeg;base64,")
    assert shown == sum(map(int, changed.groups()))
    code, said = podium(clone, "compare", "workspace", "HEAD")
    assert code == 2
    assert "only in HEAD" in said
    assert "this may be why: split.val_fold: 1 against 0" in said
    code, said = podium(clone, "compare", "--all")
    assert code == 0
    assert said.startswith("1 of 2 experiments against HEAD")
    assert "left out: other-fold: another val set: " in said
    assert run(clone, "git", "status", "--short", ".podium") == ""
