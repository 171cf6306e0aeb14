"""What each candidate of the compress stage is worth, judged on images that no choice has seen.

In: the embedded competition with 2,000 clean test labels, and the real gesture set beside the
repository (skipped with a word where it is missing). A fresh clone of HEAD is trained with default
params, or a trained one is given. Out: a Markdown table on stdout, with --write also in
docs/compression.md: every net, precision and format, the ways to int8 that were tried, and the linear
model of thumbnails for scale. The newest rows of each set are kept under benchmarks/measured with their
commit, so that sets can be measured one by one.

Embedded: all test images. Gesture: the val images of fold 0, which picked no candidate; all views of
`evaluate.tta`, as what ships answers. Points are of the primary metric against the trained net, with a
paired 95 % interval.
Latency is one view of one image, pixels to outputs, one thread; the ratio is against the trained net
in float32 in the faster runtime: medians, the two in turn, with nothing else in the caches.

    python benchmarks/compression.py
    python benchmarks/compression.py --only embedded --clone embedded=../trained-clone
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from clones import ROOT, fresh_clone, keep, load_kept, read_commit, run, write_table
from eda_speed import cpu_model

from podium.runtime import configure_math

configure_math()  # before anything imports Paddle

from podium.data.image_cache import load_images, readable_rows  # noqa: E402
from podium.data.label_shuffle import load_train_lists  # noqa: E402
from podium.data.manifest import load_manifest  # noqa: E402
from podium.data.splits import load_splits  # noqa: E402
from podium.engine.inference import quiet  # noqa: E402
from podium.engine.runner import Runner  # noqa: E402
from podium.engine.scoring import (  # noqa: E402
    load_calibration_images,
    load_training_images,
    make_val_set,
)
from podium.engine.weights import fold_folder, load_network, settle_tta  # noqa: E402
from podium.errors import PodiumError  # noqa: E402
from podium.intake.demo.score import load_truth  # noqa: E402
from podium.params import load_params  # noqa: E402
from podium.schema import AllParams  # noqa: E402
from podium.slim import compression, onnx_quantization  # noqa: E402
from podium.slim.candidates import REFERENCE, Plan, make_plans  # noqa: E402
from podium.slim.compression import Candidate, Judge, Workbench, make_row  # noqa: E402
from podium.slim.nets import Maker  # noqa: E402
from podium.slim.parent import hash_lesson, load_parent  # noqa: E402
from podium.slim.thumbnail import MOST_IMAGES, judge_thumbnails  # noqa: E402
from podium.slim.thumbnail import NAME as THUMBNAIL  # noqa: E402
from podium.tasks.evidence import Evidence  # noqa: E402
from podium.tasks.table import build_net_task, make_data_task  # noqa: E402

HEADER = (
    "| set | candidate | MB (ratio) | sent MB | points (95 %, paired) | changed | ms (ratio) "
    "| images/s | peak MB |\n|---|---|---|---|---|---|---|---|---|"
)
DATA = ROOT.parent / "shared" / "data"
SOURCES = {
    "embedded": ("--demo", "--demo-test", "2000"),
    "gesture": (str(DATA / "gesture" / "gesture.zip"),),
}
NETS = ["trained", "pruned", "student"]
PRECISIONS, FORMATS = ["float32", "bf16", "int8"], ["paddle", "onnx"]
INT8 = Plan("trained", "int8", "onnx")
TRAINED_FLOAT32 = "trained-float32"
ROUNDS = 60


def keep_weights(model: Any, _: Any) -> Any:
    """In place of `round_layers`: onnxruntime rounds to the nearest."""
    return model


def fill_anew(folder: Path, make: Callable[[Path], None], *_: str) -> None:
    """In place of `fill_folder`: made, not looked up."""
    folder.mkdir()
    make(folder)


def round_to_nearest(weights: Any, moments: Any) -> tuple[Any, Any]:
    """In place of `round_weights`: each weight alone, and the mean error that this makes."""
    groups, width = moments.total.shape
    given = weights.reshape(groups, -1, width).astype(np.float64)
    largest = np.abs(given).max(axis=2, keepdims=True)
    step = np.where(largest > 0, largest / 127, 1)
    rounded = np.round(given / step) * step
    shift = ((rounded - given) * moments.mean[:, None, :]).sum(axis=2).reshape(-1)
    return rounded.reshape(weights.shape).astype(np.float32), shift


RECIPES = {
    "weights to the nearest": {"round_layers": keep_weights},
    "weights to the nearest, biases corrected": {"round_weights": round_to_nearest},
}


@contextlib.contextmanager
def trained_clone(name: str, given: Mapping[str, Path]) -> Iterator[Path]:
    """The clone that was given for that set, or a fresh one, trained."""
    if name in given:
        yield given[name].resolve()
        return
    with fresh_clone(f"compression-{name}") as clone:
        run(clone, "podium", "init", *SOURCES[name])
        run(clone, "dvc", "repro", "--quiet", "train")
        yield clone


@dataclass(frozen=True)
class Bench:
    """A set: its judge, how a workbench for it is made, and the row of the linear thumbnail model."""

    judge: Judge
    make: Callable[[int, Path], Workbench]
    thumbnail: Mapping[str, Any]


def set_up(is_embedded: bool) -> Bench:
    """For the clone that the process stands in."""
    params = load_params(AllParams)
    task = make_data_task(
        params.competition.task,
        classes=params.competition.classes,
        ordinal=params.competition.ordinal,
        primary_metric=params.evaluate.primary,
        bootstrap_draws=params.evaluate.bootstrap_draws,
    )
    network, preprocessing, card = load_network(fold_folder(Path("models"), 0))
    size = preprocessing.image_size_px
    manifest = load_manifest(Path("data/manifest.csv"))
    if is_embedded:
        rows = readable_rows(manifest, "test")
        labels = rows["listed_id"].map(load_truth(Path("data/raw"))).tolist()
        groups = rows["group_id"].tolist()
        images = load_images(rows, size, "decode test")
    else:
        val = make_val_set(manifest, load_splits(Path("data/splits.csv")), 0)
        labels, groups, images = val.labels, val.groups, val.images(size)
    targets = task.targets(labels)
    parts = np.zeros(len(targets), np.int64)
    judge = Judge(
        images=images,
        predict=task.predictions,
        metrics=lambda p: task.metrics(p, targets, groups, params.seed),
        score=task.score,
        metric=task.primary,
        evidence=Evidence(targets, groups, parts, params.evaluate.bootstrap_draws, params.seed),
        tta=settle_tta(params.evaluate.tta, Path("models"), params.competition.rules.tta),
    )
    train_list = load_train_lists(Path("data/train_list.csv"))[0]
    splits = load_splits(Path("data/splits.csv"))
    load = partial(
        load_parent, Path("models"), 0, manifest, splits, train_list, task, build_net_task
    )
    every = params.compress.model_copy(
        update={"precisions": PRECISIONS, "formats": FORMATS, "nets": NETS}
    )

    def make(wanted: int, work: Path) -> Workbench:
        calibration = load_calibration_images(manifest, train_list, wanted, size, params.seed)
        lesson = hash_lesson(card, manifest, splits, train_list, 0, params.seed)
        maker = Maker(network, lambda: load(params.seed), lesson, every)
        return Workbench(maker, preprocessing, card, calibration, judge, work)

    small, known = load_training_images(manifest, train_list, MOST_IMAGES, size, params.seed)
    thumbnail = judge_thumbnails(small, task.targets(known), len(task.classes), judge)
    return Bench(judge, make, thumbnail)


def measure_side_by_side(candidates: Mapping[str, Candidate]) -> dict[str, tuple[float, float]]:
    """Median milliseconds of one image, and how many times as long the trained net takes in float32
    in the runtime that is the faster for it: these two in turn, round after round."""
    with quiet():
        runners = {name: Runner(c.folder, 1) for name, c in candidates.items()}
    size = next(iter(runners.values())).preprocessing.image_size_px
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)

    def take_turns(*names: str) -> list[float]:
        seconds: list[list[float]] = [[] for _ in names]
        for _ in range(ROUNDS):
            for name, taken in zip(names, seconds, strict=True):
                start = time.perf_counter()
                runners[name].run_plain(image)
                taken.append(time.perf_counter() - start)
        return [1000 * float(np.median(taken[3:])) for taken in seconds]

    floats = [name for name in runners if name.startswith(TRAINED_FLOAT32)]
    fastest = floats[int(np.argmin(take_turns(*floats)))]
    found = {}
    for name in runners:
        own, other = take_turns(name, fastest)
        found[name] = (own, other / own)
    return found


def make_candidates(
    bench: Bench, nets: list[str], precisions: list[str], formats: list[str], work: Path
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Every plan, then every recipe; and why some could not be made."""
    made: dict[str, Candidate] = {}
    failed: dict[str, str] = {}
    params = load_params(AllParams).compress
    every = params.model_copy(update={"nets": nets, "precisions": precisions, "formats": formats})
    (work / "plans").mkdir()
    workbench = bench.make(params.calibration_images, work / "plans")
    for plan in make_plans(every):
        try:
            made[plan.name] = workbench.make(plan)
        except PodiumError as error:
            failed[plan.name] = str(error)
        print(f"made {plan.name}", flush=True)
    for number, (name, recipe) in enumerate(RECIPES.items()):
        folder = work / f"recipe{number}"
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            for function, patch in recipe.items():
                stack.enter_context(mock.patch.object(onnx_quantization, function, patch))
            # The store's keys know the code, not what was put in its place.
            stack.enter_context(mock.patch.object(compression, "fill_folder", fill_anew))
            made[f"{INT8.name}, {name}"] = bench.make(params.calibration_images, folder).make(INT8)
        print(f"made {name}", flush=True)
    return made, failed


