"""Several processes share a batch: same bits on every rank, same step as one process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podium.engine.batches import split_batch
from podium.engine.processes import Group, is_follower, join_group
from podium.engine.training import train
from podium.engine.weights import State
from podium.errors import PodiumError
from tests.trainings import NO_RECIPES, recipe, toy_job

ROOT = Path(__file__).resolve().parents[1]

# What each rank runs: the toy job or a ResNet-18's, whole; says what it ended with.
RANK = """
import sys, json, hashlib; sys.path[:0] = ["src", "."]
from podium.runtime import configure_math; configure_math()
import numpy as np, paddle
from podium.engine.processes import join_group
from tests.test_processes import COMMANDS
job = json.loads(sys.argv[1])
with join_group(job["size"], "cpu", [sys.executable, "-c", sys.argv[2], *sys.argv[1:]]) as group:
    said = COMMANDS[job["what"]](group, **job["arguments"])
    with open(f"{job['folder']}/{group.rank}.json", "w") as stream:
        json.dump(said, stream)
"""


def hash_state(state: State) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(state.items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def train_toy(group: Group, norm: bool, dropout: float, **changes: Any) -> dict[str, Any]:
    job = toy_job(recipe(**changes), dropout=dropout, norm=norm, n_train=61)
    trained = train(job, lambda row: None, group)
    losses = [(row.train_loss, row.val_loss) for row in trained.curve]
    values = {name: v.reshape(-1).tolist() for name, v in trained.state.items()}
    digest = hash_state(trained.state)
    return {"hash": digest, "losses": losses, "values": values, "soup": trained.soup}


def step_resnet(group: Group, steps: int) -> dict[str, Any]:
    """Some steps of a net with batch norm; every rank's whole state afterwards."""
    import paddle

    from podium.engine.optimization import build_optimizer
    from podium.engine.session import Pass, Session
    from podium.engine.weights import read_state
    from podium.models.networks import build_network
    from podium.tasks.classification.net import ClassificationNet
    from tests.trainings import params

    paddle.seed(0)
    network = build_network("resnet18", False, 3, 0.2)
    optimizer = build_optimizer(network, params(), 1e-3, lambda name: 0)
    session = Session(network, network, optimizer, ClassificationNet(3, 0.1), group, amp=False)
    rng = np.random.default_rng(group.rank)
    for step in range(steps):
        inputs = rng.normal(size=(4, 3, 32, 32)).astype(np.float32)
        share = Pass(inputs, rng.integers(0, 3, 4), 1 / group.size)
        session.exchange(session.add_gradients([share], lambda i, step=step: step), False)
        session.update(1e-3, step)
    return {"hash": hash_state(read_state(network)), "names": len(read_state(network))}


