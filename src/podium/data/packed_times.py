"""When each file was last changed before it was packed: what only the zip knew.

`podium init` writes it beside the images, hidden, so that DVC tracks both together; a checkout resets
the files' own times. eda asks whether the time tells the class.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from podium.errors import PodiumError
from podium.files import write_text

PACKED_TIMES = ".packed_times.csv"
_HEADER = ["file", "seconds"]


def count_seconds(moment: tuple[int, int, int, int, int, int]) -> int:
    """A zip's local date and time (year, ..., second) as seconds of a calendar of 31-day months:
    it keeps the order, and no time zone or impossible date can upset it."""
    year, month, day, hour, minute, second = moment
    return (((year * 12 + month) * 31 + day) * 24 + hour) * 3600 + minute * 60 + second


def write_packed_times(folder: Path, seconds: Mapping[str, int]) -> None:
    """Write `seconds` of each file (POSIX path below `folder`) into `folder`."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([_HEADER, *sorted(seconds.items())])
    write_text(folder / PACKED_TIMES, stream.getvalue())


def load_packed_times(folder: Path) -> dict[str, int]:
    """What `write_packed_times` wrote there; empty where nothing was written.

    Raises:
        PodiumError: the file was changed since.
    """
    path = folder / PACKED_TIMES
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        text = ""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if rows[:1] != [_HEADER] or any(len(r) != 2 or not r[1].isdecimal() for r in rows[1:]):
        raise PodiumError(f"{path} is damaged: delete it, then `dvc add {folder}`")
    return {name: int(value) for name, value in rows[1:]}
