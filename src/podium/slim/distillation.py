"""Teaching a smaller net what the trained one says: targets from its outputs, in the one loop.

In: a parent, a net to teach. Out: the taught weights. Student and parent see the same views of
each image (Beyer et al., "A good teacher is patient and consistent", arXiv:2106.05237): every view
is a row of its own, with the parent's outputs for this very view beside the image's own target.

Only the parent of the held-out fold teaches. The other folds' models have learned from the images
that the result is judged by, and would hand their labels on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn
from pydantic import ValidationError

from podium.data.augment import make_augment
from podium.data.recipes import ImageRecipes
from podium.data.stored_rows import StoredRows, write_rows
from podium.engine.batches import ImageSource, Inputs, Source, prefetch
from podium.engine.inference import Predictor, export
from podium.engine.params import RuntimeParams, TrainParams
from podium.engine.phases import ALL, Phase, choose_views
from podium.engine.training import Job, Part, Recipe, Trained, TrainingData, train
from podium.errors import PodiumError
from podium.progress import track
from podium.slim.parent import Parent
from podium.slim.shrinking import BATCH_NORMS
from podium.tasks.net_protocol import NetTask
from podium.tasks.protocol import MetricSpec

_BATCH = 32
# What decides an epoch: the mean distance from the parent's outputs on the val images.
DISTANCE = MetricSpec("distance from the parent", higher_is_better=False)
_CPU = RuntimeParams(device="cpu", amp=False)


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from: views of the training images and the plain val images, as rows.

    Row v * N + i is view v of image i; the plain images of all rows follow, N more.

    Attributes:
        parent: who teaches.
        views: V, how many of each image.
        source: pixels of the rows, ready for a net.
        taught: the parent's outputs, float32 (V * N + N, k); 0 where nobody asks.
    """

    parent: Parent
    views: int
    source: Source
    taught: npt.NDArray[np.float32]

    def train_rows(self, passes: int) -> npt.NDArray[np.int64]:
        """The training list so many times, each time with the next view; after the last, the first."""
        count = len(self.parent.image_ids)
        return np.concatenate(
            [self.parent.train_rows + turn % self.views * count for turn in range(passes)]
        )

    def val_rows(self) -> list[int]:
        """The held-out fold's images as they are."""
        plain = self.views * len(self.parent.image_ids)
        return [int(row) + plain for row in self.parent.val_rows]

    def rows(self, passes: int) -> npt.NDArray[np.int64]:
        """All that so many passes learn from or are judged by, in order, each once."""
        return np.union1d(self.train_rows(passes), self.val_rows())


@dataclass(frozen=True)
class Schooling:
    """How to learn it.

    Attributes:
        passes: over the training list, exactly so many, each with the next view.
        lr: peak; cosine to 0.
        temperature: of both softmaxes, > 0 (Hinton et al., arXiv:1503.02531).
        alpha: weight of the parent's outputs against the images' own targets, 0..1.
        ema: as train.ema.
    """

    passes: int
    lr: float
    temperature: float
    alpha: float
    batch_size: int = 32
    ema: float = 0.98


