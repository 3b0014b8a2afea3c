"""The class tree of a model or a label raster, its YAML form, and mappings from other classes to it."""

from rssegment.taxonomy.mapping import ClassMapping
from rssegment.taxonomy.taxonomy import Taxonomy
from rssegment.taxonomy.tree import Node

__all__ = ["ClassMapping", "Node", "Taxonomy"]
