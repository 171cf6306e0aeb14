"""ONNX files: a Paddle export as an ONNX graph that begins with pixels, to the same bytes each time.

In: a float32 Paddle export and its preprocessing. Out: one .onnx file, input `pixels`, uint8
(N, S, S, 3) RGB, output `outputs`, float32 (N, k). The preprocessing stands inside the graph, made
of the card's numbers, so that whoever runs the file cannot get it wrong; `podium.slim.parity` holds
it against `Preprocessing.apply`.

paddle2onnx's own constant folding stays off: polygraphy, which does it, would install packages with
pip at run time. onnxruntime folds, once, when the file is made.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from podium.data.preprocessing import Preprocessing
from podium.engine.inference import INPUT_NAME, ExportedModel, quiet
from podium.errors import PodiumError

PIXELS, OUTPUTS = "pixels", "outputs"
_OPSET = 17  # of all that are stable in both libraries the newest
_BATCH_DIM = "batch"


def convert(model: ExportedModel) -> onnx.ModelProto:
    """The same net in ONNX: float32 `image` (N, 3, S, S) -> `outputs`; batch norms are folded.

    Raises:
        PodiumError: the net has an operator that paddle2onnx does not know.
    """
    import onnxruntime
    import paddle2onnx

    try:
        with quiet():
            content = paddle2onnx.export(
                str(model.program),
                str(model.weights),
                save_file=None,
                opset_version=_OPSET,
                auto_upgrade_opset=False,
                optimize_tool="none",
            )
    except UnboundLocalError:  # it has printed what was wrong, and goes on without a result
        content = None
    if not content:
        raise PodiumError("paddle2onnx cannot convert this net: take onnx out of compress.formats")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="podium-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath)
    return _tidy(graph)


def write_onnx(model: onnx.ModelProto, preprocessing: Preprocessing, path: Path) -> None:
    """Put the preprocessing before `image`, and write the file.

    Its arithmetic is that of `Preprocessing.apply`, operator by operator, so the bits are, too. Where
    an int8 net would make the same pixels of the result again, it begins with the pixels: a quarter
    of its time on one core.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    size = preprocessing.image_size_px
    planes = helper.make_node("Transpose", [PIXELS], ["planes"], "planes", perm=[0, 3, 1, 2])
    quantizer = _find_quantizer(graph)
    rest = [node for node in graph.node if node is not quantizer]
    del graph.input[:]
    if quantizer is not None and _makes_pixels_again(quantizer, graph, preprocessing):
        for node in rest:
            node.input[:] = ["planes" if n == quantizer.output[0] else n for n in node.input]
        nodes = [planes, *rest]
    else:
        nodes = [planes, *_make_scaling(graph, preprocessing), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.append(
        helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [_BATCH_DIM, size, size, 3])
    )
    write_graph(whole, path)


def _make_scaling(graph: onnx.GraphProto, preprocessing: Preprocessing) -> list[onnx.NodeProto]:
    """`planes`, uint8 -> `image`; its constants are put into the graph."""
    mean = np.asarray(preprocessing.mean, np.float32)
    scale = np.float32(1) / np.asarray(preprocessing.std, np.float32)
    for name, values in (("mean", mean), ("scale", scale)):
        # One number where one does: onnxruntime turns the planes back into pixels, and walks over
        # three numbers at a time.
        is_one = len(set(values.tolist())) == 1
        shaped = values[:1].reshape(()) if is_one else values.reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(shaped, name))
    return [
        helper.make_node("Cast", ["planes"], ["floats"], "floats", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean"], ["centred"], "centred"),
        helper.make_node("Mul", ["centred", "scale"], [INPUT_NAME], "scaled"),
    ]


def _find_quantizer(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """The node that makes uint8 of the net's input, if nothing else reads that."""
    readers = [node for node in graph.node if INPUT_NAME in node.input]
    return readers[0] if [node.op_type for node in readers] == ["QuantizeLinear"] else None


def _makes_pixels_again(
    quantizer: onnx.NodeProto, graph: onnx.GraphProto, preprocessing: Preprocessing
) -> bool:
    """Whether each of the 256 values of each channel comes out as it was before the preprocessing."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    step, zero = (numpy_helper.to_array(constants[name]) for name in quantizer.input[1:3])
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 1, 3)
    levels = np.rint(preprocessing.apply(pixels) / step) + zero
    return bool(np.array_equal(levels, pixels.transpose(0, 3, 1, 2)))


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Check it and write it: short names, initialisers in their order, no maker's notes."""
    del model.graph.value_info[:], model.metadata_props[:]
    _shorten_names(model.graph)
    ordered = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(ordered)
    model.producer_name, model.producer_version, model.doc_string = "podium", "", ""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def store_as_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights of two or more dimensions in bfloat16, half the bytes, each behind a Cast to float32.

    onnxruntime folds the casts when it loads the file: it computes in float32, as fast as before.
    Rounding is to the nearest, ties to even.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    casts = []
    for tensor in small.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        bits = numpy_helper.to_array(tensor).astype(np.float32).view(np.uint32).astype(np.uint64)
        halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        name = tensor.name
        tensor.CopyFrom(
            TensorProto(
                name=f"{name}.bf16",
                dims=tensor.dims,
                data_type=TensorProto.BFLOAT16,
                raw_data=halves.astype("<u2").tobytes(),
            )
        )
        casts.append(
            helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=TensorProto.FLOAT)
        )
    nodes = list(small.graph.node)
    del small.graph.node[:]
    small.graph.node.extend([*casts, *nodes])
    return small


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the tensors in the order of their makers; 2 % of an int8 file are long names."""
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        return name if name in kept else short.setdefault(name, f"t{len(short):04}")

    for node in graph.node:
        node.name = ""
        node.input[:] = map(rename, node.input)
        node.output[:] = map(rename, node.output)
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Names of our own for what a caller sees, and one for the size of the batch."""
    graph = model.graph
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [OUTPUTS if name == old else name for name in node.output]
        node.input[:] = [OUTPUTS if name == old else name for name in node.input]
    graph.output[0].name = OUTPUTS
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH_DIM
    graph.name = "network"
    del graph.value_info[:]
    return model
