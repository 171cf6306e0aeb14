"""reports/train/inputs.png: some training images as they are, and as the net sees them.

In: what the loop makes its batches of. Out: a PNG, a function of that alone. One row per image, one
column per epoch; each tile is the draw that the image gets in that epoch, mixed as its step's batch
is. Where layers are frozen, it is the view that their features were made of; features that mixup
blends cannot be shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from podium.data.augment import make_augment
from podium.data.decode import RGB
from podium.data.image_cache import FileImages, readable_rows
from podium.data.preprocessing import Preprocessing
from podium.engine.batches import (
    ImageSource,
    Rows,
    Source,
    ViewedImages,
    count_steps,
    epoch_batches,
)
from podium.engine.fit import TrainingInputs, find_rows
from podium.engine.mixing import Mix, read_mixed
from podium.engine.phases import (
    ALL,
    Phase,
    count_augmented_epochs,
    count_views,
    is_whole,
    make_plan,
    phase_of,
)
from podium.engine.training import Recipe, mix_of_step
from podium.models.params import ModelParams

# At a byte per pixel, tiles and captions are less than 300 kB even where nothing compresses.
_ROWS, _EPOCHS = 6, 6
_TILE_PX, _GAP_PX, _CAPTION_PX = 80, 2, 14
_COLORS = 256

# An epoch's images as pixels: float32 (n, 3, h, w), 0..255, from row numbers and occurrences.
SourceOf = Callable[[int], Source]
# (epoch, step from 0 over all epochs, rows of the batch) -> its mix.
MixOf = Callable[[int, int, int], Mix | None]


def draw_inputs(
    inputs: TrainingInputs, model: ModelParams, recipe: Recipe, image_size_px: int
) -> bytes:
    """The sheet of a training; of the first one where each fold is held out in turn."""
    rows = readable_rows(inputs.manifest, "train")
    image_ids: list[str] = rows["image_id"].tolist()
    train_list = next(iter(inputs.train_lists.values()))
    params, paths = recipe.params, rows["path"].tolist()
    plan = make_plan(
        model.freeze, model.starts_trained, params.unfreeze, params.size_schedule, image_size_px
    )

    @cache
    def source_in(phase: Phase) -> Source:
        n_views = count_views(plan, params.views, len(rows))
        is_frozen = phase.part != ALL
        is_fixed = is_frozen or (is_whole(plan) and n_views > 0)
        augment = make_augment(
            params.augment,
            params.flip,
            recipe.seed,
            phase.strength,
            params.recipes.of_images(),
            None if is_fixed else count_augmented_epochs(params.augment_until, recipe.epochs),
        )
        images = FileImages(paths, phase.image_size_px)
        as_pixels = Preprocessing(phase.image_size_px, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        source = ImageSource(images, images, image_ids, as_pixels, augment)
        return ViewedImages(source, n_views) if is_fixed else source

    def phase_in(epoch: int) -> Phase:
        return phase_of(plan, epoch, recipe.epochs)

    def mix_of(epoch: int, step: int, n_rows: int) -> Mix | None:
        if phase_in(epoch).part != ALL:
            return None
        return mix_of_step(recipe, plan, epoch, step, n_rows)

    return make_contact_sheet(
        np.array(find_rows(train_list, image_ids, "data/train_list.csv"), np.int64),
        recipe.batch_size,
        recipe.seed,
        recipe.epochs,
        lambda epoch: source_in(phase_in(epoch)),
        mix_of,
    )


def make_contact_sheet(
    train_rows: Rows, batch_size: int, seed: int, epochs: int, source_of: SourceOf, mix_of: MixOf
) -> bytes:
    """The sheet as a PNG file of at most 300 kB.

    Args:
        train_rows: the training list.
        batch_size, seed, epochs: as in training; of the epochs the first six are shown.
        source_of: what an epoch learns on, but for preprocessing.
        mix_of: how a step's batch is mixed.
    """
    first, _ = next(epoch_batches(train_rows, len(train_rows), seed, 1))
    shown = list(dict.fromkeys(first))[:_ROWS]
    columns = [("as it is", [source_of(1).plain_inputs([row])[0] for row in shown])]
    for epoch in range(1, min(epochs, _EPOCHS) + 1):
        drawn = _draw(shown, train_rows, batch_size, seed, epoch, source_of(epoch), mix_of)
        columns.append((f"epoch {epoch}", drawn))
    return _encode([(caption, [_to_tile(x) for x in inputs]) for caption, inputs in columns])


def _draw(
    shown: Sequence[int],
    train_rows: Rows,
    batch_size: int,
    seed: int,
    epoch: int,
    source: Source,
    mix_of: MixOf,
) -> list[npt.NDArray[np.float32]]:
    """The first use of each shown row in the epoch."""
    steps_before = (epoch - 1) * count_steps(len(train_rows), batch_size)
    drawn: dict[int, npt.NDArray[np.float32]] = {}
    for step, (rows, uses) in enumerate(epoch_batches(train_rows, batch_size, seed, epoch)):
        mix = mix_of(epoch, steps_before + step, len(rows))
        for place, (row, use) in enumerate(zip(rows, uses, strict=True)):
            if row in shown and use == 0:
                part = range(place, place + 1)
                drawn[row] = read_mixed(source, rows, uses, epoch, part, mix).inputs[0]
    return [drawn[row] for row in shown]


def _to_tile(pixels: npt.NDArray[np.float32]) -> Image.Image:
    """float32 (3, h, w), 0..255, as a tile."""
    image: RGB = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    enlarged = image.shape[0] < _TILE_PX  # pixels stay visible
    way = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return Image.fromarray(np.ascontiguousarray(image)).resize((_TILE_PX, _TILE_PX), way)


def _encode(columns: Sequence[tuple[str, Sequence[Image.Image]]]) -> bytes:
    pitch = _TILE_PX + _GAP_PX
    n_rows = len(columns[0][1])
    size = (len(columns) * pitch - _GAP_PX, _CAPTION_PX + n_rows * pitch - _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, (caption, tiles) in enumerate(columns):
        pen.text((number * pitch, 0), caption, "black", font)
        for row, tile in enumerate(tiles):
            sheet.paste(tile, (number * pitch, _CAPTION_PX + row * pitch))
    stream = io.BytesIO()
    sheet.quantize(_COLORS, Image.Quantize.MEDIANCUT).save(stream, "PNG", optimize=True)
    return stream.getvalue()
