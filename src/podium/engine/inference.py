"""The fast way through a net on a CPU: export once, run by paddle.inference with oneDNN.

In: a network or exported files. Out: outputs as numpy. Everything that only looks (features,
evaluate, submit, deploy) runs here, so the score is taken on what ships. Thread count and batch
size do not change its bits (tests/test_engine.py); forcing another vector unit does.

The export is the old program format (.pdmodel): PaddleSlim quantises no other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paddle
from paddle import nn

from podium.data.decode import RGB
from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.views import Tta, make_views
from podium.engine.program_file import make_reproducible
from podium.engine.runner import run_paddle
from podium.progress import track
from podium.runtime import available_cores

INPUT_NAME = "image"
_BATCH = 32

Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportedModel:
    """A model on disk: program and weights, in paddle.inference's old format."""

    program: Path
    weights: Path

    @classmethod
    def in_folder(cls, folder: Path, stem: str = "model") -> ExportedModel:
        """The files `stem`.pdmodel and `stem`.pdiparams in `folder`."""
        return cls(folder / f"{stem}.pdmodel", folder / f"{stem}.pdiparams")

    def size_bytes(self) -> int:
        """Bytes on disk of both files."""
        return self.program.stat().st_size + self.weights.stat().st_size


def export(
    network: nn.Layer, image_size_px: int, folder: Path, stem: str = "model"
) -> ExportedModel:
    """Write `network` in evaluation mode, for any batch size, to `folder`."""
    network.eval()
    shape = [None, 3, image_size_px, image_size_px]
    spec = [paddle.static.InputSpec(shape, "float32", INPUT_NAME)]
    # A fresh counter for names: the file's bytes must not depend on what was built before.
    with paddle.pir_utils.DygraphOldIrGuard(), paddle.utils.unique_name.guard(), quiet():
        # No branch or loop of our nets depends on a value: Paddle need not rewrite their code first,
        # and notes what runs.
        paddle.jit.not_to_static(type(network).forward)
        static = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
        paddle.jit.save(static, str(folder / stem))
        network.forward = static.forward.dygraph_function  # to_static replaced it in place
    (folder / f"{stem}.pdiparams.info").unlink(missing_ok=True)  # names for debuggers, not loaded
    model = ExportedModel.in_folder(folder, stem)
    make_reproducible(model.program)
    return model


class Predictor:
    """Runs an exported model. A damaged file may end the process in C++: whoever loads files that
    left this process checks their hash first (`podium.engine.runner`).

    Args:
        model: the files.
        int8: run quantised layers in int8; without it a quantised model is slower than float.
        threads: of the math library; default all cores. No effect on the result.
    """

    def __init__(
        self, model: ExportedModel, int8: bool = False, threads: int | None = None
    ) -> None:
        arithmetic = "int8" if int8 else "float32"
        with quiet():
            self._run = run_paddle(
                model.program, model.weights, arithmetic, threads or available_cores()
            )

    def run(self, batch: npt.NDArray[np.float32]) -> Outputs:
        """float32 (N, 3, H, W) -> float32 (N, ...) outputs, N >= 1."""
        return self._run(batch)

    def run_images(
        self, images: Images, preprocessing: Preprocessing, label: str, tta: Tta = "none"
    ) -> Outputs:
        """uint8 (N, H, W, 3) images -> float32 (N, ...) outputs, with a progress bar.

        Of several views the raw outputs are averaged, not the probabilities: what comes out is one
        row of outputs per image, as ever, so that ensembles, calibration and compressed models
        need not know of views. For logits that is the geometric mean of the probabilities; for
        views of one image through one net both means hardly differ.

        Args:
            images: of the preprocessing's size.
            preprocessing: what the net was trained with.
            label: what the progress bar says.
            tta: the views of each image, see `podium.data.views`.
        """
        starts = range(0, len(images), _BATCH)
        batches = track(starts, len(starts), label)

        def run_views(batch: RGB) -> Outputs:
            each = [self.run(preprocessing.apply(view)) for view in make_views(batch, tta)]
            mean: Outputs = each[0] if len(each) == 1 else np.mean(each, axis=0, dtype=np.float32)
            return mean

        return np.concatenate([run_views(images[start : start + _BATCH]) for start in batches])


def load_predictor(network: nn.Layer, image_size_px: int) -> Predictor:
    """A network in memory, ready to run, through a temporary export."""
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        return Predictor(export(network, image_size_px, Path(folder)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what C++ code prints to stdout and stderr; shown after all if an exception passes."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(saved[1], log.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
