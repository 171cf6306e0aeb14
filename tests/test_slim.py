"""Compression: int8 candidates, the choice, what ships, and the size rule."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle.static.quantization import PostTrainingQuantization
from PIL import Image
from pydantic import ValidationError

from podium.commands.predict import predict
from podium.data.decode import decode
from podium.data.preprocessing import Preprocessing
from podium.data.rules import BYTES_PER_MB
from podium.data.views import Tta
from podium.engine.inference import ExportedModel, Predictor, export
from podium.engine.runner import Runner, run_onnx
from podium.engine.weights import load_network, load_state, read_state, write_model
from podium.errors import PodiumError
from podium.models.networks import Network, build_network, make_preprocessing
from podium.slim import compression, nets, onnx_export, onnx_quantization
from podium.slim.arithmetic import count_parameters
from podium.slim.calibration import HIST_PERCENT, OnePassQuantization, Tail
from podium.slim.candidates import REFERENCE, Plan, is_asked, make_files, make_plans
from podium.slim.compression import Compressed, Judge, Workbench, compress, find_needless
from podium.slim.deploy_folder import write_deploy_card
from podium.slim.deployment import Deployment
from podium.slim.measurement import MachineError, Measurement, measure
from podium.slim.nets import Maker
from podium.slim.onnx_export import write_onnx
from podium.slim.params import CompressParams
from podium.slim.parent import Parent, Variant
from podium.slim.parity import check_parity, make_parity_images, run_eagerly
from podium.slim.quantization import quantize_static
from podium.slim.rounding import make_moments, round_weights
from podium.slim.selection import Choice, Entrant, choose
from podium.slim.thumbnail import judge_thumbnails
from podium.tasks.classification.data import ClassificationData
from podium.tasks.evidence import Evidence
from tests.small_parents import NETS, make_parent

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64
TASK = ClassificationData(("dark", "mid", "bright"), ordinal=False)
LESSON = "hash of all that a parent teaches with"


def make_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 3
    noise = rng.integers(-30, 30, (n, SIZE, SIZE, 3))
    return (np.array([60, 128, 196])[targets][:, None, None, None] + noise).astype(
        np.uint8
    ), targets


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Network, Preprocessing, dict[str, Any]]:
    """A pretrained trunk with a head fitted to brightness: a net with real activations."""
    network = build_network("efficientnet_lite0", True, 3, 0.0)
    network.eval()
    preprocessing = make_preprocessing("efficientnet_lite0", SIZE)
    images, targets = make_images(30)
    with paddle.no_grad():
        features = np.array(network.trunk(paddle.to_tensor(preprocessing.apply(images))))
    centred = features - features.mean(0)
    solution = np.linalg.lstsq(centred, 6 * (np.eye(3)[targets] - 1 / 3), rcond=None)[0]
    network.head[1].weight.set_value(paddle.to_tensor(solution.astype(np.float32)))
    bias = -(features.mean(0) @ solution)
    network.head[1].bias.set_value(paddle.to_tensor(bias.astype(np.float32)))
    folder = tmp_path_factory.mktemp("models")
    card = {
        "task": "classification",
        "classes": list(TASK.classes),
        "architecture": {"name": "efficientnet_lite0", "outputs": 3, "dropout": 0.0},
        "preprocessing": preprocessing.to_card(),
    }
    write_model(folder, read_state(network), card)
    return load_network(folder)


@dataclass(frozen=True)
class Runs:
    """Two compressions that share a store: of everything, and of Paddle's int8 alone."""

    home: Path
    onnx: Path
    every: Compressed
    paddle: Path
    alone: Compressed


def load_nothing() -> Parent:
    raise AssertionError("the trained net needs no training images")


def make_judge(tta: Tta = "none") -> Judge:
    images, targets = make_images(60)
    groups = [str(i) for i in range(30)]
    return Judge(
        images=images[30:],
        predict=TASK.predictions,
        metrics=lambda p: TASK.metrics(p, targets[30:], groups, 0),
        score=TASK.score,
        metric=TASK.primary,
        evidence=Evidence(targets[30:], groups, np.zeros(30, np.int64), 100, 0),
        tta=tta,
    )


def make_params(**changes: Any) -> CompressParams:
    select = {"max_mb": None, "max_mflops": None, "max_drop": 0.1, "max_ms": None}
    given = {
        "nets": ["trained"],
        "precisions": ["float32", "int8"],
        "formats": ["paddle", "onnx"],
        "calibration_images": 16,
        "select": {**select, "prefer": "bytes", **changes.pop("select", {})},
        **NETS,
    }
    return CompressParams.model_validate({**given, **changes})


