"""What can go wrong on the user's side of the fence.

A `PodiumError` is somebody's input: it is shown as one clear line (what was expected, what came,
where, what to do) and ends the process with exit code 2. Anything else is our bug and keeps its
traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence

EXIT_USER_ERROR = 2


class PodiumError(Exception):
    """A problem the user can mend. The message is the whole story, in one line."""


class ProblemsError(PodiumError):
    """Several problems found in one pass, shown together: nobody should mend them one run at a time.

    Args:
        headline: one line that says what was being checked and what to do.
        problems: one line each, with the file and the row.
    """

    SHOWN = 20

    def __init__(self, headline: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = "".join(f"\n  - {problem}" for problem in self.problems[: self.SHOWN])
        hidden = len(self.problems) - self.SHOWN
        more = f"\n  ... and {hidden} more" if hidden > 0 else ""
        super().__init__(f"{headline}{shown}{more}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'folds'?"` for a near miss among `known`, else `""`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def explain_os_error(error: OSError) -> str | None:
    """One line for the operating-system errors that are the user's to mend, else None (a bug)."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on the disk{where}: nothing was half-written; "
            "free some (`make clean` removes decoded images and logs) and run again"
        )
    if error.errno == errno.EISDIR:
        return f"expected a file, got a folder{where}: name a file and run again"
    if error.errno == errno.ENOTDIR:
        return f"expected a folder, got a file, within the path{where}: mend the path and run again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}: {error.strerror}; make it writable and run again"
    return None
