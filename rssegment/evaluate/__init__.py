"""Evaluation: confusion counts of label rasters and the scores taken from them."""

from rssegment.evaluate.confusion import Confusion, LevelCounts
from rssegment.evaluate.rasters import evaluate
from rssegment.evaluate.report import LevelScores, Scores

__all__ = ["Confusion", "LevelCounts", "LevelScores", "Scores", "evaluate"]
