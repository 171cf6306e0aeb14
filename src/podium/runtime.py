"""The machine: math environment, random seeds, cores.

What changes bits is fixed here or is an explicit param, never read off the machine; what does not
change bits (worker counts) may follow the cores at hand.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import warnings
from pathlib import Path

from podium.errors import PodiumError

# Threads of one compute process. It changes the order of sums and so the bits of a trained model:
# a constant, not the core count.
MATH_THREADS = 1


def configure_math() -> None:
    """Set the math libraries' environment; must run before Paddle is imported.

    MKL_DYNAMIC and OMP_DYNAMIC keep the thread count, and so the bits, equal on a machine with
    fewer cores. What else is set follows from the CPU class.
    """
    settings = {
        **mkl_dispatch(cpu_class()),
        "MKL_DYNAMIC": "FALSE",
        "OMP_DYNAMIC": "FALSE",
        "OMP_NUM_THREADS": str(MATH_THREADS),
        "MKL_NUM_THREADS": str(MATH_THREADS),
        "FLAGS_cpu_deterministic": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "GLOG_minloglevel": "2",
    }
    os.environ.update(settings)
    # Paddle's remarks about itself, at every import and every training: nothing a user could mend.
    for remark in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=remark, category=UserWarning)


def mkl_dispatch(cpu: str) -> dict[str, str]:
    """Paddle's bundled MKL (2019) takes its slowest path on CPUs that are not Intel's. Its debugging
    switch names the path: 5 is AVX2's, 7 is AVX-512's. A ResNet-18 pass over 16 images, one
    thread: 1509 ms without, 430 with 5, 290 with 7. Intel's own CPUs choose well by themselves.
    """
    vendor, _, vectors = cpu.partition("/")
    path = {"avx512f": "7", "avx2": "5"}.get(vectors)
    return {"MKL_DEBUG_CPU_TYPE": path} if vendor == "AuthenticAMD" and path else {}


def describe_math() -> str:
    """What a training's speed depends on, in one line."""
    path = os.environ.get("MKL_DEBUG_CPU_TYPE", "its own choice")
    return (
        f"{MATH_THREADS} math thread each, {available_cores()} cores, {cpu_class()}, "
        f"MKL path {path}, freed memory kept"
    )


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed: a training step asks for the same buffers again, and
    every one that went back to the kernel costs its page faults anew (5 % of a ResNet-18 step)."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


def cpu_class() -> str:
    """The class of CPUs on which equal params give equal bytes: vendor and widest vector unit."""
    flags = cpu_flags()
    widest = next((unit for unit in ("avx512f", "avx2", "avx") if unit in flags), "baseline")
    return f"{_cpuinfo().get('vendor_id', 'unknown')}/{widest}"


def cpu_flags() -> set[str]:
    """What the first processor can do, in the kernel's words; empty where it does not say."""
    return set(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def data_workers(usual: int) -> int:
    """Threads that read and prepare images: `usual`, unless PODIUM_WORKERS says otherwise.

    Their number changes no bit; `podium certify` sets it to prove that.

    Raises:
        PodiumError: PODIUM_WORKERS is no whole number from 1 to 64.
    """
    text = os.environ.get("PODIUM_WORKERS", "")
    if not text:
        return usual
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise PodiumError(f"PODIUM_WORKERS: expected a whole number from 1 to 64, got {text!r}")
    return int(text)


def derive_seed(seed: int, *parts: object) -> int:
    """A 32-bit seed that is a pure function of its arguments, equal on every machine.

    The subject comes first among `parts` (`"augment"`, `"split"`), so that no two uses share a
    stream.
    """
    text = "\x1f".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=4).digest(), "big")
