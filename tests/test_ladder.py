"""The ladder takes hours: a row that Podium refuses, or a table that does not read, is found here."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from podium.files import write_json
from podium.params import load_params
from podium.schema import AllParams, check_rules
from tests.competition import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
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


def test_cells_say_what_a_trick_is_worth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 200 images the default answers 40 that it does not without EMA, and 20 less with mixup."""
    monkeypatch.setattr(ladder, "KEPT", tmp_path)
    column = ladder.Ladder("embedded", ["EMA", "mixup"])
    targets = [row % 4 for row in range(200)]
    wrong = {"default": 10, "EMA": 50, "mixup": 30}
    for trick, errors in wrong.items():
        labels = [(t + (row < errors)) % 4 for row, t in enumerate(targets)]
        groups = [str(row) for row in range(200)]
        result = ladder.Result(list("abcd"), labels, targets, groups, 7.0)
        write_json(column._kept(column._params(trick)), asdict(result))
    assert column.cell("default") == "95.0 % of 200; 7 s"
    assert column.cell("EMA").startswith("+20.0 (")
    assert column.cell("EMA").endswith(") **better**; 7 s")
    assert column.cell("mixup").startswith("-10.0 (")
    assert column.cell("mixup").endswith(") **worse**; 7 s")
    assert column.cell("cutout") == ""
    lines = ladder.make_table({"embedded": column}).splitlines()
    assert sum(line.startswith(("| it has", "| with")) for line in lines) == 2
