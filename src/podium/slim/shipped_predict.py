"""Class names and probabilities of image files: python predict.py IMAGE...

Needs numpy, pillow and the runtime that card.json names. Pixels, preprocessing and the model come
from shipped/, copies of the modules that the model was trained and judged with.
"""

import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

# What is imported by one name is installed by another.
PACKAGES = {"PIL": "pillow", "paddle": "paddlepaddle"}


def fail(problem: Exception) -> NoReturn:
    """End with one line and exit code 2."""
    line = str(problem)
    if isinstance(problem, ModuleNotFoundError):
        line = f"{problem.name} is not installed: pip install "
        line += PACKAGES.get(str(problem.name), str(problem.name))
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


try:
    import numpy as np

    from podium.data.decode import UndecodableImageError, decode_file
    from podium.engine.runner import Runner
    from podium.errors import PodiumError
except ModuleNotFoundError as missing:
    fail(missing)


def main(paths: list[str]) -> int:
    """Print a line per image, likeliest class first; the exit code."""
    if not paths:
        print("usage: python predict.py IMAGE...", file=sys.stderr)
        return 2
    runner, failed = Runner(HERE), 0
    for path in paths:
        try:
            pixels = decode_file(Path(path), runner.preprocessing.image_size_px)
        except (UndecodableImageError, OSError) as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            failed += 1
            continue
        outputs = runner.run(pixels[np.newaxis])[0].astype(np.float64)
        shares = np.exp(outputs - outputs.max()) / np.exp(outputs - outputs.max()).sum()
        order = np.argsort(-shares, kind="stable")[:10]
        print(
            f"{path}: " + "  ".join(f"{runner.card['classes'][i]} {shares[i]:.4f}" for i in order)
        )
    return 2 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (PodiumError, ModuleNotFoundError) as problem:
        fail(problem)
