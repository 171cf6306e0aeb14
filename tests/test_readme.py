"""What the README and docs/params.md say of params and commands is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from podium.cli import _make_parser
from podium.params import read_yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARAMS = (ROOT / "docs/params.md").read_text(encoding="utf-8")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found.update(flatten(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def test_every_param_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|", PARAMS, re.MULTILINE)
    assert rows == list(flatten(read_yaml(ROOT / "params.yaml")))


@pytest.mark.parametrize("line", re.findall(r"^(podium [^#\n]*)", README, re.MULTILINE))
def test_podium_commands_parse(line: str) -> None:
    _make_parser().parse_args(shlex.split(line)[1:])


def test_no_placeholder_is_left() -> None:
    left = re.findall(r"^[A-Z]{4,}$", README, re.MULTILINE)
    assert not left


def test_files_named_exist() -> None:
    for name in re.findall(r"\((docs/[^)#]+)\)", README):
        assert (ROOT / name).exists(), name
