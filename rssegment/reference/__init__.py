"""What is true, on a map's own pixels: label rasters, polygons and points; and where grids lie on the ground."""

from rssegment.reference.references import ReferenceOptions, open_reference

__all__ = ["ReferenceOptions", "open_reference"]