@dataclass(frozen=True)
class DistillationTask:
    """A task whose targets hold the parent's outputs (k numbers) before the image's own target.

    Attributes:
        task: the loss against the images' own targets.
        is_hard: whether those are class numbers rather than distributions.
        temperature, alpha: see `Schooling`.
    """

    task: NetTask
    is_hard: bool
    temperature: float
    alpha: float

    @property
    def outputs(self) -> int:
        """Numbers the net gives per image."""
        return self.task.outputs

    def fit_to(self, targets: npt.NDArray[Any]) -> NetTask:
        """Itself: the wrapped task has been fitted already."""
        return self

    def distillation_loss(
        self, outputs: paddle.Tensor, taught: paddle.Tensor, temperature: float
    ) -> paddle.Tensor:
        """The wrapped task's."""
        return self.task.distillation_loss(outputs, taught, temperature)

    def loss(self, outputs: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """alpha times the distance from the parent's outputs, and the rest the task's own loss."""
        taught, own = targets[:, : self.outputs], targets[:, self.outputs :]
        loss = self.alpha * self.task.distillation_loss(outputs, taught, self.temperature)
        if self.alpha < 1:
            own = own.squeeze(1).astype("int64") if self.is_hard else own
            loss = loss + (1 - self.alpha) * self.task.loss(outputs, own)
        return loss


@lru_cache(maxsize=1)
def load_lesson(parent: Parent) -> Lesson:
    """The parent's lesson, on as many views as it learned from itself; made once per process."""
    params = parent.card["params"]["train"]
    views = max(1, choose_views(params["views"], len(parent.image_ids)))
    source = _Views(parent, views)
    taught = np.zeros((len(source), parent.net_task.outputs), np.float32)
    lesson = Lesson(parent, views, source, taught)
    rows = lesson.rows(views)
    answers = _run(parent.network, parent, source, rows, "the parent's answers")
    taught[rows] = np.concatenate(list(answers))
    return lesson


def count_epochs(passes: int, views: int) -> int:
    """Into how many equal epochs so many passes are parted: the most in which each has every view.

    The net is looked at after an epoch, so with a single one there is none to choose from.
    """
    return max(
        n for n in range(1, passes + 1) if passes % n == 0 and (n == 1 or passes >= n * views)
    )


def teach(
    lesson: Lesson,
    build: Callable[[], nn.Layer],
    schooling: Schooling,
    lower: nn.Layer | None = None,
    trainee: Callable[[nn.Layer], nn.Layer] = lambda network: network,
) -> Trained:
    """Train what `build` builds on a lesson; of several epochs (`count_epochs`) the one that comes
    nearest to the parent on the val images.

    Args:
        lesson: see `load_lesson`.
        build: the net as it is before, the same at every call; called under a fixed seed.
        schooling: how.
        lower: the layers below the trainee, which stay as they are and so run only once.
        trainee: the part of the net that learns, on what `lower` gives.
    """
    parent = lesson.parent
    task = parent.net_task.fit_to(parent.targets[parent.train_rows])
    distilling = DistillationTask(
        task, parent.targets.ndim == 1, schooling.temperature, schooling.alpha
    )
    epochs = count_epochs(schooling.passes, lesson.views)
    each = schooling.passes // epochs

    def distance(outputs: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> float:
        taught = targets[:, : task.outputs]
        with paddle.no_grad():
            return float(
                task.distillation_loss(paddle.to_tensor(outputs), paddle.to_tensor(taught), 1.0)
            )

    data = TrainingData(
        image_ids=list(parent.image_ids) * (lesson.views + 1),
        targets=_pack_targets(lesson),
        train_rows=lesson.train_rows(each),
        val_rows=lesson.val_rows(),
        score=distance,
    )
    recipe = Recipe(
        _make_params(parent.card, schooling),
        _CPU,
        schooling.lr,
        epochs,
        schooling.batch_size,
        parent.seed,
    )
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        source = lesson.source
        if lower is not None:
            source = _run_lower(lower, lesson, lesson.rows(each), Path(folder))

        def build_part(_: Phase) -> Part:
            paddle.seed(parent.seed)
            network = build()
            for layer in network.sublayers():
                if isinstance(layer, nn.Dropout):  # both see the same: nothing is left to chance
                    layer.p = 0.0
            return Part(network, trainee(network), lambda name: 0, source)

        plan = (Phase(0.0, ALL, parent.preprocessing.image_size_px, 1.0),)
        job = Job(build_part, plan, distilling, data, recipe, DISTANCE)
        return train(job, lambda row: None)


def keep_statistics(network: nn.Layer) -> None:
    """Let batch norm use the statistics that it has, in training, too: the shipped net uses those,
    and a trained net's lower layers often have another data set's."""
    for layer in network.sublayers():
        if isinstance(layer, BATCH_NORMS):
            layer._use_global_stats = True


class _Views:
    """The rows of a lesson as inputs. Nothing is random: a row is a certain view."""

    def __init__(self, parent: Parent, views: int) -> None:
        params = parent.card["params"]["train"]
        recipes = {k: v for k, v in params["recipes"].items() if k not in ("mixup", "cutmix")}
        augment = make_augment(
            params["augment"], params["flip"], parent.seed, recipes=ImageRecipes(**recipes)
        )
        self._images = ImageSource(
            parent.images, parent.images, parent.image_ids, parent.preprocessing, augment
        )
        self._views = views

    def __len__(self) -> int:
        return (self._views + 1) * len(self._images)

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """As `plain_inputs`: the epoch does not matter."""
        return self.plain_inputs(rows)

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """float32 (n, 3, H, W)."""
        return np.concatenate([self._read(int(row)) for row in rows])

    def _read(self, row: int) -> Inputs:
        view, image = divmod(row, len(self._images))
        if view == self._views:
            return self._images.plain_inputs([image])
        return self._images.training_inputs([image], [0], view + 1)


class _LowerMaps:
    """What the fixed layers made of some of a lesson's rows.

    Args:
        maps: of the rows, in order.
        rows: which.
        count: of all rows.
    """

    def __init__(self, maps: StoredRows, rows: npt.NDArray[np.int64], count: int) -> None:
        self._maps, self._rows, self._count = maps, rows, count

    def __len__(self) -> int:
        return self._count

    def training_inputs(
        self, rows: Sequence[int], occurrences: Sequence[int], epoch: int
    ) -> Inputs:
        """As `plain_inputs`: the epoch does not matter."""
        return self.plain_inputs(rows)

    def plain_inputs(self, rows: Sequence[int]) -> Inputs:
        """float32 (n, ...)."""
        return self._maps[np.searchsorted(self._rows, rows)].astype(np.float32)


def _run(
    network: nn.Layer, parent: Parent, source: Source, rows: npt.NDArray[np.int64], label: str
) -> Iterator[npt.NDArray[np.float32]]:
    """A net's outputs for these rows, a batch at a time, in the inference engine."""
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        predictor = Predictor(export(network, parent.preprocessing.image_size_px, Path(folder)))
    starts = range(0, len(rows), _BATCH)
    batches = prefetch(starts, lambda at: source.plain_inputs(rows[at : at + _BATCH].tolist()), 1)
    for batch in track(batches, len(starts), label):
        yield predictor.run(batch)


def _run_lower(
    lower: nn.Layer, lesson: Lesson, rows: npt.NDArray[np.int64], folder: Path
) -> _LowerMaps:
    """What the fixed layers make of the rows, on the disk as float16, as the features stage does."""
    batches = _run(lower, lesson.parent, lesson.source, rows, "fixed layers")
    first = next(batches)

    def maps() -> Iterator[npt.NDArray[np.float16]]:
        yield from first.astype(np.float16)
        for batch in batches:
            yield from batch.astype(np.float16)

    path = folder / "lower.npy"
    write_rows(path, maps(), (len(rows), *first.shape[1:]), np.float16)
    return _LowerMaps(StoredRows(path), rows, len(lesson.source))


def _pack_targets(lesson: Lesson) -> npt.NDArray[np.float32]:
    """The parent's outputs and the own target of each row, (rows, k + 1) or (rows, 2 k)."""
    own = lesson.parent.targets
    own = own[:, None] if own.ndim == 1 else own
    repeated = np.concatenate([own] * (lesson.views + 1)).astype(np.float32)
    return np.concatenate([lesson.taught, repeated], axis=1)


def _make_params(card: dict[str, Any], schooling: Schooling) -> TrainParams:
    """`train` of the parent, with what distillation does its own way.

    Raises:
        PodiumError: the card is of a Podium whose `train` had other keys.
    """
    params = card["params"]["train"]
    wanted = {
        **params,
        "optimizer": "adamw",
        "schedule": "cosine",
        "warmup_epochs": 0.25,
        "recipes": {**params["recipes"], "mixup": 0.0, "cutmix": 0.0},
        "augment_until": 1.0,
        "views": 0,
        "unfreeze": [],
        "layer_decay": 1.0,
        "size_schedule": [],
        "ema": schooling.ema,
        "keep": "best",
        "soup": 0,
        "patience": 0,
        "pseudo_threshold": 0,
        "processes": 1,
        "accumulate": 1,
        "checkpoint_every": 0,
    }
    try:
        return TrainParams.model_validate(wanted)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise PodiumError(
            f"the model card's params.train.{key} is not this Podium's: train again"
        ) from None
