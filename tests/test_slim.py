"""Compression: int8 candidates, the choice, what ships, and the size rule."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
from paddle.static.quantization import PostTrainingQuantization
from PIL import Image

from podium.commands.predict import predict
from podium.data.decode import decode
from podium.data.preprocessing import Preprocessing
from podium.engine.inference import ExportedModel, Predictor, export
from podium.engine.weights import load_network, read_state, write_model
from podium.errors import PodiumError
from podium.models.networks import Network, build_network, make_preprocessing
from podium.slim.calibration import HIST_PERCENT, OnePassQuantization, Tail
from podium.slim.compression import Candidate, Compressed, Judge, choose, compress
from podium.slim.deployment import Deployment
from podium.slim.params import CompressParams
from podium.slim.quantization import quantize_static
from podium.slim.size_limit import check_size_limit, describe_size_limit
from podium.tasks.classification.data import ClassificationData
from podium.tasks.protocol import MetricSpec
from tests.small_parents import NETS

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64
TASK = ClassificationData(("dark", "mid", "bright"), ordinal=False)


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


@pytest.fixture(scope="module")
def deployed(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Compressed]:
    network, preprocessing, card = trained
    images, targets = make_images(60)
    judge = Judge(
        images=images[30:],
        predict=TASK.predictions,
        metrics=lambda p: TASK.metrics(p, targets[30:], [str(i) for i in range(30)], 0),
        metric=TASK.primary,
    )
    params = CompressParams(quantize="int8", calibration_images=16, max_drop=0.1, **NETS)
    folder = tmp_path_factory.mktemp("out") / "deploy"
    return folder, compress(network, preprocessing, card, images[:16], judge, params, folder)


def test_int8_ships_and_is_small(deployed: tuple[Path, Compressed]) -> None:
    folder, result = deployed
    assert result.shipped == "int8"
    assert result.rows["float32"]["bytes"] > 3.2 * result.rows["int8"]["bytes"]
    on_disk = sum(path.stat().st_size for path in folder.glob("model.*"))
    assert on_disk == result.rows["int8"]["bytes"] == Deployment(folder).size_bytes()
    assert set(result.latency) == {"float32", "int8"}
    assert result.rows["float32"]["changed"] == 0


def test_weights_are_stored_in_eight_bits(deployed: tuple[Path, Compressed]) -> None:
    """An "int8" file that holds float32 is four times as large as its parameter count."""
    parameters = sum(
        values.size
        for values in read_state(build_network("efficientnet_lite0", False, 3, 0)).values()
    )
    assert (deployed[0] / "model.pdiparams").stat().st_size < 1.3 * parameters


def test_what_was_judged_is_what_ships(deployed: tuple[Path, Compressed]) -> None:
    folder, result = deployed
    images, targets = make_images(60)
    deployment = Deployment(folder)
    probabilities = TASK.predictions(deployment.run_images(images[30:], "again"))
    accuracy = float((probabilities.argmax(1) == targets[30:]).mean())
    assert accuracy == pytest.approx(result.rows["int8"]["accuracy"], abs=1e-6)
    assert accuracy > 0.9
    assert deployment.card["measured"] == result.rows["int8"]
    assert deployment.classes == TASK.classes


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


def test_too_few_images_to_calibrate(
    trained: tuple[Network, Preprocessing, dict[str, Any]], tmp_path: Path
) -> None:
    network, preprocessing, _ = trained
    model = export(network, SIZE, tmp_path)
    with pytest.raises(PodiumError, match="5 training images are too few to calibrate"):
        quantize_static(model, make_images(5)[0], preprocessing, tmp_path / "q")


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_damaged_deployments_are_refused(
    deployed: tuple[Path, Compressed], tmp_path: Path, damage: str
) -> None:
    for path in deployed[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.pdiparams"
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000] if damage == "cut" else b"other")
    with pytest.raises(PodiumError, match="model.pdiparams is (missing|not the file)"):
        Deployment(tmp_path)


def test_card_of_a_deployment_has_no_path(deployed: tuple[Path, Compressed]) -> None:
    card = json.loads((deployed[0] / "card.json").read_text())
    assert card["runtime"] == {"engine": "paddle.inference", "int8": True}
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


def candidate(tmp_path: Path, name: str, size: int, **metrics: float) -> Candidate:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "model.pdmodel").write_bytes(b"")
    (folder / "model.pdiparams").write_bytes(b"x" * size)
    return Candidate(name, ExportedModel.in_folder(folder), np.zeros((1, 2)), metrics)


@pytest.mark.parametrize(
    ("metric", "higher", "reference", "small", "max_drop", "shipped"),
    [
        ("accuracy", True, 0.95, 0.94, 0.02, "int8"),
        ("accuracy", True, 0.95, 0.90, 0.02, "float32"),
        ("accuracy", True, 0.95, 0.97, 0.0, "int8"),
        ("log_loss", False, 0.30, 0.31, 0.02, "int8"),
        ("log_loss", False, 0.30, 0.40, 0.02, "float32"),
    ],
)
def test_the_smallest_that_keeps_the_score_ships(
    tmp_path: Path,
    metric: str,
    higher: bool,
    reference: float,
    small: float,
    max_drop: float,
    shipped: str,
) -> None:
    candidates = [
        candidate(tmp_path, "float32", 400, **{metric: reference}),
        candidate(tmp_path, "int8", 100, **{metric: small}),
    ]
    chosen, why = choose(candidates, MetricSpec(metric, higher), max_drop)
    assert chosen.name == shipped
    assert ("int8 does not: it loses" in why) == (shipped == "float32")


def test_size_limit_says_which_may_be_handed_in() -> None:
    sizes = {"submission.csv": 13_700_000, "submission_compressed.csv": 4_000_000}
    assert "each of submission.csv and submission_compressed.csv" in describe_size_limit(
        check_size_limit(sizes, None), None
    )
    report = check_size_limit(sizes, 10)
    assert not report["submission.csv"]["may_be_handed_in"]
    assert describe_size_limit(report, 10).endswith("hand in submission_compressed.csv")
    assert check_size_limit(sizes, 13.7)["submission.csv"]["may_be_handed_in"]
    with pytest.raises(PodiumError, match=r"max_model_mb is 3, but submission.csv: 13.7 MB"):
        check_size_limit(sizes, 3)


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
