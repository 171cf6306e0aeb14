"""Training speed beside others', as ratios measured side by side in one run.

In: the real lemons in shared/data beside the repository (skipped with a word where they are
missing), at 96 px, 32 images a step, 4 classes, no pretrained weights but in the frozen row. Out: a
Markdown table on stdout, and with --write also in docs/training.md.

    python benchmarks/training_speed.py [--only GROUP] [--rounds N] [--write]
        [--torch-python PYTHON]    an interpreter that has torch; default: this one, if it has

Each number comes from a fresh process with an environment of its own. A round takes each
measurement once, in turn. A cell is the best of the rounds with the worst in brackets, a ratio that
of the bests: what else runs on a machine only ever slows a measurement down (timeit's reason, too).
Starting processes, building the net and the first steps are not counted.

Podium: the training loop as `stages.train` runs it: 2 processes, images read from the disk,
`train.augment: light`, momentum like the peers.
stock: paddle.Model.fit with the environment untouched; a dataset that decodes each JPEG with Pillow
    each time, paddle.vision.transforms, DataLoader as it is by default, momentum.
tuned stock: the same with the MKL switch, 2 threads and the decoded 96 px images in memory.
PyTorch: ResNet-18, 2 threads, momentum, one batch in memory again and again: it reads nothing.
steps alone: Podium's own step on one batch in memory: what the loop would be if images cost nothing.
frozen: `model.freeze: all`: decoding all images, one pass through the trunk, then 30 epochs of the
    head; images x 30 over the seconds of all that.
memory: peak resident memory of rank 0 while it prepares each row once, learns 40 steps and judges
    each row, with 20,000 rows of 96 px on the disk and with 1,000; measured once.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clones import ROOT, write_table

sys.path.insert(0, str(ROOT / "src"))

from podium.runtime import cpu_class, mkl_dispatch

# Podium, Paddle, numpy and torch are imported where they are used: the environment must be set
# before Paddle is there, and the interpreter that has torch need not have the others.

LEMON = ROOT.parent / "shared" / "data" / "lemon"
SIZE_PX, BATCH, CLASSES, PROCESSES = 96, 32, 4, 2
LR = 1e-3
WARM_UP = 3  # steps
STEPS = 24  # of Podium and PyTorch, in all
STOCK_STEPS = 8  # of stock Paddle, in all: one takes up to three seconds
MEMORY_STEPS = 40
ROUNDS = 3
# Two processes in step suffer more from a third one than two threads do, or the other way round.
MOST_ELSEWHERE = 0.05
# What would make a peer's environment another one than its user's.
FOREIGN = ("OMP_", "MKL_", "KMP_", "FLAGS_", "GLOG_")
TUNED = {**mkl_dispatch(cpu_class()), "OMP_NUM_THREADS": "2"}


@dataclass(frozen=True)
class Row:
    """A row of the table: two measurements and what their ratio should be.

    Attributes:
        group: what --only names.
        target: the least ratio, in the memory row the greatest; None: no target.
    """

    group: str
    what: str
    ours: str
    peer: str
    target: float | None


ROWS = (
    Row("resnet18", "resnet18 / stock", "podium:resnet18", "stock:resnet18", 6),
    Row("resnet18", "resnet18 / tuned stock", "podium:resnet18", "tuned:resnet18", None),
    Row(
        "mobilenet_v3_small",
        "mobilenet_v3_small / stock",
        "podium:mobilenet_v3_small",
        "stock:mobilenet_v3_small",
        2,
    ),
    Row(
        "mobilenet_v3_small",
        "mobilenet_v3_small / tuned stock",
        "podium:mobilenet_v3_small",
        "tuned:mobilenet_v3_small",
        None,
    ),
    Row("torch", "resnet18 / PyTorch", "podium:resnet18", "torch:resnet18", 0.9),
    Row("loop", "resnet18 / its steps alone", "podium:resnet18", "steps:resnet18", 0.97),
    Row("frozen", "frozen / stock resnet18", "frozen:30", "stock:resnet18", 20),
    Row("frozen", "frozen / stock mobilenet_v2", "frozen:30", "stock:mobilenet_v2", None),
    Row("memory", "memory, 20,000 rows / 1,000", "memory:20000", "memory:1000", 1.1),
)
# Of a round. What is compared most closely stands side by side.
ORDER = (
    "torch:resnet18",
    "podium:resnet18",
    "steps:resnet18",
    "stock:resnet18",
    "tuned:resnet18",
    "podium:mobilenet_v3_small",
    "stock:mobilenet_v3_small",
    "tuned:mobilenet_v3_small",
    "frozen:30",
    "stock:mobilenet_v2",
    "memory:1000",
    "memory:20000",
)
HEADER = (
    "| what | Podium images/s | peer images/s | ratio | target | met |\n|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table."""
    arguments = parse_arguments()
    if arguments.measure:
        kind, _, subject = arguments.measure.partition(":")
        print(json.dumps(MEASUREMENTS[kind](subject, arguments.scratch)))
        return
    if not LEMON.exists():
        print(f"skipped: {LEMON.relative_to(ROOT.parent)} is not beside the repository")
        return
    rows = [row for row in ROWS if arguments.only in (None, row.group)]
    with tempfile.TemporaryDirectory(prefix="podium-speed-") as folder:
        torch_python = find_torch(arguments.torch_python)
        found, elsewhere = take_rounds(rows, arguments.rounds, Path(folder), torch_python)
    lines = [make_line(row, found) for row in rows]
    table = "\n".join([describe(arguments.rounds, elsewhere), "", HEADER, *lines])
    print(table)
    if arguments.write:
        write_table("training speed", table)


