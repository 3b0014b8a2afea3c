"""How long work shows itself: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Reporter", "reporter"]

SECONDS_BETWEEN_LINES = 10.0
SHORT = 0.5  # s; a rate over less says nothing


class Reporter(Protocol):
    """Is told of progress: the stage, steps done and in all, and pixels done."""

    def progress(self, stage: str, done: int, total: int, pixels: int) -> None: ...


@contextmanager
def reporter(quiet: bool) -> Iterator[Reporter]:
    """The reporter that suits where standard error goes."""
    console = Console(stderr=True)
    if quiet:
        yield _Silent()
    elif console.is_terminal:
        with _bars(console) as bars:
            yield _Bars(bars)
    else:
        yield _Lines()


class _Silent:
    def progress(self, stage: str, done: int, total: int, pixels: int) -> None:
        """Says nothing."""


class _Lines:
    """One line when a stage begins and ends, and every few seconds between."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._last = 0.0

    def progress(self, stage: str, done: int, total: int, pixels: int) -> None:
        now = time.monotonic()
        if stage not in self._started:
            self._started[stage] = self._last = now
            if done < total:
                print(f"{stage}: {done} of {total}", file=sys.stderr, flush=True)
        if done < total and now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        spent = now - self._started[stage]
        rate = f", {pixels / 1e6 / spent:.2f} Mpx/s" if pixels and spent > SHORT else ""
        left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        print(f"{stage}: {done} of {total}{rate}{left}", file=sys.stderr, flush=True)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def progress(self, stage: str, done: int, total: int, pixels: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, rate="")
            self._started[stage] = time.monotonic()
        spent = time.monotonic() - self._started[stage]
        rate = f"{pixels / 1e6 / spent:.2f} Mpx/s" if pixels and spent > SHORT else ""
        self._bars.update(self._tasks[stage], completed=done, total=total, rate=rate)


def _bars(console: Console) -> Progress:
    columns = ("{task.description:<10}", BarColumn(), "{task.completed:.0f}/{task.total:.0f}")
    return Progress(
        *columns,
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
