"""dvc.yaml against the code: a stage declares exactly what it reads, and imports point down."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from podium.commands.summary import STAGES
from podium.params import TOP_LEVEL_KEYS, Params
from podium.schema import AllParams

ROOT = Path(__file__).resolve().parents[1]
DAG = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]

# What carries content without deciding it; see the head of dvc.yaml.
CARRIERS = {"__init__", "errors", "params", "files", "progress", "stage", "dag", "git_facts"}
LAYERS = [
    {"errors", "params", "files", "progress", "stage", "runtime", "dag", "git_facts", "__init__"},
    {"data"},
    {"intake"},
    {"tasks"},
    {"probes"},
    {"models"},
    {"engine"},
    {"slim", "report", "trust"},
    {"schema"},
    {"commands"},
    {"doctor"},
    {"certify"},
    {"cli"},
]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> set[str]:
    """podium modules that a file imports at run time, also inside functions."""
    found = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.split(".")[0] == "podium":
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.split(".")[0] == "podium")
    return found


def module_file(module: str) -> Path | None:
    base = ROOT / "src" / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def import_closure(start: Path) -> set[Path]:
    todo, seen = [start], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        todo += [found for module in imported_modules(path) if (found := module_file(module))]
    return seen - {start}


def chains_read(path: Path) -> set[str]:
    """`params.split.folds` -> split.folds; `params.train` handed on whole -> train."""
    tree = parse(path)
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        parts: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            parts.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name) and value.id == "params":
            found.add(".".join(parts))
    return found


def view_of(name: str) -> type[Params]:
    """The Params class that a stage declares."""
    module = importlib.import_module(f"stages.{name}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Params) and value is not Params
    )


def leaves(name: str, key: str) -> set[str]:
    """The keys of params.yaml that `params.key` means in this stage's view."""
    if "." in key:
        return {key}
    annotation = view_of(name).model_fields[key].annotation
    return {f"{key}.{leaf}" for leaf in getattr(annotation, "model_fields", {})} or {key}


def python_files() -> Iterator[Path]:
    yield from sorted((ROOT / "src" / "podium").rglob("*.py"))


def test_stage_means_file_section_and_metrics() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert set(DAG) == files == set(STAGES)
    for name, stage in DAG.items():
        assert stage["cmd"] == f"exec python -m stages.{name}"
        assert f"stages/{name}.py" in stage["deps"]
        for metrics in stage.get("metrics", []):
            assert set(metrics) == {f"metrics/{name}.json"}


@pytest.mark.parametrize("name", DAG)
def test_params_read_are_params_declared(name: str) -> None:
    chains = chains_read(ROOT / "stages" / f"{name}.py")
    read = {leaf for key in chains for leaf in leaves(name, key)}
    declared = set()
    for key in DAG[name].get("params", []):
        field = AllParams.model_fields[key.split(".")[0]]
        whole = {f"{key}.{leaf}" for leaf in getattr(field.annotation, "model_fields", {})}
        declared |= whole if whole and "." not in key else {key}
    # The images are a dependency of every stage that the manifest leads to them.
    assert read - {"competition.source"} == declared - {"competition.source"}


@pytest.mark.parametrize("name", DAG)
def test_imports_are_within_deps(name: str) -> None:
    deps = [ROOT / dep for dep in DAG[name]["deps"] if dep.startswith("src/")]
    files = import_closure(ROOT / "stages" / f"{name}.py") | import_closure(
        ROOT / "stages" / "__init__.py"
    )
    carriers = {ROOT / "src" / "podium" / f"{stem}.py" for stem in CARRIERS}
    missing = [
        path
        for path in files - carriers
        if not any(path == dep or dep in path.parents for dep in deps)
    ]
    assert not missing, f"{name} imports {missing}, which none of its deps holds"
    idle = [dep for dep in deps if not any(path == dep or dep in path.parents for path in files)]
    assert not idle, f"{name} depends on {idle}, which it does not import"


def test_imports_point_down() -> None:
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in python_files():
        own = path.relative_to(ROOT / "src" / "podium").parts[0].removesuffix(".py")
        for module in imported_modules(path):
            parts = module.split(".")
            if len(parts) < 2 or parts[1] not in rank:
                continue
            if rank[parts[1]] > rank[own] or (
                rank[parts[1]] == rank[own] and parts[1] != own and rank[own] > 0
            ):
                wrong.append(f"{own}: {path.name} imports {module}")
    assert not wrong


def test_tensor_free_rooms_do_not_import_paddle() -> None:
    heavy = {"paddle", "paddleslim", "visualdl"}
    for name in ("eda", "split", "label_shuffle"):
        for path in import_closure(ROOT / "stages" / f"{name}.py"):
            names = {
                alias.name.split(".")[0]
                for node in ast.walk(parse(path))
                if isinstance(node, ast.Import)
                for alias in node.names
            } | {
                (node.module or "").split(".")[0]
                for node in ast.walk(parse(path))
                if isinstance(node, ast.ImportFrom)
            }
            assert not names & heavy, f"{name} would import {names & heavy} through {path}"


def test_top_level_keys_are_the_schema() -> None:
    assert set(TOP_LEVEL_KEYS) == set(AllParams.model_fields)
    written = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert set(written) == set(TOP_LEVEL_KEYS)
