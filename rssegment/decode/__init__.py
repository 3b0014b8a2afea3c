"""Decision rules: from leaf probabilities to classes and their confidence, and how sure is sure enough."""

from rssegment.decode.conformal import MissCounts
from rssegment.decode.decisions import Decision, decide
from rssegment.decode.quantize import CONFIDENCE_NODATA, dequantize_confidence, quantize_confidence
from rssegment.decode.rules import Backoff, Cost, Leaf, Level, Rule
from rssegment.decode.sums import marginals
from rssegment.decode.temperature import TEMPERATURES, fit_temperature

__all__ = [
    "CONFIDENCE_NODATA",
    "TEMPERATURES",
    "Backoff",
    "Cost",
    "Decision",
    "Leaf",
    "Level",
    "MissCounts",
    "Rule",
    "decide",
    "dequantize_confidence",
    "fit_temperature",
    "marginals",
    "quantize_confidence",
]
