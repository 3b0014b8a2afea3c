"""What RFC 7946 asks of a file, checked on its text alone."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

GEOMETRIES = {"Polygon": 0, "MultiPolygon": 1}


def signed_area(ring: list[list[float]]) -> float:
    x0, y0 = ring[0]
    return 0.5 * sum((a[0] - x0) * (b[1] - y0) - (b[0] - x0) * (a[1] - y0) for a, b in pairwise(ring))


def check(path: Path) -> list[dict[str, Any]]:
    """Asserts that ``path`` is a FeatureCollection of polygons as RFC 7946 wants it; returns the features."""
    text = path.read_bytes()
    assert not text.startswith(b"\xef\xbb\xbf")
    collection = json.loads(text.decode("utf-8"), parse_constant=_refuse)
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert set(feature) >= {"geometry", "properties"}
        assert not {"coordinates", "geometries", "features"} & set(feature)
        for polygon in polygons_of(feature):
            check_polygon(polygon)
    return collection["features"]


def polygons_of(feature: dict[str, Any]) -> list[list[list[list[float]]]]:
    geometry = feature["geometry"]
    assert set(geometry) == {"type", "coordinates"}
    assert geometry["type"] in GEOMETRIES
    return geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]


def check_polygon(polygon: list[list[list[float]]]) -> None:
    assert polygon
    for k, ring in enumerate(polygon):
        assert len(ring) >= 4
        assert ring[0] == ring[-1], "open ring"
        assert all(len(point) == 2 for point in ring)
        assert all(-180 <= lon <= 180 and -90 <= lat <= 90 for lon, lat in ring), "outside the world"
        area = signed_area(ring)
        assert area > 0 if k == 0 else area < 0, "wrong winding"


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
