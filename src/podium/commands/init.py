"""`podium init`: the demo competition, or a real one from a folder or a zip."""

from __future__ import annotations

from pathlib import Path

from podium.data.params import NO_RULES, CompetitionParams
from podium.intake.competition_block import check_block_replaceable, write_competition_block
from podium.intake.demo.spec import DemoSpec
from podium.intake.demo.write import (
    SAMPLE_SUBMISSION,
    TEST_IMAGES,
    TRAIN_CSV,
    TRAIN_IMAGES,
    write_demo,
)
from podium.intake.init import RAW, run_dvc

DEMO_COMPETITION = CompetitionParams(
    name="demo",
    task="classification",
    source=RAW,
    train_csv=TRAIN_CSV,
    train_images=TRAIN_IMAGES,
    test_images=TEST_IMAGES,
    csv_header=False,
    id_column=0,
    label_column=1,
    group_column=None,
    sample_submission=SAMPLE_SUBMISSION,
    sample_header=False,
    classes=("0", "1", "2", "3"),
    ordinal=True,
    submission="label",
    rules=NO_RULES.model_copy(update={"metric": "accuracy", "direction": "higher"}),
)


def init_demo(root: Path, spec: DemoSpec) -> list[str]:
    """Make the demo competition and write its `competition:` block; returns lines to print.

    Raises:
        PodiumError: data/raw holds another competition, or the block was edited.
    """
    params_file = root / "params.yaml"
    check_block_replaceable(params_file)
    write_demo(root / RAW, spec)
    # First the block: dvc.yaml names competition.source, and dvc reads it for any command.
    write_competition_block(params_file, DEMO_COMPETITION)
    return _track(root, spec)


def make_demo(root: Path) -> list[str]:
    """The default demo competition in data/raw, tracked; params.yaml stays as it is."""
    spec = DemoSpec()
    write_demo(root / RAW, spec)
    return _track(root, spec)


def _track(root: Path, spec: DemoSpec) -> list[str]:
    run_dvc(root, "add", RAW)
    return [
        f"demo competition in {RAW}/: {spec.train} train and {spec.test} test photos of lemons, "
        f"{spec.size_px} px, 4 grades (seed {spec.seed})"
    ]
