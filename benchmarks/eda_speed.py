"""How fast eda reads images, beside the least any reader has to do.

Run: python benchmarks/eda_speed.py [FOLDER_OF_IMAGES]. Without a folder: data/raw, else images that
it makes. The bare loop opens, drafts and loads each file with Pillow on the same threads and does
nothing else: no hash, no check, no thumbnail. Both take turns, the best of each counts.
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

TURNS = 5
LEAST_RATIO = 0.65


def main() -> None:
    """Print images/s of both, their ratio, and the CPU."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("data/raw")
        paths = [folder / name for name in list_images(folder)]
        if not paths:
            folder = Path(scratch)
            paths = write_images(folder, 800)
        loops: dict[str, Callable[[list[Path]], object]] = {"bare": read_bare, "eda": inspect_files}
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(TURNS):
            for name, loop in loops.items():
                start = time.perf_counter()
                loop(paths)
                seconds[name].append(time.perf_counter() - start)
    rates = {name: len(paths) / min(times) for name, times in seconds.items()}
    ratio = rates["eda"] / rates["bare"]
    print(f"{len(paths)} images, {available_cores()} cores, {cpu_model()}")
    print(f"bare Pillow draft loop {rates['bare']:.0f} images/s, eda {rates['eda']:.0f} images/s")
    print(f"ratio {ratio:.2f} (at least {LEAST_RATIO})")


def read_bare(paths: list[Path]) -> None:
    """Decode each file as Pillow does by itself, to the size that eda looks at."""

    def read(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (REDUCED_PX, REDUCED_PX))
            image.load()

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(read, paths))


def write_images(folder: Path, number: int) -> list[Path]:
    """Write 640 px JPEGs with the detail of photographs; returns their paths."""
    paths = []
    for index in range(number):
        draw = np.random.default_rng(index)
        small = Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        noise = draw.normal(0, 4, (640, 640, 3))
        pixels = np.asarray(small.resize((640, 640), Image.Resampling.BICUBIC)) + noise
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
        paths.append(folder / f"{index:04}.jpg")
        paths[-1].write_bytes(stream.getvalue())
    return paths


def cpu_model() -> str:
    """The CPU's name as the kernel gives it, else `unknown CPU`."""
    source = Path("/proc/cpuinfo")
    lines = source.read_text().splitlines() if source.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"


if __name__ == "__main__":
    main()
