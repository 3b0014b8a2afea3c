"""The landscape as a painting: which surface each pixel shows, and the colour of that surface before the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from rssegment.demo import surfaces as s
from rssegment.demo.geometry import Building, Layout
from rssegment.demo.settlements import lay_out
from rssegment.demo.textures import CrownTile, ValueNoise, triangle

__all__ = ["PIXEL", "Painting", "paint"]

PIXEL = 0.5  # m
SUN = (-0.80, -0.60)  # to the sun, in the upper left, which is how the eye reads relief
SHADOW_LENGTH = 0.75  # m of shadow for each m of height
TREE_HEIGHT = 9.0  # m

Ids = NDArray[np.uint16]
Shapes = list[tuple[BaseGeometry, int]]


@dataclass
class Painting:
    """``surface`` (H, W) ids into the ``palette``, and ``shadow`` (H, W) bool, with the textures over them."""

    palette: s.Palette
    surface: Ids
    shadow: NDArray[np.bool_]
    crowns: CrownTile
    broad: Sequence[ValueNoise]
    patchy: Sequence[ValueNoise]
    grain: ValueNoise
    light: ValueNoise
    haze: ValueNoise

    def __post_init__(self) -> None:
        names = (
            "colour",
            "other",
            "rows",
            "spacing",
            "direction",
            "tracks",
            "broad",
            "patchy",
            "grain",
            "canopy",
        )
        self._tables = {name: self.palette.table(name) for name in names}
        direction, spacing = self._tables["direction"], np.maximum(self._tables["spacing"], 1)
        self._right, self._down = np.cos(direction).astype(np.float32), np.sin(direction).astype(np.float32)
        self._frequency = (1 / spacing).astype(np.float32)

    @property
    def truth(self) -> NDArray[np.uint16]:
        """Class codes (H, W)."""
        return self.palette.table("code").astype(np.uint16)[self.surface]

    def rows(self, start: int, stop: int) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
        """Colour (4 bands of (rows, W)) and shadow of rows ``start`` to ``stop``."""
        ids, table = self.surface[start:stop], self._tables
        width = ids.shape[1]
        x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(start, stop, dtype=np.float32)[:, None]
        across = self._right[ids] * x + self._down[ids] * y  # px across the rows
        broad = sum_of(self.broad, start, stop)
        patchy = sum_of(self.patchy, start, stop)
        across += np.float32(0.5) * patchy
        mix = table["rows"][ids] * triangle(across * self._frequency[ids])
        wheel = np.maximum(0, triangle(across * np.float32(1 / 44)) * np.float32(11) - np.float32(10))
        wheel += np.maximum(
            0, triangle((across - np.float32(4)) * np.float32(1 / 44)) * np.float32(11) - np.float32(10)
        )
        mix += table["tracks"][ids] * np.minimum(wheel * np.float32(1.6), 1)
        mix += table["broad"][ids] * broad + table["patchy"][ids] * patchy
        canopy = table["canopy"][ids]
        trees = canopy > 0
        light = 1 + table["grain"][ids] * (2 * self.grain.rows(start, stop))
        shade = self.crowns.rows(self.crowns.shade, start, stop, width)
        tint = self.crowns.rows(self.crowns.tint, start, stop, width)
        light += canopy * shade
        mix += np.where(trees, np.float32(0.35) * tint + np.float32(0.15), 0)
        np.clip(mix, -0.6, 1.2, out=mix)
        colour = []
        for band in range(4):
            base = table["colour"][:, band][ids]
            base += mix * (table["other"][:, band] - table["colour"][:, band])[ids]
            colour.append(base * light)
        return colour, self.shadow[start:stop]


def sum_of(octaves: Sequence[ValueNoise], start: int, stop: int) -> NDArray[np.float32]:
    """Octaves of noise with weights 1, 1/2, 1/4…"""
    total = octaves[0].rows(start, stop)
    for k, octave in enumerate(octaves[1:], 1):
        total += octave.rows(start, stop) * np.float32(0.5**k)
    return total


def paint(shape: tuple[int, int], layout_rng: np.random.Generator, rng: np.random.Generator) -> Painting:
    """Lay out and paint a landscape of ``shape`` px."""
    layout = lay_out(shape[1] * PIXEL, shape[0] * PIXEL, layout_rng)
    palette = s.Palette(rng)
    crowns = CrownTile(rng, SUN)
    surface = burn(ground_shapes(layout, palette, rng), shape, fill=palette.add(s.VERGE))
    plant_forest(surface, palette, crowns, rng)
    top = burn(built_shapes(layout, palette, rng), shape)
    np.copyto(surface, top, where=top > 0)
    tall = np.isin(surface, np.flatnonzero(palette.table("code") == s.FOREST))
    return Painting(
        palette,
        surface,
        cast_shadow(layout, tall, palette, surface),
        crowns,
        broad=[ValueNoise(rng, shape, cell) for cell in (170, 61)],
        patchy=[ValueNoise(rng, shape, cell) for cell in (19, 7)],
        grain=ValueNoise(rng, shape, 1.7),
        light=ValueNoise(rng, shape, 700),
        haze=ValueNoise(rng, shape, 900),
    )


def burn(shapes: Shapes, shape: tuple[int, int], fill: int = 0) -> Ids:
    """Surface ids (H, W): later shapes lie over earlier ones."""
    shapes = [(geometry, value) for geometry, value in shapes if not geometry.is_empty]
    ids: Ids = rasterize(shapes, shape, fill=fill, transform=Affine.scale(PIXEL), dtype="uint16")
    return ids


def ground_shapes(layout: Layout, palette: s.Palette, rng: np.random.Generator) -> Shapes:
    """Fields and meadows, some with a grass margin."""
    codes = [s.GREEN_CROP, s.RIPE_CROP, s.GRASS, s.BARE]
    shapes: Shapes = []
    for parcel, direction in layout.parcels:
        code = int(rng.choice(codes, p=[0.37, 0.30, 0.16, 0.17]))
        margin = rng.uniform(0.8, 2.5) if rng.uniform() < 0.5 else 0.0
        field = parcel.buffer(-margin, join_style="mitre") if margin else parcel
        shapes.append((parcel, palette.add(s.VERGE, spread=0.06)))
        shapes.append((field, palette.pick(code, direction + math.pi / 2)))
    return shapes


def plant_forest(surface: Ids, palette: s.Palette, crowns: CrownTile, rng: np.random.Generator) -> None:
    """Woods where smooth noise is high, their edges following the crowns; broadleaf, mixed and conifer stands."""
    height, width = surface.shape
    where = [ValueNoise(rng, surface.shape, cell) for cell in (520, 170, 70, 24)]
    stand = ValueNoise(rng, surface.shape, 330)
    sample = np.concatenate([sum_of(where, row, row + 1) for row in range(0, height, 16)])
    threshold = max(0.25, float(np.quantile(sample, 0.84)))
    kinds = np.array(
        [palette.add(kind, spread=0.05) for kind in (s.CONIFER, s.MIXED, s.BROADLEAF)], np.uint16
    )
    for start in range(0, height, 512):
        stop = min(height, start + 512)
        canopy = crowns.rows(crowns.height, start, stop, width)
        wood = sum_of(where, start, stop) + np.float32(0.10) * canopy > threshold
        wood &= canopy > 0.06
        species = kinds[np.digitize(stand.rows(start, stop), (-0.35, 0.1))]
        np.copyto(surface[start:stop], species, where=wood)


def built_shapes(layout: Layout, palette: s.Palette, rng: np.random.Generator) -> Shapes:
    """Everything that lies over fields and woods: gardens, river, verges, roads, trees, buildings."""
    shapes: Shapes = []
    for village in layout.villages:
        shapes.append((village.outline, palette.add(s.VERGE)))
        for plot in village.plots:
            code = s.BARE if rng.uniform() < 0.08 else s.GRASS
            shapes.append((plot, palette.pick(code, math.atan2(village.along[1], village.along[0]))))
    shapes.append((layout.river.buffer(5), palette.add(s.VERGE)))
    shapes.append((layout.river, palette.add(s.SHALLOW)))
    shapes.append((layout.river.buffer(-2.5), palette.add(s.WATER)))
    shapes += [(bar, palette.add(s.SHINGLE, spread=0.05)) for bar in layout.bars]
    shapes += road_shapes(layout, palette, rng)
    for x, y, radius in layout.trees:
        shapes.append((crown_outline(x, y, radius, rng), palette.add(s.GARDEN_TREE, spread=0.10)))
    for building in layout.buildings:
        shapes += roof_shapes(building, palette, rng)
    return shapes


def road_shapes(layout: Layout, palette: s.Palette, rng: np.random.Generator) -> Shapes:
    """Verges under all roads, then the roads from the least to the greatest, with markings and cars."""
    verge = palette.add(s.VERGE, spread=0.05)
    shapes: Shapes = []
    for street in layout.streets:
        if street.verge:
            strip = street.line.buffer(street.width / 2 + street.verge, quad_segs=3)
            shapes.append((strip - layout.river.buffer(1.0), verge))
    for kind in ("track", "yard", "lane", "street", "main"):
        for street in (street for street in layout.streets if street.kind == kind):
            loose = kind == "track" or (kind == "yard" and rng.uniform() < 0.5)
            material = s.GRAVEL if loose else s.WORN if rng.uniform() < 0.4 else s.ASPHALT
            shapes.append((street.surface, palette.add(material, spread=0.07)))
    marking = palette.add(s.MARKING)
    for street in (street for street in layout.streets if street.kind == "main"):
        shapes.append((street.line.buffer(0.3, cap_style="flat"), marking))
    for street in (street for street in layout.streets if street.kind in ("main", "lane", "street")):
        for at in np.arange(rng.uniform(0, 60), street.line.length, rng.uniform(40, 130)):
            shapes += car(street.line, float(at), street.width, palette, rng)
    return shapes


def car(
    line: shapely.LineString, at: float, width: float, palette: s.Palette, rng: np.random.Generator
) -> Shapes:
    """A car in its lane: it is part of the road."""
    a, b = line.interpolate(at), line.interpolate(at + 4.3)
    lane = shapely.LineString([a, b])
    if lane.length < 3:
        return []
    lane = lane.parallel_offset(width / 4, "right" if rng.uniform() < 0.5 else "left")
    grey = float(rng.choice([40, 60, 180, 215, 235]))
    paint_ = s.Surface(s.ROAD, (grey, grey, grey, grey), (grey, grey, grey, grey))
    return [(lane.buffer(0.95, cap_style="flat"), palette.add(paint_, spread=0.2))]


def crown_outline(x: float, y: float, radius: float, rng: np.random.Generator) -> Polygon:
    """A crown seen from above: a circle with an uneven edge."""
    angle = np.arange(10) * (2 * math.pi / 10)
    reach = radius * rng.uniform(0.8, 1.15, 10)
    return Polygon(np.column_stack([x + reach * np.cos(angle), y + reach * np.sin(angle)]))


def roof_shapes(building: Building, palette: s.Palette, rng: np.random.Generator) -> Shapes:
    """A gabled roof, its side towards the sun the brighter, or a flat one with a rim and a unit on top."""
    names = {
        "house": ["roof_tile", "roof_old", "roof_slate"],
        "barn": ["roof_old", "roof_metal", "roof_slate"],
    }
    weights = {"house": [0.55, 0.25, 0.20], "barn": [0.4, 0.35, 0.25]}
    along = math.atan2(building.along[1], building.along[0])
    if building.kind == "hall":
        name = "roof_metal" if rng.uniform() < 0.5 else "roof_flat"
        roof = palette.kind(name, along)
        unit = palette.kind("roof_metal", along, brightness=0.85)
        rim = palette.kind(name, along, brightness=1.12)
        x, y = np.array(building.centre) + rng.uniform(-0.4, 0.4, 2) * building.half_width
        unit_outline = shapely.box(x - 2, y - 2, x + 2, y + 2)
        return [(building.outline, rim), (building.outline.buffer(-0.9), roof), (unit_outline, unit)]
    name = str(rng.choice(names[building.kind], p=weights[building.kind]))
    normal = (-building.along[1], building.along[0])
    towards = normal[0] * SUN[0] + normal[1] * SUN[1]  # how far the +1 side looks at the sun
    gain = float(np.clip(1 + rng.normal(0, 0.08), 0.8, 1.2))
    shapes: Shapes = []
    for low, high, side in ((-1.0, 0.0, -1.0), (0.0, 1.0, 1.0)):
        lit = gain * (1.0 + 0.24 * side * towards)
        shapes.append(
            (Polygon(building.corners(low, high)), palette.kind(name, along + math.pi / 2, 0.02, lit))
        )
    return shapes


def cast_shadow(
    layout: Layout, tall: NDArray[np.bool_], palette: s.Palette, surface: Ids
) -> NDArray[np.bool_]:
    """Where buildings and trees keep the sun off lower ground: (H, W) bool."""
    away = np.array([-SUN[0], -SUN[1]]) * SHADOW_LENGTH
    shapes: Shapes = []
    for building in layout.buildings:
        corners = building.corners()
        shapes.append(
            (shapely.MultiPoint(np.concatenate([corners, corners + away * building.height])).convex_hull, 1)
        )
    shadow = burn(shapes, tall.shape) > 0 if shapes else np.zeros(tall.shape, bool)
    shadow |= smear(tall, away * TREE_HEIGHT / PIXEL)
    roofs = palette.table("code") == s.BUILDING
    shadow &= ~tall & ~roofs[surface]
    return shadow


def smear(mask: NDArray[np.bool_], reach: NDArray[np.float64]) -> NDArray[np.bool_]:
    """``mask`` dragged along ``reach`` (x, y) px: the union of its shifts, about one for each pixel of the way."""
    steps = max(1, math.ceil(float(np.abs(reach).max())))
    result = mask.copy()
    for k in range(1, steps + 1):
        right, down = (round(float(v) * k / steps) for v in reach)
        height, width = mask.shape
        result[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] |= mask[
            max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
        ]
    return result
