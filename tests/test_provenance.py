"""Where a result comes from: hashes in cards, facts of the run in metrics/measured, the loss trace."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from podium.dag import declared_inputs, declared_params, look_up
from podium.engine.checkpoint import Checkpoints, TrainingFolder
from podium.engine.loss_trace import (
    VARIABLE,
    StepLoss,
    open_loss_trace,
    read_last_step,
    read_loss_traces,
)
from podium.engine.processes import Alone
from podium.engine.provenance import hash_json, make_card_hashes
from podium.engine.runs import Run
from podium.engine.training import train
from podium.errors import PodiumError
from podium.git_facts import find_changes, read_revision
from podium.runtime import data_workers
from podium.stage import run_stage
from tests.kills import set_params
from tests.trainings import recipe, toy_job

ROOT = Path(__file__).resolve().parents[1]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What hashes are made of."""
    for name in ("params.yaml", "dvc.yaml", "requirements.lock"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.csv").write_text("image_id\n1\n")
    return tmp_path


def test_card_hashes_follow_what_the_stage_declares_and_nothing_else(tree: Path) -> None:
    before = make_card_hashes("train", tree)
    assert before["manifest_sha256"] == sha256(tree / "data/manifest.csv")
    assert before["lock_sha256"] == sha256(tree / "requirements.lock")
    set_params(tree, {"compress.calibration_images": 9, "evaluate.tta": "both"})
    assert make_card_hashes("train", tree) == before
    text = (tree / "params.yaml").read_text()
    (tree / "params.yaml").write_text(text + "# a comment\n")
    assert make_card_hashes("train", tree) == before
    set_params(tree, {"train.ema": 0.5})
    after = make_card_hashes("train", tree)
    assert after["params_sha256"] != before["params_sha256"]
    assert {**after, "params_sha256": ""} == {**before, "params_sha256": ""}
    (tree / "requirements.lock").unlink()
    with pytest.raises(PodiumError, match=r"requirements.lock is missing: `git checkout`"):
        make_card_hashes("train", tree)


def test_params_are_hashed_by_content() -> None:
    assert hash_json({"a": 1, "b": [1.5, None]}) == hash_json({"b": [1.5, None], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.0})
    assert hash_json({"a": "1"}) != hash_json({"a": 1})


def test_what_dvc_yaml_declares(tree: Path) -> None:
    declared = declared_params(tree, "label_shuffle")
    assert declared == {"seed": 0, "split.val_fold": 0, "label_shuffle.balance": 0.5}
    assert look_up({"a": {"b": 1}}, "a.c") is None
    inputs = [path.as_posix() for path in declared_inputs(tree)]
    assert inputs[:3] == ["data/raw", "data/relabel.csv", "stages/eda.py"]
    assert "requirements.lock" in inputs
    assert "data/manifest.csv" not in inputs


@pytest.mark.dag
def test_every_card_of_a_run_has_its_hashes(plain: Path) -> None:
    model = json.loads((plain / "models/fold0/card.json").read_text())
    shipped = json.loads((plain / "deploy/card.json").read_text())
    assert model["hashes"] == make_card_hashes("train", plain)
    assert shipped["hashes"] == {
        "train": model["hashes"],
        "compress": make_card_hashes("compress", plain),
    }
    measured = json.loads((plain / "metrics/measured/train.json").read_text())
    assert len(measured["revision"]) == 40
    assert measured["dirty"] is False  # it writes its own outputs, and that does not count


def test_what_a_run_measures_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path
) -> None:
    monkeypatch.chdir(tree)

    def measured() -> dict[str, object]:
        run_stage("split", lambda: None)
        found: dict[str, object] = json.loads(Path("metrics/measured/split.json").read_text())
        return found

    first = measured()
    assert (first["revision"], first["dirty"]) == (None, None)
    assert datetime.fromisoformat(str(first["ended"])).tzinfo
    assert {"seconds", "cpu_seconds", "cpu_class"} < first.keys()
    for words in (
        ("init", "--quiet"),
        ("config", "user.name", "Test"),
        ("config", "user.email", "t@example.com"),
        ("add", "params.yaml", "dvc.yaml", "requirements.lock"),
        ("commit", "--quiet", "-m", "state"),
    ):
        subprocess.run(["git", *words], check=True)
    (tree / ".gitignore").write_text("/.podium\n/metrics/measured\n")
    assert measured()["dirty"] is True
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", "more"], check=True)
    (tree / "data/manifest.csv").write_text("written by eda")
    (tree / "dvc.lock").write_text("written by dvc")
    again = measured()
    assert (again["revision"], again["dirty"]) == (read_revision(tree), False)
    subprocess.run(["git", "mv", "params.yaml", "old name.yaml"], check=True)
    assert find_changes(tree) == ["old name.yaml"]
    assert read_revision(tree / "data") is None, "a repository further up is another one"


def test_loss_trace_changes_no_bit_and_has_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(toy_job(recipe()), lambda row: None)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "losses"))
    run = Run(Alone(), TrainingFolder(tmp_path / "checkpoints"), 1)
    with run.steps(0) as on_step:
        traced = train(toy_job(recipe()), lambda row: None, on_step=on_step)
    for name, values in plain.state.items():
        assert np.array_equal(values, traced.state[name])
    rows = read_loss_traces(tmp_path / "losses")["fold0"]
    assert [row.step for row in rows] == list(range(12))  # 3 epochs of 60 rows in batches of 16
    assert (rows[4].epoch, rows[4].epochs) == (2, 3)
    sizes = 16, 16, 16, 12
    mean = sum(row.loss * size for row, size in zip(rows, sizes, strict=False)) / 60
    assert mean == pytest.approx(plain.curve[0].train_loss, rel=1e-6)
    with run.next_round().steps(0) as on_step:
        assert on_step
        on_step(StepLoss(1, 1, 0, float("inf")))
    assert read_last_step(tmp_path / "losses") == StepLoss(1, 1, 0, float("inf"))
    assert list(read_loss_traces(tmp_path / "losses")) == ["fold0", "fold0-round2"]


def test_a_resumed_training_goes_on_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def run(epochs_until_death: int | None) -> None:
        def die(row: object) -> None:
            if epochs_until_death and len(seen) == epochs_until_death:
                raise MemoryError
            seen.append(row)

        seen: list[object] = []
        with open_loss_trace("fold0") as on_step:
            train(toy_job(recipe()), die, None, Checkpoints(tmp_path / "c"), on_step)

    with pytest.raises(MemoryError):
        run(1)
    run(None)
    rows = read_loss_traces(tmp_path)["fold0"]
    assert [row.step for row in rows] == [*range(8), *range(4, 12)]
    assert rows[4:8] == rows[8:12], "a repeated step has the same loss"


def test_no_trace_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with open_loss_trace("fold0") as on_step:
        on_step(StepLoss(1, 1, 0, 1.0))
    assert list(tmp_path.iterdir()) == []
    assert read_loss_traces(tmp_path / "nowhere") == {}
    assert read_last_step(tmp_path / "nowhere") is None


def test_workers_are_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PODIUM_WORKERS", raising=False)
    assert data_workers(2) == 2
    monkeypatch.setenv("PODIUM_WORKERS", "7")
    assert data_workers(2) == 7
    for bad in ("0", "-1", "x", "65", "1.5"):
        monkeypatch.setenv("PODIUM_WORKERS", bad)
        with pytest.raises(PodiumError, match="expected a whole number from 1 to 64"):
            data_workers(2)
