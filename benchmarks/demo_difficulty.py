"""How hard is the demo competition, and does anything but the lemon reveal the grade?

In: nothing (2,000 demo photos are rendered in memory, with clean labels). Out: a table of probes,
each a logistic regression scored by 5-fold cross-validation, beside the majority's share.

    python -m benchmarks.demo_difficulty [--images 2000] [--size 160] [--seed 0]
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from podium.intake.demo.photo import render_jpeg
from podium.intake.demo.plan import SEVERITY_WEIGHT, make_plan
from podium.intake.demo.spec import DemoSpec
from podium.runtime import available_cores

FOLDS = 5
BORDER = 0.10  # of the side, all round


def measure_photo(job: tuple[int, int, int]) -> tuple[dict[str, npt.NDArray[np.float64]], int]:
    """Every probe's features of one photo, from its decoded JPEG, and its true grade."""
    from PIL import Image

    seed, size, index = job
    plan = make_plan(DemoSpec(seed=seed), "test", index)
    content = render_jpeg(plan, size)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    rgb = np.asarray(image, dtype=np.float64) / 255
    edge = round(BORDER * size)
    inside = np.zeros((size, size), dtype=bool)
    inside[edge:-edge, edge:-edge] = True
    border = image.resize((40, 40), Image.Resampling.BOX)
    rim = np.ones((40, 40), dtype=bool)
    rim[4:-4, 4:-4] = False
    outside = rgb[~inside]
    features: dict[str, Any] = {
        f"thumbnail {side} x {side}": np.asarray(
            image.resize((side, side), Image.Resampling.BOX), dtype=np.float64
        ).ravel()
        for side in (8, 16, 24)
    }
    features["border, pixels at 40 x 40"] = np.asarray(border, dtype=np.float64)[rim].ravel()
    features["border, mean and spread"] = np.concatenate([outside.mean(0), outside.std(0)])
    features["file size"] = np.array([len(content)])
    features["mean colour, brightness, file size"] = np.array(
        [*rgb.mean((0, 1)), rgb.mean(), len(content)]
    )
    # Not asked to be silent: the spread of colours sees that a spoilt lemon is less of one colour.
    features["the same and spread of colours"] = np.array(
        [*rgb.mean((0, 1)), *rgb.std((0, 1)), rgb.mean(), rgb.std(), len(content)]
    )
    features["defect areas from the plan, 15 % noise"] = _noisy_areas(plan, index)
    return features, plan.grade


def _noisy_areas(plan: Any, index: int) -> npt.NDArray[np.float64]:
    """Area of each defect kind, seen with 15 % error: about what a good model can know."""
    random = np.random.default_rng(index)
    areas = [
        sum(defect.area * random.normal(1, 0.15) for defect in plan.defects if defect.kind == kind)
        for kind in SEVERITY_WEIGHT
    ]
    return np.sqrt(np.maximum(0, [*areas, sum(areas)]))


def score_probe(features: npt.NDArray[np.float64], grades: npt.NDArray[np.int64]) -> float:
    """Best 5-fold accuracy over two strengths of regularisation (to the probe's favour)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scores = []
    strengths = (0.0003, 0.01) if features.shape[1] > 20 else (0.01, 10.0)
    for strength in strengths:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=100))
        scores.append(float(cross_val_score(probe, features, grades, cv=folds).mean()))
    return max(scores)


def main() -> None:
    """Render, probe, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    start = time.perf_counter()
    jobs = [(options.seed, options.size, index) for index in range(options.images)]
    with ProcessPoolExecutor(available_cores()) as pool:
        measured = list(pool.map(measure_photo, jobs, chunksize=20))
    seconds = time.perf_counter() - start
    grades = np.array([grade for _, grade in measured])
    majority = np.bincount(grades).max() / len(grades)
    margin = 1.96 * (majority * (1 - majority) / len(grades)) ** 0.5
    print(f"{len(grades)} photos of {options.size} px in {seconds:.1f} s")
    print(f"majority {majority:.1%}, 95 % interval +- {margin:.1%}")
    for name in measured[0][0]:
        features = np.stack([photo[name] for photo, _ in measured])
        print(f"{score_probe(features, grades):7.1%}  {name}", flush=True)
    size_kb = np.array([photo["file size"][0] for photo, _ in measured]) / 1000
    mean = np.array([photo["mean colour, brightness, file size"][3] for photo, _ in measured])
    for grade in range(4):
        chosen = grades == grade
        print(
            f"grade {grade}: file {size_kb[chosen].mean():.2f} +- {size_kb[chosen].std():.2f} kB, "
            f"brightness {mean[chosen].mean():.3f} +- {mean[chosen].std():.3f}"
        )


if __name__ == "__main__":
    main()
