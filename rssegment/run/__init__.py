"""Runs: from a plan to its products, in this process or on a cluster. The only room that knows Dask.

Names are imported when first used: making polygons of a raster needs no torch, and no cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rssegment.lazily import lazily

if TYPE_CHECKING:
    from rssegment.run.calibration import calibrate
    from rssegment.run.calibration_result import CalibrationResult
    from rssegment.run.facts import inspect
    from rssegment.run.pipeline import plan, segment
    from rssegment.run.planning import Plan
    from rssegment.run.products import Result
    from rssegment.run.scoring import Evaluation, EvaluationOptions, compare, evaluate
    from rssegment.run.vectors import VectorResult, vectorize

__all__ = [
    "CalibrationResult",
    "Evaluation",
    "EvaluationOptions",
    "Plan",
    "Result",
    "VectorResult",
    "calibrate",
    "compare",
    "evaluate",
    "inspect",
    "plan",
    "segment",
    "vectorize",
]

__getattr__ = lazily(
    __name__,
    {
        "calibration": "calibrate",
        "calibration_result": "CalibrationResult",
        "facts": "inspect",
        "pipeline": "plan segment",
        "planning": "Plan",
        "products": "Result",
        "scoring": "Evaluation EvaluationOptions compare evaluate",
        "vectors": "VectorResult vectorize",
    },
)
