"""Stage evaluate: the saved weights on the val fold -> predictions, metrics, plots.

In: models/, data/manifest.csv, data/splits.csv, the images.
Out: predictions/val.csv, metrics/evaluate.json, reports/evaluate/*.csv.
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams, SplitParams
from podium.data.predictions import write_predictions
from podium.data.splits import load_splits
from podium.engine.scoring import make_val_set, predict_val
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
    split: SplitParams
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
    val = make_val_set(manifest, splits, params.split.val_fold)
    probabilities = predict_val(Path("models"), val, task)
    targets = task.targets(val.labels)
    metrics = task.metrics(probabilities, targets, val.groups, params.seed)
    write_predictions(Path("predictions/val.csv"), val.image_ids, probabilities, task.classes)
    for name, frame in task.plots(probabilities, targets).items():
        write_csv(Path(f"reports/evaluate/{name}.csv"), frame)
    write_json(Path("metrics/evaluate.json"), metrics)
    print(f"{NAME}: val {task.summary(metrics)}")


if __name__ == "__main__":
    run_stage(NAME, main)
