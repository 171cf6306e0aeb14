"""A progress bar on a terminal, plain lines at a sane rate in a pipe or CI."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")

PLAIN_LINE_EVERY_S = 10.0
EPOCH_LINE_EVERY_S = 30.0


def track(items: Iterable[ItemT], total: int, label: str) -> Iterator[ItemT]:
    """Yield `items` unchanged while showing how far they are and how long the rest takes."""
    if sys.stderr.isatty():
        yield from _track_on_terminal(items, total, label)
    else:
        yield from _track_in_pipe(items, total, label)


def _track_on_terminal(items: Iterable[ItemT], total: int, label: str) -> Iterator[ItemT]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, description=label)


def _track_in_pipe(items: Iterable[ItemT], total: int, label: str) -> Iterator[ItemT]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PLAIN_LINE_EVERY_S:
            last = now
            remaining_s = (now - start) / done * (total - done)
            print(f"{label}: {done}/{total}, {remaining_s:.0f} s left", file=sys.stderr, flush=True)


class EpochBar:
    """One epoch's progress: loss, learning rate, images/s, time left. In a pipe, where the loop
    prints a line per epoch, a line now and then in a long one.

    Args:
        label: what it says.
        n_images: in the whole epoch.
        done: of them, before this process took over.
        shown: false: nothing is said.
    """

    def __init__(self, label: str, n_images: int, done: int = 0, shown: bool = True) -> None:
        self._bar = None
        self._label, self._total, self._shown = label, n_images, shown
        self._before = self._done = done
        self._start = self._said = time.monotonic()
        if not shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}"),
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(
            label, total=n_images, completed=done, loss=math.nan, lr=math.nan, rate=0.0
        )

    def __enter__(self) -> EpochBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, n_images: int, loss: float, lr: float) -> None:
        """`n_images` more are done."""
        self._done += n_images
        now = time.monotonic()
        rate = (self._done - self._before) / max(1e-9, now - self._start)
        if self._bar:
            self._bar.update(self._task, advance=n_images, loss=loss, lr=lr, rate=rate)
        elif self._shown and now - self._said >= EPOCH_LINE_EVERY_S:
            self._said = now
            print(
                f"{self._label}: {self._done}/{self._total} images, loss {loss:.4f}, "
                f"{rate:.0f} images/s",
                file=sys.stderr,
                flush=True,
            )