def parse_arguments() -> argparse.Namespace:
    """The command line; the process of one measurement has its own two words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    groups = list(dict.fromkeys(row.group for row in ROWS))
    parser.add_argument("--only", choices=groups, help="these rows")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--torch-python", type=Path, help="an interpreter that has torch")
    parser.add_argument("--write", action="store_true", help="put the table into docs/training.md")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write and arguments.only:
        parser.error("--write needs all rows")
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    return arguments


def find_torch(given: Path | None) -> str | None:
    """The interpreter to run PyTorch with; None where there is none."""
    if given:
        return str(given.absolute())  # each measurement has a folder of its own
    return sys.executable if importlib.util.find_spec("torch") else None


def take_rounds(
    rows: Sequence[Row], rounds: int, scratch: Path, torch_python: str | None
) -> tuple[dict[str, list[float]], float]:
    """What each measurement that `rows` need gave in each round, nothing where it cannot run; and
    the share of all cores that other programs took meanwhile."""
    from podium.runtime import available_cores

    needed = {name for row in rows for name in (row.ours, row.peer)}
    if not torch_python:
        needed.discard("torch:resnet18")
    prepare(scratch)
    found: dict[str, list[float]] = {}
    start = time.perf_counter()
    elsewhere = -seconds_elsewhere()
    for number in range(1, rounds + 1):
        for name in (name for name in ORDER if name in needed):
            if name.startswith("memory:") and number > 1:
                continue
            python = torch_python if name.startswith("torch:") else sys.executable
            value = measure_apart(name, scratch, str(python))
            print(f"round {number}: {name} {value:.1f}", file=sys.stderr, flush=True)
            found.setdefault(name, []).append(value)
    elsewhere += seconds_elsewhere()
    return found, elsewhere / (time.perf_counter() - start) / available_cores()


def seconds_elsewhere() -> float:
    """CPU seconds that this machine has spent so far, but for those of finished measurements."""
    import psutil

    spent = psutil.cpu_times()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.user + spent.nice + spent.system - own.ru_utime - own.ru_stime


def prepare(scratch: Path) -> None:
    """Write the decoded lemons, as Podium's store holds them."""
    from numpy import uint8

    from podium.data.decode import decode_file
    from podium.data.stored_rows import write_rows

    paths = [path for path, _ in list_lemons()]
    images = (decode_file(path, SIZE_PX) for path in paths)
    write_rows(scratch / "lemon.npy", images, (len(paths), SIZE_PX, SIZE_PX, 3), uint8)


def list_lemons() -> list[tuple[Path, int]]:
    """The labelled images: file and class."""
    with (LEMON / "train_images.csv").open(encoding="utf-8", newline="") as stream:
        return [(LEMON / "train_images" / name, int(label)) for name, label in csv.reader(stream)]


