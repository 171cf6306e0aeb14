"""Out of memory, in words: which param to lower, also when the kernel ended the last run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podium.errors import PodiumError

LESS_MEMORY = (
    "If memory is short: raise train.accumulate (the same step in smaller passes), or lower "
    "train.processes, batch_size or image_size"
)

MemoryFacts = dict[str, Any]


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn Python's and Paddle's out-of-memory errors into one line.

    Raises:
        PodiumError: in their place.
    """
    try:
        yield
    except MemoryError as error:
        raise PodiumError(f"out of memory. {LESS_MEMORY}") from error
    except RuntimeError as error:  # Paddle: "(ResourceExhausted) ... Out of memory error on GPU 0"
        if "ResourceExhausted" not in str(error):
            raise
        raise PodiumError(f"out of memory. {LESS_MEMORY}") from error


def read_memory_facts() -> MemoryFacts:
    """Which boot this is, and how often its kernel has killed for lack of memory so far."""
    counts = {}
    for path in (Path("/proc/vmstat"), _cgroup_events()):
        with contextlib.suppress(OSError):
            pairs = (line.split() for line in path.read_text().splitlines())
            counts[str(path)] = next((int(count) for key, count in pairs if key == "oom_kill"), 0)
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot": boot, "oom_kills": counts}


def was_out_of_memory(then: MemoryFacts, now: MemoryFacts) -> bool:
    """Whether the kernel has killed for lack of memory between the two."""
    counts = then["oom_kills"]
    grew = any(count > counts.get(name, 0) for name, count in now["oom_kills"].items())
    return grew and then["boot"] == now["boot"]


def _cgroup_events() -> Path:
    """Where this process's control group (v2) counts its kills."""
    own = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            own = line.partition("::")[2] or own
    return Path("/sys/fs/cgroup") / own.lstrip("/") / "memory.events"
