"""The candidates for deploy/, each judged on the files that would ship, and the choice among them.

In: the trained network, calibration and val images. Out: deploy/ with the chosen model, and one row
of numbers per candidate. A candidate that cannot be made is a row with its reason.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.stored_rows import write_rows
from podium.data.views import Tta
from podium.engine.inference import ExportedModel, export
from podium.engine.weights import WEIGHTS_FILE, read_state
from podium.errors import PodiumError, explain_os_error
from podium.files import replace_folder, write_json
from podium.models.networks import Network
from podium.progress import track
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.candidates import (
    INT8,
    QAT,
    REFERENCE,
    Plan,
    float32_of,
    is_asked,
    make_files,
    make_plans,
)
from podium.slim.deploy_folder import write_code, write_deploy_card
from podium.slim.measurement import MachineError, Measurement, measure
from podium.slim.nets import TRAINED, Maker
from podium.slim.parity import check_finite, check_parity, make_parity_images, run_eagerly
from podium.slim.selection import Entrant, choose
from podium.slim.stored_folders import fill_folder
from podium.tasks.evidence import Evidence, gain_interval, mcnemar_p
from podium.tasks.protocol import MetricSpec

Probabilities = npt.NDArray[np.float64]

_MODEL_FILES = "model.*"
_DECIMALS = 6


@dataclass(frozen=True)
class Judge:
    """How a candidate is judged: on these val images, by this task.

    Attributes:
        images: uint8 (N, H, W, 3).
        predict: outputs -> probabilities (N, k).
        metrics: probabilities -> metrics ready for JSON.
        score: probabilities and targets of some rows -> the primary metric.
        metric: the primary one, a key of `metrics`.
        evidence: targets, groups and draws of the images, for paired intervals.
        tta: the views of each image; they go into the card.
    """

    images: Images
    predict: Callable[[npt.NDArray[np.float32]], Probabilities]
    metrics: Callable[[Probabilities], dict[str, Any]]
    score: Callable[[Probabilities, npt.NDArray[Any]], float]
    metric: MetricSpec
    evidence: Evidence
    tta: Tta = "none"


@dataclass(frozen=True)
class Candidate:
    """One that could be made.

    Attributes:
        plan: what it is.
        folder: model files and card.
        net: facts of its net: parameters, macs, made_by, sensitivity.
        runtime: of its card: engine, arithmetic, and in what the weights are stored.
        measurement: of its files.
        parity: largest relative difference from the eager net; None where rounding is the point.
    """

    plan: Plan
    folder: Path
    net: dict[str, Any]
    runtime: dict[str, Any]
    measurement: Measurement
    parity: float | None

    def files(self) -> list[Path]:
        """Its model's files."""
        return sorted(self.folder.glob(_MODEL_FILES))

    def size_bytes(self) -> int:
        """Bytes of them on disk."""
        return sum(path.stat().st_size for path in self.files())

    def transfer_bytes(self) -> int:
        """Bytes of them as a web server sends them, deflated."""
        return sum(len(zlib.compress(path.read_bytes(), 6)) for path in self.files())


@dataclass(frozen=True)
class Compressed:
    """What became of it.

    Attributes:
        shipped: name of the candidate in deploy/; None where none may ship.
        reason: sentences.
        rows: candidate -> its numbers, reproducible.
        clocks: candidate -> its clocks and memory, which are not.
        missing: candidate that was not made -> why: "failed: ..." or "not needed: ...".
        sensitivity: net -> rows of its curves (layer, ratio, loss), of those that have them.
    """

    shipped: str | None
    reason: str
    rows: dict[str, dict[str, Any]]
    clocks: dict[str, dict[str, Any]]
    missing: dict[str, str]
    sensitivity: dict[str, list[dict[str, Any]]]


