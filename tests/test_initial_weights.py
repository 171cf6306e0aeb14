"""`model.weights` and `model.allow_download`: files of all kinds, whole, damaged, hostile, foreign."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import socket
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.utils.download
import pytest
import safetensors.numpy

from podium.engine.features import check_same_start
from podium.engine.weights import read_state
from podium.errors import PodiumError
from podium.files import write_json
from podium.models import initial_weights, paddle_state, unpickling
from podium.models.efficientnet_lite import imagenet_weights_path
from podium.models.initial_weights import load_initial_weights, read_weights
from podium.models.networks import build_network, build_trunk
from tests.torch_files import Tensor, write_legacy, write_zip

State = dict[str, np.ndarray]
NET = "resnet18"


@pytest.fixture(scope="module")
def state() -> State:
    """A whole resnet18 with its classifier, under paddle.vision's names."""
    paddle.seed(11)
    model = paddle.vision.models.resnet18()
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0.1, 1, tensor.shape).astype(np.float32)
        for name, tensor in model.state_dict().items()
    }


def write_pdparams(path: Path, state: State, **how: Any) -> None:
    model = paddle.vision.models.resnet18()
    if set(state) == set(model.state_dict()):
        model.set_state_dict(state)
        paddle.save(model.state_dict(), str(path), **how)
    else:
        paddle.save({name: paddle.to_tensor(values) for name, values in state.items()}, str(path))


def write_safetensors(path: Path, state: State) -> None:
    path.write_bytes(safetensors.numpy.save(state))


def as_torchvision(state: State) -> State:
    """Its names, its counters, and its classifier the other way round."""
    names = {"_mean": "running_mean", "_variance": "running_var"}
    renamed = {}
    for name, values in state.items():
        front, _, last = name.rpartition(".")
        renamed[f"{front}.{names.get(last, last)}"] = values.T if name == "fc.weight" else values
        if last == "_mean":
            renamed[f"{front}.num_batches_tracked"] = np.array(7, "<i8")
    return renamed


def as_tensors(state: State) -> dict[str, Tensor]:
    return {name: Tensor.of(values) for name, values in as_torchvision(state).items()}


WRITERS: dict[str, Callable[[Path, State], None]] = {
    "pdparams": write_pdparams,
    "pdparams, protocol 2": lambda path, state: write_pdparams(path, state, protocol=2),
    "pdparams of bare arrays": lambda path, state: path.write_bytes(pickle.dumps(state, 4)),
    "safetensors": write_safetensors,
    "torch, legacy": lambda path, state: write_legacy(path, as_tensors(state)),
    "torch, zip": lambda path, state: write_zip(path, as_tensors(state)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_fills_the_trunk(kind: str, state: State, tmp_path: Path) -> None:
    """Its name's ending does not matter; the classifier is not wanted."""
    path = tmp_path / "weights"
    WRITERS[kind](path, state)
    start = read_weights(NET, path)
    trunk = build_trunk(NET, False, start)
    own = {name: np.array(tensor) for name, tensor in trunk.state_dict().items()}
    assert set(own) == {f"model.{name}" for name in state if not name.startswith("fc.")}
    for name, values in own.items():
        np.testing.assert_array_equal(values, state[name.removeprefix("model.")])


def test_half_precision_is_taken_as_float32(state: State, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    write_zip(path, {n: Tensor.of(v.astype("<f2")) for n, v in as_torchvision(state).items()})
    start = read_weights(NET, path)
    assert {values.dtype for values in start.state.values()} == {np.dtype(np.float32)}
    build_trunk(NET, False, start)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "densenet121", "squeezenet1_0"])
def test_a_trained_model_of_podium_is_a_start(name: str, tmp_path: Path) -> None:
    """Another competition's weights.safetensors, with another number of classes."""
    path = tmp_path / "weights.safetensors"
    paddle.seed(4)
    trained = build_network(name, False, 7, 0.0)
    write_safetensors(path, read_state(trained))
    paddle.seed(9)
    network = build_network(name, False, 3, 0.0, read_weights(name, path))
    ours, theirs = read_state(network), read_state(trained)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours if key.startswith("trunk."))
    assert ours["head.1.weight"].shape[1] == 3


