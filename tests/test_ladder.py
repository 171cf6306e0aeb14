"""The ladder takes hours: a row that Podium refuses, or a table that does not read, is found here."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from podium.params import load_params
from podium.schema import AllParams, check_rules
from tests.competition import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import clones
import ladder
from clones import set_params


@pytest.mark.parametrize("tricks", ["WITHOUT", "WITH", "WITH_ON_REAL"])
def test_every_row_is_one_that_podium_takes(tricks: str, tmp_path: Path) -> None:
    for trick, changes in getattr(ladder, tricks).items():
        (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        set_params(tmp_path, {"competition.ordinal": True, **changes})
        params = load_params(AllParams, tmp_path / "params.yaml")
        assert check_rules(params) == [], trick


def test_rows_differ_from_the_default() -> None:
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for trick, changes in {**ladder.WITHOUT, **ladder.WITH}.items():
        same = []
        for key, value in changes.items():
            at: Any = tree
            for name in key.split("."):
                at = at[name]
            same.append(at == value)
        assert not all(same), trick


@pytest.fixture
def column(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ladder.Ladder:
    """Of 200 images the default answers 40 that it does not without EMA, and 20 less with mixup."""
    monkeypatch.setattr(clones, "MEASURED", tmp_path)
    found = ladder.Ladder("embedded", [])
    wrong = {"default": 10, "EMA": 50, "mixup": 30}
    found._column = ladder.Column("code", "answers", list(range(200)))
    for trick, errors in wrong.items():
        right = "0" * errors + "1" * (200 - errors)
        params = dict(found._params(trick))
        found._column.results[trick] = ladder.Result(right, 7.0, params, "abc1234")
    found._column.save(found._kept_as)
    return ladder.Ladder("embedded", ["EMA", "cutout"])


def test_cells_say_what_a_trick_is_worth(column: ladder.Ladder) -> None:
    assert column.cell("default") == "95.0 % of 200; 7 s"
    assert column.cell("EMA").startswith("+20.0 (")
    assert column.cell("EMA").endswith(") **better**; 7 s")
    assert column.cell("mixup").startswith("-10.0 (")
    assert column.cell("mixup").endswith(") **worse**; 7 s")
    assert column.cell("cutout") == ""
    table = ladder.make_table({"embedded": column})
    assert sum(line.startswith(("| it has", "| with")) for line in table.splitlines()) == 2
    assert "commit abc1234" in table


def test_what_another_seed_does_is_no_trick(column: ladder.Ladder) -> None:
    """Ten points lie between two seeds: mixup's ten are noise then, EMA's twenty and TTA's are not."""
    results = column._column.results
    for trick, errors in (("seed 1", 30), ("mirrored views", 30)):
        right = "0" * errors + "1" * (200 - errors)
        params = dict(column._params(trick))
        results[trick] = ladder.Result(right, 7.0, params, "abc1234")
    assert column.luck == 10.0
    assert ") noise; 7 s" in column.cell("mixup")
    assert ") **better**; 7 s" in column.cell("EMA")
    assert ") **better**; 7 s" in column.cell("mirrored views")
    assert "seed alone: embedded 10.0." in ladder.make_table({"embedded": column})


@pytest.mark.parametrize("same", [True, False])
def test_rows_outlive_code_that_gives_the_same_bytes(
    same: bool, column: ladder.Ladder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default is trained first; then what is known is left alone, if it has the same answers."""
    trained = []

    def measure(clone: Path, trick: str, commit: str) -> ladder.Result:
        trained.append(trick)
        return ladder.Result("1" * 200, 3.0, dict(column._params(trick)), commit)

    monkeypatch.setattr(ladder, "run", lambda *_: "")
    monkeypatch.setattr(ladder, "fresh_clone", lambda _: contextlib.nullcontext(tmp_path))
    monkeypatch.setattr(column, "_hash_code", lambda: "other code")
    monkeypatch.setattr(column, "_hash_answers", lambda _: "answers" if same else "others")
    monkeypatch.setattr(column, "_number_groups", lambda _: list(range(200)))
    monkeypatch.setattr(column, "_measure", measure)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    assert list(column.climb()) == (["default", "cutout"] if same else ["default", "EMA", "cutout"])
    assert (column.cell("mixup") != "") == same
    trained.clear()
    assert list(column.climb()) == trained == []
    column._again = ("cutout",)
    assert list(column.climb()) == ["cutout"]
