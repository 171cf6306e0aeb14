"""Stage train: training list and features or images -> weights and a model card.

In: data/manifest.csv, data/splits.csv, data/train_list.csv, features/, the images.
Out: models/ (weights.safetensors, card.json), reports/train/curve.csv, metrics/train.json.
"""

from pathlib import Path

from podium.data.label_shuffle import load_train_list
from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams, SplitParams
from podium.data.splits import load_splits
from podium.engine.curves import VisualDLCurves, make_curve, visualdl_folder
from podium.engine.fit import TrainingInputs, fit
from podium.engine.params import TrainParams
from podium.engine.training import Recipe
from podium.engine.weights import write_model
from podium.files import replace_folder, write_csv, write_json
from podium.models.params import ModelParams
from podium.params import (
    BatchSize,
    Epochs,
    ImageSize,
    LearningRate,
    Params,
    Seed,
    load_params,
)
from podium.stage import run_stage
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import build_net_task, make_data_task

NAME = "train"


class TrainStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    lr: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    image_size: ImageSize
    competition: CompetitionParams
    split: SplitParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(TrainStageParams)
    data_task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        primary_metric=params.evaluate.primary,
    )
    net_task = build_net_task(data_task, params.train.label_smoothing)
    inputs = TrainingInputs(
        manifest=load_manifest(Path("data/manifest.csv")),
        splits=load_splits(Path("data/splits.csv")),
        train_list=load_train_list(Path("data/train_list.csv")),
        features=Path("features"),
        val_fold=params.split.val_fold,
    )
    recipe = Recipe(params.train, params.lr, params.epochs, params.batch_size, params.seed)
    with VisualDLCurves(visualdl_folder()) as curves:
        fitted = fit(
            inputs, params.model, recipe, params.image_size, data_task, net_task, curves.add
        )
    with replace_folder(Path("models")) as folder:
        write_model(folder, fitted.state, fitted.card)
    write_csv(Path("reports/train/curve.csv"), make_curve(fitted.trained.curve))
    write_json(Path("metrics/train.json"), fitted.metrics)
    print(
        f"{NAME}: best val {data_task.primary.name} {fitted.metrics['best_val_score']:.4f} "
        f"in epoch {fitted.trained.best_epoch}"
    )


if __name__ == "__main__":
    run_stage(NAME, main)