def test_the_lite_nets_weights_are_a_file_like_any(tmp_path: Path) -> None:
    path = tmp_path / "lite0.pth"
    shutil.copy(imagenet_weights_path("efficientnet_lite0"), path)
    given = load_initial_weights("efficientnet_lite0", False, str(path), False)
    shipped = load_initial_weights("efficientnet_lite0", True, None, False)
    assert given is not None
    assert shipped is not None
    assert given.sha256 == shipped.sha256
    assert all(np.array_equal(given.state[name], values) for name, values in shipped.state.items())


def test_weights_of_another_net_are_one_line(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ten differences and their number; a file has all, also of a queued run's."""
    queued = tmp_path / ".dvc/tmp/exps/one"
    queued.mkdir(parents=True)
    monkeypatch.chdir(queued)
    path = tmp_path / "resnet18.pdparams"
    write_pdparams(path, state)
    with pytest.raises(PodiumError) as caught:
        build_trunk("resnet50", False, read_weights("resnet50", path))
    said = str(caught.value)
    assert "\n" not in said
    assert f"{path} does not fit resnet50: " in said
    assert said.count("missing") == 10
    assert " differences: missing model.layer1.0.bn3._mean; " in said
    listed = tmp_path / ".podium/weights_differences.txt"
    assert said.endswith(f" more; {listed} has them all")
    lines = listed.read_text().splitlines()
    assert (
        f": {len(lines)} differences: {'; '.join(lines[:10])}; and {len(lines) - 10} more" in said
    )
    assert {line.split()[0] for line in lines} >= {"missing"}
    assert any(": expected shape (" in line for line in lines)
    with pytest.raises(PodiumError, match="does not fit efficientnet_lite0"):
        build_trunk("efficientnet_lite0", False, read_weights("efficientnet_lite0", path))


def test_one_key_too_few_too_many_or_of_another_shape(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    changed = dict(state)
    del changed["bn1._mean"]
    changed["layer9.weight"] = np.zeros(3, np.float32)
    changed["conv1.weight"] = changed["conv1.weight"][:, :1].copy()
    write_safetensors(path, changed)
    with pytest.raises(PodiumError) as caught:
        build_trunk(NET, False, read_weights(NET, path))
    assert str(caught.value).endswith(
        "3 differences: missing model.bn1._mean; unexpected model.layer9.weight; "
        "model.conv1.weight: expected shape (64, 3, 7, 7), got (64, 1, 7, 7)"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    bias = state["bn1.bias"].copy()
    bias[3] = value
    write_safetensors(path, {**state, "bn1.bias": bias})
    with pytest.raises(PodiumError, match=r"expected finite floats in model\.bn1\.bias"):
        read_weights(NET, path)


def test_two_arrays_for_one_place_are_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {**state, "trunk.model.bn1.bias": state["bn1.bias"] + 1})
    with pytest.raises(PodiumError, match=r"got two for model\.bn1\.bias"):
        read_weights(NET, path)


def test_counts_are_no_weights(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {**state, "bn1.bias": np.arange(64)})
    with pytest.raises(PodiumError, match="expected finite floats"):
        read_weights(NET, path)


def test_what_is_no_file_of_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("<html>404</html>")
    for name, words in {
        "none": "is missing",
        "empty": "is empty",
        "text": "16 bytes of neither",
        "": "is a folder",
    }.items():
        with pytest.raises(PodiumError, match=words) as caught:
            read_weights(NET, tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.00001, 0.001, 0.3, 0.9999])
def test_a_cut_file_is_one_line(kind: str, share: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    WRITERS[kind](path, state)
    content = path.read_bytes()
    path.write_bytes(content[: max(12, int(len(content) * share))])
    with pytest.raises(PodiumError, match="weights: expected"):
        read_weights(NET, path)


@pytest.mark.parametrize("kind", WRITERS)
def test_flipped_bytes_are_no_bug(kind: str, tmp_path: Path) -> None:
    """Refused, or a file that names or holds something else; never a traceback."""
    small = {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.ones(2, np.float32)}
    path = tmp_path / "weights"
    WRITERS[kind](path, small)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 400):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(PodiumError):
            read_weights(NET, path)


def test_a_damaged_byte_does_not_ask_for_gigabytes(tmp_path: Path) -> None:
    """The place of a remembered value: C's unpickler would make room for all places before it."""
    path = tmp_path / "weights"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    tracemalloc.start()
    read_weights(NET, path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000


def test_a_newer_pickle_than_paddles_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(state, 5))
    with pytest.raises(PodiumError, match="protocol that Paddle does not write"):
        read_weights(NET, path)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def hostile_pickles(mark: Path) -> dict[str, bytes]:
    """Each would make the file `mark`, or reach for what could."""
    array = np.ones(2, np.float32)
    calls = {
        "os.system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(mark)!r}, 'w')"),
        "open": Calls(open, str(mark), "w"),
        "getattr": Calls(getattr, array, "tofile"),
        "import": Calls(__import__, "os"),
        "np.load": Calls(np.load, str(mark)),
        "memmap": Calls(np.memmap, str(mark), "uint8", "w+", 0, (4,)),
        "paddle.load": Calls(paddle.load, str(mark)),
    }
    pickles = {name: pickle.dumps({"a": call}, protocol=2) for name, call in calls.items()}
    pickles["at the top"] = pickle.dumps(calls["open"])
    pickles["as a key"] = pickle.dumps({calls["open"]: array})
    pickles["dotted"] = b"\x80\x04\x8c\x05numpy\x8c\x10core.os.system..\x93."
    # The type behind an array's names is asked for more than it is made for.
    pickles["array of objects"] = pickle.dumps({"a": np.array([calls["open"]], object)})
    pickles["subclass"] = pickle.dumps({"a": np.ma.array([1.0])})
    return pickles