def compress(
    maker: Maker,
    preprocessing: Preprocessing,
    card: dict[str, Any],
    calibration: Images,
    judge: Judge,
    folder: Path,
    max_model_mb: float | None,
) -> Compressed:
    """Make and judge the candidates, and put the best legal one into `folder`.

    Args:
        maker: makes the nets.
        preprocessing, card: of the trained net.
        calibration: uint8 (N, S, S, 3).
        judge: of all candidates.
        folder: stays as it is where none may ship.
        max_model_mb: `competition.rules.max_model_mb`.

    Raises:
        PodiumError: the trained net itself does not pass.
    """
    params = maker.params
    with tempfile.TemporaryDirectory(prefix="podium-") as name:
        bench = Workbench(maker, preprocessing, card, calibration, judge, Path(name))
        plans = make_plans(params)
        made: dict[str, Candidate] = {}
        rows: dict[str, dict[str, Any]] = {}
        missing: dict[str, str] = {}
        for plan in track(plans, len(plans), "compress"):
            needless = find_needless(plan, rows, params.select.max_drop)
            if needless:
                missing[plan.name] = f"not needed: {needless}"
                continue
            try:
                candidate = bench.make(plan)
                row = make_row(candidate, made.get(REFERENCE.name, candidate), judge)
            except MachineError:
                raise
            except PodiumError as error:
                missing[plan.name] = f"failed: {error}"
            except Exception as error:  # a converter's bug spoils its own row only
                if isinstance(error, OSError) and explain_os_error(error):
                    raise  # a full or locked disk: no other candidate would do better
                said = str(error).strip().splitlines() or [""]
                missing[plan.name] = f"failed: {type(error).__name__}: {said[-1]}"
            else:
                made[plan.name], rows[plan.name] = candidate, row
            if REFERENCE.name in missing:
                raise PodiumError(f"{REFERENCE.name} {missing[REFERENCE.name]}")
        clocks = {name: c.measurement.clocks for name, c in made.items()}
        asked = [plan.name for plan in plans if is_asked(plan, params) and plan.name in made]
        entrants = [_make_entrant(name, rows[name], clocks[name]) for name in asked]
        shipped = None
        try:
            choice = choose(entrants, params.select, judge.metric.name, max_model_mb)
        except PodiumError as error:
            reason = str(error)
        else:
            shipped, reason = choice.name, choice.reason
            _write_deploy(folder, made[shipped], card, rows[shipped], judge.tta)
    sensitivity = {c.plan.net: c.net["sensitivity"] for c in made.values() if c.net["sensitivity"]}
    return Compressed(shipped, reason, rows, clocks, missing, sensitivity)


