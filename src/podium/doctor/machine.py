"""The doctor's look at the machine: packages, math, cores, memory, disk. Nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from podium.doctor.findings import FAIL, OK, WARN, Finding
from podium.doctor.installation import find_mismatches, installed_packages, locked_packages
from podium.params import PARAMS_FILE, read_yaml
from podium.runtime import available_cores, mkl_dispatch

_PYTHONS = ((3, 11), (3, 12))
_SHOWN = 5
_REINSTALL = "`rm .venv/.installed; make run` installs the lock again"
# The demo takes 0.1 GB; an environment's and a run's caches some more.
_FREE_GB_NEEDED, _FREE_GB_WANTED = 1.0, 5.0
# A training of the default net took 0.6 GB a process (docs/training.md), the int8 stage likewise.
_MEMORY_GB_NEEDED, _MEMORY_GB_WANTED = 1.0, 3.0


def check_versions(root: Path) -> list[Finding]:
    """Python, and every package against requirements.lock."""
    python = platform.python_version()
    findings = []
    if sys.version_info[:2] not in _PYTHONS:
        findings.append(
            Finding(
                FAIL, "python", f"{python}", "expected 3.11 or 3.12: `make run PYTHON=python3.11`"
            )
        )
    else:
        findings.append(Finding(OK, "python", f"{python} in {sys.prefix}"))
    locked = locked_packages(root)
    wrong = find_mismatches(locked, installed_packages())
    if not wrong:
        return [*findings, Finding(OK, "packages", f"all {len(locked)} as in requirements.lock")]
    shown = ", ".join(
        f"{one.name} {one.installed or 'missing'} (lock: {one.locked})" for one in wrong[:_SHOWN]
    )
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    said = f"{len(wrong)} of {len(locked)} not as in requirements.lock: {shown}{more}"
    return [*findings, Finding(FAIL, "packages", said, _REINSTALL)]


def check_path(environment: Mapping[str, str]) -> list[Finding]:
    """Whether plain `dvc repro` would find this environment's python and dvc."""
    programs = Path(sys.executable).parent
    wrong = []
    for name in ("python", "dvc"):
        found = shutil.which(name, path=environment.get("PATH", ""))
        if found is None or Path(found).parent.resolve() != programs.resolve():
            wrong.append(f"{name} on PATH is {found or 'missing'}")
    if not wrong:
        return [Finding(OK, "path", f"python and dvc are those of {programs}")]
    return [
        Finding(
            WARN,
            "path",
            ", ".join(wrong),
            "`source .venv/bin/activate` before plain dvc; podium and make need it not",
        )
    ]


def check_math(cpu: str) -> list[Finding]:
    """The CPU class, and the path that Paddle's bundled MKL takes on it.

    Args:
        cpu: as `podium.runtime.cpu_class` says.
    """
    spec = importlib.util.find_spec("paddle")
    if spec is None or not spec.submodule_search_locations:
        return [Finding(FAIL, "paddle", "not installed", _REINSTALL)]
    libraries = Path(next(iter(spec.submodule_search_locations))) / "libs"
    vendor, _, vectors = cpu.partition("/")
    chosen = mkl_dispatch(cpu).get("MKL_DEBUG_CPU_TYPE")
    if not any(libraries.glob("libmklml*")):
        return [Finding(WARN, "math", f"{cpu}; this Paddle has no MKL", "training will be slow")]
    if chosen:
        return [Finding(OK, "math", f"{cpu}, MKL path {chosen}")]
    if vendor == "GenuineIntel" and vectors != "baseline":
        return [Finding(OK, "math", f"{cpu}, MKL path its own choice")]
    return [
        Finding(WARN, "math", f"{cpu}: MKL takes its slowest path", "works, several times as slow")
    ]


def check_cores(root: Path, quota: float | None) -> list[Finding]:
    """Cores of this process beside `train.processes`.

    Args:
        root: with params.yaml.
        quota: cores that the container may use; None: no limit.
    """
    cores, there = available_cores(), os.cpu_count() or 1
    said = f"{cores} of {there}" + (f", a quota of {quota:g}" if quota else "")
    usable = min(cores, quota or cores)
    train = read_yaml(root / PARAMS_FILE).get("train")
    processes = train.get("processes") if isinstance(train, dict) else None
    if isinstance(processes, int) and processes > usable:
        advice = "training is slower than it could be, to the same bits"
        return [Finding(WARN, "cores", f"{said}; train.processes is {processes}", advice)]
    return [Finding(OK, "cores", said)]


def read_cpu_quota(folder: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that a container's CPU quota amounts to; None without one (cgroup v2's cpu.max)."""
    words = _read_words(folder / "cpu.max")
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    return int(words[0]) / int(words[1])


def read_free_memory_gb(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can still be taken: of the machine, or of the container if that has less."""
    free = float(psutil.virtual_memory().available)
    limit, used = _read_words(folder / "memory.max"), _read_words(folder / "memory.current")
    if limit and used and limit[0].isdecimal() and used[0].isdecimal():
        free = min(free, max(0, int(limit[0]) - int(used[0])))
    return free / 1e9


def check_memory(free_gb: float) -> list[Finding]:
    """Whether a training fits."""
    said = f"{free_gb:.1f} GB free"
    if free_gb < _MEMORY_GB_NEEDED:
        return [
            Finding(FAIL, "memory", said, f"a training needs {_MEMORY_GB_NEEDED:g}: end others")
        ]
    if free_gb < _MEMORY_GB_WANTED:
        advice = "train.processes: 1, or a smaller batch_size, where a training is killed for it"
        return [Finding(WARN, "memory", said, advice)]
    return [Finding(OK, "memory", said)]


def check_disk(root: Path) -> list[Finding]:
    """Room for outputs and caches, and for the temporary files of exports."""
    findings = []
    store = os.environ.get("PODIUM_STORE_GB")
    for subject, folder in (("disk", root), ("disk of tmp", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free / 1e9
        said = f"{free:.1f} GB free for {folder}"
        if free < _FREE_GB_NEEDED:
            advice = f"{_FREE_GB_NEEDED:g} GB needed: `make clean` removes decoded images and logs"
            findings.append(Finding(FAIL, subject, said, advice))
        elif free < _FREE_GB_WANTED:
            advice = "`make clean`, or PODIUM_STORE_GB for a smaller store of decoded images"
            findings.append(Finding(WARN, subject, said, advice))
        else:
            findings.append(Finding(OK, subject, said))
    if store is not None:
        try:
            float(store)
        except ValueError:
            findings.append(Finding(FAIL, "store", f"PODIUM_STORE_GB={store!r}", "a number of GB"))
    return findings


def _read_words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
