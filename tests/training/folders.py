"""Small folders of training data of every kind, written on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from rssegment.training.ground import LabelledScene, Sample
from rssegment.training.recipe import Recipe
from rssegment.training.sources import open_sources
from rssegment.training.sources.scenes import SourceScene
from tests.scene.conftest import write_raster

TREE = Taxonomy.load("landcover")
RGB = ("red", "green", "blue")
COLORS = {"#FF0000": "building", "#00FF00": "vegetation", "#0000FF": None}
FILES = {"images": "*_image.tif", "labels": "{stem}_labels.tif"}
PICTURES = {"images": "*/images/*.png", "labels": "{parent}/masks/{stem}.png", "mapping": COLORS}
POLYGONS = {"kind": "polygons", "images": "*_image.tif", "labels": "land.geojson"}
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def opened(
    root: Path, *sources: dict[str, Any], tree: Taxonomy = TREE, **recipe: Any
) -> tuple[SourceScene, ...]:
    """The scenes of sources, each given as the options that matter."""
    options = [{"name": f"source{k}", **source} for k, source in enumerate(sources)]
    values = {
        "name": "test",
        "taxonomy": tree.name,
        "bands": RGB,
        "resolution": 10.0,
        "sources": options,
    } | recipe
    scenes = open_sources(Recipe(**values), root, taxonomy=tree)
    assert all(isinstance(scene, SourceScene) for scene in scenes)
    return scenes  # type: ignore[return-value]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(1, 255, shape, np.uint8)


def picture(path: Path, values: Any, **options: Any) -> Path:
    """An image file from (H, W, 3) or (H, W) bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)
    return path


def palette(path: Path, indices: Any, colors: dict[int, tuple[int, int, int]]) -> Path:
    """A PNG of indices with a colour table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(indices, np.uint8), mode="P")
    image.putpalette([part for k in range(256) for part in colors.get(k, (k, k, 0))])
    image.save(path)
    return path


def raster(path: Path, values: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(write_raster(path, values, **options))


def painted(codes: Any, colors: dict[int, tuple[int, int, int]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 3) colours of codes."""
    table = np.zeros((256, 3), np.uint8)
    for code, color in colors.items():
        table[code] = color
    return table[np.asarray(codes)]


def geojson(path: Path, features: list[tuple[list[list[float]], dict[str, Any]]], epsg: int = 32633) -> Path:
    """Polygons, each given by its ring and its properties."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}},
                "features": [
                    {
                        "type": "Feature",
                        "properties": properties,
                        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                    }
                    for ring, properties in features
                ],
            }
        )
    )
    return path


def square(left: float, top: float, side: float) -> list[list[float]]:
    return [[left, top], [left + side, top], [left + side, top - side], [left, top - side]]


def whole(scene: LabelledScene) -> Sample:
    return scene.read(Box.of(scene.shape))


WEST, EAST = square(500_000, 5_000_000, 200), square(500_200, 5_000_000, 200)
