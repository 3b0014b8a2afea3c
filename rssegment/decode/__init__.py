"""Decision rules: from leaf probabilities to classes and their confidence."""

from rssegment.decode.rules import (
    CONFIDENCE_NODATA,
    Decision,
    decide_leaf,
    dequantize_confidence,
    marginals,
    quantize_confidence,
)

__all__ = [
    "CONFIDENCE_NODATA",
    "Decision",
    "decide_leaf",
    "dequantize_confidence",
    "marginals",
    "quantize_confidence",
]
