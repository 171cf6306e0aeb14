"""Static int8 for ONNX: ranges from real images, quantised by onnxruntime, weights rounded here.

In: a float32 graph and calibration images. Out: the graph with QuantizeLinear/DequantizeLinear
pairs, weights int8 with a scale per output channel, activations uint8 with one per tensor.

onnxruntime's own calibrators go over the images once per method and hold every activation in Python
lists; one pass here keeps what is needed: ranges, and moments for `podium.slim.rounding`.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.engine.inference import INPUT_NAME
from podium.slim.rounding import Moments, make_moments, round_weights

BATCH = 8
# What is quantised; anything else stays float32.
OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "GlobalAveragePool", "AveragePool",
             "MaxPool", "Reshape", "Flatten", "Concat")  # fmt: skip
_WEIGHTED = ("Conv", "Gemm")
# Of each image so many places of a map are looked at: neighbours tell little more.
_PLACES = 16

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What the float net does on the calibration images.

    Attributes:
        ranges: tensor -> smallest and largest value.
        moments: name of a layer's weights -> moments of its inputs.
    """

    ranges: dict[str, tuple[float, float]]
    moments: dict[str, Moments]


def quantize(
    model: onnx.ModelProto, images: Images, preprocessing: Preprocessing
) -> onnx.ModelProto:
    """`model` (float32 `image` -> outputs, batch norms folded) in int8.

    Args:
        model: of `podium.slim.onnx_export.convert`.
        images: uint8 (N, S, S, 3), N >= 1.
        preprocessing: of the model.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.quantize import save_tensors_data
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):  # the order of sums, and so the last bits, follows threads
        calibration = calibrate(model, images, preprocessing)
        rounded = round_layers(model, calibration)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in sorted(calibration.ranges.items())
    }
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        cache, target = Path(folder) / "ranges.json", Path(folder) / "int8.onnx"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), cache)
        # It logs each channel whose scale it raises: dead ones, whose bias would not fit else.
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                rounded,
                target,
                None,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=cache,
            )
        finally:
            logging.disable(disabled)
        return lighten(onnx.load(target))


def lighten(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what onnxruntime makes again, to the same bits, when it loads the file: 5 % of it.

    Biases become float32: it gives them the scale of inputs times weights. Zero points of weights that
    are 0 go, which is what their absence means; those of a Gemm stay, since it is not fused without.
    """
    makers = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        weight = makers.get(node.input[1])
        bias = makers.get(node.input[2]) if len(node.input) > 2 else None
        if bias is not None and bias.op_type == "DequantizeLinear":
            levels, steps = (numpy_helper.to_array(constants[name]) for name in bias.input[:2])
            floats = (levels * steps.astype(np.float64)).astype(np.float32)
            name = f"{bias.input[0]}.float"
            model.graph.initializer.append(numpy_helper.from_array(floats, name))
            node.input[2] = name
        if (
            node.op_type == "Conv"
            and weight is not None
            and len(weight.input) == 3
            and not numpy_helper.to_array(constants[weight.input[2]]).any()
        ):
            del weight.input[2]
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    _keep(model.graph.node, lambda node: bool(used.intersection(node.output)))
    used = {name for node in model.graph.node for name in node.input}
    _keep(model.graph.initializer, lambda tensor: tensor.name in used)
    return model


def _keep(items: Any, is_kept: Callable[[Any], bool]) -> None:
    """Of a repeated field."""
    kept = [item for item in items if is_kept(item)]
    del items[:]
    items.extend(kept)


def calibrate(model: onnx.ModelProto, images: Images, preprocessing: Preprocessing) -> Calibration:
    """Run the net over the images, `BATCH` at a time: memory is one batch's activations."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    names = sorted({name for n in graph.node if n.op_type in OPERATORS for name in n.output})
    layers = _find_layers(model)
    del graph.output[:]
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    lows: dict[str, float] = {}
    highs: dict[str, float] = {}
    moments = {layer.weight: make_moments(layer.groups, layer.width) for layer in layers}
    for start in range(0, len(images), BATCH):
        batch = preprocessing.apply(np.asarray(images[start : start + BATCH]))
        seen = dict(zip(names, session.run(names, {INPUT_NAME: batch}), strict=True))
        seen[INPUT_NAME] = batch
        for name, values in seen.items():
            lows[name] = min(lows.get(name, np.inf), float(values.min()))
            highs[name] = max(highs.get(name, -np.inf), float(values.max()))
        for layer in layers:
            moments[layer.weight].add(*layer.take_patches(seen[layer.source]))
    # All that the preprocessing can make of a pixel, whatever the calibration images hold.
    ends = preprocessing.apply(np.array([0, 255], np.uint8).repeat(3).reshape(2, 1, 1, 3))
    lows[INPUT_NAME], highs[INPUT_NAME] = float(ends.min()), float(ends.max())
    return Calibration({name: (lows[name], highs[name]) for name in lows}, moments)


def round_layers(model: onnx.ModelProto, calibration: Calibration) -> onnx.ModelProto:
    """`model` with weights that int8 holds exactly, and biases that take back their mean error."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in rounded.graph.initializer}
    for layer in _find_layers(model):
        weight, bias = tensors[layer.weight], tensors[layer.bias]
        values = numpy_helper.to_array(weight)
        if layer.is_gemm:
            values = values.T
        fitted, shift = round_weights(values, calibration.moments[layer.weight])
        fitted = np.ascontiguousarray(fitted.T) if layer.is_gemm else fitted
        fixed = (numpy_helper.to_array(bias) - shift).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(fitted, weight.name))
        bias.CopyFrom(numpy_helper.from_array(fixed, bias.name))
    return rounded


