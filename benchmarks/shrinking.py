"""Smaller nets against the net that they were made from: size, work, points, training time.

In: a folder that `podium run` has trained in (models/, data/), of any competition; of the embedded
one with as many test images as you like (`podium init --demo --demo-test 2000`). Out: a Markdown
table on stdout, with --write also in docs/compression_nets.md. The newest row of each set and net is
kept under benchmarks/measured with its commit, so that nets can be measured one by one. Embedded:
judged on all test images, whose labels can be computed; else: on the val images of fold 0, which
nothing here has learned from.

Points: percent of images answered rightly, against the parent, with a paired 95 % interval
(bootstrap over the images). "as the parent" is the percent of images with the parent's answer.
Bytes and answers are those of exported files: float32, and int8 by static quantisation or, for
`qat`, by quantisation-aware training. Seconds are CPU seconds of making the net, on one core.

    python benchmarks/shrinking.py CLONE --nets student pruned
    python benchmarks/shrinking.py CLONE --nets student --depth 0.44 --write
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from clones import keep, load_kept, read_commit, write_table
from ladder import DRAWS
from ruamel.yaml import YAML

from podium.data.image_cache import Images, load_images, readable_rows
from podium.data.label_shuffle import load_train_lists
from podium.data.manifest import load_manifest
from podium.data.splits import load_splits
from podium.engine.inference import ExportedModel, Outputs, Predictor, export
from podium.engine.weights import find_folds, fold_folder, load_card
from podium.intake.demo.score import load_truth
from podium.intake.demo.spec import SPEC_FILE
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.params import PruneParams, QatParams, StudentParams
from podium.slim.parent import Parent, load_parent
from podium.slim.pruned import make_pruned
from podium.slim.qat import draw_images, teach_int8
from podium.slim.quantization import quantize_static
from podium.slim.student import make_student
from podium.tasks.table import build_net_task, make_data_task

HEADER = (
    "| set | net | parameters | MACs, M | float32, MB | points (95 %) | int8, MB | points (95 %) "
    "| as the parent | CPU s | commit |\n|---|---|---|---|---|---|---|---|---|---|---|"
)
KEPT = "shrinking"
CALIBRATION = 128


@dataclass(frozen=True)
class Judge:
    """What nets are judged by.

    Attributes:
        images: uint8 (N, H, W, 3).
        truth: class numbers (N,).
        parent: the parent's outputs (N, k).
    """

    images: Images
    truth: npt.NDArray[np.int64]
    parent: Outputs

    def points(self, outputs: Outputs) -> str:
        """By which the outputs are better than the parent's, paired."""
        right, before = (o.argmax(1) == self.truth for o in (outputs, self.parent))
        gain = right.astype(float) - before
        draws = np.random.default_rng(0).integers(len(gain), size=(DRAWS, len(gain)))
        low, high = 100 * np.quantile(gain[draws].mean(axis=1), [0.025, 0.975])
        return f"{100 * gain.mean():+.2f} ({low:+.2f} to {high:+.2f})"

    def agreement(self, outputs: Outputs) -> str:
        """Percent of the images with the parent's answer."""
        return f"{100 * (outputs.argmax(1) == self.parent.argmax(1)).mean():.2f} %"


def load_judged(parent: Parent, manifest: Any) -> tuple[Images, npt.NDArray[np.int64]]:
    """Images and class numbers to judge by: the embedded competition's test set, or the val fold."""
    if not Path("data/raw", SPEC_FILE).exists():
        return parent.images[parent.val_rows], parent.targets[parent.val_rows]
    rows = readable_rows(manifest, "test")
    classes, label = parent.card["classes"], load_truth(Path("data/raw"))
    truth = np.array([classes.index(label[name]) for name in rows["listed_id"]])
    return load_images(rows, parent.preprocessing.image_size_px, "decode test"), truth


def load() -> tuple[str, Parent, Any]:
    """The set's name, the first fold's model of this folder, and the manifest."""
    fold = find_folds(Path("models"))[0]
    card = load_card(fold_folder(Path("models"), fold) / "card.json")
    params = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    task = make_data_task(
        card["task"],
        classes=tuple(card["classes"]),
        ordinal=params["competition"]["ordinal"],
        primary_metric=params["evaluate"]["primary"],
    )
    manifest = load_manifest(Path("data/manifest.csv"))
    parent = load_parent(
        Path("models"),
        fold,
        manifest,
        load_splits(Path("data/splits.csv")),
        load_train_lists(Path("data/train_list.csv"))[fold],
        task,
        build_net_task,
        card["params"]["seed"],
    )
    is_embedded = Path("data/raw", SPEC_FILE).exists()
    return "embedded" if is_embedded else params["competition"]["name"], parent, manifest


