"""Two runs of the DAG beside each other: which outputs differ, and where it began.

In: the hashes of both runs' declared outputs, and the losses of their trainings' steps. Out: the
differences in the order of the DAG, and the first step at which the losses part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.dag import declared_outputs
from podium.engine.loss_trace import StepLoss, is_same_loss

MISSING = "missing"
TRAIN = "train"

# (stage, file) -> SHA-256 or `missing`, in the DAG's order.
Hashes = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Difference:
    """A file of which two runs do not have the same bytes."""

    stage: str
    file: str
    expected: str
    found: str


@dataclass(frozen=True)
class LossDifference:
    """The first step of a model's training at which two runs had different losses."""

    model: str
    epoch: int
    step: int
    expected: float | None
    found: float | None


@dataclass(frozen=True)
class Comparison:
    """A run against the reference.

    Attributes:
        n_same: files with the same bytes.
        differences: in the order of the DAG.
        loss: where the losses part; None: nowhere.
        n_steps: whose losses were compared.
    """

    n_same: int
    differences: tuple[Difference, ...]
    loss: LossDifference | None
    n_steps: int

    @property
    def is_same(self) -> bool:
        """Whether all bytes and all losses are the same."""
        return not self.differences and self.loss is None and self.n_same > 0


def hash_outputs(root: Path) -> dict[tuple[str, str], str]:
    """(stage, file) -> SHA-256 of its content, in the DAG's order; folders file by file."""
    hashes = {}
    for output in declared_outputs(root):
        path = root / output.path
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            content = file.read_bytes() if file.is_file() else None
            digest = MISSING if content is None else hashlib.sha256(content).hexdigest()
            hashes[output.stage, file.relative_to(root).as_posix()] = digest
    return hashes


def compare(
    expected: Hashes,
    found: Hashes,
    expected_losses: Mapping[str, Sequence[StepLoss]],
    found_losses: Mapping[str, Sequence[StepLoss]],
    stages: Sequence[str],
) -> Comparison:
    """Everything that differs.

    Args:
        expected, found: hashes of the reference's and of the other run's outputs. A file that both
            lack differs, too: missing is no agreement.
        expected_losses, found_losses: by model; a step that was repeated after a kill counts each
            time.
        stages: in the DAG's order.
    """
    files = sorted(dict.fromkeys([*expected, *found]), key=lambda key: stages.index(key[0]))
    differences = []
    for stage, file in files:
        ours, theirs = expected.get((stage, file), MISSING), found.get((stage, file), MISSING)
        if ours != theirs or ours == MISSING:
            differences.append(Difference(stage, file, ours, theirs))
    loss, n_steps = find_loss_difference(expected_losses, found_losses)
    return Comparison(len(files) - len(differences), tuple(differences), loss, n_steps)


def find_loss_difference(
    expected: Mapping[str, Sequence[StepLoss]], found: Mapping[str, Sequence[StepLoss]]
) -> tuple[LossDifference | None, int]:
    """The first step of the first model that differs, and how many steps were compared."""
    n_steps = 0
    for model in dict.fromkeys([*expected, *found]):
        ours, theirs = _by_step(expected.get(model, ())), _by_step(found.get(model, ()))
        for step in sorted(ours.keys() | theirs.keys()):
            n_steps += 1
            losses, others = ours.get(step, []), theirs.get(step, [])
            both = losses + others
            same = all(is_same_loss(both[0].loss, row.loss) for row in both)
            if not (losses and others and same):
                known = (losses or others)[0]
                odd = next((r for r in others if not is_same_loss(r.loss, known.loss)), None)
                return LossDifference(
                    model,
                    known.epoch,
                    step,
                    losses[0].loss if losses else None,
                    (odd or others[0]).loss if others else None,
                ), n_steps
    return None, n_steps


def _by_step(rows: Sequence[StepLoss]) -> dict[int, list[StepLoss]]:
    found: dict[int, list[StepLoss]] = {}
    for row in rows:
        found.setdefault(row.step, []).append(row)
    return found


def explain(name: str, comparison: Comparison) -> str:
    """One sentence: the same, or what differs first and from which step on."""
    if comparison.is_same:
        steps = f", and the losses of {comparison.n_steps} steps" if comparison.n_steps else ""
        return f"{name}: all {comparison.n_same} files of the declared outputs are the same{steps}"
    said = []
    if comparison.differences:
        first = comparison.differences[0]
        how = {first.expected: "it is missing in the reference", first.found: "it is missing"}.get(
            MISSING, ""
        )
        n = len(comparison.differences)
        said.append(
            f"{n} of {comparison.n_same + n} files differ; the first in the order of the DAG is "
            f"{first.file} (stage {first.stage}){': ' + how if how else ''}"
        )
    elif not comparison.n_same:
        said.append("there is no declared output")
    if comparison.loss:
        said.append(describe_loss(comparison.loss))
    elif comparison.n_steps and comparison.differences and comparison.differences[0].stage == TRAIN:
        said.append(
            f"the losses of all {comparison.n_steps} steps are the same: what differs came after them"
        )
    return f"{name}: " + "; ".join(said)


def describe_loss(loss: LossDifference) -> str:
    """Which step, and both losses with the digits in which they differ."""
    if loss.expected is None or loss.found is None:
        who = "the reference" if loss.expected is None else "this run"
        return f"training {loss.model}: {who} has no step {loss.step} (epoch {loss.epoch})"
    return (
        f"training {loss.model}: the first step whose loss differs is {loss.step} "
        f"(epoch {loss.epoch}): expected {loss.expected!r}, got {loss.found!r}"
    )
