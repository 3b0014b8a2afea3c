"""Training: from a recipe to a bundle with its card.

Names are imported when first used: a recipe is read, and refused, without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rssegment.lazily import lazily

if TYPE_CHECKING:
    from rssegment.training.card import ModelCard
    from rssegment.training.job import Trained, train
    from rssegment.training.recipe import Recipe

__all__ = ["ModelCard", "Recipe", "Trained", "train"]

__getattr__ = lazily(
    __name__,
    {
        "card": "ModelCard",
        "job": "Trained train",
        "recipe": "Recipe",
    },
)
