"""How a run tells of its progress."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress"]

# Called with the stage, the steps done and in all, and the pixels done.
Progress = Callable[[str, int, int, int], None]
