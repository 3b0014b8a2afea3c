"""The vector formats that can be written: their file names, coordinates and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from rssegment.errors import OutputError

__all__ = ["FORMATS", "Format", "check_format", "format_of"]


@dataclass(frozen=True)
class Format:
    """What a vector format is.

    ``suffixes`` of its files, the usual one first; ``place``: whether coordinates are in the scene's own CRS, or in the
    one that the format wants; ``driver``: GDAL's name where GDAL writes it; ``companions``: suffixes of the files
    that belong to it. ``strays``: names, as :func:`~rssegment.write.leftovers.remove_strays` takes them, of what other
    programs keep beside such a file, and would take for a new file's own. ``limits``: what a user must know before
    choosing it.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    place: Literal["native", "WGS 84", "Web Mercator"]
    limits: str
    driver: str | None = None
    companions: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


_DATABASE = tuple("{name}" + end for end in ("-wal", "-shm", "-journal"))
# indexes of GDAL, MapServer and ArcGIS; metadata that hold an extent and counts; QGIS 2 on the CRS
_SHAPE_STRAYS = tuple(
    "{stem}" + end
    for end in (
        *(".qix", ".sbn", ".sbx", ".fbn", ".fbx", ".ain", ".aih", ".idm", ".ind", ".*.atx", ".ixs", ".mxs"),
        *(".shp.xml", ".qpj"),
    )
)


_ALL = (
    Format(
        "geojson",
        "GeoJSON (RFC 7946)",
        (".geojson", ".json"),
        "WGS 84",
        "one file of text without an index; readers take all of it at once",
    ),
    Format(
        "geojsonseq",
        "GeoJSON, one feature a line",
        (".geojsonl", ".geojsons", ".geojsonseq", ".ndjson"),
        "WGS 84",
        "lines end with a newline alone, without the record separators of RFC 8142",
    ),
    Format(
        "parquet",
        "GeoParquet 1.1",
        (".parquet", ".geoparquet"),
        "native",
        "features are in the order of a Hilbert curve, not of id",
    ),
    Format(
        "flatgeobuf",
        "FlatGeobuf with a spatial index",
        (".fgb",),
        "native",
        "features are in the order of the index, not of id; about 100 bytes of memory a feature while it is made",
        driver="FlatGeobuf",
    ),
    Format(
        "gpkg",
        "GeoPackage with a spatial index",
        (".gpkg",),
        "native",
        "a geometry of more than 1 GB can't be stored",
        driver="GPKG",
        strays=_DATABASE,
    ),
    Format(
        "pmtiles",
        "vector tiles in one file (PMTiles)",
        (".pmtiles",),
        "Web Mercator",
        "for maps on screens: needs a CRS; ends at 85.05 degrees north and south; coordinates are rounded to a quarter "
        "of a pixel at the largest zoom, more below it; a tile has 2 MB and 200,000 features at most, beyond which it "
        "gets coarser and the smallest are left out",
        driver="PMTiles",
    ),
    Format(
        "shp",
        "ESRI Shapefile",
        (".shp",),
        "native",
        "field names of 10 letters (long ones are shortened), text of 254 bytes, 2 GB a file, "
        "whole numbers of 18 digits, no null truth values",
        driver="ESRI Shapefile",
        companions=(".shx", ".dbf", ".prj", ".cpg"),
        strays=_SHAPE_STRAYS,
    ),
)

FORMATS: Mapping[str, Format] = MappingProxyType({each.name: each for each in _ALL})
"""Every vector format by its name."""

_BY_SUFFIX = {suffix: each.name for each in _ALL for suffix in each.suffixes}


def format_of(path: str | Path) -> str:
    """Name of the format that the suffix of ``path`` stands for.

    Raises
    ------
    OutputError
        No format has that suffix; lists those there are.
    """
    suffix = Path(path).suffix
    name = _BY_SUFFIX.get(suffix.lower())
    if name is None:
        raise OutputError(f"{path} has the suffix {suffix!r}; expected one of {', '.join(_BY_SUFFIX)}")
    return name


def check_format(name: str, crs: str | None) -> None:
    """Refuses a format that can't hold features in ``crs``, before anything is done.

    Raises
    ------
    OutputError
        There is no such format, or it needs a CRS and there is none.
    """
    if name not in FORMATS:
        raise OutputError(f"there is no vector format {name!r}; expected some of {', '.join(FORMATS)}")
    if crs is None and FORMATS[name].place == "Web Mercator":
        raise OutputError(
            f"{FORMATS[name].title} need a place on a web map, and the raster has no CRS; choose another format"
        )
