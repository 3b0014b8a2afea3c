"""The class tree of a model or a label raster, and its YAML form."""

from rssegment.taxonomy.taxonomy import Taxonomy
from rssegment.taxonomy.tree import Node

__all__ = ["Node", "Taxonomy"]
