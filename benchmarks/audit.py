"""How often the doctor cries wolf, and whether it finds what is there.

In: nothing. Small demo competitions are rendered in memory, one per seed, with a quick model (a
logistic regression on what an ImageNet net sees) in place of a trained one. Nothing but re-shot
lemons is planted in them: an alarm is a false alarm. Out: alarms by check, near-duplicates found and
falsely joined; exit code 1 where more than 2 % of the competitions alarm. Each seed's result is kept
in .podium/audit, so that a stopped run goes on.

    python benchmarks/audit.py --seeds 200 --write    # and into docs/audit.md
    python benchmarks/audit.py --labels CLONE    # a demo clone after `dvc repro evaluate`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from clones import ROOT, write_table
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from podium.data.decode import decode, open_image
from podium.data.file_traits import read_traits
from podium.data.predictions import load_predictions
from podium.files import write_json
from podium.intake.demo.photo import render_jpeg
from podium.intake.demo.plan import (
    make_plan,
    near_duplicate_pairs,
    noisy_indices,
    observed_label,
)
from podium.intake.demo.spec import DemoSpec, load_spec
from podium.intake.demo.write import photo_name
from podium.probes.baselines import measure_baselines
from podium.probes.cross_validation import FOLDS, make_folds
from podium.probes.shortcuts import BORDER, Probe, SeenFile, probe_drift, probe_shortcuts
from podium.runtime import configure_math
from podium.trust.audit.doctor import Case, audit
from podium.trust.audit.labels import find_candidates

N_TRAIN, N_TEST, SIZE_PX, PAIRS = 240, 60, 64, 4
CLASSES = ("0", "1", "2", "3")
MOST_ALARMS = 0.02


class Embedder:
    """uint8 images of `SIZE_PX` -> embeddings."""

    def __init__(self) -> None:
        configure_math()  # before Paddle loads
        from podium.engine.embeddings import TRUNK
        from podium.engine.inference import Predictor, export
        from podium.models.networks import build_trunk, make_preprocessing

        self._folder = tempfile.TemporaryDirectory(prefix="podium-")
        self._preprocessing = make_preprocessing(TRUNK, SIZE_PX)
        model = export(build_trunk(TRUNK, True), SIZE_PX, Path(self._folder.name))
        self._predictor = Predictor(model)

    def __call__(self, images: Any) -> Any:
        return self._predictor.run_images(images, self._preprocessing, "embed")


def make_case(seed: int, embed: Embedder) -> tuple[Case, set[frozenset[str]]]:
    """A demo competition of this seed, and the pairs in it that show one lemon."""
    spec = DemoSpec(seed, N_TRAIN, N_TEST, SIZE_PX, near_duplicates=PAIRS)
    jobs = [("train", k) for k in range(N_TRAIN)] + [("test", k) for k in range(N_TEST)]
    photos = [render_jpeg(make_plan(spec, split, k), SIZE_PX) for split, k in jobs]  # type: ignore[arg-type]
    names = [f"{split}_images/{photo_name(split, k)}" for split, k in jobs]  # type: ignore[arg-type]
    images = np.stack([decode(photo, SIZE_PX) for photo in photos])
    targets = np.array([observed_label(spec, "train", k) for k in range(N_TRAIN)])
    labels = [str(target) for target in targets]
    rows = pd.DataFrame(
        {
            "image_id": names,
            "path": names,
            "pixel_hash": names,
            "width": SIZE_PX,
            "height": SIZE_PX,
            "label": labels + [""] * N_TEST,
            "group_id": names,
            "source": [split for split, _ in jobs],
        }
    )
    files = [
        SeenFile(
            name,
            SIZE_PX,
            SIZE_PX,
            tuple(image.mean(axis=(0, 1)).tolist()),  # type: ignore[arg-type]
            read_traits(open_image(photo), len(photo)),
            listed_at=k if k < N_TRAIN else None,
        )
        for k, (name, image, photo) in enumerate(zip(names, images, photos, strict=True))
    ]
    small = images.reshape(len(images), 32, 2, 32, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    baselines = measure_baselines(small[:N_TRAIN], labels, names[:N_TRAIN], seed)
    assert baselines.border
    probes = [
        Probe(BORDER, baselines.border.as_effect(), baselines.majority, N_TRAIN),
        *probe_shortcuts(files[:N_TRAIN], labels, names[:N_TRAIN], seed),
        probe_drift(files[:N_TRAIN], files[N_TRAIN:], seed),
    ]
    embeddings = embed(images)
    folds = make_folds(targets, np.arange(N_TRAIN), seed)
    models = []
    probabilities = np.zeros((N_TRAIN, len(CLASSES)))
    for fold in range(FOLDS):
        mine = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=200))
        model.fit(embeddings[:N_TRAIN][~mine], targets[~mine])
        probabilities[mine] = model.predict_proba(embeddings[:N_TRAIN][mine])
        models.append(model)

    def answer(shown: Any, numbers: Any) -> Any:
        seen = embed(shown)
        answers = np.empty(len(numbers), dtype=np.int64)
        for fold, model in enumerate(models):
            mine = folds[numbers] == fold
            if mine.any():
                answers[mine] = model.predict(seen[mine])
        return answers

    case = Case(
        rows=rows,
        train_images=images[:N_TRAIN],
        test_images=images[N_TRAIN:],
        embeddings=embeddings,
        folds=dict(zip(names, folds.tolist(), strict=False)),
        val_rows=np.arange(N_TRAIN),
        targets=targets,
        probabilities=probabilities,
        classes=CLASSES,
        probes=probes,
        answer=answer,
        load_large=lambda path, side: decode(photos[names.index(path)], side),
        seed=seed,
    )
    pairs = {frozenset((names[a], names[b])) for a, b in near_duplicate_pairs(spec)}
    return case, pairs


def look_at(seed: int, embed: Embedder) -> dict[str, Any]:
    """What the doctor says of this seed's competition, and how far that is true."""
    case, pairs = make_case(seed, embed)
    result = audit(case)
    joined = {
        frozenset((one, other))
        for group in result.twins.groups
        for one in group
        for other in group
        if one < other
    }
    return {
        "alarms": [[f.check, f.sentence] for f in result.findings if f.severity == "alarm"],
        "notices": [f.check for f in result.findings if f.severity == "notice"],
        "found": len(joined & pairs),
        "missed": len(pairs - joined),
        "false": len(joined - pairs),
        "score": result.model.value,
    }


