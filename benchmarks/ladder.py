"""What each trick bought: leave one out, add one, against the default params.

In: the embedded competition with 2,000 clean test labels, and the real gesture and lemon sets beside
the repository (skipped with a word where they are missing). For each of them a fresh clone of HEAD is
trained with default params on small pictures (96 px, the real sets 64), then once for each trick with
this one changed. `unseen`, an embedded competition of another seed, has the defaults as they are. Out: a
Markdown table on stdout, with --write also in docs/accuracy.md, after every row. Some hours on two cores
for all of it; what the same code has trained is kept in .podium/ladder, so that a stopped ladder goes
on where it was, and its table grows.

A trick's points are the percent of images that are answered rightly with it and not without it; the
interval and the word are those of `podium compare` (docs/compare.md): the same images under both params,
drawn by groups that belong together, so they know the luck of the images, not that of the seed.
Embedded: all test images, by one model. Real sets: two folds, the val images of fold 0; so half of the
images teach and half of them judge, which leaves something to gain.

    make ladder
    python benchmarks/ladder.py --only embedded --tricks EMA views --write
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
from clones import ROOT, fresh_clone, hash_tracked, load_metrics, run, set_params, write_table
from eda_speed import cpu_model
from ruamel.yaml import YAML

from podium.files import write_json
from podium.intake.demo.score import load_truth
from podium.tasks.answers import load_answers
from podium.tasks.table import make_data_task
from podium.trust.compare import Comparison, Side, compare

HEADER = (
    "| competition | params | it is worth, points (95 %, paired) | so it is | CPU s |\n"
    "|---|---|---|---|---|"
)
# What decides a result beside params and data: other commits may share it. What only compresses or
# audits a model is not in it.
CODE = (
    *(f"stages/{stage}.py" for stage in ("eda", "split", "label_shuffle", "features", "train")),
    "stages/evaluate.py",
    "stages/submit.py",
    "src/podium/runtime.py",
    *(f"src/podium/{room}" for room in ("data", "tasks", "probes", "models", "engine", "intake")),
    "requirements.lock",
)
# What a trick may cost in.
STAGES = ("features", "train", "evaluate", "submit")
DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "embedded": ("--demo", "--demo-test", "2000"),
    "unseen": ("--demo", "--demo-seed", "1", "--demo-test", "2000"),
    "gesture": (str(DATA / "gesture" / "gesture.zip"),),
    "lemon": (str(DATA / "lemon"),),
}
# An evening for the ladder instead of a day: the tricks are compared on small pictures.
REAL = {"image_size": 64, "split.folds": 2}
# What is known of the pictures before any training: lemons come in grades, and a mirrored one is a
# lemon, which `train.flip: auto` does not find out (docs/accuracy.md).
OWN_PARAMS: dict[str, dict[str, Any]] = {
    "embedded": {"image_size": 96},
    "unseen": {},
    "gesture": REAL,
    "lemon": {**REAL, "competition.ordinal": True, "train.flip": "both"},
}
WITHOUT: dict[str, dict[str, Any]] = {
    "mirrored views": {"evaluate.tta": "none"},
    "mirrors": {"train.flip": "none"},
    "unfrozen top": {"model.freeze": "all", "lr": 3e-3},
    "views": {"train.views": 1},
    "augment": {"train.augment": "none"},
    "EMA": {"train.ema": 0.0},
    "label smoothing": {"train.label_smoothing": 0.0},
    "label shuffling": {"label_shuffle.balance": 0.0},
    "cosine": {"train.schedule": "constant"},
    "weight decay": {"train.weight_decay": 0.0},
    "dropout": {"model.dropout": 0.0},
    "two processes": {"train.processes": 1},
}
WITH: dict[str, dict[str, Any]] = {
    "all folds": {"split.val_fold": "all"},
    "half the lr": {"lr": 2.5e-3},
    "a fifth of the lr": {"lr": 1e-3},
    "twice the lr": {"lr": 1e-2},
    "6 epochs": {"epochs": 6},
    "12 epochs": {"epochs": 12},
    "30 epochs": {"epochs": 30},
    "12 views": {"train.views": 12},
    "8 top layers": {"model.top_layers": 8},
    "TTA shift": {"evaluate.tta": "shift"},
    "decoder": {"evaluate.decoder": "auto"},
    "soup": {"train.soup": 5},
    "mixup": {"train.recipes.mixup": 0.5},
    "medium": {"train.augment": "medium"},
    "heavy": {"train.augment": "heavy"},
    "crops": {"train.augment": "crops"},
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
    "larger pictures": {"image_size": 160},
    "Lite1": {"model.name": "efficientnet_lite1"},
    "Lite2": {"model.name": "efficientnet_lite2"},
    "all layers": {"model.freeze": "none"},
    "random start": {"model.freeze": "none", "model.pretrained": False},
    "CutMix": {"model.freeze": "none", "train.recipes.cutmix": 0.5},
    "pseudo-labels": {"model.freeze": "none", "train.pseudo_threshold": 0.95},
    "growing sizes": {"model.freeze": "none", "train.size_schedule": [[0, 64], [0.5, 96]]},
}
WITH_ON_REAL: dict[str, dict[str, Any]] = {
    **WITH,
    "larger pictures": {"image_size": 96},
    "growing sizes": {"model.freeze": "none", "train.size_schedule": [[0, 48], [0.5, 64]]},
}
# The defaults were chosen by scores of the embedded set: on another one they show what they are worth.
TRICKS_UNSEEN = ("a fifth of the lr",)
# Tricks that want `model.freeze: none`: they are compared with that, not with the default.
ON_ALL_LAYERS = ("random start", "CutMix", "pseudo-labels", "growing sizes")
# Mirrors and graded losses are for some sets only; fold models, and what is fitted on val rows, are
# scored on test images.
NOT_FOR = {
    "gesture": {"mirrors", "mirrored views", "ordinal", "all folds", "decoder", "soup"},
    "lemon": {"all folds", "decoder", "soup"},
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
        seconds: of all cores, for `STAGES`.
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


class Ladder:
    """One competition's rows: trained where they are asked for, told where they are known.

    Args:
        name: of the competition.
        tricks: those to train; empty: all.
    """

    def __init__(self, name: str, tricks: Sequence[str]) -> None:
        self._name = name
        self._is_demo = name in ("embedded", "unseen")
        self._with = WITH if self._is_demo else WITH_ON_REAL
        self._tricks = tricks or (TRICKS_UNSEEN if name == "unseen" else [*WITHOUT, *self._with])
        params = YAML(typ="safe").load(run(ROOT, "git", "show", "HEAD:params.yaml"))
        del params["compress"], params["competition"]  # the one is not used, the other replaced
        self._key = [hash_tracked(*CODE), params, OWN_PARAMS[name]]
        self._spent: dict[str, float] = {}  # CPU s of a stage, by what it was made of

    def climb(self) -> Iterator[None]:
        """Train what is not known yet; yields after each."""
        with fresh_clone(f"ladder-{self._name}") as clone:
            run(clone, "podium", "init", *COMPETITIONS[self._name])
            set_params(clone, {**OWN_PARAMS[self._name], **WITHOUT_COMPRESSION})
            untouched = (clone / "params.yaml").read_text(encoding="utf-8")
            for params in self._wanted():
                if self._kept(params).exists():
                    continue
                (clone / "params.yaml").write_text(untouched, encoding="utf-8")
                set_params(clone, params)
                write_json(self._kept(params), asdict(self._measure(clone)))
                yield

    def _wanted(self) -> Iterator[Mapping[str, Any]]:
        """The default; then the params of each trick, a base before what stands on it."""
        yield {}
        if set(self._tricks) & set(ON_ALL_LAYERS):
            yield self._with["all layers"]
        for trick in self._tricks:
            if trick not in NOT_FOR.get(self._name, ()):
                yield {**WITHOUT, **self._with}[trick]

    def rows(self) -> Iterator[str]:
        """Of all that is known, whoever asked for it."""
        base = self._load({})
        if base is None:
            return
        accuracy, n = 100 * np.equal(base.labels, base.targets).mean(), len(base.targets)
        own = ", ".join(f"{key}: {value}" for key, value in OWN_PARAMS[self._name].items())
        said = f"default, but {own}" if own else "default"
        yield f"| {self._name} | {said} | {accuracy:.1f} % of {n} | | {base.seconds:.0f} |"
        for word, table in (("without", WITHOUT), ("with", self._with)):
            for trick, params in table.items():
                result = self._load(params)
                if result is None:
                    continue
                below = base
                said = f"{word} {trick}"
                if trick in ON_ALL_LAYERS:
                    below = self._load(self._with["all layers"]) or base
                    said = f"with all layers, and {trick}"
                # What a trick is worth is what is lost without it.
                before, after = (result, below) if word == "without" else (below, result)
                yield f"| {self._name} | {said} | {_describe(after.gain_over(before), result)}"

    def _kept(self, params: Mapping[str, Any]) -> Path:
        text = json.dumps([self._key, self._name, params], sort_keys=True)
        return KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def _load(self, params: Mapping[str, Any]) -> Result | None:
        kept = self._kept(params)
        return Result(**json.loads(kept.read_text(encoding="utf-8"))) if kept.exists() else None

    def _measure(self, clone: Path) -> Result:
        """Train with the clone's params and judge by what may be looked at."""
        stages = STAGES if self._is_demo else STAGES[:-1]
        for stage in stages:
            (clone / f"metrics/measured/{stage}.json").unlink(missing_ok=True)
        run(clone, "dvc", "repro", "--quiet", stages[-1])
        seconds = sum(self._seconds(clone, stage) for stage in stages)
        manifest = pd.read_csv(clone / "data/manifest.csv", dtype=str, keep_default_na=False)
        manifest = manifest.set_index("image_id")
        part = "test" if self._is_demo else "val"
        values = pd.read_csv(clone / f"predictions/{part}.csv", index_col="image_id")
        values = values.filter(like="p_")
        decoded = load_answers(clone / "predictions/decoder.json").apply(values.to_numpy())
        classes = values.columns.str.removeprefix("p_").tolist()
        rows = manifest.loc[values.index]
        if self._is_demo:
            truth = rows["listed_id"].map(load_truth(clone / "data/raw"))
        else:
            truth = rows["label"]
        targets = [classes.index(name) for name in truth]
        labels = decoded.argmax(axis=1).tolist()
        return Result(classes, labels, targets, rows["group_id"].tolist(), seconds)

    def _seconds(self, clone: Path, stage: str) -> float:
        """What the stage cost when it last ran with what it has now: DVC may have restored it."""
        locked = YAML(typ="safe").load((clone / "dvc.lock").read_text(encoding="utf-8"))
        made_of = {key: locked["stages"][stage].get(key) for key in ("deps", "params")}
        key = json.dumps([stage, made_of], sort_keys=True)
        if (clone / f"metrics/measured/{stage}.json").exists():
            self._spent[key] = load_metrics(clone, f"measured/{stage}")["cpu_seconds"]
        return self._spent[key]


