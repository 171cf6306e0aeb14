"""submissions/ledger.csv: what was handed in, what we thought of it, and what the organiser said.

In: a submission that contract.json knows as legal, and its public score. Out: a row. Rows are only
ever added, and only by `podium log-score`; the file is in git.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from pathlib import Path

from podium.errors import PodiumError
from podium.files import hold_lock, write_bytes

LEDGER_FILE = Path("submissions/ledger.csv")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
# Fewer pairs say nothing: of four, one order in 24 is perfect by chance.
MIN_FOR_CORRELATION = 5
# What a metric can be at all; a public score outside was typed in another unit.
_RANGES = {"qwk": (-1.0, 1.0), "log_loss": (0.0, math.inf)}
_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        handed_in: time, UTC, as `TIME_FORMAT`.
        sha256: of the submission.
        file: its name.
        revision: of the commit or experiment that made it, "" without git.
        experiment: its name in DVC, "" where it is none.
        dirty: whether no commit and no experiment holds the run that made it.
        metric: of both scores.
        val, val_low, val_high: score and 95 % interval; None: not known.
        public: what the organiser said.
    """

    handed_in: str
    sha256: str
    file: str
    revision: str
    experiment: str
    dirty: bool
    metric: str
    val: float | None
    val_low: float | None
    val_high: float | None
    public: float

    @property
    def name(self) -> str:
        """Short: what the user calls it."""
        return self.experiment or self.revision[:7] or self.sha256[:7]

    @property
    def is_inside(self) -> bool | None:
        """Whether the public score is within the val interval; None where there is none."""
        if self.val_low is None or self.val_high is None:
            return None
        return self.val_low <= self.public <= self.val_high


COLUMNS = tuple(field.name for field in fields(Entry))


