"""Training: from a recipe to a bundle with its card.

Names are imported when first used: a recipe is read, and refused, without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rssegment.training.card import ModelCard
    from rssegment.training.job import Trained, train
    from rssegment.training.recipe import Recipe

__all__ = ["ModelCard", "Recipe", "Trained", "train"]

_HOME_OF = {"ModelCard": "card", "Recipe": "recipe", "Trained": "job", "train": "job"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