def measure_apart(name: str, scratch: Path, python: str) -> float:
    """Take one measurement in a fresh process, in a folder that goes with it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    if name.startswith("tuned:"):
        environment |= TUNED
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        done = subprocess.run(
            [python, *command_of(name, scratch)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def command_of(name: str, scratch: Path) -> list[str]:
    """What an interpreter is told to take the measurement `name`."""
    return [str(Path(__file__).resolve()), "--measure", name, "--scratch", str(scratch)]


def describe(rounds: int, elsewhere: float) -> str:
    """Where the numbers come from, and how far they can be trusted."""
    from eda_speed import cpu_model

    from podium.runtime import available_cores

    said = "1 round" if rounds == 1 else f"best of {rounds} rounds (worst in brackets)"
    line = f"{available_cores()} cores of {cpu_model()}; {said}."
    if elsewhere > MOST_ELSEWHERE:
        line += f" Other programs took {elsewhere:.0%} of the cores: **do not trust this table.**"
    return line


def make_line(row: Row, found: dict[str, list[float]]) -> str:
    """A line of the table."""
    ours, peers = found[row.ours], found.get(row.peer)
    is_memory = row.group == "memory"
    unit = " MB" if is_memory else ""
    sign = "<=" if is_memory else ">="
    best = min if is_memory else max
    cells = [row.what, say_range(ours, is_memory) + unit]
    wanted = "" if row.target is None else f"{sign} {row.target:g}"
    if peers is None:
        return "| " + " | ".join([*cells, "not installed", "", wanted, ""]) + " |"
    ratio = best(ours) / best(peers)
    met = ""
    if row.target is not None:
        met = "yes" if (ratio <= row.target if is_memory else ratio >= row.target) else "**no**"
    cells += [say_range(peers, is_memory) + unit, f"**{say_number(ratio)}**", wanted, met]
    return "| " + " | ".join(cells) + " |"


def say_range(values: list[float], less_is_better: bool) -> str:
    """The best, and the worst in brackets."""
    best, worst = sorted((min(values), max(values)), reverse=not less_is_better)
    return say_number(best) if best == worst else f"{say_number(best)} ({say_number(worst)})"


def say_number(value: float) -> str:
    """With no more digits than a measurement of speed has."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


# Podium.


class ClockedTask:
    """A task that notes when the loop asks for a loss: once a step, and once more in the end."""

    def __init__(self, task: Any) -> None:
        self.outputs: int = task.outputs
        self.times: list[float] = []
        self._task = task

    def loss(self, outputs: Any, targets: Any) -> Any:
        """The task's."""
        self.times.append(time.perf_counter())
        return self._task.loss(outputs, targets)


def begin_podium() -> None:
    """What stages/__init__.py does; before Paddle is imported."""
    from podium.runtime import configure_math

    configure_math()


@contextlib.contextmanager
def open_podium(
    processes: int, name: str, scratch: Path
) -> Iterator[tuple[Any, Callable[[Any], object]]]:
    """The surroundings that `stages.train` gives a training: the ranks, and what trains a job, with
    checkpoints and curves."""
    from podium.engine.params import RuntimeParams
    from podium.engine.runs import open_run
    from podium.engine.training import train

    command = (sys.executable, *command_of(name, scratch))
    runtime = RuntimeParams(device="cpu", amp=False)
    with (
        open_run(processes, runtime, command, "benchmark", n_folds=1) as run,
        run.fold(0) as (on_epoch, checkpoints),
    ):
        yield run.group, lambda job: train(job, on_epoch, run.group, checkpoints)


def make_recipe(epochs: int) -> Any:
    """The repository's params, but for what the comparison fixes."""
    from podium.engine.params import RecipeParams, RuntimeParams, TrainParams
    from podium.engine.training import Recipe
    from podium.params import read_yaml

    fixed = {
        "optimizer": "sgd",  # as the peers
        "augment": "light",
        "flip": "none",
        "recipes": dict.fromkeys(RecipeParams.model_fields, 0.0),
        "views": 0,
        "unfreeze": [],
        "size_schedule": [],
        "ema": 0,
        "patience": 0,
        "processes": PROCESSES,
        "accumulate": 1,
        "checkpoint_every": 0,
    }
    params = TrainParams.model_validate({**read_yaml(ROOT / "params.yaml")["train"], **fixed})
    return Recipe(params, RuntimeParams(device="cpu", amp=False), LR, epochs, BATCH, seed=0)


def make_source(model: str, path: Path, n_rows: int) -> Any:
    """The images of a .npy file, augmented."""
    from podium.data.augment import make_augment
    from podium.data.stored_rows import StoredRows
    from podium.engine.batches import ImageSource
    from podium.models.networks import make_preprocessing

    images = StoredRows(path)
    ids = [f"{number}.jpg" for number in range(n_rows)]
    augment = make_augment("light", "none", seed=0)
    return ImageSource(images, images, ids, make_preprocessing(model, SIZE_PX), augment)


