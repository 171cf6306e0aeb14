"""Stage compress: a trained model -> deploy/, measured on the files that ship.

Of several folds' models it is the first, measured on its own val fold.

In: models/, data/manifest.csv, data/splits.csv, data/train_list.csv, the images.
Out: deploy/, metrics/compress.json, reports/compress/; clocks and memory go to
metrics/measured/compress.json, and a plot of them beside it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from podium.data.label_shuffle import load_train_lists
from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.rules import check_tta
from podium.data.splits import load_splits
from podium.data.views import describe_cost
from podium.engine.provenance import make_card_hashes
from podium.engine.scoring import (
    load_calibration_images,
    load_training_images,
    make_val_set,
)
from podium.engine.weights import find_folds, fold_folder, load_network, settle_tta
from podium.errors import PodiumError
from podium.files import write_metrics
from podium.params import Params, Seed, load_params
from podium.slim.compress_page import CompressPage, write_clocks_plot, write_compress_report
from podium.slim.compression import Judge, compress, describe, headline
from podium.slim.nets import Maker
from podium.slim.params import CompressParams
from podium.slim.parent import hash_lesson, load_parent
from podium.slim.thumbnail import MOST_IMAGES, judge_thumbnails
from podium.slim.thumbnail import NAME as THUMBNAIL
from podium.stage import MEASURED, run_stage
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.evidence import Evidence
from podium.tasks.table import build_net_task, make_data_task

NAME = "compress"


class CompressStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    competition: CompetitionParams
    evaluate: EvaluateParams
    compress: CompressParams


def main() -> dict[str, Any]:
    params = load_params(CompressStageParams)
    check_tta(params.evaluate.tta, params.competition.rules.tta)
    tta = settle_tta(params.evaluate.tta, Path("models"), params.competition.rules.tta)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        primary_metric=params.evaluate.primary,
        bootstrap_draws=params.evaluate.bootstrap_draws,
    )
    fold = find_folds(Path("models"))[0]
    network, preprocessing, card = load_network(fold_folder(Path("models"), fold))
    card["hashes"] = {"train": card["hashes"], NAME: make_card_hashes(NAME)}
    manifest = load_manifest(Path("data/manifest.csv"))
    val = make_val_set(manifest, load_splits(Path("data/splits.csv")), fold)
    targets = task.training_targets(val.labels, val.soft_labels)
    judge = Judge(
        images=val.images(preprocessing.image_size_px),
        predict=task.predictions,
        metrics=lambda p: task.metrics(p, targets, val.groups, params.seed),
        score=task.score,
        metric=task.primary,
        evidence=Evidence(
            targets=targets,
            groups=val.groups,
            parts=np.zeros(len(targets), np.int64),
            draws=params.evaluate.bootstrap_draws,
            seed=params.seed,
        ),
        tta=tta,
    )
    train_list = load_train_lists(Path("data/train_list.csv"))[fold]
    calibration = load_calibration_images(
        manifest,
        train_list,
        params.compress.calibration_images,
        preprocessing.image_size_px,
        params.seed,
    )
    splits = load_splits(Path("data/splits.csv"))
    maker = Maker(
        trained=network,
        load_parent=lambda: load_parent(
            Path("models"), fold, manifest, splits, train_list, task, build_net_task, params.seed
        ),
        lesson=hash_lesson(card, manifest, splits, train_list, fold, params.seed),
        params=params.compress,
    )
    result = compress(
        maker,
        preprocessing,
        card,
        calibration,
        judge,
        Path("deploy"),
        params.competition.rules.max_model_mb,
    )
    small, labels = load_training_images(
        manifest, train_list, MOST_IMAGES, preprocessing.image_size_px, params.seed
    )
    thumbnail = judge_thumbnails(small, task.targets(labels), len(task.classes), judge)
    fronts = headline(result.rows, task.primary.name)
    report = {
        "shipped": result.shipped,
        **fronts,
        "reason": result.reason,
        "candidates": result.rows,
        "missing": result.missing,
        "for_scale": {THUMBNAIL: thumbnail},
    }
    write_metrics(Path("metrics/compress.json"), report, ("shipped", *fronts))
    page = CompressPage(
        params.competition.name,
        task.primary.name,
        result.shipped,
        result.reason,
        result.rows,
        result.missing,
        report["for_scale"],
        result.sensitivity,
    )
    write_compress_report(Path("reports/compress"), page)
    write_clocks_plot(MEASURED / "compress.png", page, result.clocks)
    for name, row in result.rows.items():
        print(f"{NAME}: {describe(name, row, result.clocks[name], task.summary(row))}")
    for name, reason in result.missing.items():
        print(f"{NAME}: {name} {reason}")
    if result.shipped is None:  # the numbers are on the disk and above, to choose limits by
        raise PodiumError(result.reason)
    print(f"{NAME}: {result.reason}")
    cost = describe_cost(tta)
    if cost:
        print(f"{NAME}: {cost}; the milliseconds are those of one view")
    return {"candidates": result.clocks}


if __name__ == "__main__":
    run_stage(NAME, main)
