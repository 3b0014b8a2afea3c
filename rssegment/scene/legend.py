"""What a class raster says of its classes: names and colours, wherever GDAL or ArcGIS keep them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rssegment.scene.handles import Dataset, is_remote

__all__ = ["Legend", "legend_of"]

Color = tuple[int, int, int]

# GDAL's usages of attribute columns (GDALRATFieldUsage).
_NAME, _MIN, _MAX, _EXACT, _RED, _GREEN, _BLUE = "2", "3", "4", "5", "6", "7", "8"
_VALUES = ("value", "code", "classvalue", "classcode", "classid", "id", "gridcode")
# Best first; compared without case, blanks and underscores.
_NAMES = (
    "classname",
    "classnames",
    "class",
    "name",
    "label",
    "category",
    "landcover",
    "description",
    "legend",
    "type",
)


@dataclass(frozen=True)
class Legend:
    """Names and colours by class code, of the classes that have one."""

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, Color] = field(default_factory=dict)


def legend_of(dataset: Dataset, path: str) -> Legend:
    """Names and colours from the raster's colour table, category names and attribute table.

    An attribute table outranks category names (which have no codes of their own: they count from 0), and a colour
    table outranks the attribute table's colours. What can't be understood is left out: a legend is never why a raster
    can't be read.
    """
    band = _described(dataset)
    names = _categories(band)
    colors: dict[int, Color] = {}
    for table in (_attribute_table(band), _arcgis_table(path)):
        names |= {code: name for code, name, _ in table if name}
        colors |= {code: color for code, _, color in table if color is not None}
    return Legend(names, colors | _color_table(dataset))


def _described(dataset: Dataset) -> ElementTree.Element | None:
    """What GDAL knows of band 1, from whatever driver, as XML: rasterio doesn't show categories and attributes."""
    try:
        with MemoryFile(ext="vrt") as file:
            rasterio.shutil.copy(dataset, file.name, driver="VRT")
            file.seek(0)
            return ElementTree.fromstring(file.read()).find("./VRTRasterBand[@band='1']")
    except (RasterioError, OSError, ValueError, ElementTree.ParseError):
        return None


def _categories(band: ElementTree.Element | None) -> dict[int, str]:
    found = [] if band is None else band.findall("./CategoryNames/Category")
    return {code: name.text.strip() for code, name in enumerate(found) if name.text and name.text.strip()}


def _color_table(dataset: Dataset) -> dict[int, Color]:
    try:
        return {int(code): color[:3] for code, color in dataset.colormap(1).items()}
    except ValueError:
        return {}


Row = tuple[int, str, Color | None]


def _attribute_table(band: ElementTree.Element | None) -> list[Row]:
    """Rows (code, name, colour) of GDAL's raster attribute table."""
    table = None if band is None else band.find("./GDALRasterAttributeTable")
    if table is None:
        return []
    heads = [(each.findtext("Name", ""), each.findtext("Usage", "")) for each in table.findall("./FieldDefn")]
    cells = [[cell.text or "" for cell in row.findall("./F")] for row in table.findall("./Row")]
    rows = [row for row in cells if len(row) == len(heads)]
    columns = {k: [row[k] for row in rows] for k in range(len(heads))}
    usages = {usage: k for k, (_, usage) in reversed(list(enumerate(heads)))}
    value = _first(usages, (_EXACT, _MIN, _MAX))
    names = [name for name, _ in heads]
    value = _titled(names, _VALUES) if value is None else value
    if value is None:  # rows of equal bins, as of ERDAS: the place of a row is its code
        start, step = _number(table.get("Row0Min", "0")), _number(table.get("BinSize", "1"))
        codes = [None if start is None or not step else start + k * step for k in range(len(rows))]
    else:
        codes = [_number(cell) for cell in columns[value]]
    return list(_rows(codes, names, columns, usages))


def _arcgis_table(path: str) -> list[Row]:
    """Rows (code, name, colour) of the table that ArcGIS keeps beside a raster."""
    sidecar = path + ".vat.dbf"
    if is_remote(path) or not os.path.isfile(sidecar):
        return []
    import pyogrio

    try:
        meta, _, _, columns = pyogrio.raw.read(sidecar, read_geometry=False)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError):
        return []
    names = [str(name) for name in meta["fields"]]
    value = _titled(names, _VALUES)
    if value is None:
        return []
    codes = [_number(cell) for cell in columns[value]]
    return list(_rows(codes, names, dict(enumerate(columns)), {}))


def _rows(
    codes: Sequence[float | None], heads: Sequence[str], columns: Mapping[int, Any], usages: Mapping[str, int]
) -> Iterator[Row]:
    name = usages.get(_NAME, _titled(heads, _NAMES))
    title = ("red", _RED), ("green", _GREEN), ("blue", _BLUE)
    places = [usages.get(usage, _titled(heads, (head,))) for head, usage in title]
    cells = [[columns[place][k] for place in places if place is not None] for k in range(len(codes))]
    most = 1 if _shares([cell for row in cells for cell in row]) else 255
    for k, code in enumerate(codes):
        if code is None or code != int(code):
            continue
        text = "" if name is None or columns[name][k] is None else str(columns[name][k]).strip()
        yield int(code), text, _color([_number(cell) for cell in cells[k]], most)


def _shares(cells: Sequence[Any]) -> bool:
    """Whether colours are shares of 1, as ArcGIS writes them, and not bytes."""
    parts = [_number(cell) for cell in cells]
    broken = any(isinstance(cell, float) for cell in cells) or any(part and part % 1 for part in parts)
    return broken and all(part is not None and part <= 1 for part in parts)


def _color(parts: Sequence[float | None], most: int) -> Color | None:
    shares = [part / most for part in parts if part is not None and 0 <= part <= most]
    if len(shares) != 3:
        return None
    return round(255 * shares[0]), round(255 * shares[1]), round(255 * shares[2])


def _first(usages: Mapping[str, int], wanted: Sequence[str]) -> int | None:
    return next((usages[usage] for usage in wanted if usage in usages), None)


def _titled(heads: Sequence[str], titles: Sequence[str]) -> int | None:
    """The column with the best of ``titles``."""
    plain = [re.sub(r"[\s_-]", "", head).lower() for head in heads]
    return next((plain.index(title) for title in titles if title in plain), None)


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < 2**53 else None
