"""One raster file of a scene: what GDAL tells of it, once, as a value."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rssegment.config import SceneOptions
from rssegment.errors import SceneError
from rssegment.scene.bands import PALETTE_CHANNELS, Band, own_name
from rssegment.scene.checks import check_blocks, check_is_raster, placed
from rssegment.scene.handles import Dataset, gdal, is_remote, open_dataset, reason

__all__ = ["MaskKind", "Source", "inspect_source", "locate"]

MaskKind = Literal["none", "dataset", "bands"]


@dataclass(frozen=True, slots=True)
class Source:
    """One file: where it is and how its pixels are to be read.

    ``mask`` tells of an explicit mask (inside the file or beside it): one for all bands, or one for each.
    ``alpha`` is the index of the alpha band, ``doubtful`` if it looks like image data. ``palette`` is a colour table,
    ``(entries, 4)`` uint8 as bytes.
    ``overviews`` are the shapes (rows, cols) of the reduced grids that may be read, largest first.
    ``tile`` is set where GDAL's answer depends on the window asked for: the side of the tiles (px), anchored
    at the origin, that such a file must be read by. ``stamp`` changes when a local file is replaced.
    """

    path: str
    driver: str
    mask: MaskKind = "none"
    alpha: int | None = None
    doubtful: bool = False
    palette: bytes | None = None
    overviews: tuple[tuple[int, int], ...] = ()
    tile: int | None = None
    stamp: int = 0

    @property
    def colors(self) -> NDArray[np.uint8]:
        """The colour table, ``(entries, 4)``: red, green, blue, alpha."""
        if self.palette is None:
            raise ValueError(f"{self.path} has no colour table")
        return np.frombuffer(self.palette, dtype=np.uint8).reshape(-1, 4)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What opening one file gave: the source, its grid, all its bands (alpha too) and remarks."""

    source: Source
    geobox: GeoBox
    bands: tuple[Band, ...]
    warnings: tuple[str, ...]


def locate(path: str | os.PathLike[str]) -> str:
    """The path that GDAL can open from any working folder.

    Raises
    ------
    SceneError
        A local file that doesn't exist.
    """
    text = os.fspath(path)
    if not text.strip():
        raise SceneError("the path of the scene is empty")
    local = Path(text).expanduser()
    if local.exists():
        return str(local.absolute())
    if (
        text.startswith("/vsi") or "://" in text or ":" in text[2:]
    ):  # a URL, or a subdataset as NETCDF:file:name
        return text
    raise SceneError(f"{text} doesn't exist")


def inspect_source(path: str, options: SceneOptions, alone: bool) -> Inspected:
    """Opens the file and tells what is in it; a colour table is expanded only if the file is ``alone``.

    Raises
    ------
    SceneError
        The file can't be used; says why and what to do.
    """
    dataset = _open(path)
    try:
        with gdal(path), dataset:
            return _inspect(dataset, path, options, alone)
    except RasterioError as error:
        raise SceneError(f"can't read the header of {path}: {reason(error)}") from error


def _open(path: str) -> Dataset:
    folder = os.path.isdir(path)
    if not folder and os.path.isfile(path) and os.path.getsize(path) == 0:
        raise SceneError(f"{path} is empty (0 bytes); copy or make the file again")
    try:
        with warnings.catch_warnings():  # told by an error, with its cure
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return open_dataset(path)
    except SceneError:
        if folder:  # some folders are rasters to GDAL, this one is not
            raise SceneError(f"{path} is a folder; give the raster file, or the files, inside it") from None
        raise


def _inspect(dataset: Dataset, path: str, options: SceneOptions, alone: bool) -> Inspected:
    check_is_raster(dataset, path)
    check_blocks(dataset, path)
    geobox, remarks = placed(dataset, path, options.crs)
    bands = tuple(_band(dataset, path, index) for index in range(1, dataset.count + 1))
    source = Source(
        path,
        dataset.driver,
        mask=_mask_kind(dataset),
        alpha=next((band.index for band in bands if _is_alpha(band)), None),
        overviews=_overviews(dataset, path),
        tile=512 if _depends_on_window(dataset) else None,
        stamp=_stamp(path),
    )
    if dataset.subdatasets:
        remarks += (f"only the first of the {len(dataset.subdatasets)} rasters in the file is read",)
    if alone and _data_bands(bands) == 1 and bands[0].color == "palette":
        colors = _palette(dataset)
        if colors is None:
            remarks += ("its colour table has fewer than two visible colours and is ignored",)
        else:
            # No overviews: those of a colour-mapped file may hold means of its indices, which are other colours.
            source = replace(source, palette=colors.tobytes(), overviews=())
            bands = _expanded(bands[0]) + bands[1:]
    elif any(band.color == "palette" for band in bands):
        remarks += ("the colour table of a file with more bands is ignored; its stored values are read",)
    doubts = _doubtful_alpha(dataset, source, bands)
    return Inspected(replace(source, doubtful=bool(doubts)), geobox, bands, remarks + doubts)


