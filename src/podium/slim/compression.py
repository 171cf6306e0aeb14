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

from podium.data.image_cache import Images
from podium.data.preprocessing import Preprocessing
from podium.data.stored_rows import write_rows
from podium.data.views import Tta
from podium.engine.inference import ExportedModel, export
from podium.errors import PodiumError
from podium.files import replace_folder, write_json
from podium.progress import track
from podium.slim.arithmetic import count_macs, count_parameters
from podium.slim.candidates import INT8, QAT, REFERENCE, Plan, make_files, make_plans
from podium.slim.deploy_folder import write_code, write_deploy_card
from podium.slim.measurement import Measurement, measure
from podium.slim.nets import Maker
from podium.slim.params import CompressParams
from podium.slim.parity import check_parity, make_parity_images, run_eagerly
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
        measurement: of its files.
        parity: largest relative difference from the eager net; None where rounding is the point.
    """

    plan: Plan
    folder: Path
    net: dict[str, Any]
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
        shipped: name of the candidate in deploy/.
        reason: sentences.
        rows: candidate -> its numbers, reproducible.
        clocks: candidate -> its clocks and memory, which are not.
        missing: candidate that was not made -> why: "failed: ..." or "not needed: ...".
        sensitivity: net -> rows of its curves (layer, ratio, loss), of those that have them.
    """

    shipped: str
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
) -> Compressed:
    """Make and judge the candidates, and put the best legal one into `folder`.

    Raises:
        PodiumError: none may ship, or the trained net itself does not pass.
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
                made[plan.name] = bench.make(plan)
            except PodiumError as error:
                missing[plan.name] = f"failed: {error}"
            except (OSError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  a converter's bug spoils its own row only
                said = str(error).strip().splitlines() or [""]
                missing[plan.name] = f"failed: {type(error).__name__}: {said[-1]}"
            else:
                rows[plan.name] = make_row(made[plan.name], made[REFERENCE.name], judge)
            if REFERENCE.name in missing:
                raise PodiumError(f"{REFERENCE.name} {missing[REFERENCE.name]}")
        clocks = {name: c.measurement.clocks for name, c in made.items()}
        asked = [plan.name for plan in plans if _is_asked(plan, params) and plan.name in made]
        if not asked:
            reasons = "; ".join(f"{name} {reason}" for name, reason in missing.items())
            raise PodiumError(f"none of the candidates asked for could be made: {reasons}")
        entrants = [_make_entrant(name, rows[name], clocks[name]) for name in asked]
        choice = choose(entrants, params.select, judge.metric.name)
        _write_deploy(folder, made[choice.name], card, rows[choice.name], judge.tta)
    sensitivity = {c.plan.net: c.net["sensitivity"] for c in made.values() if c.net["sensitivity"]}
    return Compressed(choice.name, choice.reason, rows, clocks, missing, sensitivity)


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
        rows = (judge.images[row] for row in range(len(judge.images)))
        write_rows(self._images, rows, judge.images.shape, np.uint8)
        np.save(self._parity, make_parity_images(preprocessing.image_size_px))
        how = maker.params.model_dump_json(exclude={"select", "nets", "precisions", "formats"})
        self._parts = (
            card["weights"]["sha256"],
            json.dumps(preprocessing.to_card()),
            _hash_images(calibration),
            _hash_images(judge.images),
            judge.tta,
            how,
        )

    def make(self, plan: Plan) -> Candidate:
        """Make it and measure it, and hold a float one against the net in memory.

        Raises:
            PodiumError: it cannot be made, or does not pass.
        """
        net = self._export(plan.net, plan.precision == QAT)
        facts = json.loads((net / "facts.json").read_text(encoding="utf-8"))
        place = self._work / plan.name

        def build(folder: Path) -> None:
            files = folder / "files"
            files.mkdir()
            runtime = make_files(
                plan,
                ExportedModel.in_folder(net),
                self._calibration,
                self._preprocessing,
                files,
            )
            write_deploy_card(files, self._card, self._tta, runtime)
            with tempfile.TemporaryDirectory(prefix="podium-") as scratch:
                measured = measure(files, self._images, self._parity, Path(scratch))
            np.savez(folder / "measured.npz", outputs=measured.outputs, parity=measured.parity)
            write_json(folder / "clocks.json", measured.clocks)

        fill_folder(place, build, *self._parts, plan.name)
        clocks = json.loads((place / "clocks.json").read_text(encoding="utf-8"))
        with np.load(place / "measured.npz") as arrays:
            measurement = Measurement(arrays["outputs"], arrays["parity"], clocks)
        parity = None
        if plan.is_exact:
            parity = check_parity(measurement.parity, np.load(net / "eager.npy"))
        return Candidate(plan, place / "files", facts, measurement, parity)

    def _export(self, name: str, learns_int8: bool) -> Path:
        """The folder of a net's float32 export, with its eager answers and its facts."""
        part = f"{name}-{QAT}" if learns_int8 else name
        folder = self._work / f"net-{part}"
        if folder.is_dir():
            return folder
        size = self._preprocessing.image_size_px

        def build(target: Path) -> None:
            net = self._maker.make(name, learns_int8)
            export(net.network, size, target)
            eager = run_eagerly(net.network, np.load(self._parity), self._preprocessing)
            np.save(target / "eager.npy", eager)
            facts = {
                "parameters": count_parameters(net.network),
                "macs": count_macs(net.network, size),
                "made_by": net.made_by,
                "sensitivity": net.sensitivity,
            }
            write_json(target / "facts.json", facts)

        fill_folder(folder, build, *self._parts, part)
        return folder


def make_row(candidate: Candidate, reference: Candidate, judge: Judge) -> dict[str, Any]:
    """Numbers of one candidate against the trained net's: the same on every run.

    `changed` counts val images with another answer; of those, `lost` were right before and
    `gained` are right now, `p_value` is of the exact McNemar test on the two (Fagerland, Lydersen
    and Laake 2013); `drop` is what the primary metric loses, with a paired 95 % interval.
    Differences are of probabilities.
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
    """Why a net need not be trained for int8, which takes minutes; "" where it need be."""
    plain = Plan(plan.net, INT8, plan.format).name
    if plan.precision != QAT or plain not in rows or rows[plain]["drop"] > max_drop:
        return ""
    return f"{plain} loses no more than select.max_drop"


def _is_asked(plan: Plan, params: CompressParams) -> bool:
    return (
        plan.net in params.nets
        and plan.precision in params.precisions
        and plan.format in params.formats
    )


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
        judged = json.loads((shipped.folder / "card.json").read_text(encoding="utf-8"))
        write_deploy_card(
            fresh, card, tta, judged["runtime"], candidate=shipped.plan.name, measured=row
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