def swap(group: Group, count: int) -> dict[str, Any]:
    """Sums, a broadcast and odd sizes."""
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(group.size, count)).astype(np.float32)
    exact = vectors[0].copy()
    for vector in vectors[1:]:
        exact += vector
    sums = []
    for _ in range(3):
        own = vectors[group.rank].copy()
        group.sum([own[: count // 3], own[count // 3 :]])
        sums.append(np.array_equal(own, exact))
    word = group.broadcast(b"from rank 0" * count if group.rank == 0 else b"")
    nothing = group.broadcast(b"" if group.rank == 0 else b"x")
    return {"sums": sums, "word": word == b"from rank 0" * count, "nothing": nothing == b""}


def die(group: Group, how: str) -> dict[str, Any]:
    """The last rank goes before the others are done."""
    if group.rank == group.size - 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a bug")
    try:
        group.barrier()
    except PodiumError as error:
        return {"said": str(error)}
    return {}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "toy": train_toy,
    "resnet": step_resnet,
    "swap": swap,
    "die": die,
}


def start(
    folder: Path,
    size: int,
    what: str,
    machines: Sequence[tuple[str, ...]] = ((),),
    **arguments: Any,
) -> list[dict[str, Any]]:
    """Run `what` on `size` ranks, started by one command, or by one per machine; what each said."""
    folder.mkdir()
    job = {"size": size, "what": what, "arguments": arguments, "folder": str(folder)}
    words = [sys.executable, "-c", RANK, json.dumps(job), RANK]
    log = folder / "log"
    with log.open("w") as stream:
        running = [
            subprocess.Popen([*launcher, *words], cwd=ROOT, stdout=stream, stderr=stream)
            for launcher in machines
        ]
        for process in running:
            process.wait(timeout=240)
    files = sorted(folder.glob("*.json"))
    assert files, log.read_text()
    return [json.loads(path.read_text()) for path in files]


def alone(**changes: Any) -> dict[str, Any]:
    """The toy job of one process: this one."""
    with join_group(1, "cpu", []) as group:
        return train_toy(group, **changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(("size", "count"), [(2, 1), (3, 100_001)])
def test_sums_are_exact_and_alike(tmp_path: Path, size: int, count: int) -> None:
    ranks = start(tmp_path / "x", size, "swap", count=count)
    assert ranks == [{"sums": [True] * 3, "word": True, "nothing": True}] * size


def test_all_ranks_hold_the_same_bits_batch_norm_included(tmp_path: Path) -> None:
    """With plain `paddle.DataParallel` they do not: running statistics drift apart."""
    ranks = start(tmp_path / "x", 2, "resnet", steps=12)
    assert len(ranks) == 2
    assert ranks[0] == ranks[1]
    assert ranks[0]["names"] == 102  # 62 parameters and the statistics of 20 norms


@pytest.mark.skipif(not shutil.which("taskset"), reason="cores cannot be withheld here")
def test_two_processes_on_one_core_give_the_same_bits(tmp_path: Path) -> None:
    both = start(tmp_path / "x", 2, "resnet", steps=4)
    one = start(tmp_path / "y", 2, "resnet", [("taskset", "--cpu-list", "0")], steps=4)
    assert both == one


def test_two_machines_give_the_bits_of_one(tmp_path: Path) -> None:
    """Paddle's launcher, once per machine (gloo), against shared memory."""
    line = [sys.executable, "-m", "paddle.distributed.launch", "--nnodes", "2"]
    line += ["--nproc_per_node", "1", "--master", f"127.0.0.1:{free_port()}"]
    machines = [(*line, "--log_dir", str(tmp_path / f"log{number}")) for number in range(2)]
    changes = {"norm": True, "dropout": 0.1, "batch_size": 14}
    launched = start(tmp_path / "x", 2, "toy", machines, **changes)
    own = start(tmp_path / "y", 2, "toy", **changes)
    assert len({rank["hash"] for rank in launched + own}) == 1
    assert len(launched) == len(own) == 2


@pytest.mark.parametrize(
    ("processes", "accumulate", "mixup"),
    [(2, 1, 0.7), (2, 2, 0.0), (3, 1, 1.0), (1, 4, 0.7)],
)
def test_n_processes_take_the_step_of_one(
    tmp_path: Path, processes: int, accumulate: int, mixup: float
) -> None:
    """Without dropout and batch norm, which see each pass alone; 61 rows, so that the last batch
    cannot be shared evenly. A row's partner for mixup may be another process's."""
    changes = {"norm": False, "dropout": 0.0, "batch_size": 12, "optimizer": "sgd"}
    changes["recipes"] = {**NO_RECIPES, "mixup": mixup}
    one = alone(**changes)
    ranks = start(tmp_path / "n", processes, "toy", accumulate=accumulate, **changes)
    assert len({rank["hash"] for rank in ranks}) == 1
    assert np.array(ranks[0]["losses"]) == pytest.approx(np.array(one["losses"]), rel=1e-4)
    for name, values in one["values"].items():
        assert ranks[0]["values"][name] == pytest.approx(values, rel=1e-4, abs=1e-6)


def test_clipped_steps_and_a_soup_are_alike_on_all_ranks(tmp_path: Path) -> None:
    """A norm that cuts every step, weights of classes, and the average of epochs."""
    changes: dict[str, Any] = {"norm": False, "dropout": 0.0, "batch_size": 12, "optimizer": "sgd"}
    changes |= {"clip_norm": 0.05, "soup": 3, "class_weights": "balanced", "loss": "focal"}
    one = alone(**changes)
    ranks = start(tmp_path / "n", 2, "toy", **changes)
    assert len({rank["hash"] for rank in ranks}) == 1
    assert ranks[0]["soup"] == list(one["soup"])
    for name, values in one["values"].items():
        assert ranks[0]["values"][name] == pytest.approx(values, rel=1e-4, abs=1e-6)
    changes["clip_norm"] = 0.0
    assert alone(**changes)["hash"] != one["hash"]


@pytest.mark.parametrize(
    ("how", "words"), [("killed", "was killed, by hand or by the kernel"), ("bug", "with code 1")]
)
def test_a_lost_rank_is_named(tmp_path: Path, how: str, words: str) -> None:
    (first, *_) = start(tmp_path / "x", 2, "die", how=how)
    assert first["said"].startswith("training process 1 of 1 beside this one")
    assert words in first["said"]


@given(n_rows=st.integers(1, 300), parts=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_passes_hold_every_row_once(n_rows: int, parts: int) -> None:
    passes = split_batch(n_rows, parts)
    rows = [row for part in passes for row in part]
    assert rows == list(range(n_rows))
    assert len(passes) <= parts
    assert all(len(part) > 1 for part in passes) or n_rows == 1
    sizes = Counter(len(part) for part in passes)
    assert max(sizes) - min(sizes) <= 1


def test_the_launchers_number_must_be_the_params(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    with (
        pytest.raises(PodiumError, match=r"started 4 processes, train\.processes is 2"),
        join_group(2, "cpu", []),
    ):
        pass


def test_who_is_a_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PODIUM_RANK", "PADDLE_TRAINER_ID"):
        monkeypatch.delenv(name, raising=False)
    assert not is_follower()
    monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
    assert not is_follower()
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    assert is_follower()
    monkeypatch.delenv("PADDLE_TRAINER_ID")
    monkeypatch.setenv("PODIUM_RANK", "1")
    assert is_follower()
