"""Stage compress: a trained model -> deploy/, measured on the files that ship.

Of several folds' models it is the first, measured on its own val fold.

In: models/, data/manifest.csv, data/splits.csv, data/train_list.csv, the images.
Out: deploy/, metrics/compress.json; clocks go to metrics/measured/latency.json.
"""

from pathlib import Path

from podium.data.label_shuffle import load_train_lists
from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.rules import check_tta
from podium.data.splits import load_splits
from podium.data.views import describe_cost
from podium.engine.provenance import make_card_hashes
from podium.engine.scoring import load_calibration_images, make_val_set
from podium.engine.weights import find_folds, fold_folder, load_network
from podium.files import write_json, write_metrics
from podium.params import Params, Seed, load_params
from podium.slim.compression import Judge, compress
from podium.slim.params import CompressParams
from podium.stage import MEASURED, run_stage
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import make_data_task

NAME = "compress"


class CompressStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    competition: CompetitionParams
    evaluate: EvaluateParams
    compress: CompressParams


def main() -> None:
    params = load_params(CompressStageParams)
    check_tta(params.evaluate.tta, params.competition.rules.tta)
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
    targets = task.targets(val.labels)
    judge = Judge(
        images=val.images(preprocessing.image_size_px),
        predict=task.predictions,
        metrics=lambda p: task.metrics(p, targets, val.groups, params.seed),
        metric=task.primary,
        tta=params.evaluate.tta,
    )
    calibration = load_calibration_images(
        manifest,
        load_train_lists(Path("data/train_list.csv"))[fold],
        params.compress.calibration_images,
        preprocessing.image_size_px,
        params.seed,
    )
    result = compress(
        network, preprocessing, card, calibration, judge, params.compress, Path("deploy")
    )
    headline = ("bytes", task.primary.name, "changed", "max_probability_difference")
    fronts = {name: {key: row[key] for key in headline} for name, row in result.rows.items()}
    report = {"shipped": result.shipped, **fronts, "candidates": result.rows}
    write_metrics(Path("metrics/compress.json"), report, ("shipped", *fronts))
    write_json(MEASURED / "latency.json", result.latency)
    for name, row in result.rows.items():
        print(
            f"{NAME}: {name}: {row['bytes'] / 1e6:.2f} MB, val {task.summary(row)}, "
            f"{row['changed']} answers changed, {result.latency[name]['latency_p50_ms']:.1f} ms"
        )
    print(f"{NAME}: {result.reason}")
    cost = describe_cost(params.evaluate.tta)
    if cost:
        print(f"{NAME}: {cost}; the milliseconds are those of one view")


if __name__ == "__main__":
    run_stage(NAME, main)
