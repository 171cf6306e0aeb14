"""Params that no run can end well with stop features and train, the first long stages, at once."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from podium.engine.refusals import check_warmup
from podium.errors import PodiumError
from podium.params import load_params, read_yaml
from podium.schema import AllParams, check_rules
from tests.trainings import params

ROOT = Path(__file__).resolve().parents[1]

# What the cases below change, whatever the user's own params.yaml says.
GOOD = {
    "epochs": 3,
    "competition.ordinal": False,
    "competition.rules.metric": None,
    "competition.rules.direction": None,
    "competition.rules.pretrained": True,
    "competition.rules.external_data": True,
    "competition.rules.tta": False,
    "competition.rules.pseudo_labels": False,
    "model.name": "efficientnet_lite0",
    "model.pretrained": True,
    "model.weights": None,
    "model.freeze": "trunk",
    "model.top_layers": 12,
    "train.schedule": "cosine",
    "train.warmup_epochs": 1.0,
    "train.loss": "cross_entropy",
    "train.recipes.mixup": 0.0,
    "train.recipes.cutmix": 0.0,
    "train.unfreeze": [],
    "train.pseudo_threshold": 0,
    "evaluate.primary": "accuracy",
    "evaluate.tta": "none",
}
BAD = [
    ({"evaluate.tta": "both"}, "evaluate.tta: expected none, since competition.rules.tta is false"),
    (
        {"train.pseudo_threshold": 0.9, "model.freeze": "none"},
        "train.pseudo_threshold: expected 0, since competition.rules.pseudo_labels is false",
    ),
    ({"competition.rules.pretrained": False}, "model.pretrained: expected false"),
    ({"evaluate.primary": "qwk"}, "evaluate.primary: qwk is for grades in order"),
    ({"train.loss": "ordinal"}, "train.loss: ordinal is for grades in order"),
    (
        {
            "model.name": "alexnet",
            "model.pretrained": False,
            "model.freeze": "none",
            "train.unfreeze": [[0, "head"], [0.5, "top"]],
        },
        "train.unfreeze: expected head or all with alexnet, whose layers do not run apart",
    ),
    ({"train.recipes.cutmix": 0.5}, "train.recipes.cutmix: expected 0 while model.freeze holds"),
    (
        {
            "train.recipes.cutmix": 0.5,
            "model.freeze": "none",
            "train.unfreeze": [[0, "head"], [0.5, "top"]],
        },
        "train.recipes.cutmix: expected 0",
    ),
    (
        {"train.pseudo_threshold": 0.9, "competition.rules.pseudo_labels": True},
        "train.pseudo_threshold: expected 0 while a part of the net is frozen (model.freeze trunk)",
    ),
    (
        {"train.warmup_epochs": 3.5},
        "train.warmup_epochs: expected 3 at most, the epochs of this training, got 3.5",
    ),
    (
        {
            "model.freeze": "none",
            "image_size": 128,
            "train.size_schedule": [[0, 64], [0.4, 96], [0.8, 128]],
        },
        "got none of 3 for the one that begins at the share 0.8: set epochs to more",
    ),
]


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    tree = read_yaml(ROOT / "params.yaml")
    for key, value in {**GOOD, **changes}.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[last] = value
    (folder / "params.yaml").write_text(json.dumps(tree))


@pytest.mark.parametrize("stage", ["features", "train"])
@pytest.mark.parametrize(("changes", "said"), BAD)
def test_a_long_stage_refuses_before_it_reads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, changes: dict[str, Any], said: str
) -> None:
    write_params(tmp_path, changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PodiumError) as caught:
        importlib.import_module(f"stages.{stage}").main()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_the_command_line_refuses_the_same(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_params(tmp_path, changes)
    with pytest.raises(PodiumError) as caught:
        check_rules(load_params(AllParams, tmp_path / "params.yaml"))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"evaluate.tta": "auto"},
        {"train.warmup_epochs": 3.0},
        {"train.warmup_epochs": 100.0, "epochs": "auto"},  # only train knows how many that is
        {"train.warmup_epochs": 100.0, "train.schedule": "one_cycle"},  # which has its own
        {"evaluate.tta": "both", "competition.rules.tta": True},
        {"competition.ordinal": True, "evaluate.primary": "qwk", "train.loss": "ordinal"},
        {"train.recipes.cutmix": 0.5, "model.freeze": "none"},
        {
            "train.recipes.cutmix": 0.5,
            "model.freeze": "none",
            "train.unfreeze": [[0, "head"], [0.5, "all"]],
        },
    ],
)
def test_what_can_be_is_taken(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_params(tmp_path, changes)
    assert check_rules(load_params(AllParams, tmp_path / "params.yaml")) == []


def test_auto_epochs_may_be_fewer_than_the_warm_up() -> None:
    with pytest.raises(PodiumError, match="expected 5 at most, the epochs of this training, got 6"):
        check_warmup(params(warmup_epochs=6.0), 5)
    check_warmup(params(warmup_epochs=5.0), 5)
