"""Evaluation: counts of label rasters against references, and the scores taken from them."""

from rssegment.evaluation.areas import AreaEstimate, MapAreas
from rssegment.evaluation.backoff import BackoffCounts, BackoffCurve
from rssegment.evaluation.coherence import Coherence
from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.evaluation.evidence import Evidence
from rssegment.evaluation.lookup import LabelPairs
from rssegment.evaluation.reliability import Reliability
from rssegment.evaluation.report import LevelScores, Scores

__all__ = [
    "AreaEstimate",
    "BackoffCounts",
    "BackoffCurve",
    "Coherence",
    "Confusion",
    "Evidence",
    "LabelPairs",
    "LevelCounts",
    "LevelScores",
    "MapAreas",
    "Reliability",
    "Scores",
]
