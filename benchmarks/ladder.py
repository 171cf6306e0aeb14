"""What each trick bought: leave one out, add one, against the default params.

In: the embedded competition with 2,000 clean test labels, and the real gesture and lemon sets beside
the repository (skipped with a word where they are missing). For each of them a fresh clone of HEAD is
trained with default params on small pictures (96 px, the real sets 64), then once for each trick with
this one changed. `unseen`, an embedded competition of another seed, has the defaults as they are. Out: a
Markdown table on stdout, a row for each trick, a column for each competition; with --write also in
docs/accuracy.md, after every training. Some hours on two cores for all of it, so what was trained is
kept under benchmarks/measured, which git has: a stopped ladder goes on where it was, on any machine of
the same class of CPUs. Where code or default params have changed since, the default is trained first:
what then gives other bytes than the kept one begins its column anew. A trick whose own code has changed
is trained again by --again.

A trick's points are the percent of images that are answered rightly with it and not without it; the
interval and the word are those of `podium compare` (docs/compare.md): the same images under both params,
drawn by groups that belong together, so they know the luck of the images. The luck of a training is what
rows of other seeds show: no further apart than these is noise, too, where a trick trains anew.
Embedded: all test images, by one model. Real sets: two folds, the val images of fold 0; so half of the
images teach and half of them judge, which leaves something to gain.

    make ladder
    python benchmarks/ladder.py --only embedded --tricks EMA views --write
    python benchmarks/ladder.py --tricks focal --again --write
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from clones import (
    ROOT,
    fresh_clone,
    hash_tracked,
    keep,
    load_kept,
    load_metrics,
    read_commit,
    run,
    set_params,
    write_table,
)
from ruamel.yaml import YAML

from podium.intake.demo.score import load_truth
from podium.runtime import cpu_class
from podium.tasks.answers import load_answers
from podium.tasks.table import make_data_task
from podium.trust.compare import Comparison, Side, compare

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
    "EMA and dropout": {"train.ema": 0.0, "model.dropout": 0.0},
    "two processes": {"train.processes": 1},
}
WITH: dict[str, dict[str, Any]] = {
    # No tricks: how far trainings differ that should not.
    "seed 1": {"seed": 1},
    "seed 2": {"seed": 2},
    "seed 3": {"seed": 3},
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
    "the best epoch": {"train.keep": "best"},
    "soup": {"train.keep": "best", "train.soup": 5},
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
# These look at the default's training in another way: no luck of another one is in their points.
SAME_TRAINING = ("evaluate.", "train.keep", "train.soup")
SEEDS = ("seed 1", "seed 2", "seed 3")
# Mirrors and graded losses are for some sets only; fold models, and what is fitted on or picked by val
# rows, are scored on test images; another seed draws other val images.
NOT_ON_VAL = {"all folds", "decoder", "the best epoch", "soup", *SEEDS}
NOT_FOR = {
    "gesture": {"mirrors", "mirrored views", "ordinal", *NOT_ON_VAL},
    "lemon": NOT_ON_VAL,
}
WITHOUT_COMPRESSION = {"compress.precisions": ["float32"], "compress.formats": ["paddle"]}
DEFAULT = "default"
WORDS = {"better": "**better**", "worse": "**worse**", "noise": "noise"}
DRAWS = 2000


@dataclass(frozen=True)
class Result:
    """Of one training: what came out for each image, and what it cost.

    Attributes:
        right: a 1 for each image that was answered rightly, else a 0, in the order of the groups.
        seconds: of all cores, for `STAGES`.
        params: what was trained with instead of the default's.
        commit: of the code.
    """

    right: str
    seconds: float
    params: dict[str, Any]
    commit: str


@dataclass
class Column:
    """One competition on one class of CPUs, as it is kept.

    Attributes:
        code: what decides the bits of a training, hashed.
        answers: the default's probabilities, hashed: code that gives the same leaves all rows valid.
        groups: a number for each image; those of one group are drawn together.
        results: by trick.
    """

    code: str = ""
    answers: str = ""
    groups: list[int] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> Column:
        """As `save` left it; empty where it never was."""
        kept = load_kept(name)
        results = kept.pop("results", {})
        return cls(**kept, results={trick: Result(**one) for trick, one in results.items()})

    def save(self, name: str) -> None:
        """Replace what is kept by that name."""
        keep(name, asdict(self))

    def compare(self, before: Result, after: Result) -> Comparison:
        """How much better `after` is, by accuracy."""
        task = make_data_task("classification", classes=("wrong", "right"), ordinal=False)
        labels = [np.array([int(digit) for digit in side.right]) for side in (before, after)]
        sides = (Side(np.eye(2)[labels[0]], labels[0]), Side(np.eye(2)[labels[1]], labels[1]))
        targets = np.ones(len(self.groups), int)
        return compare(task, *sides, targets, self.groups, DRAWS, seed=0)


class Ladder:
    """One competition's column: trained where it is asked for, told where it is known.

    Args:
        name: of the competition.
        tricks: those to train; empty: all.
        again: train these tricks even if they are known.
    """

    def __init__(self, name: str, tricks: Sequence[str], again: bool = False) -> None:
        self._name = name
        self._is_demo = name in ("embedded", "unseen")
        self._with = WITH if self._is_demo else WITH_ON_REAL
        self._tricks = tricks or (TRICKS_UNSEEN if name == "unseen" else [*WITHOUT, *self._with])
        self._again = tuple(tricks) if again else ()
        self._kept_as = f"ladder-{name}-{cpu_class().replace('/', '-')}"
        self._column = Column.load(self._kept_as)
        self._cells: dict[str, str] = {}  # by trick; two thousand draws each
        self._spent: dict[str, float] = {}  # CPU s of a stage, by what it was made of

    @property
    def commits(self) -> list[str]:
        """Of the code that trained what is known, sorted."""
        return sorted({result.commit for result in self._column.results.values()})

    def climb(self) -> Iterator[str]:
        """Train what is not known yet; yields the name of each."""
        with fresh_clone(f"ladder-{self._name}") as clone:
            run(clone, "podium", "init", *COMPETITIONS[self._name])
            set_params(clone, {**OWN_PARAMS[self._name], **WITHOUT_COMPRESSION})
            untouched = (clone / "params.yaml").read_text(encoding="utf-8")
            code, commit = self._hash_code(), read_commit()
            for trick in dict.fromkeys(self._wanted()):
                if self._column.code == code and self._is_known(trick):
                    continue
                (clone / "params.yaml").write_text(untouched, encoding="utf-8")
                set_params(clone, self._params(trick))
                result = self._measure(clone, trick, commit)
                if trick == DEFAULT:
                    self._begin(clone, code)
                self._column.results[trick] = result
                self._column.save(self._kept_as)
                self._cells.clear()
                yield trick

    def _hash_code(self) -> str:
        """Of what decides the bits of a training."""
        params = YAML(typ="safe").load(run(ROOT, "git", "show", "HEAD:params.yaml"))
        del params["compress"], params["competition"]  # the one is not used, the other replaced
        text = json.dumps([hash_tracked(*CODE), params, OWN_PARAMS[self._name]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _is_known(self, trick: str) -> bool:
        result = self._column.results.get(trick)
        return (
            result is not None and result.params == self._params(trick) and trick not in self._again
        )

    def _begin(self, clone: Path, code: str) -> None:
        """The clone holds the default's answers: what is known stays if they are the kept ones."""
        answers = self._hash_answers(clone)
        if answers != self._column.answers:
            self._column = Column(answers=answers, groups=self._number_groups(clone))
        self._column.code = code

    def _wanted(self) -> Iterator[str]:
        """The default; then each trick, a base before what stands on it."""
        yield DEFAULT
        if set(self._tricks) & set(ON_ALL_LAYERS):
            yield "all layers"
        for trick in self._tricks:
            if trick not in NOT_FOR.get(self._name, ()):
                yield trick

    def _params(self, trick: str) -> Mapping[str, Any]:
        return {DEFAULT: {}, **WITHOUT, **self._with}[trick]

    def cell(self, trick: str) -> str:
        """What is known of it, whoever asked for it; "" where nothing is."""
        if trick not in self._cells:
            self._cells[trick] = self._describe(trick)
        return self._cells[trick]

    def _describe(self, trick: str) -> str:
        result = self._column.results.get(trick)
        base = self._column.results.get("all layers" if trick in ON_ALL_LAYERS else DEFAULT)
        if result is None or base is None:
            return ""
        if trick == DEFAULT:
            accuracy = 100 * result.right.count("1") / len(result.right)
            return f"{accuracy:.1f} % of {len(result.right)}; {result.seconds:.0f} s"
        # What a trick is worth is what is lost without it.
        before, after = (result, base) if trick in WITHOUT else (base, result)
        found = self._column.compare(before, after)
        points = [100 * getattr(found.primary, key) for key in ("difference", "low", "high")]
        trains = not all(key.startswith(SAME_TRAINING) for key in result.params)
        is_luck = trains and abs(points[0]) <= self.luck
        word = WORDS["noise" if is_luck else found.word]
        return f"{points[0]:+.1f} ({points[1]:+.1f} to {points[2]:+.1f}) {word}; {result.seconds:.0f} s"

    @property
    def luck(self) -> float:
        """How many points trainings lie apart that differ by their seed alone; 0 if none is known."""
        known = [self._column.results.get(trick) for trick in (DEFAULT, *SEEDS)]
        scores = [100 * one.right.count("1") / len(one.right) for one in known if one]
        return max(scores, default=0.0) - min(scores, default=0.0)

    def _measure(self, clone: Path, trick: str, commit: str) -> Result:
        """Train with the clone's params and judge by what may be looked at."""
        stages = STAGES if self._is_demo else STAGES[:-1]
        for stage in stages:
            (clone / f"metrics/measured/{stage}.json").unlink(missing_ok=True)
        run(clone, "dvc", "repro", "--quiet", stages[-1])
        values = pd.read_csv(self._answers(clone), index_col="image_id").filter(like="p_")
        decoded = load_answers(clone / "predictions/decoder.json").apply([values.to_numpy()])
        labels = values.columns.str.removeprefix("p_")[decoded.argmax(axis=1)]
        rows = self._load_rows(clone)
        if self._is_demo:
            truth = rows["listed_id"].map(load_truth(clone / "data/raw"))
        else:
            truth = rows["label"]
        return Result(
            right="".join("1" if yes else "0" for yes in labels == truth.to_numpy()),
            seconds=round(sum(self._seconds(clone, stage) for stage in stages), 1),
            params=dict(self._params(trick)),
            commit=commit,
        )

    def _answers(self, clone: Path) -> Path:
        return clone / f"predictions/{'test' if self._is_demo else 'val'}.csv"

    def _hash_answers(self, clone: Path) -> str:
        return hashlib.sha256(self._answers(clone).read_bytes()).hexdigest()

    def _load_rows(self, clone: Path) -> pd.DataFrame:
        """The manifest's rows of the answers, in their order."""
        manifest = pd.read_csv(clone / "data/manifest.csv", dtype=str, keep_default_na=False)
        order = pd.read_csv(self._answers(clone), usecols=["image_id"])["image_id"]
        return manifest.set_index("image_id").loc[order]

    def _number_groups(self, clone: Path) -> list[int]:
        numbers, _ = pd.factorize(self._load_rows(clone)["group_id"])
        return [int(number) for number in numbers]

    def _seconds(self, clone: Path, stage: str) -> float:
        """What the stage cost when it last ran with what it has now: DVC may have restored it."""
        locked = YAML(typ="safe").load((clone / "dvc.lock").read_text(encoding="utf-8"))
        made_of = {key: locked["stages"][stage].get(key) for key in ("deps", "params")}
        key = json.dumps([stage, made_of], sort_keys=True)
        if (clone / f"metrics/measured/{stage}.json").exists():
            self._spent[key] = load_metrics(clone, f"measured/{stage}")["cpu_seconds"]
        return self._spent[key]


