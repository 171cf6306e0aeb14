"""Runs as git and DVC's cache hold them, made by hand: no stage runs, a test has one in a second.

In: what a run is said to have answered. Out: a git repository with dvc.lock, a cache and pictures.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from ruamel.yaml import YAML

from podium.tasks.answers import Answers, write_answers

N = 40
CLASSES = ("cat", "dog")


def make_picture(number: int) -> bytes:
    """A small PNG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 5 % 256, 90, 200)).save(stream, "PNG")
    return stream.getvalue()


@dataclass(frozen=True)
class Written:
    """One run's outputs and params.

    Attributes:
        right: numbers of the images that are answered rightly.
        rows: the manifest, one row for each of N images, all of them in the val set.
        fold: of all images.
        params: by path, beside those that every run has.
        code: hash of what the run was made with.
    """

    right: frozenset[int] = frozenset(range(N))
    ids: tuple[str, ...] = tuple(f"img/{number:03d}.png" for number in range(N))
    labels: tuple[str, ...] = tuple(CLASSES[number % 2] for number in range(N))
    soft_labels: tuple[str, ...] = ("",) * N
    groups: tuple[str, ...] = tuple(f"g{number:03d}" for number in range(N))
    pixels: tuple[str, ...] = tuple(f"pixels{number}" for number in range(N))
    fold: int = 0
    classes: tuple[str, ...] = CLASSES
    params: dict[str, Any] = field(default_factory=dict)
    code: str = "1" * 32
    answers: Answers = field(default_factory=Answers)

    def with_wrong(self, *numbers: int) -> Written:
        return replace(self, right=self.right - set(numbers))

    def with_params(self, **values: Any) -> Written:
        """`train__ema=0.5` sets train.ema."""
        named = {key.replace("__", "."): value for key, value in values.items()}
        return replace(self, params={**self.params, **named})

    def change(self, column: str, number: int, value: str) -> Written:
        """Another label, group, ... of one image."""
        values = list(getattr(self, column))
        values[number] = value
        return replace(self, **{column: tuple(values)})

    def manifest(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "image_id": self.ids,
                "path": [f"data/raw/{name}" for name in self.ids],
                "sha256": [
                    hashlib.sha256(make_picture(number)).hexdigest()
                    for number in range(len(self.ids))
                ],
                "pixel_hash": self.pixels[: len(self.ids)],
                "label": self.labels[: len(self.ids)],
                "soft_label": self.soft_labels[: len(self.ids)],
                "group_id": self.groups[: len(self.ids)],
            }
        )

    def predictions(self) -> pd.DataFrame:
        rows = []
        for number, name in enumerate(self.ids):
            truth = self.classes.index(self.labels[number])
            said = truth if number in self.right else (truth + 1) % len(self.classes)
            values = np.full(len(self.classes), 0.1 / (len(self.classes) - 1))
            values[said] = 0.9
            rows.append([name, self.fold, *values])
        return pd.DataFrame(rows, columns=["image_id", "fold", *(f"p_{c}" for c in self.classes)])

    def all_params(self) -> dict[str, Any]:
        return {
            "seed": 0,
            "lr": 0.001,
            "competition.task": "classification",
            "competition.classes": list(self.classes),
            "competition.ordinal": False,
            "competition.source": "data/raw",
            "evaluate": {"primary": "accuracy", "bootstrap_draws": 200},
            **self.params,
        }


class Repository:
    """A git repository in `root` whose runs are written by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data/raw/img").mkdir(parents=True)
        for number in range(N):
            (root / f"data/raw/img/{number:03d}.png").write_bytes(make_picture(number))
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
        (root / ".gitignore").write_text("/data\n/predictions\n/.dvc/cache\n/.podium\n")
        (root / "dvc.yaml").write_text("stages: {}\n")
        self.git("init", "--quiet", "--initial-branch=main")
        for key, value in {"user.name": "Test", "user.email": "test@example.com"}.items():
            self.git("config", key, value)

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, run: Written) -> dict[str, Path]:
        """Put the run into the workspace and the cache; the cached files by path."""
        (self.root / "predictions").mkdir(exist_ok=True)
        run.manifest().to_csv(self.root / "data/manifest.csv", index=False)
        run.predictions().to_csv(self.root / "predictions/val.csv", index=False)
        write_answers(self.root / "predictions/decoder.json", run.answers)
        hashes, cached = {}, {}
        for path in ("data/manifest.csv", "predictions/val.csv", "predictions/decoder.json"):
            content = (self.root / path).read_bytes()
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            hashes[path] = {"path": path, "hash": "md5", "md5": md5, "size": len(content)}
            cached[path] = self.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
            cached[path].parent.mkdir(parents=True, exist_ok=True)
            cached[path].write_bytes(content)
        code = {"path": "src/podium/engine", "hash": "md5", "md5": run.code}
        params = run.all_params()
        stages = {
            "eda": {
                "params": {"params.yaml": {"seed": params["seed"]}},
                "outs": [hashes["data/manifest.csv"]],
            },
            "evaluate": {
                "deps": [dict(hashes["data/manifest.csv"]), code],
                "params": {"params.yaml": params},
                "outs": [hashes["predictions/decoder.json"], hashes["predictions/val.csv"]],
            },
            "submit": {
                "params": {"params.yaml": {"competition.max_model_mb": 5}},
                "outs": [],
            },
        }
        tree: dict[str, Any] = {}
        for key, value in params.items():
            *sections, last = key.split(".")
            section = tree
            for name in sections:
                section = section.setdefault(name, {})
            section[last] = value
        yaml = YAML(typ="safe")
        with (self.root / "dvc.lock").open("w") as stream:
            yaml.dump({"schema": "2.0", "stages": stages}, stream)
        with (self.root / "params.yaml").open("w") as stream:
            yaml.dump(tree, stream)
        return cached

    def commit(self, run: Written, tags: Sequence[str] = ()) -> str:
        """The run as a commit; its hash."""
        self.write(run)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "run")
        for tag in tags:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str, run: Written, baseline: str = "HEAD") -> str:
        """The run as `dvc exp run` keeps it: a commit that only a ref of DVC's leads to."""
        start = self.git("rev-parse", baseline)
        branch = self.git("rev-parse", "--abbrev-ref", "HEAD")
        commit = self.commit(run)
        self.git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/{name}", commit)
        self.git("reset", "--quiet", "--hard", start)
        assert branch == "main"
        return commit