def _describe(found: Comparison, result: Result) -> str:
    points = [100 * getattr(found.primary, key) for key in ("difference", "low", "high")]
    return (
        f"{points[0]:+.1f} ({points[1]:+.1f} to {points[2]:+.1f}) | {found.word} "
        f"| {result.seconds:.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=COMPETITIONS, help="some competitions")
    parser.add_argument("--tricks", nargs="+", default=[], choices=[*WITHOUT, *WITH])
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    ladders = {name: Ladder(name, arguments.tricks) for name in COMPETITIONS}

    def make_table() -> str:
        commit = run(ROOT, "git", "log", "-1", "--format=%h", "--", *CODE, "params.yaml").strip()
        title = (
            f"One training each, seed 0, 2 processes on {cpu_model()}; code of commit {commit}.\n"
        )
        return "\n".join(
            [title, HEADER, *(row for each in ladders.values() for row in each.rows())]
        )

    for name, ladder in ladders.items():
        if arguments.only and name not in arguments.only:
            continue
        source = COMPETITIONS[name][0]
        if not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        for _ in ladder.climb():
            print(*ladder.rows(), sep="\n", flush=True)
            if arguments.write:
                write_table("ladder", make_table())
    print(make_table())
    if arguments.write:
        write_table("ladder", make_table())


if __name__ == "__main__":
    main()
