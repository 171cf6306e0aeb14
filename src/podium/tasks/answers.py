"""predictions/decoder.json: what a submission makes of raw probabilities.

evaluate finds it on rows that the models have not learned from, submit applies it to test. The
probabilities in predictions/*.csv stay raw.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from podium.errors import PodiumError
from podium.files import write_json
from podium.tasks.calibration import apply_temperature, calibrate
from podium.tasks.decoding import Decoder, choose_decoder, parse_decoder
from podium.tasks.evidence import (
    MIN_GROUPS,
    MIN_ROWS,
    Evidence,
    find_class_numbers,
    make_parts,
)
from podium.tasks.protocol import DataTask

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """From raw probabilities to what is submitted.

    Attributes:
        temperature: 1: probabilities as they are.
        decoder: None: the most probable class.
    """

    temperature: float = 1.0
    decoder: Decoder | None = None

    def apply(self, each: Sequence[Probabilities]) -> Probabilities:
        """What the task makes cells of, (n, k): calibrated probabilities, or, with a decoder, 1 for the
        label and 0 for the others.

        The temperature was fitted on what single models say, and is applied to each of them: their mean
        is less sure already.

        Args:
            each: raw probabilities (n, k) of each model.
        """
        if self.decoder is not None:
            mean = np.mean(each, axis=0)
            return np.eye(mean.shape[1])[self.decoder.decode(mean)]
        if self.temperature != 1:
            each = [apply_temperature(one, self.temperature) for one in each]
        return np.asarray(np.mean(each, axis=0))


@dataclass(frozen=True)
class Found:
    """What evaluate says of them.

    Attributes:
        answers: for submit.
        report: more keys for metrics/evaluate.json; none where nothing was asked for.
        lines: for the user.
    """

    answers: Answers
    report: dict[str, Any]
    lines: list[str]


def find_answers(
    probabilities: Probabilities,
    targets: npt.NDArray[Any],
    groups: Sequence[str],
    folds: Sequence[int],
    task: DataTask,
    *,
    calibrated: bool,
    decoded: bool,
    draws: int,
    seed: int,
) -> Found:
    """Fit and judge a temperature and a decoder, as far as wanted, each from raw probabilities.

    Args:
        probabilities: (n, k), of rows that the models have not learned from.
        targets, groups, folds: of each of the n rows; targets as `task.training_targets` has them.
        task: names the decoders and scores labels.
        calibrated, decoded: what is wanted.
        draws: bootstrap repetitions.
        seed: the run's.
    """
    if not calibrated and not decoded:
        return Found(Answers(), {}, [])
    n_groups = len(set(groups))
    if len(targets) < MIN_ROWS or n_groups < MIN_GROUPS:
        line = (
            f"calibrate and decoder need {MIN_ROWS} val rows in {MIN_GROUPS} groups, got "
            f"{len(targets)} in {n_groups}: submissions keep the raw answers; split.val_fold: all "
            "gives more"
        )
        return Found(Answers(), {}, [line])
    parts = make_parts(find_class_numbers(targets), groups, folds, seed)
    evidence = Evidence(targets, groups, parts, draws, seed)
    temperature, decoder = 1.0, None
    report: dict[str, Any] = {}
    lines: list[str] = []
    if calibrated:
        temperature, found = calibrate(probabilities, evidence)
        # A list, as `write_metrics` has it: `dvc exp show` gives it no columns.
        report["calibration"] = [found]
        lines.append(
            f"temperature {found['temperature']:.3f}: log loss {_describe(found['log_loss'])}, "
            f"ECE {found['ece_before']:.4f} to {found['ece_after']:.4f}: {_verdict(found)}"
        )
    if decoded and not task.decoders:
        lines.append(
            f"decoder auto has nothing to decide: {task.primary.name} or the submission is of "
            "probabilities"
        )
    elif decoded:
        decoder, judged = choose_decoder(probabilities, evidence, task.decoders, task.score_labels)
        report["decoder"] = judged
        lines += [
            f"decoder {row['name']}: {task.primary.name} {_describe(row)}: {_verdict(row)}"
            for row in judged
        ]
    return Found(Answers(temperature, decoder), report, lines)


def write_answers(path: Path, answers: Answers) -> None:
    """Replace `path` by JSON that holds every digit."""
    decoder = answers.decoder.to_json() if answers.decoder else {"kind": "argmax"}
    write_json(path, {"temperature": answers.temperature, "decoder": decoder})


def load_answers(path: Path) -> Answers:
    """Inverse of `write_answers`.

    Raises:
        PodiumError: missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        decoder = content["decoder"]
        plain = decoder["kind"] == "argmax"
        return Answers(float(content["temperature"]), None if plain else parse_decoder(decoder))
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: run `dvc repro` to make it") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PodiumError(f"{path} is damaged ({error!r}): run `dvc repro evaluate`") from None


def _describe(row: dict[str, Any]) -> str:
    return (
        f"{row['before']:.4f} to {row['after']:.4f} "
        f"(gain 95 %: {row['gain_low']:.4f} to {row['gain_high']:.4f})"
    )


def _verdict(row: dict[str, Any]) -> str:
    return "adopted" if row["adopted"] else "not adopted"