def measure(name: str, nets: list[str], precisions: list[str], formats: list[str]) -> Iterator[str]:
    """The rows of one set, in the clone that the process stands in."""
    bench = set_up(name == "embedded")
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        made, failed = make_candidates(bench, nets, precisions, formats, Path(folder))
        reference = made[REFERENCE.name]
        latency = measure_side_by_side(made)
        for key, candidate in made.items():
            row = make_row(candidate, reference, bench.judge)
            clocks = candidate.measurement.clocks
            ratio = reference.size_bytes() / row["bytes"]
            score = row[bench.judge.metric.name]
            points = (
                f"{score:.2%} of {len(bench.judge.images)}"
                if candidate is reference
                else f"{-100 * row['drop'] + 0.0:+.2f} ({-100 * row['drop_high'] + 0.0:+.2f} to "
                f"{-100 * row['drop_low'] + 0.0:+.2f})"  # + 0.0: no -0.00
            )
            yield (
                f"| {name} | {key} | {row['bytes'] / 1e6:.2f} ({ratio:.2f} x) "
                f"| {row['transfer_bytes'] / 1e6:.2f} | {points} "
                f"| {row['changed']} ({row['changed'] / len(bench.judge.images):.2%}) "
                f"| {latency[key][0]:.2f} ({latency[key][1]:.2f} x) "
                f"| {clocks['throughput_images_s']:.0f} | {clocks['peak_memory_mb']:.0f} |"
            )
        if bench.thumbnail:
            ratio = reference.size_bytes() / bench.thumbnail["bytes"]
            yield (
                f"| {name} | {THUMBNAIL} (for scale) | {bench.thumbnail['bytes'] / 1e6:.2f} "
                f"({ratio:.0f} x) | | {bench.thumbnail[bench.judge.metric.name]:.2%} | | | | |"
            )
        for key, reason in failed.items():
            yield f"| {name} | {key} | failed: {reason} | | | | | | |"


