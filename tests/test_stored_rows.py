"""Rows of an array on the disk: an array to the eye, and never more of it in memory than asked."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from podium.data.stored_rows import StoredRows, write_rows

ROOT = Path(__file__).resolve().parents[1]


def store(folder: Path, array: np.ndarray) -> Path:
    path = folder / "rows.npy"
    write_rows(path, iter(array), array.shape, array.dtype)
    return path


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (10, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("key", [slice(2, 5), slice(None), slice(8, 99), [3, 3, 0], np.arange(2)])
def test_it_is_indexed_like_an_array(tmp_path: Path, array: np.ndarray, key: object) -> None:
    rows = StoredRows(store(tmp_path, array))
    assert rows.shape == array.shape
    assert np.array_equal(rows[key], array[key])  # type: ignore[index]
    assert np.array_equal(rows[7], array[7])


def test_numpy_reads_the_same_file(tmp_path: Path, array: np.ndarray) -> None:
    assert np.array_equal(np.load(store(tmp_path, array)), array)


def test_a_selection_of_a_selection(tmp_path: Path, array: np.ndarray) -> None:
    part = StoredRows(store(tmp_path, array)).select(np.array([9, 1, 4])).select([2, 0])
    gc.collect()  # the file stays open while a part of it is in use
    assert part.shape == (2, 4, 3)
    assert np.array_equal(part[:], array[[4, 9]])


def test_no_rows(tmp_path: Path) -> None:
    rows = StoredRows(store(tmp_path, np.zeros((0, 2), np.float32)))
    assert rows[:].shape == (0, 2)


def test_threads_share_one(tmp_path: Path) -> None:
    array = np.arange(4000).reshape(1000, 4)
    rows = StoredRows(store(tmp_path, array))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: rows[n].tolist(), range(1000))) == array.tolist()


def test_files_are_closed(tmp_path: Path, array: np.ndarray) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files cannot be counted here")
    path = store(tmp_path, array)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        StoredRows(path)[0]
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_what_is_no_whole_array_is_refused(
    tmp_path: Path, array: np.ndarray, content: bytes | None
) -> None:
    path = store(tmp_path, array)
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises((ValueError, EOFError)):
        StoredRows(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not rows of numbers"):
        StoredRows(tmp_path / "x.npy")


def test_rows_of_another_shape_or_number_are_a_bug(tmp_path: Path) -> None:
    def rows() -> Iterator[np.ndarray]:
        yield np.zeros(3, np.uint8)

    for shape, kind in (((2, 3), np.uint8), ((1, 4), np.uint8), ((1, 3), np.float32)):
        with pytest.raises(ValueError):
            write_rows(tmp_path / "x.npy", rows(), shape, kind)


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, "src")
from podium.data.stored_rows import StoredRows, write_rows
path, count = Path(sys.argv[1]), int(sys.argv[2])
pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
write_rows(path, (pixels for _ in range(count)), (count, 96, 96, 3), np.uint8)
rows = StoredRows(path)
for start in range(0, count, 32):
    rows[start : start + 32].sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """550 MB of images, written and read through; a memory map would count all of them."""
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(tmp_path / "x.npy"), str(count)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for count in (1_000, 20_000)
    ]
    assert peaks[1] <= 1.1 * peaks[0]
