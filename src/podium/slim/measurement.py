"""One candidate measured on the files that ship, in a process of its own.

In: a folder as it would be deployed, and images. Out: outputs, clocks and memory. The process is
fresh: nothing of the training stack is loaded, and no warm cache of another candidate helps. It
runs `python -m podium.slim.measurement REQUEST`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import podium
from podium.data.stored_rows import StoredRows
from podium.engine.runner import Outputs, Runner
from podium.errors import PodiumError, explain_os_error
from podium.stage import die_with_parent

THREADS = 1
BATCH = 32
_WARM_UP, _SINGLES, _BATCHES = 2, 40, 3
_SHOWN_OF_A_CRASH = 300
_NO_FAULT_OF_THE_MODEL = 3  # exit code
# ru_maxrss counts kB on Linux, bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class MachineError(PodiumError):
    """The machine ended a measurement: that says nothing of the candidate, nor of the next one."""


@dataclass(frozen=True)
class Measurement:
    """What one process found.

    Attributes:
        outputs: float32 (N, k), of the val images, the mean over the card's views.
        parity: float32 (n, k), of the images that every float candidate must answer alike.
        clocks: milliseconds, images a second, MB; no two runs give the same.
    """

    outputs: Outputs
    parity: Outputs
    clocks: dict[str, Any]


def measure(folder: Path, images: Path, parity: Path, scratch: Path) -> Measurement:
    """Measure the deployed model in `folder`.

    Args:
        folder: holds card and model files.
        images, parity: .npy files, uint8 (N, S, S, 3).
        scratch: an empty folder for what the process says.

    Raises:
        MachineError: the process was killed, or the disk is full or locked.
        PodiumError: the process did not end well otherwise; its last words.
    """
    request, said = scratch / "request.json", scratch / "outputs.npz"
    request.write_text(
        json.dumps([str(path) for path in (folder, images, parity, said)]), encoding="utf-8"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(podium.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "podium.slim.measurement", str(request)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = words[-1][-_SHOWN_OF_A_CRASH:] if words else f"exit code {done.returncode}"
        if done.returncode == -signal.SIGKILL:
            raise MachineError(
                f"the process that measured {folder.name} was killed, as for want of memory: run again"
            )
        if done.returncode == _NO_FAULT_OF_THE_MODEL:
            raise MachineError(last)
        raise PodiumError(f"its process failed: {last}")
    with np.load(said) as arrays:
        clocks = json.loads(str(arrays["clocks"]))
        return Measurement(arrays["outputs"], arrays["parity"], clocks)


def run_request(request: Path) -> None:
    """The measuring process: clocks first, when nothing but the model is in memory."""
    folder, images, parity, said = map(Path, json.loads(request.read_text(encoding="utf-8")))
    start = time.perf_counter()
    runner = Runner(folder, THREADS)
    loaded_s = time.perf_counter() - start
    size = runner.preprocessing.image_size_px
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    singles = _clock(runner, batch[:1], _SINGLES)
    p50, p95 = np.percentile(np.array(singles) * 1000, [50, 95])
    per_batch = float(np.median(_clock(runner, batch, _BATCHES)))
    clocks = {
        "threads": THREADS,
        "latency_p50_ms": round(float(p50), 3),
        "latency_p95_ms": round(float(p95), 3),
        "throughput_images_s": round(BATCH / per_batch, 1),
        "load_s": round(loaded_s, 3),
        "peak_memory_mb": round(_read_peak_bytes() / 1e6, 1),
    }
    rows = StoredRows(images)
    outputs = [runner.run(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
    np.savez(
        said,
        outputs=np.concatenate(outputs),
        parity=runner.run_plain(np.load(parity)),
        clocks=np.array(json.dumps(clocks)),
    )


def _read_peak_bytes() -> int:
    """Of this process's resident memory. Linux's rusage counts what its parent had before exec, too."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _clock(runner: Runner, batch: npt.NDArray[np.uint8], times: int) -> list[float]:
    """Seconds from pixels to outputs, one view, after a warm-up."""
    seconds = []
    for _ in range(_WARM_UP + times):
        start = time.perf_counter()
        runner.run_plain(batch)
        seconds.append(time.perf_counter() - start)
    return seconds[_WARM_UP:]


if __name__ == "__main__":
    die_with_parent()
    try:
        run_request(Path(sys.argv[1]))
    except PodiumError as error:
        sys.exit(str(error))
    except OSError as error:
        if not (explained := explain_os_error(error)):
            raise
        print(explained, file=sys.stderr)
        sys.exit(_NO_FAULT_OF_THE_MODEL)
    except KeyboardInterrupt:
        sys.exit(130)
