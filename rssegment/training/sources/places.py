"""Pictures without georeference, read as if they lay somewhere: GDAL's own way to give a file a place."""

from __future__ import annotations

import os

from rssegment.errors import SceneError
from rssegment.scene.handles import is_remote
from rssegment.scene.label_header import opened

__all__ = ["is_placed", "own_words", "somewhere"]

# On the equator and the central meridian of a UTM zone, whose scale is known there.
_NOWHERE, _EASTING, _SCALE = "EPSG:32631", 500_000.0, 0.9996


def is_placed(path: str) -> tuple[tuple[int, int], bool]:
    """Rows and columns, and whether the file says anything of where it lies.

    Raises
    ------
    SceneError
        It is no raster.
    """
    with opened(path) as file:
        bare = file.crs is None and not file.gcps[0] and not file.rpcs
        return (int(file.height), int(file.width)), not bare


def somewhere(path: str, shape: tuple[int, int], resolution: float = 1.0) -> str:
    """GDAL's name for a picture as one with pixels of ``resolution`` (m) on the ground.

    Raises
    ------
    SceneError
        GDAL has no such name for it.
    """
    if "?" in path or is_remote(path):
        raise SceneError(
            f"{path} has no georeference, and such pictures are read from local files without '?' in their paths; "
            "copy it to one, or give it its place, as by gdal_translate -a_srs EPSG:XXXX -a_ullr ..."
        )
    size = resolution * _SCALE
    height, width = shape[0] * size / 2, shape[1] * size / 2
    corners = (_EASTING - width, height, _EASTING + width, -height)
    return f"vrt://{path}?a_srs={_NOWHERE}&a_ullr={','.join(map(repr, corners))}"


def own_words(message: str, inner: str, path: str) -> str:
    """A message about a picture by the name that the user knows."""
    return message.replace(inner, path).replace(os.path.basename(inner), os.path.basename(path))
