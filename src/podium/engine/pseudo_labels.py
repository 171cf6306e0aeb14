"""A second round of training that also learns from test images the first round was sure of.

In: the first round's models and the test images. Out: models trained from scratch on the training
list and those images, with the predicted class as their label (Lee 2013, "Pseudo-Label"). The val
rows stay as they are: no test image is ever among them, and none that shows the same picture as one
of them is learned from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.data.image_cache import load_images, readable_rows
from podium.data.soft_labels import format_soft_label
from podium.engine.fit import FitJob, Fitted, TrainingInputs, fit_folds
from podium.engine.inference import load_predictor
from podium.engine.phases import ALL, make_plan
from podium.engine.runs import Run
from podium.engine.weights import build_from_card
from podium.errors import PodiumError
from podium.tasks.protocol import DataTask

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLabels:
    """Test images that became training rows.

    Attributes:
        image_ids: in the manifest's order.
        labels: class names.
        test_images: how many could be read.
        folds_agree: share of them on which the most probable class of every fold's model is the
            label; None where there is none.
    """

    image_ids: list[str]
    labels: list[str]
    test_images: int
    folds_agree: float | None


def fit_rounds(job: FitJob, run: Run) -> tuple[dict[int, Fitted], dict[str, Any]]:
    """A model for each training list, in two rounds where `train.pseudo_threshold` asks for it.

    Both rounds go on from their own checkpoints. Every rank calls this alike; rank 0 predicts.

    Returns:
        The models of the last round; and what metrics/train.json says of the pseudo-labels, empty
        without.

    Raises:
        PodiumError: a part of the net is frozen: its features are of training images only.
    """
    inputs, model, params, data_task = job.inputs, job.model, job.recipe.params, job.data_task
    threshold = params.pseudo_threshold
    if not threshold:
        return fit_folds(job, run), {}
    schedules = params.unfreeze, params.size_schedule
    plan = make_plan(model.freeze, model.starts_trained, *schedules, job.image_size_px)
    if any(phase.part != ALL for phase in plan):
        raise PodiumError(
            "train.pseudo_threshold: expected 0 while a part of the net is frozen (model.freeze "
            f"{model.freeze}), since features are computed for training images only, got "
            f"{threshold:g}: set model.freeze: none and train.unfreeze: [], or the threshold to 0"
        )
    first = fit_folds(job, run)
    speaks = run.group.rank == 0
    content = b""
    if speaks:
        each = _predict_test(first, inputs, data_task)
        chosen = choose_confident(each, _test_ids(inputs), data_task.classes, threshold)
        content = json.dumps(asdict(chosen)).encode("utf-8")
        _say(chosen, threshold)
    chosen = PseudoLabels(**json.loads(run.group.broadcast(content)))
    copies = find_val_copies(inputs, chosen.image_ids)
    if not chosen.image_ids:
        return first, _report(chosen, copies, first, data_task, None)
    if speaks:
        _say_left_out(copies)
    taught = add_rows(inputs, chosen, copies, data_task.classes)
    second = fit_folds(replace(job, inputs=taught), run.next_round())
    rounds_agree = None
    if speaks:
        labels = _top(np.mean(_predict_test(second, inputs, data_task), axis=0), data_task.classes)
        now = dict(zip(_test_ids(inputs), labels, strict=True))
        same = [now[i] == label for i, label in zip(chosen.image_ids, chosen.labels, strict=True)]
        rounds_agree = float(np.mean(same))
    return second, _report(chosen, copies, first, data_task, rounds_agree)


def choose_confident(
    each: list[Probabilities], image_ids: list[str], classes: tuple[str, ...], threshold: float
) -> PseudoLabels:
    """The images whose most probable class reaches the threshold in the mean of the models.

    Args:
        each: probabilities (n, k) of each fold's model.
        image_ids: n.
        classes: k names.
        threshold: 0.5 .. 1.
    """
    mean = np.mean(each, axis=0)
    rows = np.flatnonzero(mean.max(axis=1) >= threshold)
    answer = mean.argmax(axis=1)
    agree = np.all([one.argmax(axis=1) == answer for one in each], axis=0)
    return PseudoLabels(
        image_ids=[image_ids[row] for row in rows],
        labels=[classes[answer[row]] for row in rows],
        test_images=len(image_ids),
        folds_agree=float(agree[rows].mean()) if len(rows) else None,
    )


def find_val_copies(inputs: TrainingInputs, image_ids: list[str]) -> dict[int, list[str]]:
    """Of the test images those with the very pixels of a val image, by the fold that is held out.

    Groups do not straddle folds, and test images are in none of them: pixels are the only tie.
    """
    hash_of = inputs.manifest.set_index("image_id")["pixel_hash"]
    copies = {}
    for fold in inputs.train_lists:
        val_ids = inputs.splits.loc[inputs.splits["fold"] == fold, "image_id"]
        shown = set(hash_of[val_ids])
        copies[fold] = [image_id for image_id in image_ids if hash_of[image_id] in shown]
    return copies


def add_rows(
    inputs: TrainingInputs,
    chosen: PseudoLabels,
    left_out: Mapping[int, list[str]],
    classes: tuple[str, ...],
) -> TrainingInputs:
    """The images as rows of the manifest to train on, once in the list of every fold but for what is
    left out of it; beside soft labels, theirs is certain."""
    label_of = dict(zip(chosen.image_ids, chosen.labels, strict=True))
    manifest = inputs.manifest.copy()
    taken = manifest["image_id"].isin(label_of) & (manifest["source"] == "test")
    manifest.loc[taken, "label"] = manifest.loc[taken, "image_id"].map(label_of)
    if manifest["soft_label"].any():
        certain = {name: [str(int(name == other)) for other in classes] for name in classes}
        manifest.loc[taken, "soft_label"] = [
            format_soft_label(certain[label]) for label in manifest.loc[taken, "label"]
        ]
    manifest.loc[taken, "source"] = "train"
    lists = {
        fold: [*ids, *(one for one in chosen.image_ids if one not in left_out[fold])]
        for fold, ids in inputs.train_lists.items()
    }
    return replace(inputs, manifest=manifest, train_lists=lists)


def _predict_test(
    fitted: Mapping[int, Fitted], inputs: TrainingInputs, task: DataTask
) -> list[Probabilities]:
    """Probabilities (n, k) of each fold's model for the n test images that can be read."""
    rows = readable_rows(inputs.manifest, "test")
    if rows.empty:
        return [np.zeros((0, len(task.classes))) for _ in fitted]
    each = []
    for one in fitted.values():
        network, preprocessing = build_from_card(one.card, one.state)
        images = load_images(rows, preprocessing.image_size_px, "decode test")
        predictor = load_predictor(network, preprocessing.image_size_px)
        outputs = predictor.run_images(images, preprocessing, "predict test")
        each.append(task.predictions(outputs))
    return each