def load_ledger(path: Path) -> list[Entry]:
    """The rows, oldest first; none where there is no file.

    Raises:
        PodiumError: the file is not as `append_entry` writes it; file and row are named.
    """
    try:
        return parse_ledger(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise PodiumError(
            f"{path}: {error}; only podium log-score writes it: `git checkout {path}`, or mend it"
        ) from None


def parse_ledger(text: str) -> list[Entry]:
    """`load_ledger` of text.

    Raises:
        ValueError: header, width or values are wrong.
    """
    if not text.endswith("\n"):
        raise ValueError("the last row is cut short")
    header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if tuple(header) != COLUMNS:
        raise ValueError(f"row 1: expected {','.join(COLUMNS)}, got {','.join(header)}")
    return [_parse_row(cells, number) for number, cells in enumerate(rows, start=2)]


def append_entry(path: Path, lock: Path, entry: Entry, max_per_day: int | None) -> list[Entry]:
    """Add a row; all rows are returned.

    Args:
        path: the ledger; made where it is missing.
        lock: held meanwhile.
        entry: the row.
        max_per_day: `competition.rules.max_submissions_per_day`.

    Raises:
        PodiumError: it is there already; the day is full; the file is damaged or being written.
    """
    busy = f"another podium log-score is writing {path}: wait for it or end it, then run again"
    with hold_lock(lock, busy):
        entries = load_ledger(path)
        check_new(entries, entry, max_per_day)
        before = path.read_bytes() if entries or path.exists() else _format_row(COLUMNS)
        write_bytes(path, before + format_entry(entry))
    return [*entries, entry]


def check_new(entries: Sequence[Entry], entry: Entry, max_per_day: int | None) -> None:
    """Refuse a row that cannot be.

    Raises:
        PodiumError: the submission has a row; its day (UTC) has `max_per_day` rows; the public score
            is none of its metric.
    """
    low, high = _RANGES.get(entry.metric, _SHARE)
    if not (math.isfinite(entry.public) and low <= entry.public <= high):
        hint = ", as a share and not in percent" if (low, high) == _SHARE else ""
        raise PodiumError(
            f"the public score: expected {entry.metric} from {low:g} to {high:g}{hint}, got "
            f"{entry.public:g}"
        )
    for old in entries:
        if old.sha256 == entry.sha256:
            raise PodiumError(
                f"{LEDGER_FILE} has these bytes already: {old.file} of {old.name}, handed in "
                f"{old.handed_in}, public {old.public:g}"
            )
    day = entry.handed_in[:10]
    same_day = sum(old.handed_in.startswith(day) for old in entries)
    if max_per_day is not None and same_day >= max_per_day:
        raise PodiumError(
            f"{LEDGER_FILE} has {same_day} submissions of {day} (UTC), and "
            f"competition.rules.max_submissions_per_day is {max_per_day}: if this one was handed in "
            "on another day, say when with --at"
        )


def describe_shake_up(entry: Entry) -> str:
    """What the public score says of the val score, in a line."""
    if entry.is_inside is None:
        return f"no val interval of {entry.metric} is known, so nothing can be said of a shake-up"
    interval = f"{entry.val_low:.4f} to {entry.val_high:.4f}"
    if entry.is_inside:
        return f"public {entry.public:.4f} is within the val interval, {interval}"
    assert entry.val_low is not None
    side = "below" if entry.public < entry.val_low else "above"
    return (
        f"SHAKE-UP: public {entry.public:.4f} is {side} the val interval, {interval}: val and public "
        "differ by more than the noise of val; a leak, a shortcut, other images, or few public ones"
    )


def comparable(entries: Sequence[Entry]) -> list[Entry]:
    """The rows of the latest row's metric and file that have a val score.

    With `split.val_fold: all` the two files' val scores are of different images.
    """
    latest = [(entry.metric, entry.file) for entry in entries[-1:]]
    return [e for e in entries if (e.metric, e.file) in latest and e.val is not None]


def describe_correlation(entries: Sequence[Entry]) -> str:
    """Kendall's tau-b of val and public (Kendall 1938, 1945), in a line; exact p without ties."""
    if len(entries) < MIN_FOR_CORRELATION:
        return (
            f"rank correlation: from {MIN_FOR_CORRELATION} submissions on, there are {len(entries)}"
        )
    from scipy.stats import kendalltau

    if len({entry.val for entry in entries}) == 1 or len({entry.public for entry in entries}) == 1:
        return "rank correlation: not defined, since all val or all public scores are equal"
    found = kendalltau([entry.val for entry in entries], [entry.public for entry in entries])
    return (
        f"rank correlation of val and public (Kendall's tau): {found.statistic:.2f}, "
        f"p {found.pvalue:.3g}, n {len(entries)}"
    )


def format_entry(entry: Entry) -> bytes:
    """A row's bytes: LF, shortest exact floats, true and false, an empty cell for None."""
    return _format_row([_format_cell(value) for value in astuple(entry)])


def _format_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _format_row(cells: Sequence[str]) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue().encode("utf-8")


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {text}")
    return number


def _parse_row(cells: list[str], number: int) -> Entry:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"row {number}: expected {len(COLUMNS)} cells, got {len(cells)}")
    named = dict(zip(COLUMNS, cells, strict=True))
    if named["dirty"] not in ("true", "false"):
        raise ValueError(f"row {number}: dirty: expected true or false, got {named['dirty']!r}")
    try:
        datetime.strptime(named["handed_in"], TIME_FORMAT)
        val, low, high = (
            _parse_number(named[key]) if named[key] else None
            for key in ("val", "val_low", "val_high")
        )
        return Entry(
            handed_in=named["handed_in"],
            sha256=named["sha256"],
            file=named["file"],
            revision=named["revision"],
            experiment=named["experiment"],
            dirty=named["dirty"] == "true",
            metric=named["metric"],
            val=val,
            val_low=low,
            val_high=high,
            public=_parse_number(named["public"]),
        )
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None
