"""Where things lie in the synthetic landscape: the river, roads, lanes and parcels, as polygons.

Coordinates are metres, x to the right and y down from the scene's first pixel. Nothing here knows pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, MultiPoint, Polygon
from shapely.geometry.base import BaseGeometry

__all__ = ["Building", "Layout", "Street", "Village", "blob", "cut", "place_land"]

Rng = np.random.Generator
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Street:
    """A road's centre line, its width and the width of the grass verge on each side (m)."""

    line: LineString
    width: float
    verge: float
    kind: str  # "main", "lane", "street", "track" or "yard"

    @property
    def surface(self) -> BaseGeometry:
        return self.line.buffer(self.width / 2, quad_segs=4)


@dataclass(frozen=True)
class Building:
    """A rectangle: centre (x, y), unit vector along the ridge, half length, half width and height (m)."""

    centre: tuple[float, float]
    along: tuple[float, float]
    half_length: float
    half_width: float
    height: float
    kind: str  # "house", "barn" or "hall"

    def corners(self, low: float = -1.0, high: float = 1.0) -> Points:
        """Corners (4, 2) of the part between ``low`` and ``high`` half widths across the ridge."""
        along = np.array(self.along) * self.half_length
        across = np.array([-self.along[1], self.along[0]]) * self.half_width
        offsets = [along + low * across, along + high * across, -along + high * across, -along + low * across]
        return np.array(self.centre) + np.array(offsets)

    @property
    def outline(self) -> Polygon:
        return Polygon(self.corners())


@dataclass(frozen=True)
class Village:
    """The built-up area, its centre line and its garden plots."""

    outline: Polygon
    along: tuple[float, float]
    plots: list[Polygon]


@dataclass
class Layout:
    """Everything that lies in the landscape, in the order in which it was placed."""

    width: float
    height: float
    parcels: list[tuple[Polygon, float]] = field(
        default_factory=list
    )  # with the direction of their rows (rad)
    river: BaseGeometry = field(default_factory=Polygon)
    bars: list[Polygon] = field(default_factory=list)  # gravel bars at the river's edge
    streets: list[Street] = field(default_factory=list)
    villages: list[Village] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    hedges: list[LineString] = field(default_factory=list)
    trees: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius


def place_land(width: float, height: float, rng: Rng) -> tuple[Layout, list[LineString]]:
    """The river, parcels, lanes and main roads of ``width`` x ``height`` m, and the main roads' centre lines."""
    layout = Layout(width, height)
    layout.river, layout.bars = place_river(width, height, rng)
    main_roads = place_main_roads(width, height, rng)
    cells = countryside_cells(width, height, rng)
    layout.parcels = [parcel for cell in cells for parcel in split_parcels(cell, rng.normal(0.35, 0.5), rng)]
    place_lanes(layout, cells, rng)
    layout.streets.extend(Street(line, rng.uniform(8, 10), rng.uniform(3, 6), "main") for line in main_roads)
    return layout, main_roads


def place_river(width: float, height: float, rng: Rng) -> tuple[BaseGeometry, list[Polygon]]:
    """A meandering river from top to bottom through the middle third, and gravel bars at its bends."""
    length = height + 200.0
    y = np.arange(-100.0, length, 6.0)
    drift = rng.uniform(-0.25, 0.25)
    x = width * rng.uniform(0.3, 0.6) + drift * (y - height / 2)
    for wavelength, swing in ((620.0, 70.0), (270.0, 26.0), (110.0, 6.0)):
        reach = swing * rng.uniform(0.6, 1.2) * min(1.0, width / 900)
        x = x + reach * np.sin(2 * np.pi * (y / (wavelength * rng.uniform(0.8, 1.2)) + rng.uniform()))
    half = rng.uniform(10, 16) + 2.5 * np.sin(2 * np.pi * (y / 330.0 + rng.uniform()))
    water = variable_buffer(np.column_stack([x, y]), half)
    bars = []
    for at in np.arange(rng.uniform(60, 160), height, 210.0):
        k = int(np.searchsorted(y, at))
        side = 1.0 if x[min(k + 12, len(x) - 1)] + x[max(k - 12, 0)] > 2 * x[k] else -1.0
        bars.append(blob(x[k] + side * (half[k] - 1.0), y[k], rng.uniform(4, 8), rng.uniform(18, 34), rng))
    return water, bars


def variable_buffer(points: Points, half: NDArray[np.float64]) -> BaseGeometry:
    """The area within ``half`` (N,) m of the polyline ``points`` (N, 2)."""
    steps = [
        LineString(points[k : k + 2]).buffer(float(half[k]), quad_segs=6) for k in range(len(points) - 1)
    ]
    return shapely.union_all(steps)


