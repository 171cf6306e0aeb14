"""The life of a stage process: born of DVC, dies with it, holds its lock, speaks in one line.

`begin` is what stages/__init__.py calls first; `run_stage` is the only thing that a stages/NAME.py
calls besides its own work.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from podium.errors import EXIT_USER_ERROR, PodiumError, explain_os_error
from podium.files import hold_lock, write_json
from podium.git_facts import find_changes, read_revision
from podium.runtime import cpu_class

LOCKS = Path(".podium/locks")
MEASURED = Path("metrics/measured")


def begin() -> None:
    """The first act of a stage process, before Paddle's import takes its seconds: die with the
    parent, and answer Ctrl-C with one line instead of the import's traceback."""
    die_with_parent()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _stop_at_once)


def _stop_at_once(*_: object) -> None:
    print("stopped by Ctrl-C before the work began", file=sys.stderr, flush=True)
    os._exit(130)


Work = Callable[[], Mapping[str, Any] | None]


def run_stage(name: str, work: Work, is_helper: bool = False) -> None:
    """Run `work` as the stage `name` and end the process.

    Args:
        name: of the stage.
        work: all of it. What it returns is measured, too (clocks, memory), and ready for JSON.
        is_helper: this process only lends a hand to the one that runs the stage: it holds no lock,
            writes nothing, and leaves it to the other to explain what went wrong.

    Exit codes: 0 done; 2 the user's input (one `error:` line on stderr); 130 Ctrl-C; a bug keeps
    its traceback and Python's exit code 1. Seconds (imports included) of the clock and of the
    cores, CPU class, time and git's revision go to metrics/measured/NAME.json, which nothing
    depends on.
    """
    if signal.getsignal(signal.SIGINT) is _stop_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is a clean-up
    if is_helper:
        _help(work)
    busy = f"another process is still writing stage {name!r}: wait for it or end it, then run again"
    try:
        with hold_lock(LOCKS / f"{name}.lock", busy):
            measured = work()
            write_json(MEASURED / f"{name}.json", {**_measure(), **(measured or {})})
    except PodiumError as error:
        _fail(name, str(error))
    except KeyboardInterrupt as stop:
        said = str(stop) or "stopped by Ctrl-C; finished stages are kept"
        print(f"{name}: {said}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        line = explain_os_error(error)
        if line is None:
            raise
        _fail(name, line)


def _measure() -> dict[str, Any]:
    """What is true of this run and of no other. `dirty`: something that stages do not write differs
    from the revision; None, like the revision, without git."""
    seconds = round(time.time() - psutil.Process().create_time(), 2)
    # With the processes that it started and that have ended. Unlike `seconds`, hardly another
    # figure when the machine does something else beside.
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    revision = read_revision(Path())
    return {
        "seconds": seconds,
        "cpu_seconds": round(sum(used.ru_utime + used.ru_stime for used in spent), 2),
        "cpu_class": cpu_class(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision,
        "dirty": bool(find_changes(Path())) if revision else None,
    }


def _help(work: Work) -> None:
    try:
        work()
    except (PodiumError, KeyboardInterrupt):
        sys.exit(EXIT_USER_ERROR)
    sys.exit(0)


def _fail(name: str, message: str) -> None:
    print(f"error: {name}: {message}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)


def die_with_parent() -> None:
    """End this process when its parent ends: killing dvc must not leave a trainer behind.

    Linux: the kernel does it (prctl PR_SET_PDEATHSIG), also while C code holds the GIL.
    Elsewhere: a daemon thread watches the parent's id. dvc.yaml starts stages with `exec`, so
    the parent is dvc itself and not a shell.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        # It may have died before we first asked: then the parent is a stranger of another session.
        is_orphan = "DVC_STAGE" in os.environ and os.getsid(os.getppid()) != os.getsid(0)
        if os.getppid() != parent or is_orphan:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