class Workbench:
    """Makes candidates one at a time; what was made before comes from the store.

    Args:
        maker: makes the nets.
        preprocessing, card: of the trained net.
        calibration: uint8 (N, S, S, 3).
        judge: its images and views.
        work: a folder for this run.
    """

    def __init__(
        self,
        maker: Maker,
        preprocessing: Preprocessing,
        card: dict[str, Any],
        calibration: Images,
        judge: Judge,
        work: Path,
    ) -> None:
        self._maker, self._preprocessing, self._card = maker, preprocessing, card
        self._calibration, self._tta, self._work = calibration, judge.tta, work
        self._images, self._parity = work / "val.npy", work / "parity.npy"
        self._failures: dict[str, Exception] = {}
        rows = (judge.images[row] for row in range(len(judge.images)))
        write_rows(self._images, rows, judge.images.shape, np.uint8)
        np.save(self._parity, make_parity_images(preprocessing.image_size_px))
        # Each stored part hangs on what it is made of, and on nothing else: another `tta` measures
        # anew, another calibration set quantises anew, and neither trains a student.
        self._trained = (
            card["weights"]["sha256"],
            json.dumps(card["architecture"]),
            json.dumps(preprocessing.to_card()),
        )
        self._ranges = _hash_images(calibration)
        self._judged = (_hash_images(judge.images), judge.tta)

    def make(self, plan: Plan) -> Candidate:
        """Make it and measure it, and hold a float one against the net in memory.

        Raises:
            PodiumError: it cannot be made, or does not pass.
        """
        net = self._export(plan.net, plan.precision == QAT)
        facts = _read_json(net / "facts.json")
        place, found = self._work / plan.name, self._work / f"{plan.name}-measured"

        def build(folder: Path) -> None:
            files = folder / "files"
            files.mkdir()
            float32 = ExportedModel.in_folder(net)
            runtime = make_files(plan, float32, self._calibration, self._preprocessing, files)
            write_json(folder / "runtime.json", runtime)

        def judge(folder: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="podium-") as scratch:
                measured = measure(place / "files", self._images, self._parity, Path(scratch))
            np.savez(folder / "measured.npz", outputs=measured.outputs, parity=measured.parity)
            write_json(folder / "clocks.json", measured.clocks)

        parts = (*self._parts(plan.net, plan.precision == QAT), plan.precision, plan.format)
        if plan.is_int8:
            parts = (*parts, self._ranges)
        fill_folder(place, build, "files", *parts)
        runtime = _read_json(place / "runtime.json")
        write_deploy_card(place / "files", self._card, self._tta, runtime)
        fill_folder(found, judge, "measured", *parts, *self._judged)
        with np.load(found / "measured.npz") as arrays:
            measurement = Measurement(
                arrays["outputs"], arrays["parity"], _read_json(found / "clocks.json")
            )
        check_finite(measurement.outputs, "val images")
        parity = None
        if plan.parity_tolerance is not None:
            eager = np.load(net / "eager.npy")
            parity = check_parity(measurement.parity, eager, plan.parity_tolerance)
        return Candidate(plan, place / "files", facts, runtime, measurement, parity)

    def _export(self, name: str, learns_int8: bool) -> Path:
        """The folder of a net's float32 export, with its eager answers, its facts and, but for the
        trained net, its weights. What cannot be made is tried once a run."""
        part = f"{name}-{QAT}" if learns_int8 else name
        folder = self._work / f"net-{part}"
        if part in self._failures:
            raise self._failures[part]
        if not folder.is_dir():
            try:
                fill_folder(
                    folder,
                    lambda target: self._write_net(name, learns_int8, target),
                    "net",
                    *self._parts(name, learns_int8),
                )
            except Exception as error:
                self._failures[part] = error
                raise
        return folder

    def _write_net(self, name: str, learns_int8: bool, target: Path) -> None:
        size = self._preprocessing.image_size_px
        if learns_int8:
            network, facts = self._teach_int8(name)
        else:
            net = self._maker.make(name)
            network = net.network
            facts = {
                "parameters": count_parameters(network),
                "macs": count_macs(network, size),
                "made_by": net.made_by,
                "sensitivity": net.sensitivity,
            }
            if name != TRAINED:
                save_file(read_state(network), target / WEIGHTS_FILE)
        export(network, size, target)
        eager = run_eagerly(network, np.load(self._parity), self._preprocessing)
        np.save(target / "eager.npy", eager)
        write_json(target / "facts.json", facts)

    def _teach_int8(self, name: str) -> tuple[Network, dict[str, Any]]:
        """A net that has learned int8, and its facts; what it begins with is not trained again."""
        folder = self._export(name, False)
        state = {} if name == TRAINED else load_file(folder / WEIGHTS_FILE)
        facts = _read_json(folder / "facts.json")
        facts["made_by"][QAT] = self._maker.params.qat.model_dump()
        return self._maker.teach_int8(self._maker.restore(name, state)), facts

    def _parts(self, name: str, learns_int8: bool) -> tuple[str, ...]:
        """All that decides a net."""
        parts = (*self._trained, *self._maker.describe_making(name))
        return (*parts, QAT, *self._maker.describe_teaching()) if learns_int8 else parts


