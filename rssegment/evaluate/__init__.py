"""Evaluation: confusion counts of label rasters and the scores taken from them."""

import sys
from types import ModuleType
from typing import Any

from rssegment.evaluate.confusion import Confusion, LevelCounts
from rssegment.evaluate.rasters import evaluate
from rssegment.evaluate.report import LevelScores, Scores

__all__ = ["Confusion", "LevelCounts", "LevelScores", "Scores", "evaluate"]


class _CallableModule(ModuleType):
    """``rssegment.evaluate`` is a function to users and this package to the import system.

    Importing the package puts it in the function's place as the attribute of ``rssegment``; called, it is the function.
    """

    def __call__(self, *args: Any, **options: Any) -> Scores:
        return evaluate(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
