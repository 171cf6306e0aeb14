"""Stage train: training list and features or images -> weights and a model card.

In: data/manifest.csv, data/splits.csv, data/train_list.csv, features/, the images.
Out: models/foldK/ (weights.safetensors, card.json), reports/train/ (curve.csv, inputs.png),
metrics/train.json.
Run by dvc as rank 0, and by rank 0 for each further process; a killed run is gone on with.
"""

import sys
from pathlib import Path

from podium.dag import declared_params
from podium.data.image_cache import readable_rows
from podium.data.image_size import choose_image_size
from podium.data.label_shuffle import load_train_lists
from podium.data.manifest import load_manifest
from podium.data.params import CompetitionParams
from podium.data.rules import check_pseudo_labels
from podium.data.splits import load_splits
from podium.engine.contact_sheet import draw_inputs
from podium.engine.curves import make_curve
from podium.engine.features import settle_flip
from podium.engine.fit import FitJob, TrainingInputs, choose_epochs, make_train_metrics
from podium.engine.params import RuntimeParams, TrainParams
from podium.engine.processes import is_follower
from podium.engine.provenance import LOCK_FILE, make_card_hashes
from podium.engine.pseudo_labels import fit_rounds
from podium.engine.refusals import check_params, check_warmup
from podium.engine.runs import make_training_key, open_run
from podium.engine.training import Recipe
from podium.engine.weights import fold_folder, write_model
from podium.files import replace_folder, write_bytes, write_csv, write_json
from podium.models.params import ModelParams
from podium.params import (
    BatchSize,
    ChosenImageSize,
    Epochs,
    LearningRate,
    Params,
    Seed,
    load_params,
)
from podium.stage import run_stage
from podium.tasks.classification.params import EvaluateParams
from podium.tasks.table import build_net_task, make_data_task

NAME = "train"
COMMAND = (sys.executable, "-m", "stages.train")
# With the params, all that decides the weights: a checkpoint of other code or data is not used.
CODE = [
    Path("stages/train.py"),
    Path("src/podium/runtime.py"),
    *(Path("src/podium", room) for room in ("data", "tasks", "models", "engine")),
]
DATA = [
    Path("data/manifest.csv"),
    Path("data/splits.csv"),
    Path("data/train_list.csv"),
    Path("features/features.json"),
    LOCK_FILE,
]


class TrainStageParams(Params):
    """What this stage reads of params.yaml."""

    seed: Seed
    lr: LearningRate
    epochs: Epochs
    batch_size: BatchSize
    image_size: ChosenImageSize
    competition: CompetitionParams
    model: ModelParams
    train: TrainParams
    runtime: RuntimeParams
    evaluate: EvaluateParams


def main() -> None:
    params = load_params(TrainStageParams)
    check_params(params)  # features did, but does not run again when its own params stay
    # By name, so that this stage looks again when the rule changes.
    check_pseudo_labels(params.train.pseudo_threshold, params.competition.rules.pseudo_labels)
    data_task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        primary_metric=params.evaluate.primary,
    )
    net_task = build_net_task(
        data_task,
        label_smoothing=params.train.label_smoothing,
        loss_name=params.train.loss,
        focal_gamma=params.train.focal_gamma,
        class_weights=params.train.class_weights,
        ordinal=params.competition.ordinal,
    )
    inputs = TrainingInputs(
        manifest=load_manifest(Path("data/manifest.csv")),
        splits=load_splits(Path("data/splits.csv")),
        train_lists=load_train_lists(Path("data/train_list.csv")),
        features=Path("features"),
    )
    epochs = choose_epochs(params.epochs, params.model.freeze, inputs.train_lists)
    check_warmup(params.train, epochs)
    train = settle_flip(inputs.features, params.train)
    recipe = Recipe(train, params.runtime, params.lr, epochs, params.batch_size, params.seed)
    size_px = choose_image_size(params.image_size, readable_rows(inputs.manifest, "train"))
    job = FitJob(inputs, params.model, recipe, size_px, data_task, net_task)
    key = make_training_key(declared_params(Path(), NAME), CODE, DATA)
    # A linear head is trained before a second process has started.
    processes = 1 if params.model.freeze == "all" else params.train.processes
    with open_run(processes, params.runtime, COMMAND, key, len(inputs.train_lists)) as run:
        fitted, pseudo_labels = fit_rounds(job, run)
        if is_follower():
            return
        with replace_folder(Path("models")) as folder:
            for fold, one in fitted.items():
                card = {**one.card, "hashes": make_card_hashes(NAME)}
                write_model(fold_folder(folder, fold), one.state, card)
        curves = {fold: one.trained.curve for fold, one in fitted.items()}
        metrics = {**make_train_metrics(fitted), **pseudo_labels}
        write_csv(Path("reports/train/curve.csv"), make_curve(curves))
        sheet = draw_inputs(inputs, params.model, recipe, size_px)
        write_bytes(Path("reports/train/inputs.png"), sheet)
        write_json(Path("metrics/train.json"), metrics)
        run.note_written()
    print(
        f"{NAME}: val {data_task.primary.name} {metrics['val_score']:.4f} "
        f"in epoch {metrics['epoch']:g}, the {params.train.keep} one"
    )


if __name__ == "__main__":
    run_stage(NAME, main, is_helper=is_follower())
