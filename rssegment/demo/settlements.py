"""Where people live in the synthetic landscape: villages, houses, farms, gardens and the trees they planted.

Coordinates are metres, x to the right and y down from the scene's first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import LineString, Point, Polygon

from rssegment.demo.geometry import Building, Layout, Rng, Street, Village, blob, cut, place_land

__all__ = ["lay_out"]

Tree = tuple[float, float, float]


def lay_out(width: float, height: float, rng: Rng) -> Layout:
    """Place everything in a landscape of ``width`` x ``height`` m."""
    layout, main_roads = place_land(width, height, rng)
    place_villages(layout, main_roads, rng)
    place_farms(layout, rng)
    place_trees(layout, rng)
    return layout


def place_villages(layout: Layout, main_roads: list[LineString], rng: Rng) -> None:
    """Villages on the main roads: one in a small landscape, about four in one of 2 km x 2 km."""
    count = max(1, round(layout.width * layout.height / 1e6))
    window = shapely.box(0, 0, layout.width, layout.height)
    centres: list[Point] = []
    for _ in range(200):
        if len(centres) == count:
            break
        road = main_roads[rng.integers(len(main_roads))]
        at = rng.uniform(0.1, 0.9) * road.length
        centre = road.interpolate(at)
        radius = rng.uniform(110, 190) * min(1.0, layout.width / 700)
        clear = layout.river.distance(centre) > min(0.5 * radius, 60.0) and all(
            c.distance(centre) > 420 for c in centres
        )
        if clear and window.contains(centre):
            ahead = road.interpolate(at + 5.0)
            along = np.array([ahead.x - centre.x, ahead.y - centre.y])
            along /= np.hypot(*along)
            centres.append(centre)
            build_village(layout, (centre.x, centre.y), along, radius, rng)
    place_houses(layout, rng)


def build_village(
    layout: Layout, centre: tuple[float, float], along: NDArray[np.float64], radius: float, rng: Rng
) -> None:
    """Streets parallel and square to the main road, and gardens between them."""
    outline = blob(*centre, radius * rng.uniform(0.9, 1.3), radius * rng.uniform(0.7, 1.0), rng)
    outline = outline - layout.river.buffer(14)
    if not isinstance(outline, Polygon):
        outline = max(shapely.get_parts(outline), key=lambda part: part.area)
    across = np.array([-along[1], along[0]])
    for direction, normal, spacing in ((along, across, 62.0), (across, along, 85.0)):
        for offset in np.arange(-4, 5) * spacing + rng.uniform(-8, 8, 9):
            middle = np.array(centre) + normal * offset
            line = LineString([middle - direction * 500, middle + direction * 500]) & outline.buffer(-6)
            for part in shapely.get_parts(line):
                if part.length > 35 and rng.uniform() < 0.85:
                    layout.streets.append(Street(part, rng.uniform(5.5, 7), rng.uniform(0, 1.5), "street"))
    plots = [plot for plot, _ in split_plots(outline, math.atan2(along[1], along[0]), rng)]
    layout.villages.append(Village(outline, (float(along[0]), float(along[1])), plots))


def split_plots(outline: Polygon, direction: float, rng: Rng) -> Iterator[tuple[Polygon, float]]:
    """Garden plots of 400 to 1500 m²."""
    pending = [outline]
    while pending:
        part = pending.pop()
        if part.area < rng.uniform(500, 1600):
            yield part, direction
        else:
            pending.extend(cut(part, direction, rng.uniform(0.4, 0.6), 1.0))


def place_houses(layout: Layout, rng: Rng) -> None:
    """Houses in rows along the village streets, clear of every road, of the river and of each other."""
    blocked = shapely.union_all([street.surface for street in layout.streets]).union(layout.river.buffer(8))
    shapely.prepare(blocked)
    built: list[Polygon] = []
    for street in [s for s in layout.streets if s.kind in ("street", "main", "lane")]:
        for village in [v for v in layout.villages if v.outline.intersects(street.line)]:
            for house in houses_along(street, village.outline, rng):
                outline = house.outline
                roomy = outline.buffer(1.5)
                if not blocked.intersects(roomy) and not shapely.intersects(roomy, built).any():
                    built.append(outline)
                    layout.buildings.append(house)


def houses_along(street: Street, outline: Polygon, rng: Rng) -> Iterator[Building]:
    """Candidate houses on both sides of ``street`` within ``outline``."""
    inner = outline.buffer(-4)
    shapely.prepare(inner)
    for side in (-1.0, 1.0):
        at = rng.uniform(6, 14)
        while at < street.line.length:
            a, b = street.line.interpolate(at), street.line.interpolate(at + 1.0)
            along = np.array([b.x - a.x, b.y - a.y])
            norm = float(np.hypot(*along))
            at += rng.uniform(15, 25)
            if norm > 1e-6 and inner.contains(a) and rng.uniform() >= 0.08:
                yield house_beside((a.x, a.y), along / norm, side, street.width, rng)


def house_beside(
    spot: tuple[float, float], along: NDArray[np.float64], side: float, street_width: float, rng: Rng
) -> Building:
    """A house at a distance from ``spot`` on a street; one in three has its gable to the street."""
    normal = np.array([-along[1], along[0]])
    half_length, half_width = rng.uniform(4.5, 8.5), rng.uniform(3.6, 5.2)
    back = street_width / 2 + half_length + rng.uniform(2.5, 7)
    centre = np.array(spot) + side * back * normal
    ridge = rotate(normal if rng.uniform() < 0.3 else along, rng.normal(0, 0.04))
    height = rng.uniform(4.5, 9)
    return Building(pair(centre), pair(ridge), half_length, half_width, height, "house")


def pair(vector: NDArray[np.float64]) -> tuple[float, float]:
    return float(vector[0]), float(vector[1])


def rotate(vector: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def place_farms(layout: Layout, rng: Rng) -> None:
    """Barns by the lanes and halls by the main roads, in the open country, each with a drive to its road."""
    blocked = shapely.union_all([s.line.buffer(s.width / 2 + 2) for s in layout.streets])
    blocked = blocked.union(layout.river.buffer(15))
    shapely.prepare(blocked)
    towns = shapely.union_all([village.outline for village in layout.villages])
    built = [house.outline.buffer(3) for house in layout.buildings]
    rural = [s for s in layout.streets if s.kind in ("lane", "main") and s.line.length > 60]
    wanted = max(2, round(layout.width * layout.height / 45_000))
    for _ in range(wanted * 3):
        if wanted == 0 or not rural:
            break
        street = rural[rng.integers(len(rural))]
        at = rng.uniform(0.1, 0.9) * street.line.length
        a, b = street.line.interpolate(at), street.line.interpolate(at + 1)
        if not (0 < a.x < layout.width and 0 < a.y < layout.height) or towns.contains(a):
            continue
        farm = farm_beside(np.array([a.x, a.y]), np.array([b.x - a.x, b.y - a.y]), street, rng)
        if not blocked.intersects(farm.outline) and not shapely.intersects(farm.outline, built).any():
            layout.buildings.append(farm)
            built.append(farm.outline.buffer(4))
            wanted -= 1
            drive = LineString([(a.x, a.y), farm.centre])
            layout.streets.append(Street(drive, rng.uniform(3.5, 6), 0.0, "yard"))


def farm_beside(spot: NDArray[np.float64], along: NDArray[np.float64], street: Street, rng: Rng) -> Building:
    """A barn, or by main roads a hall, at a distance from ``spot`` on ``street``, which runs ``along`` there."""
    hall = street.kind == "main" and rng.uniform() < 0.6
    half_length, half_width = (
        (rng.uniform(16, 32), rng.uniform(10, 18)) if hall else (rng.uniform(9, 17), rng.uniform(5, 8))
    )
    ridge = rotate(along / math.hypot(*along), rng.normal(0, 0.1))
    normal = np.array([-ridge[1], ridge[0]]) * (1 if rng.uniform() < 0.5 else -1)
    centre = spot + normal * (street.width / 2 + half_width + rng.uniform(6, 12))
    height = rng.uniform(6, 10)
    return Building(pair(centre), pair(ridge), half_length, half_width, height, "hall" if hall else "barn")


def place_trees(layout: Layout, rng: Rng) -> None:
    """Trees (x, y, radius in m) wherever people or the river let them grow, none on roads or roofs."""
    trees = [
        *hedge_trees(layout, rng),
        *river_trees(layout, rng),
        *garden_trees(layout, rng),
        *avenue_trees(layout, rng),
    ]
    keep_clear = shapely.union_all(
        [street.line.buffer(street.width / 2) for street in layout.streets]
        + [house.outline.buffer(1.0) for house in layout.buildings]
    )
    shapely.prepare(keep_clear)
    blocked = shapely.dwithin(
        keep_clear, shapely.points(np.array([tree[:2] for tree in trees]).reshape(-1, 2)), 1.6
    )
    layout.trees = [tree for tree, bad in zip(trees, blocked, strict=True) if not bad]


def hedge_trees(layout: Layout, rng: Rng) -> Iterator[Tree]:
    """Shoulder to shoulder, with a gap here and there."""
    for hedge in layout.hedges:
        for at in np.arange(2.0, hedge.length, 3.4):
            spot = hedge.interpolate(at)
            if rng.uniform() < 0.85:
                yield spot.x + rng.normal(0, 0.7), spot.y + rng.normal(0, 0.7), rng.uniform(2.2, 4.4)


def river_trees(layout: Layout, rng: Rng) -> Iterator[Tree]:
    """In groups along both banks."""
    bank = layout.river.boundary
    for at in np.arange(0.0, bank.length, 4.5):
        spot = bank.interpolate(at)
        if math.sin(at / 41.0) + math.sin(at / 17.3) + rng.normal(0, 0.5) > 0.55:
            yield spot.x + rng.normal(0, 4), spot.y + rng.normal(0, 4), rng.uniform(2.5, 5.5)


def garden_trees(layout: Layout, rng: Rng) -> Iterator[Tree]:
    """Scattered in and around the villages."""
    for village in layout.villages:
        left, top, right, bottom = village.outline.bounds
        for _ in range(int(village.outline.area / 260)):
            yield rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(1.8, 4.2)


def avenue_trees(layout: Layout, rng: Rng) -> Iterator[Tree]:
    """In rows on both sides of some roads."""
    for street in layout.streets:
        if street.kind in ("main", "lane") and rng.uniform() < 0.3:
            reach = street.width / 2 + 3.5
            sides = [street.line.parallel_offset(reach, side) for side in ("left", "right")]
            for side in sides:
                for at in np.arange(rng.uniform(0, 9), side.length, rng.uniform(9, 14)):
                    spot = side.interpolate(at)
                    yield spot.x, spot.y, rng.uniform(2.2, 3.6)
