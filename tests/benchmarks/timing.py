"""Seconds of work done several times, and tables of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["in_turns", "show"]


def in_turns(
    works: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each of ``works``, done in turns so that a busy machine is busy for all of them.

    With the default clock: CPU seconds of this process, by which a machine shared with others is judged best.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            _tidy()
            begin = clock()
            result = [work()]  # the list wakes Python's collector, if the work left it anything to do
            seconds[name].append(clock() - begin)
            del result
    return {name: statistics.median(times) for name, times in seconds.items()}


def _tidy() -> None:
    """Off the clock: what the work before has left is freed, and the pieces in the heap's lists are put together.

    A C library may leave the latter to the next large allocation, and so to somebody else's time.
    """
    gc.collect()
    bytearray(2**20)


def show(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table: the first column to the left, the others to the right."""
    lines = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    print(f"\n{title}")
    for k, line in enumerate(lines):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells))
        if k == 0:
            print("  " + "  ".join("-" * width for width in widths))


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}" if cell < 10 else f"{cell:.1f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