def make_nets(parent: Parent, arguments: argparse.Namespace) -> Iterator[tuple[str, Any, float]]:
    """Name, network and CPU seconds of each net that was asked for."""
    yield "trained", parent.network, 0.0
    for name in arguments.nets:
        start = time.process_time()
        if name == "student":
            params = StudentParams(
                depth=arguments.depth,
                passes=arguments.passes,
                temperature=arguments.temperature,
                alpha=arguments.alpha,
            )
            variant = make_student(parent, params)
            what = (
                f"student, depth {params.depth:g}, {params.passes} passes, alpha {params.alpha:g}"
            )
        else:
            pruning = PruneParams(
                method=arguments.method,
                ratio=arguments.ratio,
                by=arguments.by,
                rounds=arguments.rounds,
                passes=arguments.passes,
            )
            variant = make_pruned(parent, pruning)
            what = (
                f"pruned, {pruning.method}, {pruning.by}, asked {pruning.ratio:.0%}, got "
                f"{variant.made_by['ratio']:.1%}, {pruning.passes} passes"
            )
        yield what, variant.network, time.process_time() - start


def measure(
    parent: Parent, manifest: Any, arguments: argparse.Namespace
) -> Iterator[tuple[str, str]]:
    """Each net with its cells of the table; first, by no name, what the set is."""
    images, truth = load_judged(parent, manifest)
    size = parent.preprocessing.image_size_px
    judge = None
    with tempfile.TemporaryDirectory() as name:
        for number, (what, network, seconds) in enumerate(make_nets(parent, arguments)):
            folder = Path(name, str(number))
            folder.mkdir()
            model = export(network, size, folder)
            outputs = run(model, False, images, parent)
            judge = judge or Judge(images, truth, outputs)
            if number == 0:
                accuracy = 100 * (outputs.argmax(1) == truth).mean()
                yield "", f"{len(truth)} images, the parent answers {accuracy:.2f} % rightly"
            calibration = draw_images(parent, CALIBRATION)
            int8 = quantize_static(model, calibration, parent.preprocessing, folder / "int8")
            facts = (
                f"{count_parameters(network):,} | {count_macs(network, size) / 1e6:.1f} "
                f"| {model.size_bytes() / 1e6:.3f} | {judge.points(outputs)}"
            )
            small = run(int8, True, images, parent)
            yield (
                what,
                f"{facts} | {int8.size_bytes() / 1e6:.3f} | {judge.points(small)} "
                f"| {judge.agreement(small)} | {seconds:.0f}",
            )
            if arguments.qat:
                start = time.process_time()
                params = QatParams(passes=arguments.qat)
                learned = teach_int8(parent, network, params, CALIBRATION)
                seconds += time.process_time() - start
                (folder / "learned").mkdir()
                model = export(learned, size, folder / "learned")
                int8 = quantize_static(model, calibration, parent.preprocessing, folder / "qat")
                small = run(int8, True, images, parent)
                yield (
                    f"{what}, qat, {arguments.qat} passes",
                    f"{facts} | {int8.size_bytes() / 1e6:.3f} | {judge.points(small)} "
                    f"| {judge.agreement(small)} | {seconds:.0f}",
                )


def run(model: ExportedModel, int8: bool, images: Images, parent: Parent) -> Outputs:
    """What a model's files answer."""
    return Predictor(model, int8=int8).run_images(images, parent.preprocessing, "judge")


def make_table(kept: dict[str, Any]) -> str:
    """Set -> net -> its cells and commit, as Markdown."""
    leads = [f"{name}: {nets[''][0]}." for name, nets in kept.items()]
    rows = [
        f"| {name} | {what} | {cells} | {commit} |"
        for name, nets in kept.items()
        for what, (cells, commit) in nets.items()
        if what
    ]
    return "\n".join([" ".join(leads) + "\n", HEADER, *rows])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path, help="where `podium run` has trained")
    parser.add_argument("--nets", nargs="*", default=[], choices=["student", "pruned"])
    parser.add_argument("--passes", type=int, default=12)
    parser.add_argument("--views", type=int, help="of each image; default: as the parent had")
    parser.add_argument("--depth", type=float, default=0.6)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--alpha", type=float, default=0.7)
    parser.add_argument("--method", default="l1", choices=["l1", "fpgm"])
    parser.add_argument("--ratio", type=float, default=0.4)
    parser.add_argument("--by", default="sensitivity", choices=["uniform", "sensitivity"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--qat", type=int, default=0, help="passes; 0: none")
    parser.add_argument("--write", action="store_true", help="put it into docs/compression_nets.md")
    arguments = parser.parse_args()
    commit = read_commit()
    os.chdir(arguments.clone)
    name, parent, manifest = load()
    if arguments.views:
        parent.card["params"]["train"]["views"] = arguments.views
    kept = load_kept(KEPT)
    for what, cells in measure(parent, manifest, arguments):
        print(what, cells, sep=" | ", flush=True)
        of_views = f", {arguments.views} views" if arguments.views and what else ""
        kept.setdefault(name, {})[f"{what}{of_views}"] = [cells, commit]
        keep(KEPT, kept)
    table = make_table(kept)
    print(table)
    if arguments.write:
        write_table(KEPT, table)


if __name__ == "__main__":
    main()
