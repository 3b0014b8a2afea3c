"""Ground of validation must not be ground of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rssegment.errors import InputError
from rssegment.reference.footprint import windows_of
from rssegment.reference.same_ground import shared_ground
from rssegment.training.sources.scenes import SourceScene

__all__ = ["check_roles", "left_out"]


def left_out(scenes: Sequence[SourceScene], regions: Sequence[str]) -> list[SourceScene]:
    """The scenes, those of ``regions`` for validation only.

    Raises
    ------
    InputError
        There is no such region, or no other.
    """
    regions = (regions,) if isinstance(regions, str) else regions
    known = sorted({scene.region for scene in scenes})
    if unknown := [region for region in regions if region not in known]:
        raise InputError(
            f"there is no region {', '.join(unknown)} to leave out; the recipe has {', '.join(known)}"
        )
    if set(known) <= set(regions):
        raise InputError(
            f"all regions are left out ({', '.join(known)}), and none is left to train on: leave out fewer"
        )
    return [replace(scene, role="validation") if scene.region in regions else scene for scene in scenes]


def check_roles(scenes: Sequence[SourceScene]) -> None:
    """Refuses sources of different roles that show the same ground: what is trained on validates nothing.

    Two sources of one role may: the same ground at two dates, or with labels of two kinds.

    Raises
    ------
    InputError
        Names two scenes and what they share.
    """
    if len({scene.role for scene in scenes}) < 2:
        return
    files: dict[str, SourceScene] = {}
    for scene in scenes:
        other = files.setdefault(scene.image.path, scene)
        if other.role != scene.role:
            raise InputError(_told(other, scene, "the same image"))
    placed = [scene for scene in scenes if scene.image.placed]
    for one, other in _near(placed):
        share = shared_ground(one.image.scene.geobox, other.image.scene.geobox)
        if share:
            raise InputError(
                _told(one, other, f"the same ground, {max(share, 0.001):.1%} of the smaller one")
            )


def _near(scenes: Sequence[SourceScene]) -> list[tuple[SourceScene, SourceScene]]:
    """Pairs of scenes of different roles whose boxes in longitude and latitude touch."""
    boxes, owners = [], []
    for number, scene in enumerate(scenes):
        for box in _boxes(scene.image.scene.geobox):
            boxes.append(box)
            owners.append(number)
    shapes = np.array(boxes, object)
    found = shapely.STRtree(shapes).query(shapes, predicate="intersects") if boxes else np.empty((2, 0), int)
    pairs = sorted({(owners[i], owners[j]) for i, j in found.T if owners[i] < owners[j]})
    return [(scenes[i], scenes[j]) for i, j in pairs if scenes[i].role != scenes[j].role]


def _boxes(geobox: GeoBox) -> list[shapely.Geometry]:
    return [shapely.box(*window.near) for window in windows_of(geobox, CRS.from_epsg(4326))]


def _told(one: SourceScene, other: SourceScene, what: str) -> str:
    def each(scene: SourceScene) -> str:
        return f"{scene.name} (source {scene.source!r}, role {scene.role})"

    return (
        f"{each(one)} and {each(other)} show {what}: ground that is trained on can't validate, and scores would be too "
        "good. Give both sources one role, or leave one of the images out"
    )
