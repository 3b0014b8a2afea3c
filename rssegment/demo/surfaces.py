"""What the land is made of: colours and texture strengths of every surface of the synthetic landscape."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUILDING, ROAD, FOREST, GREEN_CROP, RIPE_CROP, GRASS, RIVER, BARE = range(1, 9)

Colour = tuple[float, float, float, float]  # red, green, blue, near infrared: 0 to 255


@dataclass(frozen=True)
class Surface:
    """A class code, a colour, the ``other`` colour that textures mix in, and how strongly each texture does."""

    code: int
    colour: Colour
    other: Colour
    rows: float = 0.0  # crop rows, roof tiles, mowing stripes
    spacing: float = 4.0  # px between rows
    tracks: float = 0.0  # pairs of wheel tracks
    broad: float = 0.0  # patches of 20 to 100 m
    patchy: float = 0.0  # patches of 2 to 10 m
    grain: float = 0.02  # pixel to pixel, as a share of the brightness
    canopy: float = 0.0  # light and shade of tree crowns
    direction: float = 0.0  # rad, across which the rows run


# fmt: off
_TABLE: list[tuple[Any, ...]] = [
    # name, how often within its class, then a Surface's fields from code to grain
    ("crop_maize",      3, GREEN_CROP, ( 62,  96,  50, 168), (112, 104,  72, 128), 0.32,  4.4, 0.00, 0.22, 0.10, 0.06),
    ("crop_wheat",      4, GREEN_CROP, ( 86, 124,  60, 178), (120, 122,  76, 138), 0.20,  3.2, 0.65, 0.30, 0.12, 0.03),
    ("crop_beet",       2, GREEN_CROP, ( 72, 120,  56, 186), (118, 108,  78, 125), 0.36,  3.6, 0.40, 0.25, 0.15, 0.05),
    ("crop_rape",       1, GREEN_CROP, (150, 154,  66, 174), (110, 128,  64, 166), 0.12,  4.0, 0.70, 0.30, 0.20, 0.03),
    ("crop_young",      2, GREEN_CROP, (112, 124,  78, 148), (138, 112,  86, 118), 0.42,  5.0, 0.40, 0.35, 0.15, 0.04),
    ("ripe_wheat",      4, RIPE_CROP,  (188, 162, 108, 140), (160, 138,  96, 128), 0.22,  3.4, 0.75, 0.50, 0.30, 0.03),
    ("ripe_barley",     2, RIPE_CROP,  (206, 186, 134, 148), (178, 156, 108, 132), 0.20,  3.2, 0.75, 0.50, 0.25, 0.03),
    ("ripe_stubble",    3, RIPE_CROP,  (180, 156, 114, 130), (204, 184, 140, 144), 0.60, 10.0, 0.20, 0.35, 0.25, 0.04),
    ("ripe_sunflower",  1, RIPE_CROP,  (138, 116,  72, 122), (112,  96,  66, 104), 0.40,  4.2, 0.00, 0.35, 0.40, 0.07),
    ("grass_meadow",    4, GRASS,      (102, 124,  74, 152), (134, 136,  88, 140), 0.00,  4.0, 0.00, 0.40, 0.60, 0.05),
    ("grass_lush",      2, GRASS,      ( 96, 122,  72, 156), (118, 130,  82, 144), 0.45, 13.0, 0.00, 0.30, 0.50, 0.05),
    ("grass_dry",       2, GRASS,      (142, 140,  94, 138), (112, 126,  76, 146), 0.00,  4.0, 0.00, 0.50, 0.70, 0.05),
    ("bare_plough",     4, BARE,       (132, 106,  82, 104), (104,  84,  68,  86), 0.30,  6.0, 0.00, 0.50, 0.30, 0.07),
    ("bare_dark",       2, BARE,       (104,  86,  70,  88), (128, 106,  84, 104), 0.35,  4.2, 0.00, 0.50, 0.35, 0.08),
    ("bare_pale",       2, BARE,       (178, 156, 128, 146), (146, 122,  98, 122), 0.12,  5.0, 0.00, 0.60, 0.40, 0.05),
    ("bare_red",        1, BARE,       (152, 114,  86, 116), (124,  96,  76, 100), 0.25,  5.0, 0.00, 0.50, 0.30, 0.06),
    ("roof_tile",       5, BUILDING,   (166, 102,  80, 126), (136,  88,  72, 108), 0.25,  3.0, 0.00, 0.00, 0.40, 0.05),
    ("roof_old",        3, BUILDING,   (140,  94,  76, 112), (112,  82,  70,  98), 0.25,  3.0, 0.00, 0.00, 0.60, 0.06),
    ("roof_slate",      3, BUILDING,   ( 88,  92, 104,  92), (108, 110, 118, 104), 0.20,  3.0, 0.00, 0.00, 0.30, 0.04),
    ("roof_metal",      2, BUILDING,   (196, 200, 206, 188), (168, 172, 180, 165), 0.40,  4.0, 0.00, 0.00, 0.20, 0.02),
    ("roof_flat",       2, BUILDING,   (156, 152, 148, 140), (130, 128, 126, 118), 0.00,  4.0, 0.00, 0.00, 0.70, 0.04),
]
KINDS: dict[str, tuple[int, Surface]] = {name: (often, Surface(*fields)) for name, often, *fields in _TABLE}

VERGE       = Surface(GRASS,  (110, 126,  78, 148), (142, 138,  94, 134), broad=0.4, patchy=0.7, grain=0.05)
ASPHALT     = Surface(ROAD,   (118, 117, 118, 112), ( 98,  97, 100,  94), broad=0.5, patchy=0.35, grain=0.025)
WORN        = Surface(ROAD,   (146, 142, 136, 132), (122, 119, 116, 112), broad=0.5, patchy=0.4, grain=0.03)
GRAVEL      = Surface(ROAD,   (186, 172, 148, 160), (158, 148, 120, 146), broad=0.5, patchy=0.6, grain=0.04)
MARKING     = Surface(ROAD,   (176, 175, 172, 168), (150, 150, 148, 140), patchy=0.5, grain=0.02)
WATER       = Surface(RIVER,  ( 66,  84,  80,  36), ( 88,  98,  82,  44), broad=0.7, patchy=0.1, grain=0.02)
SHALLOW     = Surface(RIVER,  ( 98, 108,  90,  60), ( 80,  94,  84,  46), broad=0.6, patchy=0.2, grain=0.02)
SHINGLE     = Surface(BARE,   (186, 178, 160, 158), (150, 144, 128, 132), broad=0.2, patchy=0.7, grain=0.08)
BROADLEAF   = Surface(FOREST, ( 62,  88,  48, 160), ( 88, 104,  56, 168), broad=0.3, grain=0.05, canopy=0.55)
MIXED       = Surface(FOREST, ( 52,  76,  46, 138), ( 78,  94,  52, 156), broad=0.4, grain=0.05, canopy=0.55)
CONIFER     = Surface(FOREST, ( 38,  58,  42, 104), ( 54,  74,  46, 126), broad=0.3, grain=0.05, canopy=0.6)
GARDEN_TREE = Surface(FOREST, ( 66,  92,  50, 164), ( 96, 104,  60, 158), patchy=0.5, grain=0.05, canopy=0.55)
# fmt: on


class Palette:
    """The surfaces of one landscape: each has an id, and every property is a look-up table by id."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._surfaces: list[Surface] = []
        self._by_code: dict[int, tuple[list[Surface], NDArray[np.float64]]] = {}
        for code in range(1, 9):
            kinds = [(often, surface) for often, surface in KINDS.values() if surface.code == code]
            if kinds:
                weights = np.array([often for often, _ in kinds], float)
                self._by_code[code] = [surface for _, surface in kinds], weights / weights.sum()

    def add(self, surface: Surface, *, spread: float = 0.0, brightness: float = 1.0) -> int:
        """The id of a copy of ``surface`` whose colour strays by ``spread`` (share, one standard deviation)."""
        gain = brightness * float(np.clip(1 + self._rng.normal(0, spread), 0.6, 1.5))
        bands = np.clip(1 + self._rng.normal(0, spread * 0.25, 4), 0.8, 1.25) * gain
        colour, other = (
            tuple(float(v) for v in np.array(c) * bands) for c in (surface.colour, surface.other)
        )
        self._surfaces.append(replace(surface, colour=colour, other=other))  # type: ignore[arg-type]
        return len(self._surfaces)

    def pick(self, code: int, direction: float = 0.0, spread: float = 0.09) -> int:
        """The id of a random kind of the class ``code`` with its rows across ``direction`` (rad)."""
        kinds, weights = self._by_code[code]
        kind = kinds[self._rng.choice(len(kinds), p=weights)]
        return self.add(replace(kind, direction=direction), spread=spread)

    def kind(self, name: str, direction: float = 0.0, spread: float = 0.09, brightness: float = 1.0) -> int:
        """The id of a surface of the named kind."""
        return self.add(replace(KINDS[name][1], direction=direction), spread=spread, brightness=brightness)

    def table(self, name: str) -> NDArray[np.float32]:
        """One property of every surface by id, row 0 unused: (N + 1,), or (N + 1, 4) for colours."""
        values = np.array([getattr(surface, name) for surface in self._surfaces], np.float32)
        return np.concatenate([np.zeros_like(values[:1]), values])
