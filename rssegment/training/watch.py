"""Who watches a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rssegment.run.progress import Progress

__all__ = ["Watch", "stops_noted"]


@dataclass(frozen=True)
class Watch:
    """Is told of steps, and of scores and remarks on the way."""

    progress: Progress | None = None
    say: Callable[[str], None] | None = None

    def tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)


@contextmanager
def stops_noted(words: Callable[[], str]) -> Iterator[None]:
    """Adds ``words`` as a note to a user's interrupt (KeyboardInterrupt, or a program's own) that has none."""
    try:
        yield
    except (Exception, SystemExit, GeneratorExit):
        raise
    except BaseException as stop:
        if not getattr(stop, "__notes__", None):
            stop.add_note(words())
        raise
