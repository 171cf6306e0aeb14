"""Training curves: a plain CSV for DVC plots, and VisualDL logs to look at while it runs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import pandas as pd

from podium.data.store import main_root


@dataclass(frozen=True)
class EpochRow:
    """One epoch: mean training loss, val loss and primary score, learning rate at its end."""

    epoch: int
    train_loss: float
    val_loss: float
    val_score: float
    lr: float


def make_curve(curves: Mapping[int, list[EpochRow]]) -> pd.DataFrame:
    """The table of reports/train/curve.csv: the mean over the folds that ran the epoch, rounded to
    6 significant digits."""
    rows = pd.DataFrame([asdict(row) for curve in curves.values() for row in curve])
    means = rows.groupby("epoch", as_index=False).mean()
    for column in means.columns.drop("epoch"):
        means[column] = [float(f"{value:.6g}") for value in means[column]]
    return means


def visualdl_folder() -> Path:
    """This experiment's log folder: in the main checkout, named as DVC names the experiment.

    VisualDL's files differ on every run, so they are no DVC output.
    """
    name = os.environ.get("DVC_EXP_NAME") or "workspace"
    return main_root() / ".podium" / "visualdl" / name


class VisualDLCurves:
    """Writes each epoch to VisualDL, in place of an earlier run of the same name."""

    def __init__(self, folder: Path) -> None:
        from visualdl import LogWriter

        if folder.exists():
            shutil.rmtree(folder)
        logging.getLogger("visualdl").setLevel(logging.ERROR)
        self._writer = LogWriter(logdir=str(folder))

    def __enter__(self) -> VisualDLCurves:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add(self, row: EpochRow) -> None:
        """One point on each curve."""
        for name, value in asdict(row).items():
            if name != "epoch":
                self._writer.add_scalar(tag=name, value=value, step=row.epoch)
