"""Runs: from a plan to its products, in this process or on a cluster. The only room that knows Dask."""

from rssegment.run.facts import inspect
from rssegment.run.pipeline import plan, segment
from rssegment.run.planning import Plan
from rssegment.run.products import Result
from rssegment.run.vectors import VectorResult, vectorize

__all__ = ["Plan", "Result", "VectorResult", "inspect", "plan", "segment", "vectorize"]
