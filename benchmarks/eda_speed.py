"""How fast eda reads images, beside the least any reader has to do.

Run: python benchmarks/eda_speed.py [FOLDER_OF_IMAGES ...]. Without a folder: the real lemons beside
the repository, 640 px photographs that it makes, and data/raw (the demo: so small that Python's own
overhead counts), as far as they are there. The bare loop opens, drafts and loads each file with
Pillow on the same threads and does nothing else: no hash, no check, no thumbnail. Both take turns,
the best of each counts.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from podium.data.ids import list_images
from podium.data.inspection import REDUCED_PX, inspect_files
from podium.runtime import available_cores

LEMON = Path(__file__).resolve().parents[2] / "shared" / "data" / "lemon" / "train_images"
TURNS = 5
LEAST_RATIO = 0.65


def main() -> None:
    """Print images/s of both, their ratio, and the CPU."""
    print(f"{available_cores()} cores of {cpu_model()}")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(word) for word in sys.argv[1:]]
        if not folders:
            write_images(Path(scratch), 800)
            folders = [LEMON, Path(scratch), Path("data/raw")]
        for folder in folders:
            paths = [folder / name for name in list_images(folder)]
            if paths:
                compare("made here" if folder == Path(scratch) else folder.name, paths)


def compare(name: str, paths: list[Path]) -> None:
    """Print one line for one folder."""
    loops: dict[str, Callable[[list[Path]], object]] = {"bare": read_bare, "eda": inspect_files}
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    for _ in range(TURNS):
        for label, loop in loops.items():
            start = time.perf_counter()
            loop(paths)
            seconds[label].append(time.perf_counter() - start)
    rates = {label: len(paths) / min(times) for label, times in seconds.items()}
    print(
        f"{name}: {len(paths)} images, bare Pillow draft loop {rates['bare']:.0f} images/s, "
        f"eda {rates['eda']:.0f} images/s, ratio {rates['eda'] / rates['bare']:.2f} "
        f"(target: at least {LEAST_RATIO})"
    )


def read_bare(paths: list[Path]) -> None:
    """Decode each file as Pillow does by itself, to the size that eda looks at."""

    def read(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (REDUCED_PX, REDUCED_PX))
            image.load()

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(read, paths))


def write_images(folder: Path, number: int) -> None:
    """Write 640 px JPEGs with the detail of photographs."""
    for index in range(number):
        draw = np.random.default_rng(index)
        small = Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        noise = draw.normal(0, 4, (640, 640, 3))
        pixels = np.asarray(small.resize((640, 640), Image.Resampling.BICUBIC)) + noise
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        (folder / f"{index:04}.jpg").write_bytes(stream.getvalue())


def cpu_model() -> str:
    """The CPU's name as the kernel gives it, else `unknown CPU`."""
    source = Path("/proc/cpuinfo")
    lines = source.read_text().splitlines() if source.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"


if __name__ == "__main__":
    main()
