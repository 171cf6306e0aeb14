"""Writes the demo competition: the real one's layout, made on all cores."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from podium.errors import PodiumError
from podium.files import replace_folder, write_text
from podium.intake.demo.photo import render_jpeg
from podium.intake.demo.plan import make_plan, observed_label
from podium.intake.demo.spec import SPEC_FILE, DemoSpec, Split, write_spec
from podium.progress import track
from podium.runtime import available_cores
from podium.stage import die_with_parent

TRAIN_IMAGES = "train_images"
TEST_IMAGES = "test_images"
TRAIN_CSV = "train_images.csv"
SAMPLE_SUBMISSION = "sample_submit.csv"

_FOLDERS: dict[Split, str] = {"train": TRAIN_IMAGES, "test": TEST_IMAGES}
_CHUNK = 10  # photos a worker takes at a time: about 0.1 s of work


def photo_name(split: Split, index: int) -> str:
    """The file's name, which is its id: `train_0000.jpg`."""
    return f"{split}_{index:04d}.jpg"


def write_demo(root: Path, spec: DemoSpec, workers: int | None = None) -> None:
    """Make the demo competition in `root`, whole or not at all.

    Writes train_images/, test_images/, train_images.csv and sample_submit.csv (both
    `file,label` without a header; the sample's labels are all 0) and demo.json. The bytes depend
    on `spec` alone. The true labels of the test photos are in no file.

    Args:
        root: new folder, or one that holds an earlier demo competition, which is replaced.
        spec: what to make.
        workers: processes; None takes one a core.

    Raises:
        PodiumError: `root` holds something else.
    """
    if root.exists() and not (root / SPEC_FILE).exists() and not _is_empty_folder(root):
        raise PodiumError(
            f"{root} holds something that is not a demo competition (it has no {SPEC_FILE}): "
            "nothing was overwritten; choose an empty folder"
        )
    jobs = [(spec, split, index) for split in _FOLDERS for index in range(spec.count(split))]
    with replace_folder(root) as fresh:
        for folder in _FOLDERS.values():
            (fresh / folder).mkdir()
        for (_, split, index), content in zip(
            jobs, track(_render_all(jobs, workers), len(jobs), "demo photos"), strict=True
        ):
            (fresh / _FOLDERS[split] / photo_name(split, index)).write_bytes(content)
        write_text(fresh / TRAIN_CSV, _make_csv(spec, "train"))
        write_text(fresh / SAMPLE_SUBMISSION, _make_csv(spec, "test"))
        write_spec(fresh, spec)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _make_csv(spec: DemoSpec, split: Split) -> str:
    labels = (
        observed_label(spec, split, index) if split == "train" else 0
        for index in range(spec.count(split))
    )
    return "".join(f"{photo_name(split, index)},{label}\n" for index, label in enumerate(labels))


def _render_all(jobs: list[tuple[DemoSpec, Split, int]], workers: int | None) -> Iterable[bytes]:
    """The photos' bytes in the order of `jobs`."""
    count = min(workers or available_cores(), -(-len(jobs) // _CHUNK))
    if count == 1:
        yield from map(_render_job, jobs)
        return
    # spawn: a fork of a process with threads (the progress bar, a math library) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _start_worker) as pool:
        try:
            yield from pool.map(_render_job, jobs, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """A killed parent takes its workers along; Ctrl-C is the parent's to handle."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render_job(job: tuple[DemoSpec, Split, int]) -> bytes:
    spec, split, index = job
    return render_jpeg(make_plan(spec, split, index), spec.size_px)
