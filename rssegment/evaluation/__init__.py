"""Evaluation: confusion counts of label rasters and the scores taken from them."""

from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.evaluation.rasters import evaluate
from rssegment.evaluation.report import LevelScores, Scores

__all__ = ["Confusion", "LevelCounts", "LevelScores", "Scores", "evaluate"]