def make_table(ladders: Mapping[str, Ladder]) -> str:
    """Markdown: all that is known."""
    commits = ", ".join(
        sorted({commit for ladder in ladders.values() for commit in ladder.commits})
    )
    luck = ", ".join(f"{name} {one.luck:.1f}" for name, one in ladders.items() if one.luck)
    lines = [
        f"One training each, seed 0, 2 processes on {cpu_class()}; code of commit {commits}. "
        f"Points between trainings that differ by their seed alone: {luck or 'not known'}.\n",
        f"| what | taken out or set by | {' | '.join(ladders)} |",
        f"|---|---|{'---|' * len(ladders)}",
    ]
    own = [write_params(OWN_PARAMS[name]) for name in ladders]
    lines.append(f"| but for | | {' | '.join(own)} |")
    for word, tricks in (("the ", {DEFAULT: {}}), ("it has ", WITHOUT), ("with ", WITH)):
        for trick, params in tricks.items():
            cells = [ladder.cell(trick) for ladder in ladders.values()]
            if any(cells):
                said = f"with all layers, and {trick}" if trick in ON_ALL_LAYERS else word + trick
                typed = write_params(params)
                if (on_real := WITH_ON_REAL.get(trick, params)) != params:
                    typed += f" (real sets: {write_params(on_real)})"
                lines.append(f"| {said} | {typed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_params(params: Mapping[str, Any]) -> str:
    """As one would type them."""
    return "; ".join(f"`{key}: {str(value).lower()}`" for key, value in params.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=COMPETITIONS, help="some competitions")
    parser.add_argument("--tricks", nargs="+", default=[], choices=[*WITHOUT, *WITH])
    parser.add_argument("--again", action="store_true", help="train the named tricks even if known")
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    arguments = parser.parse_args()
    if arguments.again and not arguments.tricks:
        parser.error("--again: name the --tricks")
    ladders = {name: Ladder(name, arguments.tricks, arguments.again) for name in COMPETITIONS}
    for name, ladder in ladders.items():
        if arguments.only and name not in arguments.only:
            continue
        source = COMPETITIONS[name][0]
        if not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        for trick in ladder.climb():
            print(f"{name}, {trick}: {ladder.cell(trick)}", flush=True)
            if arguments.write:
                write_table("ladder", make_table(ladders))
    print(make_table(ladders))
    if arguments.write:
        write_table("ladder", make_table(ladders))


if __name__ == "__main__":
    main()
