"""Training: from a recipe to a bundle with its card."""

from rssegment.training.card import ModelCard
from rssegment.training.job import Trained, train
from rssegment.training.recipe import Recipe

__all__ = ["ModelCard", "Recipe", "Trained", "train"]
