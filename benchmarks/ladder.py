"""What each trick bought: leave one out, add one, against the default params.

In: the embedded competition with 2,000 clean test labels, and the real gesture and lemon sets beside
the repository (skipped with a word where they are missing). For each of them a fresh clone of HEAD is
trained with default params, then once for each trick with this one changed. Out: a Markdown table on
stdout, with --write also in docs/accuracy.md. Two to three hours on two cores for all of it.

A trick's points are the percent of images that are answered rightly with it and not without it; the
interval and the word are those of `podium compare` (docs/compare.md): the same images under both params,
drawn by groups that belong together, so they know the luck of the images, not that of the seed.
Embedded: all test images, by one model. Real sets: the val images of fold 0, or with --all-folds those
of every fold.

    make ladder
    python benchmarks/ladder.py --only embedded --tricks EMA views
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from clones import ROOT, fresh_clone, load_metrics, run, set_params, write_table
from eda_speed import cpu_model

from podium.intake.demo.plan import true_label
from podium.intake.demo.spec import load_spec
from podium.intake.demo.write import photo_name
from podium.tasks.protocol import DataTask
from podium.tasks.table import make_data_task
from podium.trust.compare import Comparison, Side, compare

HEADER = (
    "| competition | params | it is worth, points (95 %, paired) | so it is | training, s |\n"
    "|---|---|---|---|---|"
)
DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "embedded": ("--demo", "--demo-test", "2000"),
    "gesture": (str(DATA / "gesture" / "gesture.zip"),),
    "lemon": (str(DATA / "lemon"),),
}
# What is known of the pictures before any training: a mirrored lemon is a lemon, a hand sign not.
OWN_PARAMS = {"embedded": {"train.flip": "both"}, "gesture": {}, "lemon": {"train.flip": "both"}}
WITHOUT: dict[str, dict[str, Any]] = {
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
    "all layers": {"model.freeze": "none"},
    "layer decay": {"train.layer_decay": 0.9},
    "growing sizes": {
        "model.freeze": "none",
        "train.size_schedule": [[0, 64], [0.4, 96], [0.75, 128]],
    },
}
DRAWS = 2000


@dataclass(frozen=True)
class Result:
    """Of one training: what it says of each image, in the order of their ids, and what it cost.

    Attributes:
        task: scores the answers.
        side: the answers.
        targets: the truth.
        groups: images of one group are drawn together.
        seconds: of the features and train stages.
    """

    task: DataTask
    side: Side
    targets: npt.NDArray[np.int64]
    groups: list[str]
    seconds: float

    def gain_over(self, base: Result) -> Comparison:
        """How much better this one is."""
        return compare(self.task, base.side, self.side, self.targets, self.groups, DRAWS, seed=0)


def measure(clone: Path, is_embedded: bool) -> Result:
    """Train with the clone's params and judge by what may be looked at."""
    run(clone, "dvc", "repro", "--quiet", "submit" if is_embedded else "evaluate")
    seconds = sum(
        load_metrics(clone, f"measured/{stage}")["seconds"] for stage in ("features", "train")
    )
    manifest = pd.read_csv(clone / "data/manifest.csv", dtype=str, keep_default_na=False)
    manifest = manifest.set_index("image_id")
    part = "test" if is_embedded else "val"
    values = pd.read_csv(clone / f"predictions/{part}.csv", index_col="image_id").filter(like="p_")
    classes = tuple(values.columns.str.removeprefix("p_"))
    task = make_data_task("classification", classes=classes, ordinal=False)
    rows = manifest.loc[values.index]
    if is_embedded:
        spec = load_spec(clone / "data/raw")
        names = {photo_name("test", i): str(true_label(spec, "test", i)) for i in range(spec.test)}
        truth = rows["listed_id"].map(names)
    else:
        truth = rows["label"]
    side = Side(values.to_numpy(), values.to_numpy().argmax(axis=1))
    return Result(task, side, task.targets(list(truth)), rows["group_id"].tolist(), seconds)


def climb(name: str, tricks: Sequence[str], all_folds: bool) -> Iterator[str]:
    """The rows of one competition's table: the base, then each trick on (or off)."""
    with fresh_clone(f"ladder-{name}") as clone:
        run(clone, "podium", "init", *COMPETITIONS[name])
        changes = {**OWN_PARAMS[name], "compress.quantize": "none"}
        set_params(clone, {**changes, **({"split.val_fold": "all"} if all_folds else {})})
        untouched = (clone / "params.yaml").read_text(encoding="utf-8")
        base = measure(clone, name == "embedded")
        accuracy = 100 * (base.side.labels == base.targets).mean()
        n = len(base.targets)
        yield f"| {name} | default | {accuracy:.1f} % of {n} | | {base.seconds:.0f} |"
        for word, table in (("without", WITHOUT), ("with", WITH)):
            for trick, params in table.items():
                if tricks and trick not in tricks:
                    continue
                (clone / "params.yaml").write_text(untouched, encoding="utf-8")
                set_params(clone, params)
                result = measure(clone, name == "embedded")
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
    parser.add_argument(
        "--all-folds", action="store_true", help="real sets: out-of-fold, 5 x longer"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    rows = []
    for name, (source, *_) in COMPETITIONS.items():
        if arguments.only not in (None, name):
            continue
        if not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        for row in climb(name, arguments.tricks, arguments.all_folds):
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