def _test_ids(inputs: TrainingInputs) -> list[str]:
    ids: list[str] = readable_rows(inputs.manifest, "test")["image_id"].tolist()
    return ids


def _top(probabilities: Probabilities, classes: tuple[str, ...]) -> list[str]:
    return [classes[number] for number in probabilities.argmax(axis=1)]


def _say(chosen: PseudoLabels, threshold: float) -> None:
    taken = f"{len(chosen.image_ids)} of {chosen.test_images} test images"
    follows = "a second round learns from them, too" if chosen.image_ids else "no second round"
    print(f"round 1 is sure (>= {threshold:g}) of {taken}: {follows}", flush=True)


def _say_left_out(copies: Mapping[int, list[str]]) -> None:
    for fold, image_ids in copies.items():
        if image_ids:
            print(
                f"fold {fold}: {len(image_ids)} of these are pixel-identical to val images and are "
                "left out of its list",
                flush=True,
            )


def _report(
    chosen: PseudoLabels,
    copies: Mapping[int, list[str]],
    first: Mapping[int, Fitted],
    task: DataTask,
    rounds_agree: float | None,
) -> dict[str, Any]:
    """A list, as `write_metrics` has it: `dvc exp show` gives it no columns."""
    counts = Counter(chosen.labels)
    scores = [one.trained.score for one in first.values()]
    report = {
        "test_images": chosen.test_images,
        "taken": len(chosen.image_ids),
        "taken_per_class": {name: counts[name] for name in task.classes},
        "left_out_as_val": {str(fold): len(image_ids) for fold, image_ids in copies.items()},
        "folds_agree": _rounded(chosen.folds_agree),
        "rounds_agree": _rounded(rounds_agree),
        "first_round_best_val_score": _rounded(float(np.mean(scores))),
    }
    return {"pseudo_labels": [report]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