@pytest.mark.parametrize("name", hostile_pickles(Path("mark")))
@pytest.mark.parametrize("shape", ["pdparams", "torch, legacy", "torch, zip"])
def test_a_pickle_runs_nothing(
    name: str, shape: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "weights"
    evil = hostile_pickles(mark)[name]
    if shape == "pdparams":
        path.write_bytes(evil)
    elif shape == "torch, zip":
        write_zip(path, {}, data_pkl=evil)
    else:
        path.write_bytes(
            b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1, {})) + evil
        )
    with pytest.raises(PodiumError) as caught:
        read_weights(NET, path)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_numpys_own_rebuilding_is_never_reached(
    monkeypatch: pytest.MonkeyPatch, state: State, tmp_path: Path
) -> None:
    """It takes a pickle's word for where memory lies."""
    found: list[Any] = []
    find = unpickling.SafeUnpickler.find_class

    def note(self: Any, module: str, name: str) -> Any:
        found.append(find(self, module, name))
        return found[-1]

    monkeypatch.setattr(unpickling.SafeUnpickler, "find_class", note)
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(state, 4))
    read_weights(NET, path)
    makers = [thing for thing in found if callable(thing)]
    assert makers
    assert {thing.__module__ for thing in makers} == {paddle_state.__name__}