def _band(dataset: Dataset, path: str, index: int) -> Band:
    place = index - 1
    color = dataset.colorinterp[place].name
    description = dataset.descriptions[place] or ""
    nodata = dataset.nodatavals[place]
    return Band(
        name=own_name(description, color, index),
        source=path,
        index=index,
        dtype=dataset.dtypes[place],
        nodata=None if nodata is None else float(nodata),
        scale=float(dataset.scales[place]),
        offset=float(dataset.offsets[place]),
        description=description,
        color=color,
    )


def _is_alpha(band: Band) -> bool:
    """Whether the band says what is transparent.

    Writers give the fourth band of any four-byte raster the alpha role unless told otherwise; a description
    that names a measurement is the better witness.
    """
    return band.color == ColorInterp.alpha.name and band.description.strip().lower() in (
        "",
        "alpha",
        "mask",
        "a",
    )


def _data_bands(bands: Sequence[Band]) -> int:
    return sum(not _is_alpha(band) for band in bands)


def _mask_kind(dataset: Dataset) -> MaskKind:
    """Whether GDAL has an explicit mask, beyond nodata values and alpha (which are read by themselves)."""
    kinds: set[MaskKind] = set()
    for flags in dataset.mask_flag_enums:
        if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
            kinds.add("none")
        elif MaskFlags.per_dataset in flags:
            kinds.add("dataset")
        elif MaskFlags.nodata in flags:
            kinds.add("none")
        else:
            kinds.add("bands")
    if len(kinds) == 1:
        return kinds.pop()
    return "bands"


def _overviews(dataset: Dataset, path: str) -> tuple[tuple[int, int], ...]:
    """Shapes of the overviews that may stand for the full grid.

    A VRT's are computed on the fly for the window asked for, so that neighbouring reads may disagree; only
    those in a file beside it count. An overview counts only if it has the mask that the full grid has.
    """
    if dataset.driver == "VRT" and not os.path.isfile(f"{path}.ovr"):
        return ()
    shapes = []
    for level in range(len(dataset.overviews(1))):
        with open_dataset(path, overview_level=level) as reduced:
            if reduced.count != dataset.count or _mask_kind(reduced) != _mask_kind(dataset):
                break
            shapes.append((int(reduced.height), int(reduced.width)))
    return tuple(shapes)


def _depends_on_window(dataset: Dataset) -> bool:
    """Whether the raster is resampled as it is read (a VRT over files with other pixels)."""
    if dataset.driver != "VRT":
        return False
    xml = next(iter(dataset.tags(ns="xml:VRT").values()), "")
    rects = re.findall(r'<(?:Src|Dst)Rect [^>]*xSize="([^"]+)" ySize="([^"]+)"', xml)
    sizes = [(float(x), float(y)) for x, y in rects]
    resized = any(src != dst for src, dst in zip(sizes[::2], sizes[1::2], strict=False))
    return resized or "resampling=" in xml


def _stamp(path: str) -> int:
    return 0 if is_remote(path) or not os.path.isfile(path) else os.stat(path).st_mtime_ns


def _palette(dataset: Dataset) -> NDArray[np.uint8] | None:
    """The colour table with an entry for every value of the type, or None if it shows nothing."""
    entries = np.zeros((int(np.iinfo(dataset.dtypes[0]).max) + 1, 4), dtype=np.uint8)
    for value, color in dataset.colormap(1).items():
        if value < len(entries):
            entries[value] = color
    visible = entries[entries[:, 3] > 0]
    return entries if len(np.unique(visible[:, :3], axis=0)) >= 2 else None


def _expanded(band: Band) -> tuple[Band, ...]:
    return tuple(
        replace(band, name=name, color=name, dtype="uint8", scale=1.0, offset=0.0, channel=channel)
        for channel, name in enumerate(PALETTE_CHANNELS)
    )


def _doubtful_alpha(dataset: Dataset, source: Source, bands: Sequence[Band]) -> tuple[str, ...]:
    """A remark if the alpha band's middle looks like a measurement: many values that are neither 0 nor full."""
    if source.alpha is None or bands[0].channel is not None:
        return ()
    window = Window(max(0, dataset.width // 2 - 128), max(0, dataset.height // 2 - 128), 256, 256)
    try:
        sample = dataset.read(
            source.alpha, window=window.intersection(Window(0, 0, dataset.width, dataset.height))
        )
    except RasterioError:
        return ()  # the place will be told when the pixels are wanted
    between = np.unique(sample[(sample > 0) & (sample < sample.max(initial=0))])
    if len(between) <= 16:
        return ()
    return (
        f"band {source.alpha} is marked as alpha (transparency) but looks like image data; "
        f"if it is, name it among the bands: --bands {','.join(str(i + 1) for i in range(len(bands)))}",
    )