@pytest.fixture(scope="module")
def runs(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    network, preprocessing, card = trained
    images, _ = make_images(16)
    home = tmp_path_factory.mktemp("out")
    onnx, paddle_ = home / "onnx", home / "paddle"
    with contextlib.chdir(home):  # the store stands in the checkout that one works in
        every = compress(
            Maker(network, load_nothing, LESSON, make_params()),
            preprocessing,
            card,
            images,
            make_judge(),
            onnx,
            None,
        )
        params = make_params(precisions=["int8"], formats=["paddle"])
        with pytest.MonkeyPatch.context() as patch:  # all is in the store: nothing is measured
            patch.setattr(compression, "measure", None)
            alone = compress(
                Maker(network, load_nothing, LESSON, params),
                preprocessing,
                card,
                images,
                make_judge(),
                paddle_,
                None,
            )
    return Runs(home, onnx, every, paddle_, alone)


@pytest.fixture(params=["onnx", "paddle"])
def deployed(runs: Runs, request: pytest.FixtureRequest) -> tuple[Path, Compressed]:
    found = {"onnx": (runs.onnx, runs.every), "paddle": (runs.paddle, runs.alone)}
    return found[request.param]


def test_every_candidate_is_a_row(runs: Runs) -> None:
    assert runs.every.missing == {}
    assert list(runs.every.rows) == list(runs.every.clocks)
    assert set(runs.every.rows) == {
        f"trained-{precision}-{format_}"
        for precision in ("float32", "int8")
        for format_ in ("paddle", "onnx")
    }
    assert list(runs.alone.rows) == ["trained-float32-paddle", "trained-int8-paddle"]


def test_int8_ships_and_is_small(runs: Runs) -> None:
    rows = runs.every.rows
    assert runs.every.shipped == "trained-int8-onnx"
    assert runs.alone.shipped == "trained-int8-paddle"
    assert rows["trained-float32-paddle"]["bytes"] > 3.2 * rows["trained-int8-paddle"]["bytes"]
    assert rows["trained-float32-paddle"]["bytes"] > 3.5 * rows["trained-int8-onnx"]["bytes"]


def test_what_is_counted_is_what_is_there(deployed: tuple[Path, Compressed]) -> None:
    folder, result = deployed
    row = result.rows[result.shipped]
    on_disk = sum(path.stat().st_size for path in folder.glob("model.*"))
    assert on_disk == row["bytes"] == Deployment(folder).size_bytes()
    assert row["transfer_bytes"] < row["bytes"]
    network = build_network("efficientnet_lite0", False, 3, 0)
    assert row["parameters"] == sum(values.size for values in read_state(network).values())
    # 397.8 MFLOPs of the paper's 1000 classes at 224 px, here 64 px and 3 classes.
    assert row["mflops"] == pytest.approx(2 * 390 * (64 / 224) ** 2, rel=0.05)
    reference = result.rows["trained-float32-paddle"]
    assert (reference["changed"], reference["drop"], reference["p_value"]) == (0, 0, 1)
    assert result.clocks[result.shipped]["threads"] == 1
    assert result.clocks[result.shipped]["latency_p50_ms"] > 0


def test_weights_are_stored_in_eight_bits(deployed: tuple[Path, Compressed]) -> None:
    """An "int8" file that holds float32 is four times as large as its parameter count."""
    parameters = deployed[1].rows[deployed[1].shipped]["parameters"]
    assert Deployment(deployed[0]).size_bytes() < 1.3 * parameters


def test_what_was_judged_is_what_ships(deployed: tuple[Path, Compressed]) -> None:
    folder, result = deployed
    images, targets = make_images(60)
    deployment = Deployment(folder)
    probabilities = TASK.predictions(deployment.run_images(images[30:], "again"))
    accuracy = float((probabilities.argmax(1) == targets[30:]).mean())
    assert accuracy == pytest.approx(result.rows[result.shipped]["accuracy"], abs=1e-6)
    assert accuracy > 0.9
    assert deployment.card["measured"] == result.rows[result.shipped]
    assert deployment.classes == TASK.classes


@pytest.mark.parametrize("package", ["paddle", "onnx"])
def test_predict_py_answers_without_podium(
    runs: Runs, package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process where Podium and all that predict.py does not need cannot be imported."""
    folder = {"onnx": runs.onnx, "paddle": runs.paddle}[package]
    images, _ = make_images(3)
    paths = [tmp_path / f"{name}.png" for name in TASK.classes]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    alone = tmp_path / "elsewhere"
    shutil.copytree(folder, alone)
    blocked = ["podium", "onnx", "paddle2onnx", "paddleslim", "pandas", "sklearn", "cv2", "dvc"]
    blocked += ["onnxruntime", "scipy"] if package == "paddle" else ["paddle", "scipy"]
    if package == "paddle":
        blocked.remove("scipy")  # Paddle's own
    code = (
        "import sys, runpy\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}: raise ImportError('blocked: ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"sys.argv = {[str(alone / 'predict.py'), *map(str, paths)]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    predict(paths, folder)
    assert done.stdout == capsys.readouterr().out
    assert [line.split()[1] for line in done.stdout.splitlines()] == list(TASK.classes)


def test_predict_py_names_what_it_cannot_read(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-I", str(runs.onnx / "predict.py"), str(tmp_path / "empty.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("empty.png: the file is empty (0 bytes)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ["dark", "mid"]}, "card.json has 2 classes, but the model gives 3 outputs"),
        ({"classes": list("abcd")}, "card.json has 4 classes, but the model gives 3 outputs"),
        (
            {"preprocessing": {"image_size_px": 32}},
            "the ONNX graph takes ['batch', 64, 64, 3], got [1, 32, 32, 3]",
        ),
    ],
)
def test_predict_py_refuses_a_card_of_another_model(
    change: dict[str, Any], said: str, runs: Runs, tmp_path: Path
) -> None:
    shutil.copytree(runs.onnx, tmp_path / "deploy")
    path = tmp_path / "deploy/card.json"
    card = json.loads(path.read_text())
    change = {k: {**card[k], **v} if isinstance(v, dict) else v for k, v in change.items()}
    path.write_text(json.dumps({**card, **change}))
    Image.fromarray(make_images(1)[0][0]).save(tmp_path / "a.png")
    done = run_predict_py(tmp_path / "deploy", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")


def test_predict_py_says_how_it_is_called(runs: Runs) -> None:
    done = run_predict_py(runs.onnx)
    assert (done.returncode, done.stderr) == (2, "usage: python predict.py IMAGE...\n")


@pytest.mark.parametrize(("module", "package"), [("onnxruntime",) * 2, ("PIL", "pillow")])
def test_predict_py_says_what_to_install(runs: Runs, module: str, package: str) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.modules[{module!r}] = None\n"
        f"sys.argv = {[str(runs.onnx / 'predict.py'), 'a.png']!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {module} is not installed: pip install {package}\n"


def run_predict_py(folder: Path, *images: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(folder / "predict.py"), *images],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_that_ships_is_the_code_that_trained(runs: Runs) -> None:
    for name in ("decode", "jpeg", "preprocessing", "views"):
        ours = (ROOT / f"src/podium/data/{name}.py").read_text(encoding="utf-8").splitlines()
        theirs = (runs.onnx / f"shipped/{name}.py").read_text(encoding="utf-8").splitlines()
        differing = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
        assert all(line.startswith("from podium.") for line, _ in differing)


# --- the gate: what ships answers as the net in memory


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LITE = ((127.0,) * 3, (128.0,) * 3)


def write_graph_of(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], pre: Preprocessing, path: Path
) -> None:
    """`image` -> `outputs` by `nodes`, behind the preprocessing."""
    size = pre.image_size_px
    outputs = onnx.helper.make_tensor_value_info("outputs", 1, ["batch", 3, size, size])
    graph = onnx.helper.make_graph(nodes, "network", [], [outputs], constants)
    opset = onnx.helper.make_opsetid("", 17)
    write_onnx(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), pre, path)


@pytest.mark.parametrize("size_px", [16, 63, 128])
@pytest.mark.parametrize(("mean", "std"), [IMAGENET, LITE])
def test_the_graph_begins_with_our_preprocessing(
    size_px: int, mean: Any, std: Any, tmp_path: Path
) -> None:
    """Bit by bit: a graph of nothing but the preprocessing."""
    preprocessing = Preprocessing(size_px, mean, std)
    nothing = [onnx.helper.make_node("Identity", ["image"], ["outputs"])]
    write_graph_of(nothing, [], preprocessing, tmp_path / "nothing.onnx")
    pixels = make_parity_images(size_px)
    outputs = run_onnx(tmp_path / "nothing.onnx", 1)(pixels)
    assert outputs.tobytes() == preprocessing.apply(pixels).tobytes()


@pytest.mark.parametrize(
    ("mean", "std", "zero", "begins_with_pixels"),
    [(*LITE, 127, True), (*LITE, 126, False), (*IMAGENET, 127, False)],
)
def test_an_int8_graph_does_not_make_the_same_pixels_again(
    mean: Any, std: Any, zero: int, begins_with_pixels: bool, tmp_path: Path
) -> None:
    """And where they would be others, it makes those."""
    preprocessing = Preprocessing(16, mean, std)
    step = np.float32(1 / 128)
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["levels"]),
        onnx.helper.make_node("DequantizeLinear", ["levels", "step", "zero"], ["outputs"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(step, "step"),
        onnx.numpy_helper.from_array(np.uint8(zero), "zero"),
    ]
    path = tmp_path / "int8.onnx"
    write_graph_of(nodes, constants, preprocessing, path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert (operators == ["Transpose", "DequantizeLinear"]) == begins_with_pixels
    pixels = make_parity_images(16)
    levels = (np.rint(preprocessing.apply(pixels) / step) + zero).clip(0, 255)
    assert np.array_equal(run_onnx(path, 1)(pixels), (levels - zero) * step)


@pytest.mark.parametrize("format_", ["paddle", "onnx"])
def test_a_fault_in_the_preprocessing_does_not_pass(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path: Path, format_: str
) -> None:
    network, right, card = trained
    float32 = export(network, SIZE, tmp_path)
    pixels = make_parity_images(SIZE)
    eager = run_eagerly(network, pixels, right)

    def deploy(preprocessing: Preprocessing, name: str) -> Runner:
        folder = tmp_path / name
        folder.mkdir()
        plan = Plan("trained", "float32", format_)
        runtime = make_files(plan, float32, make_images(0)[0], preprocessing, folder)
        made = {**card, "preprocessing": preprocessing.to_card()}
        write_deploy_card(folder, made, "none", runtime)
        return Runner(folder)

    good, wrong_mean = deploy(right, "good"), deploy(replace(right, mean=(124.0,) * 3), "mean")
    assert check_parity(good.run_plain(pixels), eager) < 1e-4
    for faulty in (wrong_mean.run_plain(pixels), good.run_plain(pixels[..., ::-1])):
        with pytest.raises(PodiumError, match="parity: on 8 fixed images the files differ"):
            check_parity(faulty, eager)


def test_a_failed_candidate_is_a_row_with_its_reason(
    runs: Runs,
    trained: tuple[Network, Preprocessing, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    network, preprocessing, card = trained

    def break_down(*_: object) -> None:
        raise ValueError("a converter's bug\nin two lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_export, "convert", break_down)

    def refuse() -> Parent:
        raise PodiumError("no images to learn from")

    params = make_params(precisions=["float32"], nets=["trained", "student"])
    result = compress(
        Maker(network, refuse, LESSON, params),
        preprocessing,
        card,
        make_images(16)[0],
        make_judge(),
        tmp_path / "out",
        None,
    )
    assert result.missing == {
        "trained-float32-onnx": "failed: ValueError: in two lines",
        "student-float32-paddle": "failed: no images to learn from",
        "student-float32-onnx": "failed: no images to learn from",
    }
    assert result.shipped == "trained-float32-paddle"
    with pytest.raises(PodiumError, match="3 training images are too few to calibrate int8 on"):
        make_files(
            Plan("trained", "int8", "onnx"),
            ExportedModel.in_folder(tmp_path),
            make_images(3)[0],
            preprocessing,
            tmp_path,
        )


class Work:
    """In place of all that takes time: nets, exports, files and measurements. It notes what is made.

    Attributes:
        made: names of what was made, in order.
        spoil: changes a candidate's outputs (30, 3), or fails.
        says: precision -> what its files say on the fixed images; the net in memory says 1.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.made: list[str] = []
        self.spoil: Callable[[Plan, np.ndarray], None] = lambda plan, outputs: None
        self.says: dict[str, float] = {}
        self._plan = REFERENCE
        monkeypatch.chdir(folder)  # where the store stands
        for name in ("make_variant", "restore_variant", "teach_int8"):
            monkeypatch.setattr(nets, name, getattr(self, name))
        for name in ("export", "run_eagerly", "make_files", "measure"):
            monkeypatch.setattr(compression, name, getattr(self, name))
        monkeypatch.setattr(compression, "count_parameters", lambda network: 6)
        monkeypatch.setattr(compression, "count_macs", lambda network, size: 4)

    def make_variant(self, name: str, *_: Any) -> Variant:
        self.made.append(name)
        return Variant(name, paddle.nn.Linear(2, 2), {"method": "none"})

    def restore_variant(self, _: str, __: Parent, ___: Any, state: Any) -> paddle.nn.Layer:
        network = paddle.nn.Linear(2, 2)
        load_state(network, state)
        return network

    def teach_int8(self, _: Parent, network: Network, *__: Any) -> Network:
        self.made.append("taught")
        return network

    def export(self, _: Network, __: int, folder: Path) -> None:
        (folder / "model.pdmodel").write_bytes(b"program")

    def run_eagerly(self, *_: Any) -> np.ndarray:
        return np.ones((8, 3), np.float32)

    def make_files(self, plan: Plan, *arguments: Any) -> dict[str, Any]:
        self.made.append(plan.precision)
        self._plan = plan
        (arguments[-1] / "model.weights").write_bytes(bytes(20_000))
        return {"arithmetic": plan.precision, "stored": plan.precision}

    def measure(self, *_: Any) -> Measurement:
        self.made.append("measured")
        outputs = 5 * np.eye(3, dtype=np.float32)[np.arange(30) % 3]
        self.spoil(self._plan, outputs)
        parity = np.full((8, 3), self.says.get(self._plan.precision, 1.0), np.float32)
        return Measurement(outputs, parity, {"latency_p50_ms": 1.0})

    def arrange(
        self, *, tta: Tta = "none", calibration: int = 8, lesson: str = LESSON, **given: Any
    ) -> tuple[Any, ...]:
        """What both a workbench and `compress` begin with."""
        params = make_params(calibration_images=max(8, calibration), **given)
        return (
            Maker(paddle.nn.Linear(2, 2), make_nothing, lesson, params),
            make_preprocessing("efficientnet_lite0", SIZE),
            {"weights": {"sha256": "0"}, "architecture": {}, "classes": list(TASK.classes)},
            make_images(calibration)[0],
            make_judge(tta),
        )

    def compress(self, max_model_mb: float | None = None, **given: Any) -> Compressed:
        """Into deploy/."""
        return compress(*self.arrange(**given), Path("deploy"), max_model_mb)


def make_nothing() -> Any:
    """A parent that nobody asks anything."""


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Work:
    return Work(monkeypatch, tmp_path)


def test_outputs_that_are_no_numbers_spoil_their_own_row(work: Work) -> None:
    def spoil(plan: Plan, outputs: np.ndarray) -> None:
        if plan.format == "onnx":
            outputs[1:3] = np.nan

    work.spoil = spoil
    result = work.compress(precisions=["float32"], select={"prefer": "score"})
    reason = "failed: its outputs are not finite, for 2 of 30 val images"
    assert result.missing == {"trained-float32-onnx": reason}
    assert result.shipped == "trained-float32-paddle"
    json.dumps(result.rows, allow_nan=False)


@pytest.mark.parametrize(
    ("precision", "says", "passes"),
    [("bf16", 1.02, True), ("bf16", 1.3, False), ("int8", 1.3, True)],
)
def test_the_gate_is_as_wide_as_the_rounding(
    precision: str, says: float, passes: bool, work: Work
) -> None:
    work.says = {precision: says}
    result = work.compress(precisions=[precision], formats=["paddle"])
    name = f"trained-{precision}-paddle"
    assert (name in result.rows) == passes
    if not passes:
        assert "files differ from the net in memory by 3.0e-01" in result.missing[name]
    elif precision == "bf16":
        assert result.rows[name]["parity"] == 0.02


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (MachineError("No space left for what was measured"), True),
        (OSError("External error in a library"), False),
        (MemoryError("ResourceExhausted"), False),
    ],
)
def test_a_full_disk_ends_the_stage_and_a_librarys_error_a_row(
    error: Exception, ends: bool, work: Work
) -> None:
    def spoil(plan: Plan, _: np.ndarray) -> None:
        if plan.format == "onnx":
            raise error

    work.spoil = spoil
    if ends:
        with pytest.raises((OSError, MachineError), match="No space left"):
            work.compress(precisions=["float32"])
    else:
        missing = work.compress(precisions=["float32"]).missing
        assert list(missing) == ["trained-float32-onnx"]
        assert str(error) in missing["trained-float32-onnx"]