def make_table() -> str:
    """The newest rows of each set, and where they come from."""
    kept = {name: load_kept(f"compression-{name}") for name in SOURCES}
    kept = {name: found for name, found in kept.items() if found}
    origins = "; ".join(
        f"{name}: {found['commit']}, {found['cpu']}" for name, found in kept.items()
    )
    lead = f"Default params, one training each, one thread. Commit and CPU: {origins}.\n"
    return "\n".join([lead, HEADER, *(row for found in kept.values() for row in found["rows"])])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SOURCES, help="one set")
    parser.add_argument(
        "--clone", action="append", default=[], help="SET=FOLDER, a clone that is trained already"
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--write", action="store_true", help="put it into docs/compression.md")
    arguments = parser.parse_args()
    given = {name: Path(folder) for name, _, folder in (c.partition("=") for c in arguments.clone)}
    commit = read_commit()
    for name, (source, *_) in SOURCES.items():
        if arguments.only not in (None, name):
            continue
        if name not in given and not source.startswith("--") and not Path(source).exists():
            print(f"skipped {name}: {Path(source).relative_to(ROOT.parent)} is not there")
            continue
        with trained_clone(name, given) as clone, contextlib.chdir(clone):
            rows = []
            wanted = (arguments.nets, arguments.precisions, arguments.formats)
            for row in measure(name, *wanted):
                rows.append(row)
                print(row, flush=True)
        keep(f"compression-{name}", {"commit": commit, "cpu": cpu_model(), "rows": rows})
    table = make_table()
    print(table)
    if arguments.write:
        write_table("compression", table)


if __name__ == "__main__":
    main()
