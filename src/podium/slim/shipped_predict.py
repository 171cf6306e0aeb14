"""Class names and probabilities of image files: python predict.py IMAGE...

Needs numpy, pillow and the runtime that card.json names. Pixels, preprocessing and the model come
from shipped/, copies of the modules that the model was trained and judged with.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402

from podium.data.decode import UndecodableImageError, decode_file  # noqa: E402
from podium.engine.runner import Runner  # noqa: E402
from podium.errors import PodiumError  # noqa: E402


def main(paths: list[str]) -> int:
    """Print a line per image, likeliest class first; the number of images that cannot be read."""
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
    return failed


if __name__ == "__main__":
    try:
        sys.exit(2 if main(sys.argv[1:]) else 0)
    except PodiumError as problem:
        sys.exit(f"error: {problem}")
