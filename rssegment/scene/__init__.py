"""Scenes: georeferenced pixels of any raster as values and validity."""

from rssegment.scene.bands import Band
from rssegment.scene.handles import CACHE_BYTES
from rssegment.scene.label_header import grid_of_raster
from rssegment.scene.labels import LabelRaster
from rssegment.scene.scene import Pixels, Scene
from rssegment.scene.source import Source

__all__ = ["CACHE_BYTES", "Band", "LabelRaster", "Pixels", "Scene", "Source", "grid_of_raster"]
