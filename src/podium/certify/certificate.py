"""certificate.json: what was run, what came out, and whether every run gave the same.

In: the runs of a certificate. Out: a dict ready for JSON, which is all that another machine needs
to check the same.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.certify.clones import hash_folder
from podium.certify.comparison import Hashes, hash_outputs
from podium.certify.running import Running
from podium.certify.tolerances import (
    Tolerances,
    exact_files,
    load_tolerances,
    read_predictions,
    read_scores,
)
from podium.dag import look_up
from podium.doctor.installation import (
    find_mismatches,
    hash_packages,
    installed_packages,
    locked_packages,
)
from podium.engine.loss_trace import StepLoss
from podium.engine.provenance import LOCK_FILE, hash_json
from podium.errors import PodiumError
from podium.git_facts import run_git
from podium.models.params import WEIGHTS_FOLDER
from podium.params import PARAMS_FILE, read_yaml
from podium.runtime import cpu_class

FORMAT = 1
# What decides the outputs besides data and params; paths of the commit.
_CODE = ("dvc.yaml", "stages", "src")
# What a check against a certificate reads of it.
_KEYS = (
    "competition",
    "cpu_class",
    "hashes",
    "given",
    "overrides",
    "tolerances",
    "outputs",
    "exact",
    "scores",
    "measured",
    "params",
    "losses",
    "predictions",
)
_NOT_FROM_ELSEWHERE = ("competition", "model.weights", "model.allow_download")


@dataclass(frozen=True)
class Outcome:
    """What one run left: read before its clone is removed."""

    running: Running
    hashes: Hashes
    scores: Mapping[str, float]
    predictions: Mapping[str, Any]


def read_outcome(clone: Path, running: Running) -> Outcome:
    """Of a clone after its run."""
    return Outcome(running, hash_outputs(clone), read_scores(clone), read_predictions(clone))


@dataclass(frozen=True)
class Given:
    """What a run was given.

    Attributes:
        params: all of params.yaml, as run.
        hashes: of code, inputs, params, lock and environment.
        facts: of the inputs and the environment, for people.
        exact: the tables that must be the same bytes on any machine.
        cpu_class: of this machine.
    """

    params: Mapping[str, Any]
    hashes: Mapping[str, str]
    facts: Mapping[str, Any]
    exact: tuple[str, ...]
    cpu_class: str


def read_given(clone: Path) -> Given:
    """Of a clone before its run."""
    params = read_yaml(clone / PARAMS_FILE)
    source = str(look_up(params, "competition.source"))
    inputs, weights = hash_folder(clone / source), hash_folder(clone / WEIGHTS_FOLDER)
    packages = installed_packages()
    mismatches = find_mismatches(locked_packages(clone), packages)
    return Given(
        params=params,
        hashes={
            "code": hash_json({"tree": run_git(clone, "ls-tree", "-r", "HEAD", "--", *_CODE)}),
            "inputs": hash_json({"data": inputs["sha256"], "weights": weights["sha256"]}),
            "params": hash_json(dict(params)),
            "lock": hash_json({"lock": (clone / LOCK_FILE).read_text(encoding="utf-8")}),
            "environment": hash_packages({**packages, "python": platform.python_version()}),
        },
        facts={
            "source": source,
            "files": inputs["files"],
            "bytes": inputs["bytes"],
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "packages": len(packages),
            "not_as_locked": [
                f"{one.name} {one.installed or 'missing'} (lock: {one.locked})"
                for one in mismatches
            ],
        },
        exact=tuple(exact_files(clone)),
        cpu_class=cpu_class(),
    )


def make_certificate(
    given: Given,
    overrides: Mapping[str, Any],
    outcome: Outcome,
    runs: list[dict[str, Any]],
    verdict: str,
    tolerances: Tolerances,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """All that certificate.json says.

    Args:
        given: to the reference run.
        overrides: params that were changed for it.
        outcome: of the reference run.
        runs: one row each.
        verdict: same or different.
        tolerances: for another class of CPUs.
        measured: revision, time, seconds: what is true of this certificate only.
    """
    return {
        "format": FORMAT,
        "verdict": verdict,
        "competition": look_up(given.params, "competition.name"),
        "cpu_class": given.cpu_class,
        "hashes": dict(given.hashes),
        "given": dict(given.facts),
        "overrides": dict(overrides),
        "tolerances": vars(tolerances),
        "runs": runs,
        "outputs": [
            {"stage": stage, "file": file, "sha256": digest}
            for (stage, file), digest in outcome.hashes.items()
        ],
        "exact": list(given.exact),
        "scores": dict(outcome.scores),
        "measured": dict(measured),
        "params": dict(given.params),
        "losses": {
            model: [[row.epoch, row.epochs, row.step, row.loss.hex()] for row in rows]
            for model, rows in outcome.running.losses.items()
        },
        "predictions": dict(outcome.predictions),
    }


@dataclass(frozen=True)
class Certificate:
    """A certificate that was read: what a run here is compared with."""

    content: Mapping[str, Any]
    hashes: Hashes
    losses: Mapping[str, list[StepLoss]]
    tolerances: Tolerances


def load_certificate(path: Path) -> Certificate:
    """Read a certificate of any machine.

    Raises:
        PodiumError: missing, no certificate, of another format, or one whose own runs differed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PodiumError(f"{path} is missing: `podium certify` makes one") from None
    except IsADirectoryError:
        raise PodiumError(f"{path} is a folder: expected a certificate.json") from None
    except ValueError as error:
        raise PodiumError(f"{path} is no certificate: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PodiumError(f"{path}: expected a certificate of format {FORMAT}")
    if content.get("verdict") != "same":
        raise PodiumError(
            f"{path} certifies nothing: its own runs differed, so there is nothing to compare with"
        )
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise PodiumError(f"{path} is damaged: it has no {', '.join(missing)}: make it again")
    _check_overrides(path, content["overrides"])
    try:
        return Certificate(
            content=content,
            hashes={(row["stage"], row["file"]): row["sha256"] for row in content["outputs"]},
            losses={
                model: [
                    StepLoss(epoch, epochs, step, float.fromhex(loss))
                    for epoch, epochs, step, loss in rows
                ]
                for model, rows in content["losses"].items()
            },
            tolerances=load_tolerances(content["tolerances"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PodiumError(f"{path} is damaged ({error!r}): make it again") from None


def _check_overrides(path: Path, overrides: Any) -> None:
    """A certificate comes from elsewhere: it shall not choose what is read or fetched here."""
    if not isinstance(overrides, dict):
        raise PodiumError(f"{path} is damaged: its overrides are no mapping: make it again")
    refused = [name for name in overrides if name.startswith(_NOT_FROM_ELSEWHERE)]
    if refused:
        raise PodiumError(
            f"{path} changes {refused[0]}, which a certificate may not: put it in params.yaml and commit"
        )


def find_unlike(certificate: Mapping[str, Any], given: Given) -> list[str]:
    """What was given here and is not what the certificate is about, a line each.

    Raises:
        PodiumError: other params or other inputs: then there is nothing to compare.
    """
    hashes = certificate["hashes"]
    if hashes["params"] != given.hashes["params"]:
        names = _differing(certificate["params"], given.params)
        raise PodiumError(
            f"the certificate is of other params ({', '.join(names[:10])}): check out its revision "
            f"{certificate['measured'].get('revision')}"
        )
    if hashes["inputs"] != given.hashes["inputs"]:
        theirs, ours = certificate["given"], given.facts
        raise PodiumError(
            f"the certificate is of other data: {theirs['files']} files of {theirs['bytes']} bytes in "
            f"{theirs['source']}, here {ours['files']} of {ours['bytes']}: bring the same data in"
        )
    lines = {
        "code": "the code is another one",
        "lock": "requirements.lock is another one",
        "environment": "other packages, or another Python, are installed",
    }
    return [line for name, line in lines.items() if hashes[name] != given.hashes[name]]


def _differing(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            name
            for key in dict.fromkeys([*ours, *theirs])
            for name in _differing(ours.get(key), theirs.get(key), f"{prefix}{key}.")
        ]
    return [] if ours == theirs else [prefix.rstrip(".")]
