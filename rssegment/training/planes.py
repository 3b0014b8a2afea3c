"""Ground that scenes have in common: which of them lie near each other, and a plane of metres for those that do.

Scenes may lie in any CRS, at any angle, over poles and the antimeridian. So nearness is judged in space, and a plane is
that of one scene's own pixels where these are true to scale all over the group, else one that touches the Earth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment import geodesy
from rssegment.training.ground import LabelledScene

__all__ = ["Plane", "groups_of", "plane_of"]

Float = NDArray[np.float64]

_SPOTS = 9  # an odd number of places along each side of a scene that are looked at
_TRUE = 0.01  # a plane is true to scale if no distance is off by more
_LANDMARKS = 64  # places to which distances are compared


@dataclass(frozen=True, eq=False)
class Plane:
    """Where the pixels of a group's scenes lie: x along the columns of one of them, y down its rows, in metres.

    Law: places that are ``stretch`` times d apart in the plane are d apart on the ground, or more.
    """

    affines: Mapping[int, Affine]
    tangent: _Tangent | None
    stretch: float

    def at(self, number: int, cols: Float, rows: Float) -> Float:
        """(2, …): x and y of pixel corners of the scene of this number; not finite where they lie nowhere on Earth."""
        places = _moved(self.affines[number], cols, rows)
        return places if self.tangent is None else self.tangent.of(number, places)


@dataclass(frozen=True, eq=False)
class _Tangent:
    """A plane that touches the Earth, onto which all is projected at right angles: so distances never grow."""

    crs: Mapping[int, str]
    origin: Float
    axes: Float  # (2, 3)

    def of(self, number: int, places: Float) -> Float:
        """(2, …) in the plane of (2, …) in the scene's CRS."""
        space = _in_space(places.reshape(2, -1), self.crs[number])
        return (self.axes @ (space - self.origin).T).reshape(places.shape)


def groups_of(scenes: Sequence[LabelledScene], reach: float) -> list[list[int]]:
    """Numbers of scenes that belong together, since others of the group lie within ``reach`` (m) of them.

    Of scenes without a place on Earth those of one name do. All nearer ones are in one group; some that are a little
    further apart may be too.
    """
    heads: dict[object, int] = {}
    parents = list(range(len(scenes)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    spots = _spots(scenes)
    for number, scene in enumerate(scenes):
        box = scene.geobox
        placed = number in spots and box is not None
        key = (str(box.crs), tuple(box.affine), scene.shape) if placed and box is not None else scene.name
        parents[number] = heads.setdefault(key, number)
    places = {number: _Footprint.of(spots[number]) for number in heads.values() if number in spots}
    for one, other in _candidates(places, reach):
        if root(one) != root(other) and places[one].near(places[other], reach):
            parents[root(other)] = root(one)
    found: dict[int, list[int]] = {}
    for number in range(len(scenes)):
        found.setdefault(root(number), []).append(number)
    return sorted(found.values())


def plane_of(scenes: Mapping[int, LabelledScene]) -> Plane:
    """The plane of a group, given by number: along the axes of the one with the largest pixels."""
    lead = max(scenes, key=lambda n: (scenes[n].resolution, scenes[n].shape[0] * scenes[n].shape[1], -n))
    boxes = {number: scene.geobox for number, scene in scenes.items() if scene.geobox is not None}
    spots = _spots([scenes[number] for number in scenes])
    if len(boxes) < len(scenes) or len(spots) < len(scenes):
        return _unplaced(scenes)
    space = dict(zip(scenes, spots.values(), strict=True))
    return _flat(boxes, space, lead) or _touching(boxes, space, lead)


def _unplaced(scenes: Mapping[int, LabelledScene]) -> Plane:
    """One picture, however large its pixels are said to be: so the least size that is."""
    height, width = (
        min(scene.shape[axis] * scene.resolution for scene in scenes.values()) for axis in range(2)
    )
    affines = {
        n: Affine.scale(width / scene.shape[1], height / scene.shape[0]) for n, scene in scenes.items()
    }
    return Plane(affines, None, 1.0)


def _flat(boxes: Mapping[int, GeoBox], space: Mapping[int, Float], lead: int) -> Plane | None:
    """The plane of the leading scene's own pixels; None if that isn't true to scale, or others have another CRS."""
    first = boxes[lead]
    if any(str(box.crs) != str(first.crs) for box in boxes.values()):
        return None
    half = _SPOTS // 2
    middle = np.stack([space[lead][half + 1, half] - space[lead][half - 1, half],
                       space[lead][half, half + 1] - space[lead][half, half - 1]])  # fmt: skip
    down, across = np.linalg.norm(middle, axis=1) * half / np.array(first.shape)  # m, of a pixel
    if not (np.isfinite([down, across]).all() and min(down, across) > 0):
        return None
    to_plane = Affine.scale(across, down) * ~first.affine
    affines = {number: to_plane * box.affine for number, box in boxes.items()}
    some = slice(None, None, half)
    flat, real = [], []
    for number, box in boxes.items():
        cols, rows = _lattice((int(box.shape[0]), int(box.shape[1])))
        flat.append(_moved(affines[number], cols, rows)[:, some, some].reshape(2, -1).T)
        real.append(space[number][some, some].reshape(-1, 3))
    off = _off(np.concatenate(flat), np.concatenate(real))
    return Plane(affines, None, 1 + 2 * off) if off <= _TRUE else None


def _off(flat: Float, real: Float) -> float:
    """The greatest relative error of distances between places in the plane and in space."""
    numbers = np.arange(len(flat))
    marks = np.unique(np.linspace(0, len(flat) - 1, _LANDMARKS).astype(np.int64))
    worst = 0.0
    for others in (*marks, np.maximum(numbers - 1, 0)):
        apart, true = (np.linalg.norm(each - each[others], axis=-1) for each in (flat, real))
        some = np.maximum(apart, true) > 1e-3
        errors = np.abs(true[some] / np.maximum(apart[some], 1e-9) - 1)
        worst = max(worst, float(errors.max(initial=0))) if not np.isnan(errors).any() else np.inf
    return worst


def _touching(boxes: Mapping[int, GeoBox], space: Mapping[int, Float], lead: int) -> Plane:
    """The plane that touches the Earth in the middle of all scenes."""
    first = space[lead]
    half = _SPOTS // 2
    up = np.nanmean(np.concatenate([each.reshape(-1, 3) for each in space.values()]), 0)
    x, y = first[half, -1] - first[half, 0], first[-1, half] - first[0, half]
    axes = _axes(up, x)
    if (axes[1] @ y) < 0:
        axes[1] *= -1
    origin = first[0, 0] if np.isfinite(first[0, 0]).all() else up
    crs = {number: str(box.crs) for number, box in boxes.items()}
    return Plane({number: box.affine for number, box in boxes.items()}, _Tangent(crs, origin, axes), 1.0)


def _axes(up: Float, along: Float | None = None) -> Float:
    """(2, 3): axes at right angles to ``up`` and each other, the first towards ``along`` if that tells a direction."""
    length = np.linalg.norm(up)
    up = up / length if length > 1.0 else np.array([0.0, 0.0, 1.0])  # all round the Earth
    if along is not None:
        x = along - (along @ up) * up
        if not np.linalg.norm(x) > 1e-3:
            return _axes(up * length)
    else:
        x = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x)])