def make_job(
    model: str, freeze: str, source: Any, targets: Any, rows: tuple[Any, Any], recipe: Any
) -> Any:
    """The training of a fresh `model` on `source`; rows: to learn from, and to judge by."""
    import paddle

    from podium.engine.phases import make_plan
    from podium.engine.training import Job, Part, TrainingData
    from podium.models.networks import build_network, depth_below_head
    from podium.tasks.classification.net import ClassificationNet
    from podium.tasks.protocol import MetricSpec

    is_frozen = freeze == "all"

    def build(_: Any) -> Any:
        paddle.seed(0)
        network = build_network(model, is_frozen, CLASSES, dropout=0.2)
        if is_frozen:
            return Part(network, network.head, lambda name: 0, source)
        return Part(network, network, partial(depth_below_head, network), source)

    data = TrainingData(
        image_ids=[str(number) for number in range(len(targets))],
        targets=targets,
        train_rows=rows[0],
        val_rows=rows[1],
        score=lambda outputs, targets: float((outputs.argmax(1) == targets).mean()),
    )
    plan = make_plan(freeze, is_frozen, [], [], SIZE_PX)
    task = ClockedTask(ClassificationNet(CLASSES, recipe.params.label_smoothing))
    return Job(build, plan, task, data, recipe, MetricSpec("accuracy", higher_is_better=True))


def lemon_job(model: str, scratch: Path) -> Any:
    """One epoch of `STEPS` steps over the lemons."""
    import numpy as np

    targets = np.array([label for _, label in list_lemons()], np.int64)
    source = make_source(model, scratch / "lemon.npy", len(targets))
    train_rows = np.resize(np.arange(len(targets)), STEPS * BATCH)
    return make_job(model, "none", source, targets, (train_rows, range(BATCH)), make_recipe(1))


def measure_podium(model: str, scratch: Path) -> float:
    """Images/s of the loop."""
    begin_podium()
    with open_podium(PROCESSES, f"podium:{model}", scratch) as (_, train):
        job = lemon_job(model, scratch)
        train(job)
    return images_per_second(job.task.times[:STEPS])


def measure_steps(model: str, scratch: Path) -> float:
    """Images/s of the loop's step alone, again and again on one batch in memory."""
    begin_podium()
    import numpy as np

    from podium.engine.batches import split_batch
    from podium.engine.optimization import build_optimizer
    from podium.engine.session import Pass, Session

    with open_podium(PROCESSES, f"steps:{model}", scratch) as (group, _):
        job = lemon_job(model, scratch)
        part = job.build(job.plan[0])
        params = job.recipe.params
        optimizer = build_optimizer(part.trainee, params, LR, part.depth_of)
        net = part.network, part.trainee
        session = Session(*net, optimizer, job.task, group, amp=False, ema=params.ema)
        rows = np.arange(BATCH)[split_batch(BATCH, PROCESSES)[group.rank]]
        inputs = part.source.plain_inputs(rows)
        passes = [Pass(inputs, job.data.targets[rows], len(rows) / BATCH)]
        for step in range(STEPS):
            loss = session.add_gradients(passes, lambda number: number)
            session.exchange(loss, False)
            session.update(LR, step)
    return images_per_second(job.task.times)


def measure_frozen(epochs: str, scratch: Path) -> float:
    """Images times epochs over all the seconds of `model.freeze: all`."""
    begin_podium()
    import numpy as np
    import pandas as pd

    from podium.engine.features import FeatureRecipe, load_features, write_features
    from podium.engine.phases import make_plan

    model, recipe = "efficientnet_lite0", make_recipe(int(epochs))
    lemons = list_lemons()
    manifest = pd.DataFrame(
        {
            "image_id": [path.name for path, _ in lemons],
            "path": [str(path) for path, _ in lemons],
            "sha256": [path.name for path, _ in lemons],  # a key of the store, which is empty here
            "source": "train",
            "problem": "",
        }
    )
    targets = np.array([label for _, label in lemons], np.int64)
    plan = make_plan("all", True, [], [], SIZE_PX)
    params = recipe.params
    features = FeatureRecipe(model, True, 6, params.views, params.augment, params.flip, 0)
    with open_podium(1, f"frozen:{epochs}", scratch) as (_, train):
        start = time.perf_counter()
        write_features(Path("features"), manifest, plan, features, SIZE_PX)
        source = load_features(Path("features"), plan[0], len(lemons), SIZE_PX)
        rows = np.arange(len(lemons)), range(0, len(lemons), 5)
        job = make_job(model, "all", source, targets, rows, recipe)
        train(job)
        seconds = time.perf_counter() - start
    return len(lemons) * int(epochs) / seconds


