"""`podium log-score FILE SCORE`: the public score of a submission, beside what val had promised."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from podium.data.params import CompetitionParams
from podium.errors import PodiumError
from podium.files import write_bytes
from podium.params import PARAMS_FILE, Params, load_params
from podium.trust.contract.verdict import hash_submission
from podium.trust.ledger import (
    LEDGER_FILE,
    TIME_FORMAT,
    Entry,
    append_entry,
    comparable,
    describe_correlation,
    describe_shake_up,
    load_ledger,
)
from podium.trust.origin import find_origin, read_committed

PLOT_FILE = Path("submissions/ledger.png")
LOCK = Path(".podium/locks/ledger.lock")


class LogScoreParams(Params):
    """What this command reads of params.yaml."""

    competition: CompetitionParams


def log_score(root: Path, submission: Path, public: float, at: str | None) -> None:
    """Add a row to the ledger and print it.

    Args:
        root: the repository.
        submission: the file that was handed in.
        public: what the organiser said, in the metric of the contract.
        at: when it was handed in, as ISO 8601 has it, UTC where it names no zone; None: now.

    Raises:
        PodiumError: no contract knows the file as legal, it is logged already, the day is full, the
            score or the time cannot be, or the ledger lost rows that are in git.
    """
    rules = load_params(LogScoreParams, root / PARAMS_FILE).competition.rules
    handed_in = parse_time(at, datetime.now(UTC))
    try:
        content = submission.read_bytes()
    except FileNotFoundError:
        raise PodiumError(
            f"{submission} is missing: expected the file that was handed in"
        ) from None
    except IsADirectoryError:
        raise PodiumError(
            f"{submission} is a folder: expected the file that was handed in"
        ) from None
    sha256 = hash_submission(content)
    _check_nothing_lost(root)
    origin = find_origin(root, sha256)
    entry = Entry(
        handed_in=handed_in,
        sha256=sha256,
        file=origin.file,
        revision=origin.revision,
        experiment=origin.experiment,
        dirty=origin.dirty,
        metric=str(origin.val["metric"]),
        val=origin.val["score"],
        val_low=origin.val["low"],
        val_high=origin.val["high"],
        public=public,
    )
    entries = append_entry(root / LEDGER_FILE, root / LOCK, entry, rules.max_submissions_per_day)
    val = "not known" if entry.val is None else f"{entry.val:.4f}"
    made = f"experiment {entry.experiment}" if entry.experiment else "commit"
    print(f"{entry.file} of {made} {entry.revision[:7]}: {entry.metric}, val {val}")
    if entry.dirty:
        print("no commit and no experiment holds the run that made it: commit first, next time")
    print(describe_shake_up(entry))
    print(describe_correlation(comparable(entries)))
    rows = f"{len(entries)} row{'s' * (len(entries) > 1)}"
    print(f"{LEDGER_FILE}: {rows}; `git add {LEDGER_FILE}` and commit it")


def plot_ledger(root: Path) -> None:
    """Draw public against val.

    Raises:
        PodiumError: no rows, or none with a val score.
    """
    from podium.trust.ledger_plot import draw_ledger

    entries = load_ledger(root / LEDGER_FILE)
    shown = comparable(entries)
    if not shown:
        raise PodiumError(
            f"{LEDGER_FILE} has no scores to plot: `podium log-score FILE SCORE` adds one"
        )
    write_bytes(root / PLOT_FILE, draw_ledger(shown))
    left_out = len(entries) - len(shown)
    note = " (the others are of another metric, or without a val score)" if left_out else ""
    print(f"{PLOT_FILE}: {len(shown)} of {len(entries)} rows, {shown[-1].metric}{note}")
    print(describe_correlation(shown))


def parse_time(at: str | None, now: datetime) -> str:
    """`at` in UTC, to the second.

    Raises:
        PodiumError: no time, or one to come.
    """
    if at is None:
        return now.strftime(TIME_FORMAT)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise PodiumError(
            f"--at: expected a time such as 2026-11-26 or 2026-11-26T14:05+09:00, got {at!r}"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment > now:
        raise PodiumError(f"--at: expected a time that has passed, got {at!r}")
    return moment.strftime(TIME_FORMAT)


def _check_nothing_lost(root: Path) -> None:
    """Rows that were committed must still be there, unchanged and in front."""
    path = root / LEDGER_FILE
    now = path.read_bytes() if path.exists() else b""
    if not now.startswith(read_committed(root, LEDGER_FILE)):
        raise PodiumError(
            f"{LEDGER_FILE}: rows of the last commit were changed or removed, and it is only ever "
            f"added to: `git checkout {LEDGER_FILE}`"
        )
