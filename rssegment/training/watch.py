"""Who watches a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rssegment.run.progress import Progress

__all__ = ["Watch"]


@dataclass(frozen=True)
class Watch:
    """Is told of steps, and of scores and remarks on the way."""

    progress: Progress | None = None
    say: Callable[[str], None] | None = None

    def tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)