@dataclass(frozen=True, eq=False)
class _Footprint:
    """A scene's ground in space: places (n, 3) all over it, and how far (m) what lies between them may bulge."""

    places: Float
    bulge: float

    @classmethod
    def of(cls, spots: Float) -> _Footprint:
        bulge = 0.0
        for axis in range(2):
            line = np.moveaxis(spots, axis, 0)
            bulges = np.linalg.norm(line[1:-1:2] - (line[:-2:2] + line[2::2]) / 2, axis=-1)
            bulge = max(bulge, float(bulges[np.isfinite(bulges)].max(initial=0.0)))
        places = spots.reshape(-1, 3)
        return cls(places[np.isfinite(places).all(1)], bulge)

    def near(self, other: _Footprint, reach: float) -> bool:
        """Whether the two are no further apart than ``reach``; seen from above, so that they may be a little."""
        axes = _axes(self.places.mean(0) + other.places.mean(0))
        one, two = (shapely.MultiPoint(each.places @ axes.T).convex_hull for each in (self, other))
        return bool(shapely.dwithin(one, two, reach + self.bulge + other.bulge))


def _candidates(places: Mapping[int, _Footprint], reach: float) -> list[tuple[int, int]]:
    """Pairs whose boxes in space, along the Earth's axes, are that near."""
    if len(places) < 2:
        return []
    numbers = list(places)
    low, high = (
        np.stack([how(each.places, axis=0) + sign * (each.bulge + reach / 2) for each in places.values()])
        for how, sign in ((np.min, -1), (np.max, 1))
    )
    boxes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    some = (one < other) & (low[one, 2] <= high[other, 2]) & (low[other, 2] <= high[one, 2])
    return [
        (numbers[i], numbers[j])
        for i, j in sorted(zip(one[some].tolist(), other[some].tolist(), strict=True))
    ]


def _spots(scenes: Sequence[LabelledScene]) -> dict[int, Float]:
    """Places (n, n, 3) in space all over each scene, by its number; without those that lie nowhere on Earth."""
    by_crs: dict[str, list[tuple[int, Float]]] = {}
    for number, scene in enumerate(scenes):
        if scene.geobox is not None and geodesy.is_on_earth(crs := str(scene.geobox.crs)):
            places = _moved(scene.geobox.affine, *_lattice(scene.shape))
            by_crs.setdefault(crs, []).append((number, places.reshape(2, -1)))
    found = {}
    for crs, each in by_crs.items():
        space = _in_space(np.concatenate([places for _, places in each], 1), crs)
        for (number, _), part in zip(each, space.reshape(len(each), _SPOTS, _SPOTS, 3), strict=True):
            if np.isfinite(part).any():
                found[number] = part
    return dict(sorted(found.items()))


def _lattice(shape: tuple[int, int]) -> tuple[Float, Float]:
    """Columns and rows (n, n) of places all over a scene."""
    steps = np.linspace(0, 1, _SPOTS)
    rows, cols = np.meshgrid(steps * shape[0], steps * shape[1], indexing="ij")
    return cols, rows


def _in_space(places: Float, crs: str) -> Float:
    """(N, 3) metres from the centre of the Earth of (2, N) in a CRS; NaN where that is nowhere."""
    lon, lat = geodesy.transformer(crs).transform(*places)
    return geodesy.geocentric(
        np.where(np.isfinite(lon), lon, np.nan), np.where(np.isfinite(lat), lat, np.nan)
    )


def _moved(affine: Affine, cols: Float, rows: Float) -> Float:
    """(2, …): columns and rows through a transform."""
    a, b, c, d, e, f = affine[:6]
    return np.stack([a * cols + b * rows + c, d * cols + e * rows + f])
