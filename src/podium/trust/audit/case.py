"""A competition as it stands on disk, for the doctor.

In: manifest, splits, models, predictions/val.csv, reports/eda/probes.csv. Out: a `Case`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.data.decode import RGB, decode_file
from podium.data.image_cache import Images, load_images, readable_rows
from podium.data.predictions import load_predictions
from podium.engine.embeddings import load_embeddings
from podium.engine.ensemble import Ensemble
from podium.engine.scoring import make_val_set
from podium.errors import PodiumError
from podium.probes.shortcuts import Probe, parse_probe_table
from podium.tasks.protocol import DataTask
from podium.trust.audit.doctor import Case

PROBES = Path("reports/eda/probes.csv")


def load_case(
    models: Path, manifest: pd.DataFrame, splits: pd.DataFrame, task: DataTask, seed: int
) -> Case:
    """Read, decode and embed what the checks need.

    Raises:
        PodiumError: a file is missing or damaged.
    """
    ensemble = Ensemble(models)
    size_px = ensemble.preprocessing.image_size_px
    train, test = readable_rows(manifest, "train"), readable_rows(manifest, "test")
    fold_of = dict(zip(splits["image_id"], splits["fold"].tolist(), strict=True))
    positions = np.concatenate(
        [make_val_set(manifest, splits, fold).positions for fold in ensemble.folds]
    )
    val_rows = np.sort(positions)
    val = train.iloc[val_rows]
    val_ids: list[str] = val["image_id"].tolist()
    train_images = load_images(train, size_px, "decode train")
    test_images: Images = (
        np.zeros((0, size_px, size_px, 3), np.uint8)
        if test.empty
        else load_images(test, size_px, "decode test")
    )
    folds = np.array([fold_of[image_id] for image_id in val_ids])

    def answer(images: RGB, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        mine = [np.flatnonzero(folds[rows] == fold) for fold in ensemble.folds]
        answers = np.empty(len(rows), dtype=np.int64)
        for places, outputs in zip(mine, _run(ensemble, images, mine), strict=True):
            answers[places] = outputs.argmax(axis=1)
        return answers

    embeddings = [
        load_embeddings(part, size_px, name) for part, name in ((train, "train"), (test, "test"))
    ]
    return Case(
        rows=pd.concat([train, test], ignore_index=True),
        train_images=train_images,
        test_images=test_images,
        embeddings=np.concatenate(embeddings),
        folds=fold_of,
        val_rows=val_rows,
        targets=task.targets(val["label"].tolist()),
        probabilities=load_predictions(Path("predictions/val.csv"), val_ids, task.classes),
        classes=task.classes,
        probes=load_probes(PROBES),
        answer=answer,
        load_large=lambda path, side: decode_file(Path(path), side),
        seed=seed,
    )


def load_probes(path: Path) -> list[Probe]:
    """What eda measured.

    Raises:
        PodiumError: missing, or not what eda writes.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return parse_probe_table(table)
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro eda`") from None
    except (ValueError, KeyError, pd.errors.EmptyDataError) as error:
        raise PodiumError(f"{path} is damaged ({error!r}): run `dvc repro --force eda`") from None


def _run(
    ensemble: Ensemble, images: RGB, mine: list[npt.NDArray[np.int64]]
) -> list[npt.NDArray[np.float32]]:
    """Outputs of each fold's model for its own images; of a fold that has none, none."""
    # A net wants at least one image: what it says of it is dropped.
    asked = [places if len(places) else np.zeros(1, np.int64) for places in mine]
    outputs = ensemble.run_each(images, asked, "occlude")
    return [values[: len(places)] for values, places in zip(outputs, mine, strict=True)]
