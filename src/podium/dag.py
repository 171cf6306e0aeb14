"""What dvc.yaml says of the stages: their outputs, params and inputs.

In: dvc.yaml and params.yaml. Out: plain tuples and dicts, in the order of dvc.yaml, which is the
DAG's (tests/test_certify.py holds it to that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.params import PARAMS_FILE, read_yaml

DAG_FILE = Path("dvc.yaml")
_KINDS = ("outs", "metrics", "plots")


@dataclass(frozen=True)
class Output:
    """One declared output: of which stage, where, and as what (outs, metrics or plots)."""

    stage: str
    path: Path
    kind: str


def load_stages(root: Path) -> dict[str, Any]:
    """The stages of `root`'s dvc.yaml, as they are written there.

    Raises:
        PodiumError: the file is missing or no YAML.
    """
    stages: dict[str, Any] = read_yaml(root / DAG_FILE).get("stages") or {}
    return stages


def declared_outputs(root: Path) -> list[Output]:
    """Every out, metric and plot."""
    return [
        Output(name, Path(path), kind)
        for name, stage in load_stages(root).items()
        for kind in _KINDS
        for entry in stage.get(kind, [])
        for path in (entry if isinstance(entry, dict) else [entry])
    ]


def declared_params(root: Path, stage: str) -> dict[str, Any]:
    """The params that a stage declares, by dotted name, with their values in params.yaml.

    It is what DVC compares to decide whether the stage must run again; a name that params.yaml
    lacks has the value None, as it has for DVC.
    """
    params = read_yaml(root / PARAMS_FILE)
    return {name: look_up(params, name) for name in load_stages(root)[stage].get("params", [])}


def declared_inputs(root: Path) -> list[Path]:
    """The dependencies that no stage makes: code, data, weights; `${...}` filled in."""
    params = read_yaml(root / PARAMS_FILE)
    made = {output.path for output in declared_outputs(root)}
    found = dict.fromkeys(
        Path(re.sub(r"\$\{([^}]+)\}", lambda name: str(look_up(params, name[1])), dep))
        for stage in load_stages(root).values()
        for dep in stage.get("deps", [])
    )
    return [path for path in found if path not in made]


def look_up(tree: Any, name: str) -> Any:
    """The value at a dotted name; None where there is none."""
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
