"""`podium predict IMAGE...`: class names and probabilities from deploy/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from podium.data.decode import UndecodableImageError, decode
from podium.errors import PodiumError, ProblemsError
from podium.runtime import configure_math
from podium.tasks.table import make_data_task


def predict(images: list[Path], deploy: Path) -> None:
    """Print one line per image: file, best class, all probabilities, highest first.

    Raises:
        PodiumError, ProblemsError: no deploy/, or images that cannot be read, after the lines of
            those that can.
    """
    configure_math()
    from podium.slim.deployment import Deployment

    deployment = Deployment(deploy)
    classes = deployment.classes
    task = make_data_task(deployment.card["task"], classes=classes, ordinal=False)
    problems = []
    for path in images:
        try:
            pixels = decode(path.read_bytes(), deployment.preprocessing.image_size_px)
        except (UndecodableImageError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            problems.append(f"{path}: {reason}")
            continue
        probabilities = task.predictions(deployment.run_images(pixels[np.newaxis], "predict"))[0]
        order = np.argsort(-probabilities, kind="stable")
        shown = "  ".join(f"{classes[i]} {probabilities[i]:.4f}" for i in order[:10])
        print(f"{path}: {shown}")
    if len(problems) == 1:
        raise PodiumError(problems[0])
    if problems:
        raise ProblemsError(f"{len(problems)} images cannot be read:", problems)
