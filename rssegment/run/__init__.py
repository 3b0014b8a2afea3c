"""Runs: from a plan to its products, in this process or on a cluster. The only room that knows Dask.

Names are imported when first used: making polygons of a raster needs no torch, and no cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOME_OF = {
    "CalibrationResult": "calibration_result",
    "calibrate": "calibration",
    "Evaluation": "scoring",
    "EvaluationOptions": "scoring",
    "Plan": "planning",
    "Result": "products",
    "VectorResult": "vectors",
    "compare": "scoring",
    "evaluate": "scoring",
    "inspect": "facts",
    "plan": "pipeline",
    "segment": "pipeline",
    "vectorize": "vectors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
