"""Stage evaluate: each saved model on the fold it was not trained on -> predictions, metrics, plots.

In: models/, data/manifest.csv, data/splits.csv, the images.
Out: predictions/val.csv, predictions/decoder.json (what submit makes of raw probabilities),
metrics/evaluate.json, reports/evaluate/*.csv.
"""

from pathlib import Path

from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.predictions import write_predictions
from podium.data.rules import check_tta, describe_metric
from podium.data.splits import load_splits
from podium.data.views import describe_cost
from podium.engine.scoring import predict_out_of_fold
from podium.engine.weights import settle_tta
from podium.files import write_csv, write_json
from podium.params import Params, Seed, load_params
from podium.stage import run_stage
from podium.tasks.answers import find_answers, write_answers
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
    check_tta(params.evaluate.tta, params.competition.rules.tta)
    tta = settle_tta(params.evaluate.tta, Path("models"), params.competition.rules.tta)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        submission=params.competition.submission,
        primary_metric=params.evaluate.primary,
        bootstrap_draws=params.evaluate.bootstrap_draws,
    )
    manifest = load_manifest(Path("data/manifest.csv"))
    splits = load_splits(Path("data/splits.csv"))
    found = predict_out_of_fold(Path("models"), manifest, splits, task, tta)
    targets = task.training_targets(found.val.labels, found.val.soft_labels)
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
    answers = find_answers(
        found.probabilities,
        targets,
        found.val.groups,
        found.folds,
        task,
        calibrated=params.evaluate.calibrate,
        decoded=params.evaluate.decoder == "auto",
        draws=params.evaluate.bootstrap_draws,
        seed=params.seed,
    )
    write_answers(Path("predictions/decoder.json"), answers.answers)
    write_json(Path("metrics/evaluate.json"), {**metrics, **answers.report})
    held_out = ", ".join(str(fold) for fold in sorted(set(found.folds)))
    print(f"{NAME}: val (fold {held_out}): {task.summary(metrics)}")
    differs = describe_metric(params.evaluate.primary, params.competition.rules.metric)
    for line in (differs, describe_cost(tta), *answers.lines):
        if line:
            print(f"{NAME}: {line}")


if __name__ == "__main__":
    run_stage(NAME, main)
