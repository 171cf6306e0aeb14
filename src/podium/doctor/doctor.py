"""`podium doctor`: is this installation fit to run? A line for each thing, in seconds.

In: the machine, the environment, the repository. Out: ok, warn or fail with what to do; nothing is
changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from podium.doctor.findings import FAIL, OK, WARN, Finding
from podium.doctor.machine import (
    check_cores,
    check_disk,
    check_math,
    check_memory,
    check_path,
    check_versions,
    read_cpu_quota,
    read_free_memory_gb,
)
from podium.doctor.repository import (
    DvcStatus,
    check_data,
    check_git,
    check_inputs,
    check_notes,
    check_params,
    check_running,
)
from podium.errors import PodiumError
from podium.runtime import cpu_class

# All of it is to take less than 5 s.
_SECONDS_FOR_DVC = 4.0


def doctor(root: Path) -> int:
    """Print all findings.

    Returns:
        1 when something must be mended first, else 0.
    """
    start = time.monotonic()
    findings = examine(root, start + _SECONDS_FOR_DVC)
    for finding in findings:
        print(finding)
    counts = [sum(one.level == level for one in findings) for level in (OK, WARN, FAIL)]
    seconds = time.monotonic() - start
    print(f"{counts[0]} ok, {counts[1]} to know, {counts[2]} to mend; {seconds:.1f} s")
    return 1 if counts[2] else 0


def examine(root: Path, deadline: float) -> list[Finding]:
    """All checks of `root`; DVC's own status is waited for until `deadline` (monotonic seconds)."""
    status = DvcStatus(root)
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("packages", lambda: check_versions(root)),
        ("path", lambda: check_path(os.environ)),
        ("math", lambda: check_math(cpu_class())),
        ("cores", lambda: check_cores(root, read_cpu_quota())),
        ("memory", lambda: check_memory(read_free_memory_gb())),
        ("disk", lambda: check_disk(root)),
        ("params", lambda: check_params(root)),
        ("data", lambda: check_data(root)),
        ("git", lambda: check_git(root)),
        ("inputs", lambda: check_inputs(root)),
        ("notes", lambda: check_notes(root)),
        ("running", lambda: check_running(root)),
        ("dvc", lambda: status.findings(max(0.1, deadline - time.monotonic()))),
    ]
    findings = []
    for subject, check in checks:
        try:
            findings += check()
        except PodiumError as error:
            findings.append(Finding(FAIL, subject, str(error)))
    return findings
