"""A run that has been: its answers, its val set and its params, out of git and DVC's cache.

In: a git revision, the name of a DVC experiment, or `workspace`. Out: a `StoredRun`. Nothing is run
and nothing is written.

dvc.lock says what was made of what, by hashes: it stands in every commit and experiment, and what
it names lies in DVC's cache. It is read without DVC's own modules, whose import takes as long as
all the rest; only the place of the cache is asked of DVC.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from podium.errors import PodiumError, did_you_mean
from podium.params import flatten, parse_yaml
from podium.tasks.answers import Answers, load_answers

WORKSPACE = "workspace"
PREDICTIONS = "predictions/val.csv"
DECODER = "predictions/decoder.json"
MANIFEST = "data/manifest.csv"
# Of the manifest; other columns may come and go between versions of Podium.
COLUMNS = ("image_id", "path", "sha256", "pixel_hash", "label", "soft_label", "group_id")
# DVC keeps the experiment NAME that began at the commit ABCD... as refs/exps/AB/CD.../NAME; what
# else it keeps below refs/exps (its queue, its stash) looks otherwise.
_EXPERIMENT_REF = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(\S+)")


@dataclass(frozen=True)
class StoredRun:
    """What one run left.

    Attributes:
        name: as it was asked for.
        params: of evaluate and of all it follows, by their path (`train.ema`), as they were when
            it ran.
        inputs: MD5 of everything else that those stages read and no stage made: code, raw files.
        rows: the val set, sorted by image_id: COLUMNS and fold.
        classes: names, in the order of the columns.
        probabilities: raw, float64 (n, k).
        answers: what a submission makes of them.
        notes: sentences about it that a reader should know.
    """

    name: str
    params: dict[str, Any]
    inputs: dict[str, str]
    rows: pd.DataFrame
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    answers: Answers
    notes: tuple[str, ...]

    def param(self, key: str) -> Any:
        """One of `params`.

        Raises:
            PodiumError: it ran before there was one of this name.
        """
        if key not in self.params:
            raise PodiumError(f"{self.name}: its dvc.lock has no {key}: it is of another version")
        return self.params[key]


class Runs:
    """The runs of one repository.

    Args:
        root: its top folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def resolve(self, name: str) -> str:
        """The commit that `name` means, 40 hex digits, or WORKSPACE.

        Raises:
            PodiumError: neither a revision nor an experiment, or several experiments.
        """
        if name == WORKSPACE:
            return WORKSPACE
        commit = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        if commit is not None:
            return commit.strip()
        found = [ref for ref in self._experiment_refs if ref[0] == name]
        if len(found) > 1:  # several commits had an experiment of that name: as DVC, HEAD's counts
            head = (self._git("rev-parse", "HEAD") or "").strip()
            found = [ref for ref in found if ref[1] == head] or found
        if len(found) > 1:
            commits = ", ".join(commit[:10] for _, _, commit in found)
            raise PodiumError(f"{name!r} is the name of {len(found)} experiments: say {commits}")
        if not found:
            if not (self._git("rev-parse", "--git-dir") or ""):
                raise PodiumError(
                    f"{self._root} is in no git repository: only one can say what {name!r} was"
                )
            known = [WORKSPACE, *(ref[0] for ref in self._experiment_refs)]
            branches = self._git("for-each-ref", "--format=%(refname:short)", "refs/heads") or ""
            raise PodiumError(
                f"no run {name!r}: expected a git revision, an experiment of `dvc exp list --all`, "
                f"or {WORKSPACE}{did_you_mean(name, [*known, *branches.split()])}"
            )
        return found[0][2]

    def experiments(self) -> list[tuple[str, str]]:
        """Name and commit of every experiment that DVC keeps, by name; where one name was used
        several times, the start of the commit stands in its place."""
        names = [name for name, _, _ in self._experiment_refs]
        return [
            (name if names.count(name) == 1 else commit[:10], commit)
            for name, _, commit in self._experiment_refs
        ]

    def load(self, name: str, commit: str | None = None) -> StoredRun:
        """What the run `name` left.

        Args:
            commit: of an experiment, whose name may be a branch's, too; None: as `resolve` says.

        Raises:
            PodiumError: no such run; none that went as far as evaluate; half-way; an output that is
                not in the cache or was edited.
        """
        commit = commit or self.resolve(name)
        stages = self._load_lock(name, commit)
        _check_whole(name, stages)
        manifest = _read_csv(name, MANIFEST, self._find(name, commit, stages, MANIFEST))
        predictions = _read_csv(name, PREDICTIONS, self._find(name, commit, stages, PREDICTIONS))
        missing = [column for column in COLUMNS if column not in manifest]
        if missing or "fold" not in predictions:
            raise PodiumError(
                f"{name}: {MANIFEST} or {PREDICTIONS} has no {', '.join(missing) or 'fold'}: that "
                "run is of another version of Podium and cannot be compared"
            )
        predictions = predictions.sort_values("image_id", ignore_index=True)
        columns = [str(name) for name in predictions.columns if str(name).startswith("p_")]
        rows = predictions[["image_id", "fold"]].merge(manifest[list(COLUMNS)], on="image_id")
        try:
            probabilities = predictions[columns].astype("float64").to_numpy()
        except ValueError as error:
            raise PodiumError(f"{name}: {PREDICTIONS}: {error}") from None
        if len(rows) != len(predictions) or not rows["image_id"].is_unique or rows.empty:
            raise PodiumError(
                f"{name}: expected each image of {PREDICTIONS} once in {MANIFEST}: they are not of "
                "one run; `dvc repro` there, and commit"
            )
        params = _params(name, stages)
        return StoredRun(
            name=name,
            params=params,
            inputs=_inputs(stages),
            rows=rows,
            classes=tuple(column.removeprefix("p_") for column in columns),
            probabilities=probabilities,
            answers=self._load_answers(name, commit, stages),
            notes=self._note_edits(name, commit, params),
        )

    @cached_property
    def _experiment_refs(self) -> list[tuple[str, str, str]]:
        """Name, the commit it began at, its own commit; sorted."""
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps") or ""
        found = []
        for line in lines.splitlines():
            ref, _, commit = line.rpartition(" ")
            match = _EXPERIMENT_REF.fullmatch(ref)
            if match:
                found.append((match[3], match[1] + match[2], commit))
        return sorted(found)

    @cached_property
    def _cache(self) -> Path:
        """Where DVC keeps outputs, by their MD5."""
        from dvc.config import Config, ConfigError

        folder = self._root / ".dvc"
        try:
            place = Config(str(folder))["cache"].get("dir") or folder / "cache"
        except ConfigError as error:
            raise PodiumError(f".dvc/config: {error}") from None
        return Path(place) / "files" / "md5"

    def _load_lock(self, name: str, commit: str) -> dict[str, Any]:
        text = self._show(commit, "dvc.lock")
        if text is None:
            raise PodiumError(f"{name} has no dvc.lock: nothing has run there yet")
        stages = parse_yaml(text, f"{name}: dvc.lock").get("stages")
        if not isinstance(stages, dict) or not isinstance(stages.get("evaluate"), dict):
            raise PodiumError(
                f"{name} has no predictions: its dvc.lock does not know the stage evaluate; "
                "`dvc repro` there, and commit"
            )
        return stages

    def _find(self, name: str, commit: str, stages: dict[str, Any], path: str) -> Path:
        """A file with what `path` held after that run."""
        wanted = _outputs(stages).get(path)
        if wanted is None:
            raise PodiumError(f"{name}: its dvc.lock has no {path}: it is of another version")
        here = self._root / path
        if commit == WORKSPACE and here.exists() and _md5(here) != wanted:
            raise PodiumError(
                f"{WORKSPACE}: {path} is not what dvc.lock says: it was edited, or dvc is at work; "
                "`dvc repro` first"
            )
        cached = self._cache / wanted[:2] / wanted[2:]
        for file in (cached, here):
            if file.is_file() and _md5(file) == wanted:
                return file
        state = "damaged in" if cached.is_file() else "not in"
        raise PodiumError(
            f"{name}: {path} (MD5 {wanted}) is {state} DVC's cache {self._cache}: fetch it from where "
            "it was made (`dvc fetch --all-commits`), or run that revision again"
        )

    def _load_answers(self, name: str, commit: str, stages: dict[str, Any]) -> Answers:
        return load_answers(self._find(name, commit, stages, DECODER))

    def _note_edits(self, name: str, commit: str, params: dict[str, Any]) -> tuple[str, ...]:
        """That params.yaml beside the run says something else than what it ran with."""
        if commit in {own for _, _, own in self._experiment_refs}:
            return ()  # DVC made both at once
        text = self._show(commit, "params.yaml")
        if text is None:
            return ()
        written = flatten(parse_yaml(text, f"{name}: params.yaml"))
        edited = [key for key, value in params.items() if written.get(key, value) != value]
        if not edited:
            return ()
        return (
            f"{name}: params.yaml has other values of {', '.join(edited)} than its last run had; "
            "what is compared here is that run",
        )

    def _show(self, commit: str, path: str) -> str | None:
        """The text of a file as it is in `commit`; None where it has none."""
        if commit == WORKSPACE:
            file = self._root / path
            return file.read_text("utf-8", errors="replace") if file.exists() else None
        return self._git("show", f"{commit}:./{path}")

    def _git(self, *words: str) -> str | None:
        """What git says; None where it fails, or is not there."""
        try:
            done = subprocess.run(
                ["git", *words],
                cwd=self._root,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _read_csv(name: str, path: str, file: Path) -> pd.DataFrame:
    """All cells as str; probabilities are made numbers later, exactly."""
    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise PodiumError(f"{name}: {path} is damaged: {error}") from None


def _outputs(stages: dict[str, Any]) -> dict[str, str]:
    """MD5 by path of what the stages made."""
    return {
        out["path"]: out.get("md5", "")
        for stage in stages.values()
        for out in stage.get("outs", [])
    }


def _up_to_evaluate(stages: dict[str, Any]) -> list[str]:
    """evaluate and all stages that it follows, in the lock's order: what made the predictions."""
    maker = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}
    todo, found = ["evaluate"], set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        todo += [maker[dep["path"]] for dep in stages[name].get("deps", []) if dep["path"] in maker]
    return [name for name in stages if name in found]


def _check_whole(name: str, stages: dict[str, Any]) -> None:
    """Whether every stage saw what the stage before it left: not so after half a repro."""
    made = _outputs(stages)
    for stage in _up_to_evaluate(stages):
        for dep in stages[stage].get("deps", []):
            if dep["path"] in made and made[dep["path"]] != dep.get("md5"):
                raise PodiumError(
                    f"{name} stopped half-way: {dep['path']} has changed since stage {stage} "
                    f"read it; `dvc repro` there, and commit"
                )


def _params(name: str, stages: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in _up_to_evaluate(stages):
        for tree in stages[stage].get("params", {}).values():
            for key, value in flatten(tree).items():
                if found.setdefault(key, value) != value:
                    raise PodiumError(
                        f"{name} stopped half-way: stage {stage} ran with {key}: {value}, a stage "
                        f"before it with {found[key]}; `dvc repro` there, and commit"
                    )
    return dict(sorted(found.items()))


def _inputs(stages: dict[str, Any]) -> dict[str, str]:
    made = _outputs(stages)
    return {
        dep["path"]: dep.get("md5", "")
        for stage in _up_to_evaluate(stages)
        for dep in stages[stage].get("deps", [])
        if dep["path"] not in made
    }
