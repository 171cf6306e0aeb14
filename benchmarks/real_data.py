"""The real competitions, by `podium init` alone: out-of-fold score beside the baselines.

In: shared/data beside the repository (skipped with a word where it is missing). For each
competition a fresh clone of HEAD is made, `podium init` brings the files in, every fold is held out
once, and the out-of-fold predictions are scored together. Out: a Markdown table on stdout, and
with --write also in docs/results.md.

    make check-real
    python benchmarks/real_data.py --only gesture --write
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import pandas as pd  # noqa: E402

from podium.data.manifest import load_manifest  # noqa: E402
from podium.files import write_text  # noqa: E402
from podium.params import read_yaml  # noqa: E402
from podium.tasks.classification.data import ClassificationData  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
COMPETITIONS = {
    "lemon": DATA / "lemon",
    "gesture": DATA / "gesture" / "gesture.zip",
    "plates": DATA / "plates" / "plates.zip",
}
RESULTS = ROOT / "docs" / "results.md"
START, END = "<!-- real data: start -->", "<!-- real data: end -->"
HEADER = (
    "| competition | images, classes | 5-fold OOF accuracy (95 %) | majority | linear thumbnails "
    "| border alone | int8: accuracy, MB (float32 MB) | submission | init | files -> submission |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def run(folder: Path, *words: str) -> str:
    """Run a command of this environment in `folder`; its output, or its output and the end."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} failed in {folder}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def measure(name: str, source: Path, folder: Path) -> str:
    """One row of the table."""
    run(folder, "git", "clone", "--quiet", str(ROOT), "clone")
    clone = folder / "clone"
    start = time.perf_counter()
    run(clone, "podium", "init", str(source))
    init_s = time.perf_counter() - start
    start = time.perf_counter()
    run(clone, "dvc", "repro", "--quiet")
    run_s = time.perf_counter() - start
    params = read_yaml(clone / "params.yaml")
    competition = params["competition"]
    folds = [pd.read_csv(clone / "predictions/val.csv", dtype={"image_id": str})]
    compress = load(clone, "compress")
    submit = load(clone, "submit")
    for fold in range(1, params["split"]["folds"]):
        text = (clone / "params.yaml").read_text(encoding="utf-8")
        changed = re.sub(r"(?m)^(  val_fold: )\d+", rf"\g<1>{fold}", text)
        write_text(clone / "params.yaml", changed)
        run(clone, "dvc", "repro", "--quiet", "evaluate")
        folds.append(pd.read_csv(clone / "predictions/val.csv", dtype={"image_id": str}))
    oof = pd.concat(folds).set_index("image_id")
    manifest = load_manifest(clone / "data/manifest.csv").set_index("image_id")
    task = ClassificationData(tuple(competition["classes"]), competition["ordinal"])
    rows = manifest.loc[oof.index]
    metrics = task.metrics(
        oof.to_numpy(), task.targets(rows["label"].tolist()), rows["group_id"].tolist(), 0
    )
    eda = load(clone, "eda")
    shipped = compress[compress["shipped"]]
    cells = [
        name,
        f"{eda['n_train']} + {eda['n_test']}, {eda['n_classes']}",
        f"**{metrics['accuracy']:.1%}** ({metrics['accuracy_low']:.1%} to "
        f"{metrics['accuracy_high']:.1%})",
        f"{eda['majority_accuracy']:.1%}",
        f"{eda['linear_accuracy']:.1%}",
        f"{eda['border_accuracy']:.1%}",
        f"{shipped['accuracy']:.1%} on fold 0 ({compress['float32']['accuracy']:.1%} before), "
        f"{shipped['bytes'] / 1e6:.1f} MB ({compress['float32']['bytes'] / 1e6:.1f})",
        f"{submit['rows']} rows, legal",
        f"{init_s:.0f} s",
        f"{run_s:.0f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def load(clone: Path, name: str) -> dict:
    """metrics/NAME.json of a clone."""
    return json.loads((clone / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


def cpu_model() -> str:
    """As /proc/cpuinfo names it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "an unknown CPU"
    return next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line), "?"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=COMPETITIONS, help="one competition")
    parser.add_argument("--write", action="store_true", help="put the table into docs/results.md")
    arguments = parser.parse_args()
    rows = []
    for name, source in COMPETITIONS.items():
        if arguments.only not in (None, name):
            continue
        if not source.exists():
            print(f"skipped {name}: {source.relative_to(ROOT.parent)} is not beside the repository")
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"podium-{name}-"))
        try:
            rows.append(measure(name, source, folder))
        finally:
            shutil.rmtree(folder)
        print(rows[-1], flush=True)
    if not rows:
        return
    cores = len(os.sched_getaffinity(0))
    table = "\n".join([f"Default params, {cores} cores of {cpu_model()}.\n", HEADER, *rows])
    print(table)
    if arguments.write:
        text = RESULTS.read_text(encoding="utf-8")
        before, rest = text.split(START)
        after = rest.split(END)[1]
        write_text(RESULTS, f"{before}{START}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