def look_once(seeds: range) -> Iterator[dict[str, Any]]:
    """`look_at` each seed, or what it gave when this very code last looked: a stopped run goes on."""
    kept = ROOT / ".podium/audit" / hash_code()
    kept.mkdir(parents=True, exist_ok=True)
    embed = None
    for seed in seeds:
        path = kept / f"{seed}.json"
        if not path.exists():
            embed = embed or Embedder()
            write_json(path, look_at(seed, embed))
        yield json.loads(path.read_text(encoding="utf-8"))


def hash_code() -> str:
    """Of the package and this script, as they are, committed or not."""
    digest = hashlib.sha256()
    for path in (*sorted((ROOT / "src").rglob("*.py")), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def count_false_alarms(seeds: range) -> tuple[str, bool]:
    """One line a seed that alarms; the result in a paragraph, and whether few enough do."""
    rows = []
    for seed, row in zip(seeds, look_once(seeds), strict=True):
        rows.append(row)
        for check, sentence in row["alarms"]:
            print(f"seed {seed}: {check}: {sentence}", flush=True)
        if len(rows) % 10 == 0:
            print(f"{len(rows)} seeds, {sum(bool(r['alarms']) for r in rows)} alarm", flush=True)
    count, alarmed = len(rows), sum(bool(row["alarms"]) for row in rows)
    found, missed, false = (sum(row[key] for row in rows) for key in ("found", "missed", "false"))
    surely = float(beta.ppf(0.95, alarmed + 1, count - alarmed)) if alarmed < count else 1.0
    lines = [
        f"In **{count} small renders, one per seed, {alarmed} with a false alarm** (surely fewer than "
        f"{surely:.1%}; the aim: {MOST_ALARMS:.0%}).",
        f"Re-shot pairs: {found} of {found + missed} found, and {false} of others joined. The quick "
        f"model scores {np.mean([row['score'] for row in rows]):.1%} on average.",
    ]
    for name, checks in (
        ("Alarms", [check for row in rows for check, _ in row["alarms"]]),
        ("Notices", [check for row in rows for check in row["notices"]]),
    ):
        told = ", ".join(f"{check} {times}" for check, times in Counter(sorted(checks)).items())
        lines.append(f"{name}: {told or 'none'}.")
    return "\n".join(lines), alarmed <= MOST_ALARMS * count


def measure_labels(clone: Path) -> None:
    """Precision and recall of the candidates of a demo clone, whose wrong labels are known."""
    os.chdir(clone)
    spec = load_spec(Path("data/raw"))
    val = pd.read_csv("predictions/val.csv", dtype=str)["image_id"].tolist()
    index_of = {f"train_images/{photo_name('train', k)}": k for k in range(spec.train)}
    targets = np.array([observed_label(spec, "train", index_of[name]) for name in val])
    probabilities = load_predictions(Path("predictions/val.csv"), val, CLASSES)
    wrong = {name for name in val if index_of[name] in set(noisy_indices(spec))}
    candidates = set(find_candidates(val, targets, probabilities, CLASSES)["image_id"])
    hits = len(candidates & wrong)
    print(
        f"{len(val)} val images, {len(wrong)} wrong labels, accuracy on given labels "
        f"{(probabilities.argmax(axis=1) == targets).mean():.1%}: {len(candidates)} candidates, "
        f"precision {hits / max(1, len(candidates)):.2f}, recall {hits / max(1, len(wrong)):.2f}"
    )


def main() -> None:
    """Parse, measure, print, write; exit code 1 where false alarms are too many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200, help="demo competitions to look at")
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument(
        "--labels", type=Path, metavar="CLONE", help="judge the label triage of one"
    )
    parser.add_argument("--write", action="store_true", help="put the result into docs/audit.md")
    arguments = parser.parse_args()
    if arguments.labels:
        measure_labels(arguments.labels)
        return
    said, is_quiet = count_false_alarms(range(arguments.first, arguments.first + arguments.seeds))
    print(said)
    if arguments.write:
        write_table("false alarms", said)
    sys.exit(0 if is_quiet else 1)


if __name__ == "__main__":
    main()
