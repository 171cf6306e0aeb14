"""`model.weights` through the DAG: transfer from a trained model, and what DVC notices of its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import safetensors.numpy

from tests.competition import (
    commit,
    copy_clone,
    error_lines,
    run,
    run_any,
    stages_run,
)

pytestmark = pytest.mark.dag

FROM_FEATURES = ["features", "train", "evaluate", "audit", "compress", "submit"]
OLD = "data/weights/old.safetensors"
START = ("-S", "model.pretrained=false", "-S", f"model.weights={OLD}")


@pytest.fixture
def clone(plain: Path, tmp_path: Path) -> Path:
    """A copy of a plain run, to be changed."""
    return copy_clone(plain, tmp_path / "clone")


def card(clone: Path) -> Any:
    return json.loads((clone / "models/fold0/card.json").read_text())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_a_dependency_and_stands_in_the_card(clone: Path) -> None:
    old = clone / OLD
    old.write_bytes((clone / "models/fold0/weights.safetensors").read_bytes())
    run(clone, "dvc", "add", OLD)
    commit(clone)
    said = run(clone, "dvc", "exp", "run", *START, "train")
    assert stages_run(said) == ["features", "train"]
    assert card(clone)["pretrained_sha256"] == sha256(old)
    assert card(clone)["params"]["model"]["weights"] == OLD

    (clone / "data/weights/other.pth").write_bytes(b"not looked at")
    assert stages_run(run(clone, "dvc", "repro", "train")) == ["features"]

    state = {name: values * 1.5 for name, values in safetensors.numpy.load_file(old).items()}
    run(clone, "dvc", "unprotect", OLD)
    old.write_bytes(safetensors.numpy.save(state))
    before = card(clone)
    assert stages_run(run(clone, "dvc", "repro", "train")) == ["features", "train"]
    assert card(clone)["pretrained_sha256"] == sha256(old) != before["pretrained_sha256"]
    assert card(clone)["weights"]["sha256"] != before["weights"]["sha256"]

    old.write_bytes(old.read_bytes()[:1000])
    code, said = run_any(clone, "dvc", "repro")
    assert code != 0
    [line] = error_lines(said)
    assert line.startswith(f"error: features: {OLD}: expected a .safetensors file")


@pytest.mark.slow
def test_a_zoo_net_goes_on_from_a_file_with_its_first_layers_frozen(clone: Path) -> None:
    """On two processes; frozen layers stay as the file has them, the others do not."""
    paddle.seed(3)
    model = paddle.vision.models.mobilenet_v2()
    path = clone / "data/weights/mobilenet_v2.pdparams"
    paddle.save(model.state_dict(), str(path))
    changes = {
        "model.name": "mobilenet_v2",
        "model.pretrained": "false",
        "model.weights": path.relative_to(clone),
        "model.freeze": "trunk",
        "model.top_layers": 3,
        "epochs": 1,
        "train.processes": 2,
    }
    overrides = [word for key, value in changes.items() for word in ("-S", f"{key}={value}")]
    assert stages_run(run(clone, "dvc", "exp", "run", *overrides)) == FROM_FEATURES
    assert card(clone)["pretrained_sha256"] == sha256(path)
    state = safetensors.numpy.load_file(clone / "models/fold0/weights.safetensors")
    given = {name: np.array(tensor) for name, tensor in model.state_dict().items()}
    kept = {
        int(name.split(".")[1]): np.array_equal(values, state[f"trunk.model.{name}"])
        for name, values in given.items()
        if name.startswith("features.") and name.endswith("weight")
    }
    assert kept == {layer: layer < 16 for layer in range(19)}


def test_what_needs_the_network_stops_before_it_starts(clone: Path) -> None:
    code, said = run_any(clone, "dvc", "exp", "run", "-S", "model.name=resnet18")
    assert code != 0
    [line] = error_lines(said)
    assert "model.allow_download true" in line
    assert "model.weights with a file of yours" in line
