"""What is tried: every net in every precision and format, and how one such candidate is made.

In: a net's float32 export. Out: the files of a candidate, with the runtime that reads them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.engine.inference import ExportedModel
from podium.engine.runner import ONNX, PADDLE
from podium.errors import PodiumError
from podium.runtime import cpu_flags
from podium.slim.params import CompressParams
from podium.slim.parity import BF16_ROUNDING, ROUNDING
from podium.slim.quantization import check_calibration, quantize_static

FLOAT32, BF16, INT8, QAT = "float32", "bf16", "int8", "qat"
ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class Plan:
    """One candidate before it is made.

    Attributes:
        net: trained | pruned | student.
        precision: float32 | bf16 | int8 | qat; qat: int8 of a net that was trained for it.
        format: paddle | onnx.
    """

    net: str
    precision: str
    format: str

    @property
    def name(self) -> str:
        """What tables and files call it, as `trained-int8-onnx`."""
        return f"{self.net}-{self.precision}-{self.format}"

    @property
    def is_int8(self) -> bool:
        """Whether its files hold int8."""
        return self.precision in (INT8, QAT)

    @property
    def parity_tolerance(self) -> float | None:
        """How far from the eager net it may answer; None: int8 is judged by its score alone."""
        return {FLOAT32: ROUNDING, BF16: BF16_ROUNDING}.get(self.precision)


# What every other is compared with: the trained net, as nearly everything here runs it.
REFERENCE = Plan("trained", FLOAT32, "paddle")


def make_plans(params: CompressParams) -> list[Plan]:
    """All that params ask for, and what those are judged by, whether asked for or not: the reference
    first, and before any qat the same net's float32 and int8, which say whether it is needed."""
    plans = [REFERENCE]
    for net in params.nets:
        precisions: list[str] = [name for name in params.precisions if name != QAT]
        if QAT in params.precisions:
            plans.append(float32_of(net))
            precisions += [QAT] if INT8 in precisions else [INT8, QAT]
        plans += [Plan(net, name, format_) for name in precisions for format_ in params.formats]
    return list(dict.fromkeys(plans))


def is_asked(plan: Plan, params: CompressParams) -> bool:
    """Whether it may ship. qat asks for int8 as well: where that loses little, it is what is left."""
    return (
        plan.net in params.nets
        and (
            plan.precision in params.precisions
            or (plan.precision == INT8 and QAT in params.precisions)
        )
        and plan.format in params.formats
    )


def float32_of(net: str) -> Plan:
    """What int8 of that net is compared with, to see what int8 itself costs."""
    return Plan(net, FLOAT32, REFERENCE.format)


def make_files(
    plan: Plan,
    float32: ExportedModel,
    calibration: Images,
    preprocessing: Preprocessing,
    folder: Path,
) -> dict[str, Any]:
    """Write a candidate's files to `folder`, which is empty.

    Returns:
        the card's `runtime`: engine, arithmetic, and in what the weights are stored.

    Raises:
        PodiumError: it cannot be made, and why.
    """
    if plan.is_int8:
        check_calibration(len(calibration))
    if plan.format == "onnx":
        return _make_onnx(plan, float32, calibration, preprocessing, folder)
    if plan.is_int8:
        quantize_static(float32, calibration, preprocessing, folder)
        return {"engine": PADDLE, "arithmetic": INT8, "stored": INT8}
    if plan.precision == BF16 and "avx512_bf16" not in cpu_flags():
        raise PodiumError("this CPU has no bf16 arithmetic (avx512_bf16), which Paddle needs")
    for path in (float32.program, float32.weights):
        shutil.copyfile(path, folder / path.name)
    return {"engine": PADDLE, "arithmetic": plan.precision, "stored": FLOAT32}


def _make_onnx(
    plan: Plan,
    float32: ExportedModel,
    calibration: Images,
    preprocessing: Preprocessing,
    folder: Path,
) -> dict[str, Any]:
    from podium.slim import onnx_export, onnx_quantization

    graph = onnx_export.convert(float32)
    if plan.is_int8:
        graph = onnx_quantization.quantize(graph, calibration, preprocessing)
    elif plan.precision == BF16:
        graph = onnx_export.store_as_bf16(graph)
    onnx_export.write_onnx(graph, preprocessing, folder / ONNX_FILE)
    if plan.is_int8:
        return {"engine": ONNX, "arithmetic": INT8, "stored": INT8}
    return {"engine": ONNX, "arithmetic": FLOAT32, "stored": plan.precision}
