"""A second round of training that also learns from test images the first round was sure of.

In: the first round's models and the test images. Out: models trained from scratch on the training
list and those images, with the predicted class as their label (Lee 2013, "Pseudo-Label"). Each
fold's list gets what its own first model says: any other fold's model has learned from the val rows
that this one is judged by. These stay as they are: no test image is ever among them, and none that
shows the same picture as one of them is learned from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.data.image_cache import load_images, readable_rows
from podium.data.soft_labels import format_soft_label
from podium.engine.fit import FitJob, Fitted, TrainingInputs, fit_folds
from podium.engine.inference import load_predictor
from podium.engine.phases import check_pseudo_threshold, list_parts
from podium.engine.runs import Run
from podium.engine.weights import build_from_card
from podium.tasks.protocol import DataTask

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLabels:
    """Test images that one fold's model is sure of.

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
        The models of the last round, which is the first where a fold has no test image to learn
        from; and what metrics/train.json says of the pseudo-labels, empty without.

    Raises:
        PodiumError: a part of the net is frozen: its features are of training images only.
    """
    inputs, model, params, data_task = job.inputs, job.model, job.recipe.params, job.data_task
    threshold = params.pseudo_threshold
    if not threshold:
        return fit_folds(job, run), {}
    parts = [part for _, part in list_parts(model.freeze, params.unfreeze)]
    check_pseudo_threshold(threshold, model.freeze, parts)
    first = fit_folds(job, run)
    speaks = run.group.rank == 0
    content = b""
    if speaks:
        each = [_predict_test(one, inputs, data_task) for one in first.values()]
        sure = choose_confident(each, _test_ids(inputs), data_task.classes, threshold)
        content = json.dumps([asdict(one) for one in sure]).encode("utf-8")
    said = json.loads(run.group.broadcast(content))
    fitted, reports, later = dict(first), [], run.next_round()
    for fold, one in zip(first, said, strict=True):
        chosen = PseudoLabels(**one)
        copies = find_val_copies(inputs, fold, chosen.image_ids)
        if speaks:
            _say(fold, chosen, copies, threshold)
        rounds_agree = None
        if len(copies) < len(chosen.image_ids):
            taught = add_rows(inputs, fold, chosen, copies, data_task.classes)
            fitted |= fit_folds(replace(job, inputs=taught), later)
            if speaks:
                now = _predict_test(fitted[fold], inputs, data_task)
                rounds_agree = _share_kept(chosen, now, _test_ids(inputs), data_task.classes)
        reports.append(_report(fold, chosen, copies, rounds_agree, first, data_task))
    # A list, as `write_metrics` has it: `dvc exp show` gives it no columns.
    return fitted, {"pseudo_labels": reports}


def choose_confident(
    each: Sequence[Probabilities], image_ids: list[str], classes: tuple[str, ...], threshold: float
) -> list[PseudoLabels]:
    """For each fold the images whose most probable class reaches the threshold in its own model.

    Args:
        each: probabilities (n, k) of each fold's model.
        image_ids: n.
        classes: k names.
        threshold: 0.5 .. 1.
    """
    answers = np.array([one.argmax(axis=1) for one in each])
    agree = (answers == answers[0]).all(axis=0)
    chosen = []
    for one, answer in zip(each, answers, strict=True):
        rows = np.flatnonzero(one.max(axis=1) >= threshold)
        labels = PseudoLabels(
            image_ids=[image_ids[row] for row in rows],
            labels=[classes[answer[row]] for row in rows],
            test_images=len(image_ids),
            folds_agree=float(agree[rows].mean()) if len(rows) else None,
        )
        chosen.append(labels)
    return chosen


def find_val_copies(inputs: TrainingInputs, fold: int, image_ids: list[str]) -> list[str]:
    """Of the test images those with the very pixels of an image of the fold that is held out.

    Groups do not straddle folds, and test images are in none of them: pixels are the only tie.
    """
    hash_of = inputs.manifest.set_index("image_id")["pixel_hash"]
    shown = set(hash_of[inputs.splits.loc[inputs.splits["fold"] == fold, "image_id"]])
    return [image_id for image_id in image_ids if hash_of[image_id] in shown]


def add_rows(
    inputs: TrainingInputs,
    fold: int,
    chosen: PseudoLabels,
    left_out: Sequence[str],
    classes: tuple[str, ...],
) -> TrainingInputs:
    """The fold's list alone, with the images at its end but for what is left out, and the manifest
    with these as rows to train on; beside soft labels, theirs is certain."""
    label_of = dict(zip(chosen.image_ids, chosen.labels, strict=True))
    for image_id in left_out:
        del label_of[image_id]
    manifest = inputs.manifest.copy()
    taken = manifest["image_id"].isin(label_of) & (manifest["source"] == "test")
    manifest.loc[taken, "label"] = manifest.loc[taken, "image_id"].map(label_of)
    if manifest["soft_label"].any():
        certain = {name: [str(int(name == other)) for other in classes] for name in classes}
        manifest.loc[taken, "soft_label"] = [
            format_soft_label(certain[label]) for label in manifest.loc[taken, "label"]
        ]
    manifest.loc[taken, "source"] = "train"
    lists = {fold: [*inputs.train_lists[fold], *label_of]}
    return replace(inputs, manifest=manifest, train_lists=lists)


def _predict_test(fitted: Fitted, inputs: TrainingInputs, task: DataTask) -> Probabilities:
    """Probabilities (n, k) of the model for the n test images that can be read."""
    rows = readable_rows(inputs.manifest, "test")
    if rows.empty:
        return np.zeros((0, len(task.classes)))
    network, preprocessing = build_from_card(fitted.card, fitted.state)
    images = load_images(rows, preprocessing.image_size_px, "decode test")
    predictor = load_predictor(network, preprocessing.image_size_px)
    outputs = predictor.run_images(images, preprocessing, "predict test")
    return task.predictions(outputs)


def _test_ids(inputs: TrainingInputs) -> list[str]:
    ids: list[str] = readable_rows(inputs.manifest, "test")["image_id"].tolist()
    return ids


def _share_kept(
    chosen: PseudoLabels, now: Probabilities, image_ids: list[str], classes: tuple[str, ...]
) -> float:
    """Share of the labels that probabilities (n, k) of the n images say again."""
    answer = dict(zip(image_ids, now.argmax(axis=1), strict=True))
    pairs = zip(chosen.image_ids, chosen.labels, strict=True)
    return float(np.mean([classes[answer[image_id]] == label for image_id, label in pairs]))


def _say(fold: int, chosen: PseudoLabels, copies: Sequence[str], threshold: float) -> None:
    n_sure = len(chosen.image_ids)
    follows = "a second round learns from them, too" if len(copies) < n_sure else "no second round"
    taken = f"{n_sure} of {chosen.test_images} test images"
    print(f"fold {fold}: round 1 is sure (>= {threshold:g}) of {taken}: {follows}", flush=True)
    if copies:
        print(
            f"fold {fold}: {len(copies)} of these are pixel-identical to val images and are left "
            "out of its list",
            flush=True,
        )


def _report(
    fold: int,
    chosen: PseudoLabels,
    copies: Sequence[str],
    rounds_agree: float | None,
    first: Mapping[int, Fitted],
    task: DataTask,
) -> dict[str, Any]:
    """One fold's; where it is the only one, there is nobody to agree with."""
    counts = Counter(chosen.labels)
    report = {
        "fold": fold,
        "test_images": chosen.test_images,
        "taken": len(chosen.image_ids),
        "taken_per_class": {name: counts[name] for name in task.classes},
        "left_out_as_val": len(copies),
        "rounds_agree": _rounded(rounds_agree),
        "first_round_val_score": _rounded(first[fold].trained.score),
    }
    agreement = {"folds_agree": _rounded(chosen.folds_agree)} if len(first) > 1 else {}
    return {**report, **agreement}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
