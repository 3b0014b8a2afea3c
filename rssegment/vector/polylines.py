"""Chains through the simplification, with the corners of other boundaries that they must not sweep over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rssegment.grid import Box
from rssegment.vector.pieces import Chains, Int32

if TYPE_CHECKING:
    from rssegment.vector.simplify import Simplification

__all__ = ["simplified"]


def simplified(chains: Chains, corners_in: Callable[[Box], Int32], how: Simplification, scene: Box) -> Chains:
    raise NotImplementedError
