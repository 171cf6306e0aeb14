"""What each trick bought: leave one out, add one, against the default params.

In: the embedded competition with 2,000 clean test labels, and the real gesture and lemon sets beside
the repository (skipped with a word where they are missing). For each of them a fresh clone of HEAD is
trained with default params, then once for each trick with this one changed. Out: a Markdown table on
stdout, with --write also in docs/accuracy.md. Many hours on two cores for all of it; what one commit
has trained is kept in .podium/ladder, so that a stopped ladder goes on where it was.

A trick's points are the percent of images that are answered rightly with it and not without it; the
interval and the word are those of `podium compare` (docs/compare.md): the same images under both params,
drawn by groups that belong together, so they know the luck of the images, not that of the seed.
Embedded: all test images, by one model. Real sets: two folds, the val images of fold 0; so half of the
images teach and half of them judge, which leaves something to gain.

    make ladder
    python benchmarks/ladder.py --only embedded --tricks EMA views
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from clones import ROOT, fresh_clone, load_metrics, run, set_params, write_table
from eda_speed import cpu_model

from podium.files import write_json
from podium.intake.demo.score import load_truth
from podium.tasks.answers import load_answers
from podium.tasks.table import make_data_task
from podium.trust.compare import Comparison, Side, compare

HEADER = (
    "| competition | params | it is worth, points (95 %, paired) | so it is | training, CPU s |\n"
    "|---|---|---|---|---|"
)
DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "embedded": ("--demo", "--demo-test", "2000"),
    "gesture": (str(DATA / "gesture" / "gesture.zip"),),
    "lemon": (str(DATA / "lemon"),),
}
# What is known of the pictures before any training, and what `train.flip: auto` cannot find out
# (docs/accuracy.md): a mirrored lemon is a lemon.
REAL = {"split.folds": 2}
OWN_PARAMS: dict[str, dict[str, Any]] = {
    "embedded": {},
    "gesture": REAL,
    "lemon": {**REAL, "train.flip": "both"},
}
WITHOUT: dict[str, dict[str, Any]] = {
    "mirrored views": {"evaluate.tta": "none"},
    "mirrors": {"train.flip": "none"},
    "unfrozen top": {"model.freeze": "all"},
    "views": {"train.views": 1},
    "augment": {"train.augment": "none"},
    "EMA": {"train.ema": 0.0},
    "label smoothing": {"train.label_smoothing": 0.0},
    "label shuffling": {"label_shuffle.balance": 0.0},
    "cosine": {"train.schedule": "constant"},
    "weight decay": {"train.weight_decay": 0.0},
    "dropout": {"model.dropout": 0.0},
    "two processes": {"train.processes": 1},
    "ImageNet": {"model.pretrained": False, "model.freeze": "none"},
}
WITH: dict[str, dict[str, Any]] = {
    "all folds": {"split.val_fold": "all"},
    "30 epochs": {"epochs": 30},
    "TTA shift": {"evaluate.tta": "shift"},
    "decoder": {"evaluate.decoder": "auto"},
    "soup": {"train.soup": 5},
    "mixup": {"train.recipes.mixup": 0.5},
    "medium": {"train.augment": "medium"},
    "heavy": {"train.augment": "heavy"},
    "autoaugment": {"train.recipes.autoaugment": 0.5},
    "randaugment": {"train.recipes.randaugment": 0.5},
    "cutout": {"train.recipes.cutout": 0.5},
    "random erasing": {"train.recipes.random_erasing": 0.5},
    "hide-and-seek": {"train.recipes.hide_and_seek": 0.5},
    "GridMask": {"train.recipes.grid_mask": 0.5},
    "focal": {"train.loss": "focal"},
    "ordinal": {"train.loss": "ordinal"},
    "class weights": {"train.class_weights": "balanced"},
    "one-cycle": {"train.schedule": "one_cycle"},
    "linear": {"train.schedule": "linear"},
    "step": {"train.schedule": "step"},
    "clipping": {"train.clip_norm": 1.0},
    "layer decay": {"train.layer_decay": 0.9},
    "128 px": {"image_size": 128},
    "Lite1": {"model.name": "efficientnet_lite1"},
    "Lite2": {"model.name": "efficientnet_lite2"},
    "all layers": {"model.freeze": "none"},
    "CutMix, all layers": {"model.freeze": "none", "train.recipes.cutmix": 0.5},
    "pseudo-labels, all layers": {"model.freeze": "none", "train.pseudo_threshold": 0.95},
    "growing sizes, all layers": {
        "model.freeze": "none",
        "train.size_schedule": [[0, 64], [0.4, 96], [0.75, 128]],
    },
}
# Mirrored views and graded losses are for some sets only; fold models and what is fitted on val rows
# are scored on test images.
NOT_FOR = {
    "gesture": {"mirrors", "mirrored views", "ordinal", "all folds", "decoder"},
    "lemon": {"all folds", "decoder"},
}
WITHOUT_COMPRESSION = {"compress.precisions": ["float32"], "compress.formats": ["paddle"]}
KEPT = ROOT / ".podium" / "ladder"
DRAWS = 2000


@dataclass(frozen=True)
class Result:
    """Of one training: what it says of each image, in the order of their ids, and what it cost.

    Attributes:
        classes: names.
        labels, targets: numbers of the classes answered, and of the true ones.
        groups: images of one group are drawn together.
        seconds: of all cores, for the features and train stages.
    """

    classes: list[str]
    labels: list[int]
    targets: list[int]
    groups: list[str]
    seconds: float

    def gain_over(self, base: Result) -> Comparison:
        """How much better this one is, by accuracy."""
        task = make_data_task("classification", classes=tuple(self.classes), ordinal=False)
        sides = (self._side(base.labels), self._side(self.labels))
        return compare(task, *sides, np.array(self.targets), self.groups, DRAWS, seed=0)

    def _side(self, labels: list[int]) -> Side:
        return Side(np.eye(len(self.classes))[labels], np.array(labels))


def measure(clone: Path, is_embedded: bool) -> Result:
    """Train with the clone's params and judge by what may be looked at."""
    run(clone, "dvc", "repro", "--quiet", "submit" if is_embedded else "evaluate")
    seconds = sum(
        load_metrics(clone, f"measured/{stage}")["cpu_seconds"] for stage in ("features", "train")
    )
    manifest = pd.read_csv(clone / "data/manifest.csv", dtype=str, keep_default_na=False)
    manifest = manifest.set_index("image_id")
    part = "test" if is_embedded else "val"
    values = pd.read_csv(clone / f"predictions/{part}.csv", index_col="image_id").filter(like="p_")
    decoded = load_answers(clone / "predictions/decoder.json").apply(values.to_numpy())
    classes = values.columns.str.removeprefix("p_").tolist()
    rows = manifest.loc[values.index]
    if is_embedded:
        truth = rows["listed_id"].map(load_truth(clone / "data/raw"))
    else:
        truth = rows["label"]
    targets = [classes.index(name) for name in truth]
    labels = decoded.argmax(axis=1).tolist()
    return Result(classes, labels, targets, rows["group_id"].tolist(), seconds)


