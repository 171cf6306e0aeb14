"""What a frozen trunk, or its first layers, makes of the training images: computed once.

It runs in the inference engine, ten times as fast as a training step. In `dvc.yaml` it is a stage:
big and slow enough to be kept, and untouched by a change of lr.

features/PART-SIZE-plain.npy   of the images as they are, at image_size: what the net is judged on
features/PART-SIZE-views.npy   of augmented views, view after view, at the phase's size
features/features.json         what made them, the hash of the trunk's initial weights included: it
                               makes a changed file retrain; the mirrors that `train.flip: auto`
                               stands for; no arrays when nothing is frozen

PART: head (the trunk's output, float32) | top (the map after the first layers, float16).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from paddle import nn

from podium.data.augment import make_augment
from podium.data.image_cache import Images, load_images, readable_rows
from podium.data.recipes import NO_RECIPES, ImageRecipes
from podium.data.stored_rows import StoredRows, write_rows
from podium.engine.batches import FeatureSource, ImageSource, Source, prefetch
from podium.engine.inference import Outputs, Predictor, export
from podium.engine.params import TrainParams
from podium.engine.phases import ALL, HEAD, Phase
from podium.errors import PodiumError
from podium.files import replace_folder, write_json
from podium.models.initial_weights import InitialWeights
from podium.models.networks import LowerTrunk, build_trunk, check_image_size, make_preprocessing
from podium.progress import track
from podium.runtime import data_workers

META_FILE = "features.json"
AUTO = "auto"
_FLIPS = ("none", "horizontal", "both")
_BATCH = 32


@dataclass(frozen=True)
class FeatureRecipe:
    """What decides a feature, beside the image and the phase: see params.yaml, `model` and
    `train`. `flip`: none | horizontal | both; `start`: the weights that the trunk begins with, where
    no package has them."""

    trunk: str
    pretrained: bool
    top_layers: int
    views: int
    augment: str
    flip: str
    seed: int
    recipes: ImageRecipes = NO_RECIPES
    start: InitialWeights | None = None


def write_features(
    folder: Path,
    manifest: pd.DataFrame,
    plan: Sequence[Phase],
    recipe: FeatureRecipe,
    image_size_px: int,
    mirrors: Mapping[str, Any] | None = None,
) -> str:
    """Compute and write what the plan's phases need; returns a line that says what.

    Args:
        mirrors: the figures that decided `recipe.flip`, if params.yaml did not.

    Raises:
        PodiumError: a phase's images are too small for the trunk, frozen or not.
    """
    for size in (image_size_px, *(phase.image_size_px for phase in plan)):
        check_image_size(recipe.trunk, size)
    phases = {(p.part, p.image_size_px): p for p in plan if p.part != ALL}
    rows = readable_rows(manifest, "train")
    ids = rows["image_id"].tolist()
    meta: dict[str, Any] = {
        "image_ids_sha256": _hash("\n".join(ids).encode()),
        "weights_sha256": recipe.start.sha256 if recipe.start else None,
        "flip": recipe.flip,
        "mirrors": mirrors,
        "arrays": {},
    }
    with replace_folder(folder) as fresh:
        for part in dict.fromkeys(part for part, _ in phases):
            images = load_images(rows, image_size_px, "decode train")
            source = _make_source(images, ids, recipe, image_size_px, 1.0)
            with _Runner(recipe, part, image_size_px, fresh, meta) as runner:
                runner.write(f"{part}-{image_size_px}-plain", source, 0)
        for (part, size), phase in phases.items():
            if recipe.views == 0 and size == image_size_px:
                continue
            images = load_images(rows, size, "decode train")
            source = _make_source(images, ids, recipe, size, phase.strength)
            with _Runner(recipe, part, size, fresh, meta) as runner:
                runner.write(f"{part}-{size}-views", source, recipe.views)
        write_json(fresh / META_FILE, meta)
    if not meta["arrays"]:
        return "the whole net learns from the first epoch: nothing is computed ahead"
    return f"{len(ids)} train images: {', '.join(meta['arrays'])}"


def load_features(folder: Path, phase: Phase, n_rows: int, image_size_px: int) -> FeatureSource:
    """The inputs of a phase that has something frozen, by the number of the manifest's train row.

    Raises:
        PodiumError: missing, damaged, or made for other rows.
    """
    plain = _load(folder / f"{phase.part}-{image_size_px}-plain.npy")
    path = folder / f"{phase.part}-{phase.image_size_px}-views.npy"
    has_views = path.exists() or phase.image_size_px != image_size_px
    views = _load(path) if has_views else None
    if len(plain) != n_rows or (views is not None and len(views) % n_rows):
        raise PodiumError(f"{folder} has {len(plain)} rows, the manifest {n_rows}: run `dvc repro`")
    return FeatureSource(plain, views)


def check_same_start(folder: Path, start: InitialWeights | None) -> None:
    """The trunk's initial weights are those that the features stage saw.

    Raises:
        PodiumError: they are others, and DVC has not been told.
    """
    if _load_noted(folder, "weights_sha256") != (start.sha256 if start else None):
        where = start.path if start else "model.weights"
        raise PodiumError(f"{where} changed since the features stage: run `dvc repro` again")


def settle_flip(folder: Path, params: TrainParams) -> TrainParams:
    """The params with what the features stage found in place of `flip: auto`.

    Raises:
        PodiumError: its file is missing or damaged.
    """
    if params.flip != AUTO:
        return params
    found = _load_noted(folder, "flip")
    if found not in _FLIPS:
        raise PodiumError(f"{folder / META_FILE} is damaged: delete it and run `dvc repro`")
    return params.model_copy(update={"flip": found})


def _load_noted(folder: Path, key: str) -> Any:
    path = folder / META_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ValueError, KeyError, TypeError):
        raise PodiumError(f"{path} is damaged: delete it and run `dvc repro`") from None


class _Runner:
    """The frozen part at one image size, and the folder that its outputs go to."""

    def __init__(
        self, recipe: FeatureRecipe, part: str, size_px: int, folder: Path, meta: dict[str, Any]
    ) -> None:
        trunk = build_trunk(recipe.trunk, recipe.pretrained, recipe.start)
        self._net: nn.Layer = trunk if part == HEAD else LowerTrunk(trunk, recipe.top_layers)
        self._dtype = np.float32 if part == HEAD else np.float16
        self._size_px, self._folder, self._meta = size_px, folder, meta
        self._work = tempfile.TemporaryDirectory(prefix="podium-")

    def __enter__(self) -> _Runner:
        model = export(self._net, self._size_px, Path(self._work.name))
        self._predictor = Predictor(model)
        return self

    def __exit__(self, *_: object) -> None:
        self._work.cleanup()

    def write(self, name: str, source: Source, views: int) -> None:
        """Run `views` augmented views of each row of the source, or the plain ones for 0."""
        count = len(source)
        batches = [
            (view, range(start, min(count, start + _BATCH)))
            for view in range(1, views + 1) or (0,)
            for start in range(0, count, _BATCH)
        ]
        first = self._run(source, (batches[0][0], batches[0][1][:1]))
        shape = (count * max(1, views), *first.shape[1:])
        path = self._folder / f"{name}.npy"
        write_rows(path, self._rows(source, batches, name), shape, self._dtype)
        self._meta["arrays"][name] = {
            "shape": list(shape),
            "dtype": np.dtype(self._dtype).name,
            "sha256": _hash_file(path),
        }

    def _rows(
        self, source: Source, batches: Sequence[tuple[int, range]], name: str
    ) -> Iterator[npt.NDArray[Any]]:
        made = prefetch(batches, lambda batch: _read(source, batch), data_workers(1))
        for inputs in track(made, len(batches), f"features {name}"):
            yield from self._predictor.run(inputs).astype(self._dtype)

    def _run(self, source: Source, batch: tuple[int, range]) -> Outputs:
        return self._predictor.run(_read(source, batch))


def _read(source: Source, batch: tuple[int, range]) -> npt.NDArray[np.float32]:
    view, rows = batch
    if view == 0:
        return source.plain_inputs(rows)
    return source.training_inputs(rows, [0] * len(rows), view)


def _make_source(
    images: Images, image_ids: Sequence[str], recipe: FeatureRecipe, size_px: int, strength: float
) -> ImageSource:
    augment = make_augment(recipe.augment, recipe.flip, recipe.seed, strength, recipe.recipes)
    preprocessing = make_preprocessing(recipe.trunk, size_px)
    return ImageSource(images, images, image_ids, preprocessing, augment)


def _load(path: Path) -> StoredRows:
    try:
        return StoredRows(path)
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except (ValueError, EOFError) as error:
        raise PodiumError(f"{path} is damaged ({error}): delete it and run `dvc repro`") from None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