def measure_memory(n_rows: str, scratch: Path) -> float:
    """Peak resident memory of rank 0, MB."""
    begin_podium()
    import numpy as np

    from podium.data.stored_rows import write_rows
    from podium.engine.batches import prefetch
    from podium.engine.processes import is_follower

    model, count = "mobilenet_v3_small", int(n_rows)
    path = scratch / f"random-{count}.npy"
    if not is_follower():
        draw = np.random.default_rng(0)
        shape = (SIZE_PX, SIZE_PX, 3)
        images = (draw.integers(0, 256, shape, np.uint8) for _ in range(count))
        write_rows(path, images, (count, *shape), np.uint8)
    targets = np.arange(count) % CLASSES
    with open_podium(PROCESSES, f"memory:{count}", scratch) as (group, train):
        source = make_source(model, path, count)
        if group.rank == 0:  # as the loop does it; so few steps alone would not get through them

            def make(start: int) -> Any:
                rows = range(start, min(start + BATCH, count))
                return source.training_inputs(rows, [0] * len(rows), 1)

            seen = sum(len(inputs) for inputs in prefetch(range(0, count, BATCH), make, 1))
            assert seen == count
        learned = np.random.default_rng(0).integers(count, size=MEMORY_STEPS * BATCH)
        rows = learned, range(count)
        job = make_job(model, "none", source, targets, rows, make_recipe(1))
        train(job)
    if not is_follower():
        path.unlink()
    unit = 1024 if sys.platform == "linux" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def images_per_second(times: Sequence[float]) -> float:
    """Of the steps after the warm-up, from the moments at which equal points of them passed."""
    return (len(times) - 1 - WARM_UP) * BATCH / (times[-1] - times[WARM_UP])


# The others.


def measure_stock(model: str, _: Path) -> float:
    """Images/s of paddle.Model.fit on the files."""
    from paddle.vision import transforms
    from PIL import Image

    lemons = list_lemons()
    resize = transforms.Resize((SIZE_PX, SIZE_PX))

    def read(number: int) -> Any:
        with Image.open(lemons[number][0]) as image:
            return resize(image.convert("RGB"))

    return fit_stock(model, read, [label for _, label in lemons])


def measure_tuned(model: str, scratch: Path) -> float:
    """Images/s of paddle.Model.fit on decoded images in memory."""
    import numpy as np

    images = np.load(scratch / "lemon.npy")
    return fit_stock(model, lambda number: images[number], [label for _, label in list_lemons()])


def fit_stock(model: str, read: Any, labels: Sequence[int]) -> float:
    """Images/s of paddle.Model.fit on a net of paddle.vision; read: number -> image, 96 px."""
    import numpy as np
    import paddle
    from paddle.vision import transforms

    change = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.15, 0.15, 0.15, 0.02),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    class Lemons(paddle.io.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, number: int) -> Any:
            return change(read(number)), np.array([labels[number]], np.int64)

    class Clock(paddle.callbacks.Callback):
        times: list[float] = []  # noqa: RUF012  there is one Clock

        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            self.times.append(time.perf_counter())

    network = getattr(paddle.vision.models, model)(num_classes=CLASSES)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    trainer = paddle.Model(network)
    trainer.prepare(optimizer, paddle.nn.CrossEntropyLoss())
    clock = Clock()
    trainer.fit(
        Lemons(), batch_size=BATCH, epochs=1, verbose=0, callbacks=[clock], num_iters=STOCK_STEPS
    )
    return images_per_second(clock.times)


def measure_torch(_: str, __: Path) -> float:
    """Images/s of a ResNet-18 in PyTorch."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.Conv2d(after, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
            )
            self.skip = nn.Sequential()
            if before != after:
                conv = nn.Conv2d(before, after, 1, stride, bias=False)
                self.skip = nn.Sequential(conv, nn.BatchNorm2d(after))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.skip(x))

    def blocks() -> Iterator[Block]:
        for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
            yield Block(before, after, stride)
            yield Block(after, after, 1)

    torch.set_num_threads(2)
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)
    network = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *blocks(), *head).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(BATCH, 3, SIZE_PX, SIZE_PX)
    labels = torch.arange(BATCH) % CLASSES
    times = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter())
    return images_per_second(times)


MEASUREMENTS = {
    "podium": measure_podium,
    "steps": measure_steps,
    "frozen": measure_frozen,
    "memory": measure_memory,
    "stock": measure_stock,
    "tuned": measure_tuned,
    "torch": measure_torch,
}


if __name__ == "__main__":
    main()
