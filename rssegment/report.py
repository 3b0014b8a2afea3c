"""What people see: long work as a bar on a terminal, plain lines elsewhere, nothing when quiet; facts as an outline."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Reporter", "outline", "reporter"]

SECONDS_BETWEEN_LINES = 10.0
_EMPTY: tuple[Any, ...] = (None, "", [], {})
SHORT = 0.5  # s; a rate over less says nothing


class Reporter(Protocol):
    """Is told of progress: the stage, steps done and in all, and pixels done; and of findings on the way, by lines."""

    def progress(self, stage: str, done: int, total: int, pixels: int) -> None: ...

    def say(self, line: str) -> None: ...


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

    def say(self, line: str) -> None:
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

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


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

    def say(self, line: str) -> None:
        self._bars.console.print(line, highlight=False, markup=False)


def _bars(console: Console) -> Progress:
    columns = ("{task.description:<10}", BarColumn(), "{task.completed:.0f}/{task.total:.0f}")
    return Progress(
        *columns,
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def outline(facts: dict[str, Any], indent: int = 0) -> str:
    """Nested facts as indented lines of fewer than 100 columns, for people; JSON has the full values."""
    lines = []
    for key, item in facts.items():
        if isinstance(item, dict) and item:
            lines += [f"{' ' * indent}{key}:", outline(item, indent + 2)]
        elif isinstance(item, list) and any(_needs_line(each) for each in item):
            lines.append(f"{' ' * indent}{key}:")
            lines += [_wrapped(_shown(each), indent + 2) for each in item]
        else:
            lines.append(_wrapped(f"{key}: {_shown(item)}", indent))
    return "\n".join(lines)


def _needs_line(item: Any) -> bool:
    return isinstance(item, dict) or (isinstance(item, str) and len(item) > 40)


def _wrapped(text: str, indent: int) -> str:
    first, others = " " * indent, " " * (indent + 4)
    return textwrap.fill(
        text,
        99,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shown(value: Any) -> str:
    """One value in words: numbers to about six digits, a class's path as ``built/building``."""
    if value in _EMPTY:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):  # coordinates have more than six digits before the point
        return f"{value:.2f}".rstrip("0").rstrip(".") if 1e5 <= abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(" x ".join(map(_shown, v)) if isinstance(v, list) else _shown(v) for v in value)
    if isinstance(value, dict):
        told = {k: v for k, v in value.items() if v not in _EMPTY}
        return "  ".join(f"{k}={_in_row(v)}" for k, v in told.items())
    return str(value)


def _in_row(value: Any) -> str:
    names = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return "/".join(value) if names else _shown(value)