def test_arrays_that_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    core = np.ones(4, np.float32).__reduce__()
    for shape in [(5,), (2, 1), (-4,), (2**40, 2**40), (4.0,)]:

        class Liar:
            def __reduce__(self, shape: Any = shape) -> tuple[Any, ...]:
                return (core[0], core[1], (1, shape, np.dtype("f4"), False, b"\0" * 16))

        path.write_bytes(pickle.dumps({"a": Liar()}, 4))
        with pytest.raises(PodiumError, match="expected a .pdparams file"):
            read_weights(NET, path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"byteorder": b"big"}, "not little-endian"),
        ({"data_0": b"\0" * 5}, "multiple of element size"),
        ({"data_0": b"\0" * 4}, "its storage"),
        ({"data_pkl": b"\x80\x02]."}, "holds no names with tensors"),
        ({"data_pkl": pickle.dumps({"epoch": 3}, 2)}, "no tensors, as 'epoch'"),
        ({"data_pkl": b"no pickle"}, "expected a PyTorch state dict"),
    ],
)
def test_a_zip_that_is_no_state_dict_is_refused(
    changes: dict[str, bytes], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    write_zip(path, {"a": Tensor.of(np.ones((3, 2), np.float32))}, **changes)
    with pytest.raises(PodiumError, match=words):
        read_weights(NET, path)


def test_state_dicts_may_be_ordered_and_carry_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps(OrderedDict(a=np.ones(3, np.float32)), 4))
    assert read_weights(NET, path).state["model.a"].tolist() == [1, 1, 1]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the network; it never answers."""
    asked: list[str] = []

    def fetch(url: str, md5: str) -> str:
        asked.append(url)
        raise RuntimeError(f"Download from {url} failed. Retry limit reached")

    def connect(*_: object) -> None:
        asked.append("socket")
        raise OSError("no network in tests")

    monkeypatch.setattr(paddle.utils.download, "get_weights_path_from_url", fetch)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    return asked


def test_nothing_is_fetched_unless_allowed(no_network: list[str]) -> None:
    assert load_initial_weights(NET, False, None, False) is None
    assert load_initial_weights(NET, False, None, True) is None
    assert load_initial_weights("efficientnet_lite1", True, None, True) is not None
    with pytest.raises(PodiumError, match="model.allow_download: true"):
        load_initial_weights(NET, True, None, False)
    assert no_network == []


def test_no_connection_is_one_line(no_network: list[str]) -> None:
    with pytest.raises(PodiumError, match="could not be fetched from https://.*mend the conn") as e:
        load_initial_weights(NET, True, None, True)
    assert "\n" not in str(e.value)
    assert len(no_network) == 1


def test_what_was_fetched_is_read_like_any_file(
    monkeypatch: pytest.MonkeyPatch, state: State, tmp_path: Path
) -> None:
    """Never by paddle.load, which would run it."""
    path = tmp_path / "resnet18.pdparams"
    write_pdparams(path, state)
    monkeypatch.setattr(
        paddle.utils.download, "get_weights_path_from_url", lambda url, md5: str(path)
    )
    evil = hostile_pickles(tmp_path / "mark")["open"]
    monkeypatch.setattr(paddle, "load", lambda *_: pytest.fail("paddle.load"))
    start = load_initial_weights(NET, True, None, True)
    assert start is not None
    assert start.path == path
    build_trunk(NET, False, start)
    path.write_bytes(evil)
    with pytest.raises(PodiumError, match="which no weights need"):
        load_initial_weights(NET, True, None, True)


def test_a_file_that_changed_since_the_features_is_noticed(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, state)
    start = read_weights(NET, path)
    with pytest.raises(PodiumError, match="features.json is missing"):
        check_same_start(tmp_path, start)
    write_json(tmp_path / "features.json", {"weights_sha256": start.sha256})
    check_same_start(tmp_path, start)
    with pytest.raises(PodiumError, match="changed since the features stage"):
        check_same_start(tmp_path, None)
    write_safetensors(path, {**state, "bn1.bias": state["bn1.bias"] + 1})
    with pytest.raises(PodiumError, match="weights.safetensors changed since"):
        check_same_start(tmp_path, read_weights(NET, path))
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(PodiumError, match="is damaged"):
        check_same_start(tmp_path, start)


def test_the_order_of_kinds_is_by_content() -> None:
    """torch's legacy beginning is a pickle's, too: it is asked for first."""
    assert initial_weights.LEGACY_START.startswith(initial_weights._PICKLE_START)