def blob(x: float, y: float, half_x: float, half_y: float, rng: Rng) -> Polygon:
    """A wobbly ellipse."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wobble = 1 + sum(
        rng.uniform(0.0, 0.16) * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5, 7)
    )
    return Polygon(
        np.column_stack([x + half_x * wobble * np.cos(angle), y + half_y * wobble * np.sin(angle)])
    )


def place_main_roads(width: float, height: float, rng: Rng) -> list[LineString]:
    """Curved roads from edge to edge: one across, and in larger landscapes one more per 1.2 km each way."""
    roads = []
    count_across, count_down = max(1, round(height / 1200)), round(width / 1400)
    for k in range(count_across + count_down):
        across = k < count_across
        along_extent, side_extent = (width, height) if across else (height, width)
        place = k if across else k - count_across
        share = (place + rng.uniform(0.35, 0.65)) / (count_across if across else count_down)
        along = np.arange(-60.0, along_extent + 61.0, 12.0)
        side = share * side_extent + rng.uniform(-0.12, 0.12) * (along - along_extent / 2)
        for wavelength, swing in ((900.0, 50.0), (380.0, 14.0)):
            reach = swing * min(1.0, along_extent / 900)
            side = side + reach * np.sin(2 * np.pi * (along / wavelength + rng.uniform()))
        roads.append(LineString(np.column_stack([along, side] if across else [side, along])))
    return roads


def countryside_cells(width: float, height: float, rng: Rng) -> list[Polygon]:
    """Voronoi cells about 230 m across that cover the landscape: the land between lanes."""
    step = 230.0
    xs, ys = np.meshgrid(np.arange(-step, width + step, step), np.arange(-step, height + step, step))
    points = np.column_stack([xs.ravel(), ys.ravel()]) + rng.uniform(-0.42, 0.42, (xs.size, 2)) * step
    window = shapely.box(-20, -20, width + 20, height + 20)
    cells = shapely.get_parts(shapely.voronoi_polygons(MultiPoint(points), extend_to=window))
    cells = shapely.intersection(cells, window)
    cells = [cell for cell in cells if isinstance(cell, Polygon) and cell.area > 1.0]
    return sorted(cells, key=lambda cell: (round(cell.centroid.y, 3), round(cell.centroid.x, 3)))


def split_parcels(cell: Polygon, direction: float, rng: Rng) -> Iterator[tuple[Polygon, float]]:
    """``cell`` cut along and across ``direction`` (rad) until the parts are of a field's size."""
    target = rng.uniform(3500, 15000)
    pending = [cell]
    while pending:
        part = pending.pop()
        if part.area < target * rng.uniform(0.9, 1.8):
            yield part, direction
        else:
            pending.extend(cut(part, direction, rng.uniform(0.36, 0.64), rng.uniform(0.9, 2.2)))


def cut(polygon: Polygon, direction: float, share: float, stretch: float) -> list[Polygon]:
    """Two sides of a line through ``polygon`` along ``direction`` or square to it, whichever is longer.

    ``stretch`` above 1 favours long narrow parts.
    """
    along = np.array([math.cos(direction), math.sin(direction)])
    across = np.array([-along[1], along[0]])
    points = np.asarray(polygon.exterior.coords)
    extent_along, extent_across = np.ptp(points @ along), np.ptp(points @ across)
    normal, tangent = (along, across) if extent_along > extent_across * stretch else (across, along)
    at = float(np.quantile(points @ normal, [0.0, 1.0]) @ [1 - share, share])
    base, reach = normal * at + tangent * (points @ tangent).mean(), 2000.0
    half = Polygon(
        [
            base - tangent * reach,
            base + tangent * reach,
            base + (tangent + normal) * reach,
            base + (normal - tangent) * reach,
        ]
    )
    parts = [*shapely.get_parts(polygon & half), *shapely.get_parts(polygon - half)]
    return [part for part in parts if isinstance(part, Polygon) and part.area > 1.0]


def place_lanes(layout: Layout, cells: list[Polygon], rng: Rng) -> None:
    """Lanes, field tracks and hedges along the borders of the countryside's cells."""
    edges: dict[tuple[tuple[float, float], ...], LineString] = {}
    for cell in cells:
        ring = np.round(np.asarray(cell.exterior.coords), 2)
        for a, b in pairwise(ring):
            edges.setdefault(tuple(sorted((tuple(a.tolist()), tuple(b.tolist())))), LineString([a, b]))
    for line in edges.values():
        draw = rng.uniform()
        if line.length < 12:
            continue
        if draw < 0.30:
            layout.streets.append(Street(bent(line, rng), rng.uniform(5, 6.5), rng.uniform(2, 4), "lane"))
        elif draw < 0.55:
            layout.streets.append(
                Street(bent(line, rng), rng.uniform(3.5, 4.5), rng.uniform(1.5, 3), "track")
            )
        elif draw < 0.78:
            layout.hedges.append(line)


def bent(line: LineString, rng: Rng) -> LineString:
    """``line`` with a slight bow, its ends kept."""
    a, b = np.asarray(line.coords)
    t = np.linspace(0, 1, 7)[:, None]
    normal = np.array([a[1] - b[1], b[0] - a[0]])
    return LineString(a + (b - a) * t + normal * rng.uniform(-0.06, 0.06) * 4 * t * (1 - t))
