"""A model's files as something that answers. This module ships: deploy/ holds a copy of it.

In: a folder with a card and the files that it lists, pixels. Out: outputs. The same code answers in
val, in `submission_compressed.csv`, in `podium predict` and on a machine that has no Podium: it
imports NumPy, what ships beside it, and the one runtime that the card names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.data.decode import RGB
from podium.data.preprocessing import Preprocessing
from podium.data.views import make_views, parse_tta
from podium.errors import PodiumError

CARD_FILE = "card.json"
CARD_FORMAT = 1
PADDLE, ONNX = "paddle.inference", "onnxruntime"

Outputs = npt.NDArray[np.float32]
Run = Callable[[npt.NDArray[Any]], Outputs]


def run_paddle(program: Path, weights: Path, arithmetic: str, threads: int) -> Run:
    """A Paddle program on oneDNN: float32 (N, 3, H, W) -> float32 (N, ...), N >= 1.

    A damaged file may end the process in C++: whoever loads files that left this process checks
    their hash first, as `Runner` does.

    Args:
        program, weights: the files.
        arithmetic: float32 | bf16 | int8. int8 runs quantised layers in int8: without it a
            quantised model is slower than a float one. bf16 needs a CPU that has it.
        threads: of the math library. No effect on the result.
    """
    from paddle import inference

    config = inference.Config(str(program), str(weights))
    config.disable_gpu()
    config.disable_glog_info()
    config.enable_mkldnn()
    if arithmetic == "int8":
        config.enable_mkldnn_int8()
    elif arithmetic == "bf16":
        config.enable_mkldnn_bfloat16()
    config.set_cpu_math_library_num_threads(threads)
    predictor = inference.create_predictor(config)
    inputs = predictor.get_input_handle(predictor.get_input_names()[0])
    outputs = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(batch: npt.NDArray[Any]) -> Outputs:
        inputs.reshape(batch.shape)
        inputs.copy_from_cpu(batch)
        predictor.run()
        values: Outputs = outputs.copy_to_cpu()
        return values

    return run


def run_onnx(model: Path | bytes, threads: int) -> Run:
    """An ONNX graph of one input on onnxruntime's CPU kernels: a batch -> float32 (N, ...)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, ["CPUExecutionProvider"]
    )
    given = session.get_inputs()[0]
    name, shape = given.name, given.shape  # of any length where it is no number

    def run(batch: npt.NDArray[Any]) -> Outputs:
        if any(isinstance(n, int) and n != m for n, m in zip(shape, batch.shape, strict=True)):
            raise PodiumError(
                f"the ONNX graph takes {shape}, got {list(batch.shape)}: {CARD_FILE} has the "
                "preprocessing of another model: run compress"
            )
        values: Outputs = session.run(None, {name: batch})[0]
        return values

    return run


def load_card(path: Path) -> dict[str, Any]:
    """The model card at `path`.

    Raises:
        PodiumError: missing, damaged, or of another format.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except ValueError as error:
        raise PodiumError(f"{path} is not a model card: {error}") from None
    if not isinstance(card, dict) or card.get("format") != CARD_FORMAT:
        raise PodiumError(f"{path}: expected a model card of format {CARD_FORMAT}: train again")
    return card


def _check_file(folder: Path, name: str, sha256: str) -> Path:
    """The file of that name in `folder`, if it is the one whose hash the card has."""
    path = folder / Path(name).name
    if not path.is_file():
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise PodiumError(f"{path} is not the file that {CARD_FILE} describes: run compress")
    return path


class Runner:
    """A deployed model, loaded. Only files that the card lists are, and only if they are its own.

    Args:
        folder: holds the card and the files.
        threads: of the runtime. No effect on the result.

    Raises:
        PodiumError: a file is missing or is not the one that the card describes; the card is
            damaged, or names a runtime that this is not.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.card = load_card(folder / CARD_FILE)
        try:
            self.preprocessing = Preprocessing.from_card(self.card["preprocessing"])
            # A card without views is of a model that was judged on plain images.
            self._tta = parse_tta(self.card.get("tta", "none"), str(folder / CARD_FILE))
            paths = [
                _check_file(folder, name, facts["sha256"])
                for name, facts in self.card["files"].items()
            ]
            self._run_pixels = self._load(paths, self.card["runtime"], threads)
            self._classes = len(self.card["classes"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise PodiumError(
                f"{folder / CARD_FILE} is damaged ({error!r}): run compress"
            ) from None

    def _load(self, paths: list[Path], runtime: dict[str, Any], threads: int) -> Run:
        """uint8 (N, S, S, 3) -> outputs, by the runtime that the card names."""
        if runtime["engine"] == PADDLE:
            run = run_paddle(paths[0], paths[1], runtime["arithmetic"], threads)
            return lambda images: run(self.preprocessing.apply(images))
        if runtime["engine"] == ONNX:
            return run_onnx(paths[0], threads)  # the graph begins with pixels
        raise PodiumError(
            f"{CARD_FILE}: expected engine {PADDLE} or {ONNX}, got {runtime['engine']!r}"
        )

    def run(self, images: RGB) -> Outputs:
        """uint8 (N, S, S, 3) of the card's size -> float32 (N, k): the mean over the card's views.

        Of several views the raw outputs are averaged, as `Predictor.run_images` does.

        Raises:
            PodiumError: the card's classes or size are not the model's. (Of another size than its own
                a Paddle program gives other answers without a word: only ONNX says its size.)
        """
        views = make_views(images, self._tta)
        each = [self.run_plain(view) for view in views]
        mean: Outputs = each[0] if len(each) == 1 else np.mean(each, axis=0, dtype=np.float32)
        return mean

    def run_plain(self, images: RGB) -> Outputs:
        """As `run`, of the images as they are."""
        outputs = self._run_pixels(np.ascontiguousarray(images))
        if outputs.shape[1] != self._classes:
            raise PodiumError(
                f"{CARD_FILE} has {self._classes} classes, but the model gives "
                f"{outputs.shape[1]} outputs: they are of different models: run compress"
            )
        return outputs
