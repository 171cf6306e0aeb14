"""The reproducibility check's comparison; the check itself is `make repro-check`, run by CI."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from podium.commands.repro_check import (
    declared_outputs,
    hash_outputs,
    print_comparison,
    repro_check,
)
from podium.errors import PodiumError

ROOT = Path(__file__).resolve().parents[1]

DAG = """
stages:
  early:
    cmd: "true"
    outs: [model, data/list.csv: {cache: false}]
    metrics: [metrics/early.json: {cache: false}]
  late:
    cmd: "true"
    plots: [curve.csv]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository after a run: a folder, and files of each kind."""
    (tmp_path / "dvc.yaml").write_text(DAG)
    for name in ("model/b.bin", "model/a.json", "data/list.csv", "metrics/early.json", "curve.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_every_declared_output_is_compared(tree: Path) -> None:
    assert list(hash_outputs(tree)) == [
        ("early", "model/a.json"),
        ("early", "model/b.bin"),
        ("early", "data/list.csv"),
        ("early", "metrics/early.json"),
        ("late", "curve.csv"),
    ]


def test_declared_outputs_stand_in_the_order_of_the_dag() -> None:
    # The first that differs is named: the order of dvc.yaml must be the order of the DAG.
    from ruamel.yaml import YAML

    made_by = {path.as_posix(): stage for stage, path in declared_outputs(ROOT)}
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    order = list(stages)
    for name, stage in stages.items():
        for dep in stage["deps"]:
            if dep in made_by:
                assert order.index(made_by[dep]) < order.index(name), f"{name} needs {dep}"


def test_equal_runs(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = hash_outputs(tree)
    assert print_comparison(hashes, dict(hashes)) == 0
    assert "all 5 files of the declared outputs are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        (("curve.csv", "model/b.bin"), "early: model/b.bin"),
        (("curve.csv",), "late: curve.csv"),
    ],
)
def test_first_difference_in_dag_order_is_named(
    tree: Path, capsys: pytest.CaptureFixture[str], changed: tuple[str, ...], first: str
) -> None:
    before = hash_outputs(tree)
    for name in changed:
        (tree / name).write_text("another")
    assert print_comparison(before, hash_outputs(tree)) == 1
    said = capsys.readouterr().out
    assert said.count("DIFFERENT") == len(changed)
    assert said.endswith(f"the first in the order of the DAG is {first}\n")


def test_missing_and_additional_files_differ(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hash_outputs(tree)
    (tree / "curve.csv").unlink()
    (tree / "model/c.bin").write_text("more")
    after = hash_outputs(tree)
    assert print_comparison(before, after) == 1
    assert capsys.readouterr().out.count("DIFFERENT") == 2
    # Missing in both is no agreement.
    assert print_comparison(after, after) == 1


def test_needs_a_commit(tree: Path) -> None:
    with pytest.raises(PodiumError, match="clones the last commit"):
        repro_check(tree, subset=0.25, keep=False)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    with pytest.raises(PodiumError, match="clones the last commit"):
        repro_check(tree, subset=0.25, keep=False)


def test_subset_is_checked(tree: Path) -> None:
    with pytest.raises(PodiumError, match="--subset: expected > 0 and at most 1, got 25"):
        repro_check(tree, subset=25, keep=False)