def measure_once(clone: Path, name: str, params: Mapping[str, Any]) -> Result:
    """`measure`, or what it found when this commit last trained with these params."""
    commit = run(clone, "git", "rev-parse", "HEAD").strip()
    key = hashlib.sha256(json.dumps([commit, name, params], sort_keys=True).encode()).hexdigest()
    kept = KEPT / f"{key[:16]}.json"
    if kept.exists():
        return Result(**json.loads(kept.read_text(encoding="utf-8")))
    set_params(clone, params)
    result = measure(clone, name == "embedded")
    write_json(kept, asdict(result))
    return result


def climb(name: str, tricks: Sequence[str]) -> Iterator[str]:
    """The rows of one competition's table: the base, then each trick on (or off)."""
    with fresh_clone(f"ladder-{name}") as clone:
        run(clone, "podium", "init", *COMPETITIONS[name])
        set_params(clone, {**OWN_PARAMS[name], **WITHOUT_COMPRESSION})
        untouched = (clone / "params.yaml").read_text(encoding="utf-8")
        base = measure_once(clone, name, {})
        accuracy, n = 100 * np.equal(base.labels, base.targets).mean(), len(base.targets)
        yield f"| {name} | default | {accuracy:.1f} % of {n} | | {base.seconds:.0f} |"
        for word, table in (("without", WITHOUT), ("with", WITH)):
            for trick, params in table.items():
                if (tricks and trick not in tricks) or trick in NOT_FOR.get(name, ()):
                    continue
                (clone / "params.yaml").write_text(untouched, encoding="utf-8")
                result = measure_once(clone, name, params)
                # What a trick is worth is what is lost without it.
                before, after = (result, base) if word == "without" else (base, result)
                found = after.gain_over(before)
                points = [
                    100 * getattr(found.primary, key) for key in ("difference", "low", "high")
                ]
                yield (
                    f"| {name} | {word} {trick} | {points[0]:+.1f} ({points[1]:+.1f} to "
                    f"{points[2]:+.1f}) | {found.word} | {result.seconds:.0f} |"
                )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=COMPETITIONS, help="one competition")
    parser.add_argument("--tricks", nargs="+", default=[], choices=[*WITHOUT, *WITH])
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    rows = []
    for name, (source, *_) in COMPETITIONS.items():
        if arguments.only not in (None, name):
            continue
        if not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        for row in climb(name, arguments.tricks):
            rows.append(row)
            print(row, flush=True)
    table = "\n".join(
        [f"One training each, seed 0, 2 processes on {cpu_model()}.\n", HEADER, *rows]
    )
    print(table)
    if arguments.write:
        write_table("ladder", table)


if __name__ == "__main__":
    main()