def make_row(candidate: Candidate, reference: Candidate, judge: Judge) -> dict[str, Any]:
    """Numbers of one candidate against the trained net's: the same on every run.

    `changed` counts val images with another answer; of those, `lost` were right before and
    `gained` are right now, `p_value` is of the exact McNemar test on the two (Fagerland, Lydersen
    and Laake 2013); `drop` is what the primary metric loses, with a paired 95 % interval.
    Differences are of probabilities, but `parity`, which is of the largest output on fixed images.
    """
    ours = judge.predict(candidate.measurement.outputs)
    theirs = judge.predict(reference.measurement.outputs)
    targets = judge.evidence.class_numbers
    metrics = judge.metrics(ours)
    right, was_right = ours.argmax(1) == targets, theirs.argmax(1) == targets
    lost, gained = int((was_right & ~right).sum()), int((right & ~was_right).sum())
    changed = int((ours.argmax(1) != theirs.argmax(1)).sum())
    drop, low, high = _measure_drop(ours, theirs, judge, candidate.plan.name)
    row = {
        "stored": candidate.runtime["stored"],
        "arithmetic": candidate.runtime["arithmetic"],
        "bytes": candidate.size_bytes(),
        "transfer_bytes": candidate.transfer_bytes(),
        "parameters": candidate.net["parameters"],
        "mflops": round(2 * candidate.net["macs"] / 1e6, 3),
        **{key: value for key, value in metrics.items() if key != "per_class"},
        "changed": changed,
        "agreement": round(1 - changed / len(ours), _DECIMALS),
        "lost": lost,
        "gained": gained,
        "p_value": round(mcnemar_p(lost, gained), _DECIMALS),
        "drop": round(drop, _DECIMALS),
        "drop_low": round(low, _DECIMALS),
        "drop_high": round(high, _DECIMALS),
        "max_difference": round(float(np.abs(ours - theirs).max()), _DECIMALS),
        "mean_difference": round(float(np.abs(ours - theirs).mean()), _DECIMALS),
    }
    if candidate.parity is not None:
        row["parity"] = float(f"{candidate.parity:.1e}")
    if candidate.net["made_by"]:
        row["made_by"] = candidate.net["made_by"]
    return row


def _measure_drop(
    ours: Probabilities, theirs: Probabilities, judge: Judge, name: str
) -> tuple[float, float, float]:
    """What the primary metric loses, and the interval; 0 where no prediction differs."""
    if np.array_equal(ours, theirs):
        return 0.0, 0.0, 0.0
    sign = 1 if judge.metric.higher_is_better else -1
    targets = judge.evidence.targets

    def drop(rows: npt.NDArray[np.int64]) -> float:
        before = judge.score(theirs[rows], targets[rows])
        return sign * (before - judge.score(ours[rows], targets[rows]))

    low, high = gain_interval(drop, judge.evidence, f"compress {name}")
    return drop(np.arange(len(ours))), low, high


def _make_entrant(name: str, row: dict[str, Any], clocks: dict[str, Any]) -> Entrant:
    return Entrant(
        name,
        row["bytes"],
        row["mflops"],
        row["drop"],
        row["drop_low"],
        row["drop_high"],
        clocks["latency_p50_ms"],
    )


def find_needless(plan: Plan, rows: dict[str, dict[str, Any]], max_drop: float) -> str:
    """Why a net need not be trained for int8, which takes minutes; "" where it need be.

    What counts is what int8 costs this net: what a smaller net has lost already, this training does
    not bring back.
    """
    plain, float32 = Plan(plan.net, INT8, plan.format).name, float32_of(plan.net).name
    if plan.precision != QAT or plain not in rows or float32 not in rows:
        return ""
    if rows[plain]["drop"] - rows[float32]["drop"] > max_drop:
        return ""
    return f"{plain} loses no more than compress.select.max_drop against {float32}"


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _hash_images(images: Images, step: int = 256) -> str:
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).tobytes())
    return digest.hexdigest()


def _write_deploy(
    folder: Path, shipped: Candidate, card: dict[str, Any], row: dict[str, Any], tta: Tta
) -> None:
    with replace_folder(folder) as fresh:
        for path in shipped.files():
            shutil.copyfile(path, fresh / path.name)
        write_deploy_card(
            fresh, card, tta, shipped.runtime, candidate=shipped.plan.name, measured=row
        )
        write_code(fresh)


def describe(name: str, row: dict[str, Any], clocks: dict[str, Any], summary: str) -> str:
    """One line for the log."""
    return (
        f"{name}: {row['bytes'] / 1e6:.2f} MB, val {summary}, answers changed: {row['changed']}, "
        f"{clocks['latency_p50_ms']:.1f} ms"
    )


def headline(rows: dict[str, dict[str, Any]], metric: str) -> dict[str, dict[str, Any]]:
    """What experiments are compared by, of each candidate."""
    keys: Sequence[str] = ("bytes", "mflops", metric, "drop", "changed", "max_difference")
    return {name: {key: row[key] for key in keys} for name, row in rows.items()}