@dataclass(frozen=True)
class _Layer:
    """A convolution, or a linear layer seen as one of a 1 x 1 map.

    Attributes:
        source, weight, bias: names of its tensors.
        groups: of the convolution.
        width: weights of one output.
        kernel, strides, pads: as ONNX has them; pads None: as many as "SAME" asks for.
        is_gemm: the weight is (inputs, outputs).
    """

    source: str
    weight: str
    bias: str
    groups: int
    width: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    is_gemm: bool

    def take_patches(self, values: Floats) -> tuple[Floats, npt.NDArray[np.float64]]:
        """(N, C, H, W) or (N, C) -> what some outputs are computed from, (groups, n, width), and
        the mean over all outputs, (groups, width): few places do for the one, not for the other."""
        if values.ndim == 2:
            values = values[:, :, None, None]
        top, left, bottom, right = self.pads or self._pads_to_same(values.shape)
        pads = ((0, 0), (0, 0), (top, bottom), (left, right))
        padded = np.pad(values, pads) if any(map(any, pads)) else values
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axis=(2, 3))
        windows = windows[:, :, :: self.strides[0], :: self.strides[1]]
        height, width = windows.shape[2:4]
        places = np.arange(0, height * width, max(1, height * width // _PLACES))
        taken = windows[:, :, places // width, places % width]  # (N, C, places, kh, kw)
        n, channels = taken.shape[:2]
        taken = taken.reshape(n, self.groups, channels // self.groups, len(places), -1)
        patches = taken.transpose(1, 0, 3, 2, 4)
        mean = np.array(
            [
                windows[..., row, column].mean(axis=(0, 2, 3), dtype=np.float64)
                for row in range(self.kernel[0])
                for column in range(self.kernel[1])
            ]
        )
        return (
            np.ascontiguousarray(patches).reshape(self.groups, n * len(places), self.width),
            mean.T.reshape(self.groups, self.width),
        )

    def _pads_to_same(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """ONNX's SAME_UPPER: an odd one goes below and to the right."""
        missing = [
            max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
            for size, stride, kernel in zip(shape[2:], self.strides, self.kernel, strict=True)
        ]
        top, left = (number // 2 for number in missing)
        return top, left, missing[0] - top, missing[1] - left


def _find_layers(model: onnx.ModelProto) -> list[_Layer]:
    """Layers whose weights and biases are constants of their own; others are rounded as they are."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    found = []
    for node in model.graph.node:
        own = node.input[1:3]
        if node.op_type not in _WEIGHTED or len(own) < 2 or any(n not in shapes for n in own):
            continue
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        shape = shapes[own[0]]
        is_dilated = any(step != 1 for step in given.get("dilations", ()))
        if any(uses[n] > 1 for n in own) or is_dilated or given.get("transB"):
            continue
        padding = given.get("auto_pad", b"NOTSET")
        if padding == b"SAME_LOWER":  # paddle2onnx makes none
            continue
        is_gemm = node.op_type == "Gemm"
        if not is_gemm and len(shape) != 4:
            continue
        found.append(
            _Layer(
                source=node.input[0],
                weight=own[0],
                bias=own[1],
                groups=1 if is_gemm else given.get("group", 1),
                width=shape[0] if is_gemm else math.prod(shape[1:]),
                kernel=(1, 1) if is_gemm else (shape[2], shape[3]),
                strides=tuple(given.get("strides", (1, 1))),
                pads=None if padding == b"SAME_UPPER" else tuple(given.get("pads", (0, 0, 0, 0))),
                is_gemm=is_gemm,
            )
        )
    return found