@pytest.mark.parametrize(
    ("code", "words", "kind", "said"),
    [
        (-signal.SIGKILL, "", MachineError, "files was killed, as for want of memory: run again"),
        (3, "no space left on the disk", MachineError, "no space left on the disk"),
        (-signal.SIGSEGV, "", PodiumError, "its process failed: exit code -11"),
        (1, "a\nRuntimeError: b", PodiumError, "its process failed: RuntimeError: b"),
    ],
)
def test_what_ends_a_measurement_is_the_machines_or_the_models(
    code: int,
    words: str,
    kind: type[PodiumError],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = subprocess.CompletedProcess([], code, "", words)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(PodiumError) as caught:
        measure(Path("files"), Path("i"), Path("p"), tmp_path)
    assert type(caught.value) is kind
    assert str(caught.value).endswith(said)


def test_where_none_may_ship_the_rows_say_by_how_much(work: Work) -> None:
    result = work.compress(max_model_mb=0.01, select={"max_mb": 6}, precisions=["float32"])
    assert result.shipped is None
    assert "0.020 MB, competition.rules.max_model_mb is 0.01: loosen that" in result.reason
    assert list(result.rows) == ["trained-float32-paddle", "trained-float32-onnx"]
    assert not Path("deploy").exists()


def test_rows_say_in_what_weights_are_stored_and_how_near_the_net_in_memory_is(
    runs: Runs,
) -> None:
    rows = runs.every.rows
    assert all(row["stored"] == row["arithmetic"] for row in rows.values())
    near = {name: row["parity"] for name, row in rows.items() if "parity" in row}
    assert list(near) == ["trained-float32-paddle", "trained-float32-onnx"]
    assert all(0 < parity < 1e-4 for parity in near.values())


@pytest.mark.parametrize(
    ("drops", "needed"),
    [
        ({"trained-int8-onnx": 0.02, "trained-float32-paddle": 0.0}, True),
        ({"trained-int8-onnx": 0.01, "trained-float32-paddle": 0.0}, False),
        ({"trained-float32-paddle": 0.0}, True),
        ({"student-int8-onnx": 0.06, "student-float32-paddle": 0.055}, False),  # not int8's fault
        ({"student-int8-onnx": 0.0, "student-float32-paddle": -0.05}, True),
    ],
)
def test_a_net_learns_int8_only_where_int8_loses(drops: dict[str, float], needed: bool) -> None:
    rows = {name: {"drop": drop} for name, drop in drops.items()}
    net = next(iter(drops)).split("-")[0]
    assert (find_needless(Plan(net, "qat", "onnx"), rows, 0.01) == "") == needed
    assert find_needless(Plan(net, "int8", "onnx"), rows, 0.01) == ""


@pytest.mark.parametrize("precisions", [["qat"], ["float32", "qat", "int8"], ["qat", "float32"]])
def test_what_says_whether_to_learn_int8_comes_first(precisions: list[str]) -> None:
    params = make_params(precisions=precisions, nets=["student"], formats=["onnx"])
    names = [plan.name for plan in make_plans(params)]
    assert len(set(names)) == len(names)
    assert names[0] == "trained-float32-paddle"
    before = names[: names.index("student-qat-onnx")]
    assert {"student-float32-paddle", "student-int8-onnx"} <= set(before)
    may_ship = {plan.name for plan in make_plans(params) if is_asked(plan, params)}
    assert may_ship - {"student-float32-onnx"} == {"student-int8-onnx", "student-qat-onnx"}
    plain = make_params(precisions=["float32"], nets=["student"], formats=["onnx"])
    assert len(make_plans(plain)) == 2


def test_smaller_and_hardier_nets_come_from_their_makers() -> None:
    parent = make_parent()
    maker = Maker(parent.network, lambda: parent, LESSON, make_params())
    assert maker.make("trained").network is parent.network
    hardy = maker.teach_int8(maker.restore("trained", {}))
    before, after = read_state(parent.network), read_state(hardy)
    assert list(before) == list(after)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    student = maker.make("student")
    assert count_parameters(student.network) < count_parameters(parent.network)
    assert student.made_by


# --- the store: each part hangs on what it is made of


def test_only_what_a_param_decides_is_made_again(work: Work) -> None:
    turn = iter(range(99))

    def make(precision: str, **given: Any) -> list[str]:
        folder = Path(f"work{next(turn)}")
        folder.mkdir()
        work.made.clear()
        bench = Workbench(*work.arrange(nets=["student"], **given), folder)
        bench.make(Plan("student", precision, "paddle"))
        return work.made

    assert make("float32") == ["student", "float32", "measured"]
    assert make("qat") == ["taught", "qat", "measured"]  # goes on from the student in the store
    assert make("qat") == []
    assert make("qat", prune={**NETS["prune"], "ratio": 0.5}) == []
    assert make("float32", qat={"passes": 2}, calibration=9) == []
    assert make("float32", tta="horizontal") == ["measured"]
    assert make("qat", calibration=9) == ["taught", "qat", "measured"]
    assert make("qat", qat={"passes": 2}) == ["taught", "qat", "measured"]
    longer = {**NETS["student"], "passes": 2}
    assert make("float32", student=longer) == ["student", "float32", "measured"]
    assert make("float32", lesson="other images") == ["student", "float32", "measured"]


def test_a_net_that_cannot_be_made_is_tried_once(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(name: str, *_: Any) -> Variant:
        tries.append(name)
        raise PodiumError("no layer can go")

    monkeypatch.setattr(nets, "make_variant", refuse)
    result = work.compress(nets=["student"], precisions=["float32", "qat"])
    assert tries == ["student"]
    assert set(result.missing.values()) == {"failed: no layer can go"}
    assert len(result.missing) == 6
    assert result.reason == "none of the candidates that compress asks for could be made"


# --- int8


@pytest.mark.parametrize(("groups", "outputs", "width"), [(1, 8, 27), (6, 1, 9), (2, 3, 4)])
def test_rounded_weights_are_on_the_grid_and_answer_better(
    groups: int, outputs: int, width: int
) -> None:
    rng = np.random.default_rng(groups)
    weights = rng.normal(size=(groups * outputs, width)).astype(np.float32)
    mixing = rng.normal(size=(groups, width, width)) + 1
    patches = (rng.normal(size=(groups, 500, width)) @ mixing + 1).astype(np.float32)
    moments = make_moments(groups, width)
    for part in np.split(patches, [200, 400], axis=1):  # the last batch is half as large
        moments.add(part, part.mean(axis=1, dtype=np.float64))
    assert moments.mean == pytest.approx(patches.mean(axis=1, dtype=np.float64), rel=1e-9)
    rounded, shift = round_weights(weights, moments)
    step = np.abs(weights).max(1, keepdims=True) / 127
    assert rounded / step == pytest.approx(np.round(rounded / step), abs=1e-3)
    assert np.abs(rounded).max(1, keepdims=True) == pytest.approx(np.abs(weights).max(1)[:, None])

    def error(values: np.ndarray, offset: np.ndarray | float) -> float:
        difference = (values - weights).reshape(groups, outputs, width)
        answers = np.einsum("gow,gnw->gno", difference, patches).transpose(1, 0, 2)
        return float(np.square(answers.reshape(len(answers), -1) - offset).mean())

    nearest = np.round(weights / step) * step
    assert error(rounded, shift) < 0.7 * error(nearest, 0)


def test_onnx_files_are_the_same_bytes_each_time(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path: Path
) -> None:
    """Here and in a process with a fixed hash seed: names must not come out of sets."""
    network, preprocessing, _ = trained
    model = export(network, SIZE, tmp_path)
    images = make_images(8)[0]
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy, pathlib\n"
        "from podium.slim.candidates import *\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "out = folder / 'there'\n"
        "out.mkdir()\n"
        f"pre = Preprocessing.from_card({preprocessing.to_card()!r})\n"
        "make_files(Plan('trained', 'int8', 'onnx'), ExportedModel.in_folder(folder),\n"
        "           numpy.load(folder / 'images.npy'), pre, out)\n"
        "assert 'polygraphy' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT / "src")},
        check=True,
        capture_output=True,
    )
    sizes = {}
    for precision in ("float32", "bf16", "int8"):
        here = tmp_path / precision
        here.mkdir()
        make_files(Plan("trained", precision, "onnx"), model, images, preprocessing, here)
        sizes[precision] = (here / "model.onnx").stat().st_size
    content = (tmp_path / "int8/model.onnx").read_bytes()
    assert content == (tmp_path / "there/model.onnx").read_bytes()
    assert str(ROOT).encode() not in content
    assert sizes["float32"] > 1.9 * sizes["bf16"] > 3.4 * sizes["int8"]
    inputs = make_images(40)[0]
    one, two = (run_onnx(tmp_path / "int8/model.onnx", threads) for threads in (1, 2))
    whole = one(inputs)
    assert np.array_equal(whole, two(inputs))
    assert np.array_equal(whole[:1], one(inputs[:1]))


def test_what_onnxruntime_makes_again_is_not_in_the_file(
    trained: tuple[Network, Preprocessing, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    network, preprocessing, _ = trained
    model = export(network, SIZE, tmp_path)
    images = make_images(16)[0]
    answers, sizes = [], []
    for name in ("light", "heavy"):
        if name == "heavy":
            monkeypatch.setattr(onnx_quantization, "lighten", lambda model: model)
        (tmp_path / name).mkdir()
        make_files(Plan("trained", "int8", "onnx"), model, images, preprocessing, tmp_path / name)
        path = tmp_path / name / "model.onnx"
        answers.append(run_onnx(path, 1)(images))
        sizes.append(path.stat().st_size)
    assert np.array_equal(*answers)
    assert sizes[0] < 0.95 * sizes[1]


def test_quantising_twice_gives_the_same_bytes(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path: Path
) -> None:
    network, preprocessing, _ = trained
    images, _ = make_images(16)
    (tmp_path / "float").mkdir()
    model = export(network, SIZE, tmp_path / "float")
    made = [quantize_static(model, images, preprocessing, tmp_path / name) for name in "ab"]
    assert made[0].program.read_bytes() == made[1].program.read_bytes()
    assert made[0].weights.read_bytes() == made[1].weights.read_bytes()
    assert str(ROOT).encode() not in made[0].program.read_bytes()
    one, two = (Predictor(made[0], int8=True, threads=n) for n in (1, 2))
    inputs = preprocessing.apply(images)
    assert np.array_equal(one.run(inputs), two.run(inputs))


def test_one_pass_gives_the_bytes_of_paddles_two(
    trained: tuple[Network, Preprocessing, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, preprocessing, _ = trained
    images, _ = make_images(24)
    (tmp_path / "float").mkdir()
    model = export(network, SIZE, tmp_path / "float")
    ours = quantize_static(model, images, preprocessing, tmp_path / "ours")
    methods = {name for name in vars(OnePassQuantization) if not name.startswith("__")}
    assert len(methods) == 3
    for name in methods:
        monkeypatch.delattr(OnePassQuantization, name)  # uncovers Paddle's
    paddles = quantize_static(model, images, preprocessing, tmp_path / "paddles")
    assert ours.program.read_bytes() == paddles.program.read_bytes()
    assert ours.weights.read_bytes() == paddles.weights.read_bytes()


def paddles_range(counts: np.ndarray, edges: np.ndarray) -> float:
    paddles = SimpleNamespace(_hist_percent=HIST_PERCENT)
    return PostTrainingQuantization._get_hist_scaling_factor(paddles, counts, edges)


@pytest.mark.parametrize("count", [1, 512, 9_999, 123_457])
@pytest.mark.parametrize("kind", ["normal", "long tail", "relu6", "constant", "zero"])
def test_the_tail_tells_the_range_of_the_whole(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    values = {
        "normal": rng.normal(size=count),
        "long tail": rng.standard_cauchy(size=count),
        "relu6": np.clip(rng.normal(3, 3, size=count), 0, 6),
        "constant": np.full(count, 0.3),
        "zero": np.zeros(count),
    }[kind]
    magnitudes = np.abs(values).astype(np.float32)
    tail = Tail(count)
    for part in np.array_split(magnitudes, min(count, 7)):
        tail.add(part)
    limits = (float(magnitudes.min()), float(magnitudes.max()))
    edges = np.histogram_bin_edges([], 2048, limits)
    counts, _ = np.histogram(magnitudes, edges)
    assert paddles_range(*tail.histogram(2048)) == paddles_range(counts, edges)


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_damaged_deployments_are_refused(
    deployed: tuple[Path, Compressed], tmp_path: Path, damage: str
) -> None:
    for path in deployed[0].glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = max(tmp_path.glob("model.*"))
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000] if damage == "cut" else b"other")
    with pytest.raises(PodiumError, match=r"model.\w+ is (missing|not the file)"):
        Deployment(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("files", {}, "is damaged"),
        ("files", {"../model.onnx": {"sha256": "0"}}, "not the file|is missing"),
        ("runtime", {"engine": "tflite"}, "expected engine paddle.inference or onnxruntime"),
        ("preprocessing", {"mean": 1}, "preprocessing is damaged"),
    ],
)
def test_damaged_cards_are_refused(
    runs: Runs, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    shutil.copytree(runs.onnx, tmp_path / "deploy")
    path = tmp_path / "deploy/card.json"
    card = {**json.loads(path.read_text()), key: value}
    path.write_text(json.dumps(card))
    with pytest.raises(PodiumError, match=said):
        Deployment(tmp_path / "deploy")


def test_card_of_a_deployment_has_no_path(deployed: tuple[Path, Compressed]) -> None:
    card = json.loads((deployed[0] / "card.json").read_text())
    assert card["runtime"]["engine"] in ("paddle.inference", "onnxruntime")
    assert card["runtime"]["arithmetic"] == card["runtime"]["stored"] == "int8"
    assert "/" not in json.dumps({k: v for k, v in card.items() if k != "preprocessing"})


def test_a_rotated_twin_is_predicted_alike(deployed: tuple[Path, Compressed]) -> None:
    """The same picture stored upright, and on its side with an EXIF note to turn it."""

    y, x = np.mgrid[:90, :120]
    picture = Image.fromarray(np.stack([x * 2, y * 2, x + y], -1).astype(np.uint8))
    upright, turned = io.BytesIO(), io.BytesIO()
    picture.save(upright, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    picture.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    deployment = Deployment(deployed[0])
    answers = [
        deployment.run_images(decode(file.getvalue(), SIZE)[None], "twin")
        for file in (upright, turned)
    ]
    assert np.array_equal(*answers)


# --- the choice

BIG = Entrant("big", 14_000_000, 240, 0.0, 0.0, 0.0, 5.0)
SMALL = Entrant("small", 4_000_000, 240, 0.004, -0.01, 0.02, 2.0)
LIGHT = Entrant("light", 5_000_000, 90, 0.05, 0.02, 0.08, 1.0)


def pick(entrants: list[Entrant], rule_mb: float | None = None, **select: Any) -> Choice:
    params = make_params(select={"max_drop": 0.01, **select})
    return choose(entrants, params.select, "accuracy", rule_mb)


@pytest.mark.parametrize(
    ("select", "shipped"),
    [
        ({}, "small"),
        ({"prefer": "score"}, "big"),
        ({"prefer": "flops"}, "small"),
        ({"prefer": "flops", "max_drop": 0.05}, "light"),
        ({"max_drop": 0.0}, "big"),
        ({"max_mflops": 100, "max_drop": 1}, "light"),
        ({"max_mb": 4.5, "prefer": "score"}, "small"),
        ({"rule_mb": 4.5, "prefer": "score"}, "small"),
        ({"rule_mb": 4.0, "max_mb": 20, "prefer": "score"}, "small"),
        ({"max_ms": 1.5, "max_drop": 1}, "light"),
    ],
)
def test_the_best_legal_one_ships(select: dict[str, Any], shipped: str) -> None:
    assert pick([BIG, SMALL, LIGHT], **select).name == shipped
    assert pick([LIGHT, SMALL, BIG], **select).name == shipped


def test_a_faster_clock_does_not_win() -> None:
    fast = replace(BIG, name="fast", latency_ms=0.1)
    assert pick([BIG, fast]).name == "big"


def test_the_choice_says_why_and_what_it_cost() -> None:
    reason = pick([BIG, SMALL], max_drop=0.001).reason
    assert reason.startswith("big ships: the fewest bytes of 1 that may")
    assert "small may not: it loses 0.0040 accuracy (95 %: -0.0100 to 0.0200)" in reason
    assert "The constraints cost +10.000 MB, +0.0 MFLOPs, +0.0040 accuracy against small" in reason
    assert "within the noise of these images (-0.0200 to +0.0100)" in pick([BIG, SMALL]).reason
    never_worse = replace(SMALL, drop_high=0.0)
    assert "within the noise of these images (+0.0000 to" in pick([BIG, never_worse]).reason


def test_nothing_fits_names_the_nearest() -> None:
    with pytest.raises(PodiumError) as caught:
        pick([BIG, SMALL], max_mb=3)
    assert str(caught.value).startswith(
        "none of 2 candidates may ship; the nearest is small: 4.000 MB, "
        "compress.select.max_mb is 3: loosen that"
    )
    with pytest.raises(PodiumError, match="4.000 MB, competition.rules.max_model_mb is 2: loosen"):
        pick([BIG, SMALL], rule_mb=2, max_mb=3)
    with pytest.raises(PodiumError, match="none of the candidates that compress asks for could"):
        pick([])


@given(st.integers(1, 30_000_000), st.floats(0.001, 30))
def test_what_may_ship_is_legal_to_the_byte(size: int, limit: float) -> None:
    """As submit has it: bytes <= max_model_mb * BYTES_PER_MB, also at the limit itself."""
    for mb in (limit, size / BYTES_PER_MB):
        try:
            pick([replace(BIG, bytes=size)], rule_mb=mb)
        except PodiumError:
            assert size > mb * BYTES_PER_MB
        else:
            assert size <= mb * BYTES_PER_MB


def test_a_drop_that_is_no_number_is_no_small_one() -> None:
    assert pick([BIG, replace(SMALL, drop=float("nan"))]).name == "big"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("formats", ["onnx", "onnx"], "each name once"),
        ("formats", [], "at least 1 item"),
        ("precisions", ["int4"], "'bf16', 'int8' or 'qat'"),
        ("select", {"max_mb": 0}, "greater than 0"),
        ("select", {"max_drop": 1.5}, "less than or equal to 1"),
    ],
)
def test_bad_params_are_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_params(**{key: value})


# --- podium predict


def test_predict_answers_from_the_shipped_model(
    deployed: tuple[Path, Compressed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _ = make_images(3)
    paths = [tmp_path / f"{name}.png" for name in TASK.classes]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    predict(paths, deployed[0])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == list(TASK.classes)
    shares = [float(word) for word in lines[0].split()[2::2]]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert shares == sorted(shares, reverse=True)


def test_predict_answers_what_it_can_and_names_the_rest(
    deployed: tuple[Path, Compressed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty, gone = tmp_path / "good.png", tmp_path / "empty.png", tmp_path / "gone.png"
    Image.fromarray(make_images(1)[0][0]).save(good)
    empty.write_bytes(b"")
    with pytest.raises(PodiumError, match=r"empty.png: the file is empty"):
        predict([empty, good], deployed[0])
    assert "good.png: dark" in capsys.readouterr().out
    with pytest.raises(PodiumError) as caught:
        predict([empty, gone], deployed[0])
    assert "2 images cannot be read" in str(caught.value)
    assert "gone.png: No such file" in str(caught.value)


def test_predict_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="card.json is missing: run `dvc repro`"):
        predict([tmp_path / "x.png"], tmp_path)


def test_a_model_of_thumbnails_is_there_for_scale() -> None:
    images, targets = make_images(60)
    row = judge_thumbnails(images[:30], targets[:30], 3, make_judge())
    assert row["bytes"] == 4 * 3 * 769
    assert row["accuracy"] == 1.0  # brightness alone tells these classes apart
    assert judge_thumbnails(images[:1], targets[:1], 3, make_judge()) == {}
