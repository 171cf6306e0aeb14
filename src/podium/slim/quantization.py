"""Static int8 as PaddleSlim makes it: activation ranges from real images, an int8 model on disk.

The rough edges of Paddle's quantisation, which PaddleSlim's `quant_post_static` wraps, stay in this
module and `calibration`: it speaks only the old program format, needs the old IR and static mode
switched on around it, wants a callable as its loader although its docs say DataLoader, and prints.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paddle

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.engine.inference import INPUT_NAME, ExportedModel, quiet
from podium.engine.program_file import make_reproducible
from podium.errors import PodiumError
from podium.slim.calibration import OnePassQuantization

CALIBRATION_BATCH = 8


def check_calibration(count: int) -> None:
    """Refuse fewer images than a batch: their ranges clip what other images have.

    Raises:
        PodiumError: too few.
    """
    if count < CALIBRATION_BATCH:
        raise PodiumError(
            f"compress.calibration_images: {count} training images are too few to calibrate int8 "
            f"on; at least {CALIBRATION_BATCH} are needed: leave int8 and qat out of "
            "compress.precisions"
        )


def quantize_static(
    model: ExportedModel,
    images: Images,
    preprocessing: Preprocessing,
    folder: Path,
    stem: str = "model",
) -> ExportedModel:
    """Write a statically quantised copy of `model` to `folder`.

    Weights get one scale per output channel, activations one per tensor, read off the histogram of
    the calibration images (algo "hist" of PaddleSlim's `quant_post_static`).

    Args:
        model: a float32 export.
        images: uint8 (N, H, W, 3), N >= 8.
        preprocessing: of the model.
        folder: is made when missing.
        stem: name of the files.

    Raises:
        PodiumError: too few images.
    """
    check_calibration(len(images))
    full = len(images) - len(images) % CALIBRATION_BATCH

    def batches() -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for start in range(0, full, CALIBRATION_BATCH):
            yield {INPUT_NAME: preprocessing.apply(images[start : start + CALIBRATION_BATCH])}

    exported = ExportedModel.in_folder(folder, stem)
    with (
        paddle.pir_utils.OldIrGuard(),
        paddle.static.scope_guard(paddle.static.Scope()),
        paddle.utils.unique_name.guard(),
        warnings.catch_warnings(),
        quiet(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            quantization = OnePassQuantization(model, batches, full // CALIBRATION_BATCH)
            quantization.quantize()
            quantization.save_quantized_model(
                str(folder), exported.program.name, exported.weights.name
            )
        finally:
            logging.disable(logging.NOTSET)
    make_reproducible(exported.program)
    return exported
