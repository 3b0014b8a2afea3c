"""Large satellite and aerial scenes to trustworthy class maps and polygons.

>>> import rssegment as rs
>>> result = rs.segment("scene.tif", model="bundle/", out="out/scene")  # doctest: +SKIP
>>> rs.vectorize("labels.tif", "regions.geojson", taxonomy="flair")  # doctest: +SKIP

The names below are the whole public API; what they need is imported when they are first used.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from rssegment.lazily import lazily

if TYPE_CHECKING:
    from rssegment.config import PolygonOptions as PolygonOptions
    from rssegment.config import SceneOptions as SceneOptions
    from rssegment.config import Settings as Settings
    from rssegment.errors import InputError as InputError
    from rssegment.errors import RssegmentError as RssegmentError
    from rssegment.errors import RunError as RunError
    from rssegment.evaluation import Scores as Scores
    from rssegment.model import Bundle as Bundle
    from rssegment.model import load_model as load_model
    from rssegment.reference import ReferenceOptions as ReferenceOptions
    from rssegment.run import EvaluationOptions as EvaluationOptions
    from rssegment.run import Plan as Plan
    from rssegment.run import Result as Result
    from rssegment.run import calibrate as calibrate
    from rssegment.run import evaluate as evaluate
    from rssegment.run import inspect as inspect
    from rssegment.run import plan as plan
    from rssegment.run import segment as segment
    from rssegment.run import vectorize as vectorize
    from rssegment.scene import Scene as Scene
    from rssegment.taxonomy import ClassMapping as ClassMapping
    from rssegment.taxonomy import Taxonomy as Taxonomy
    from rssegment.training import Recipe as Recipe
    from rssegment.training import Trained as Trained
    from rssegment.training import train as train

__all__ = [
    "Bundle",
    "ClassMapping",
    "EvaluationOptions",
    "InputError",
    "Plan",
    "PolygonOptions",
    "Recipe",
    "ReferenceOptions",
    "Result",
    "RssegmentError",
    "RunError",
    "Scene",
    "SceneOptions",
    "Scores",
    "Settings",
    "Taxonomy",
    "Trained",
    "calibrate",
    "evaluate",
    "inspect",
    "load_model",
    "plan",
    "segment",
    "train",
    "vectorize",
]
__version__ = version("rssegment")


__getattr__ = lazily(
    __name__,
    {
        "config": "PolygonOptions SceneOptions Settings",
        "errors": "InputError RssegmentError RunError",
        "evaluation": "Scores",
        "model": "Bundle load_model",
        "reference": "ReferenceOptions",
        "run": "EvaluationOptions Plan Result calibrate evaluate inspect plan segment vectorize",
        "scene": "Scene",
        "taxonomy": "ClassMapping Taxonomy",
        "training": "Recipe Trained train",
    },
)


def __dir__() -> list[str]:
    return __all__
