"""Stage evaluate: each saved model on the fold it was not trained on -> predictions, metrics, plots.

In: models/, data/manifest.csv, data/splits.csv, the images.
Out: predictions/val.csv, metrics/evaluate.json, reports/evaluate/*.csv.
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.predictions import write_predictions
from podium.data.splits import load_splits
from podium.engine.scoring import predict_out_of_fold
from podium.files import write_csv, write_json
from podium.params import Params, Seed, load_params
from podium.stage import run_stage
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import make_data_task

NAME = "evaluate"


class EvaluateStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    competition: CompetitionParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(EvaluateStageParams)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        primary_metric=params.evaluate.primary,
        bootstrap_draws=params.evaluate.bootstrap_draws,
    )
    manifest = load_manifest(Path("data/manifest.csv"))
    splits = load_splits(Path("data/splits.csv"))
    found = predict_out_of_fold(Path("models"), manifest, splits, task)
    targets = task.targets(found.val.labels)
    metrics = task.metrics(found.probabilities, targets, found.val.groups, params.seed)
    write_predictions(
        Path("predictions/val.csv"),
        found.val.image_ids,
        found.probabilities,
        task.classes,
        found.folds,
    )
    for name, frame in task.plots(found.probabilities, targets).items():
        write_csv(Path(f"reports/evaluate/{name}.csv"), frame)
    write_json(Path("metrics/evaluate.json"), metrics)
    held_out = ", ".join(str(fold) for fold in sorted(set(found.folds)))
    print(f"{NAME}: val (fold {held_out}): {task.summary(metrics)}")


if __name__ == "__main__":
    run_stage(NAME, main)
