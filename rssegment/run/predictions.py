"""What is evaluated: a label raster, the folder of a run with all that it tells, or polygons drawn onto a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError, SceneError
from rssegment.evaluation.lookup import undecided_code
from rssegment.grid import Box
from rssegment.reference.features import FeatureSource, features_on
from rssegment.reference.label_files import LabelFile
from rssegment.reference.references import RasterReference, ReferenceOptions, ShapeReference
from rssegment.reference.vector_files import is_vector, stamp
from rssegment.run.json_file import read_json
from rssegment.run.record import RunRecord
from rssegment.scene import LabelRaster
from rssegment.taxonomy import ClassMapping, Taxonomy

__all__ = ["Classes", "Prediction", "open_prediction"]

LABELS, TAXONOMY = "labels.tif", "taxonomy.yaml"


@dataclass(frozen=True)
class Prediction:
    """A class map on its grid, as codes of ``taxonomy``, with what it says of its confidence. A value that can travel.

    ``confidence``: bytes for the decided class; ``level_confidences`` and ``level_labels``: rasters by level.
    ``undecided``: the code of such pixels in ``labels``, and that of ``taxonomy``, where they differ.
    """

    name: str
    labels: RasterReference | ShapeReference
    geobox: GeoBox
    taxonomy: Taxonomy
    confidence: LabelRaster | None = None
    level_confidences: Mapping[int, LabelRaster] = field(default_factory=dict)
    level_labels: Mapping[int, LabelFile] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    undecided: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    def read(self, box: Box) -> NDArray[Any]:
        """Codes (H, W); 0 is no data."""
        codes = self.labels.read(box)
        if self.undecided is None:
            return codes
        stored, code = self.undecided
        return np.where(codes == stored, np.uint16(code), codes)


@dataclass(frozen=True)
class Folder:
    """A run's folder, and what the run says of itself; what else lies there is not the run's."""

    path: Path
    record: RunRecord | None = None

    @classmethod
    def at(cls, path: str | Path) -> Folder | None:
        """The run at ``path``: its folder, or None where it is no folder.

        Raises
        ------
        InputError
            It is a folder without a class map.
        """
        folder = Path(path)
        if not folder.is_dir():
            return None
        if not (folder / LABELS).exists():
            raise InputError(
                f"the prediction {folder} is a folder without {LABELS}; expected that of a finished run, or a file"
            )
        return cls(folder, RunRecord.read(folder))

    @cached_property
    def taxonomy(self) -> Taxonomy | None:
        path = self.path / TAXONOMY
        return Taxonomy.load(path) if path.exists() else None

    def raster(self, name: str) -> Path | None:
        """The run's raster of that name; None where it made none, or it is gone."""
        path = self.record.rasters.get(name) if self.record else None
        return path if path is not None and path.exists() else None

    def rasters(self, name: str) -> dict[int, Path]:
        """Its rasters by level of the taxonomy."""
        depth = self.taxonomy.depth if self.taxonomy else 0
        found = {level: self.raster(f"{name}_level{level}") for level in range(1, depth + 1)}
        return {level: path for level, path in found.items() if path is not None}

    @property
    def remarks(self) -> Iterator[str]:
        if self.record is None:
            if any(self.path.glob("confidence*.tif")):
                yield f"{self.path} has no run.json that would tell whose confidences lie there: none are scored"
            return
        if self.record.missing:
            yield f"{self.record.missing} blocks of the run are missing: they count as misses"
        for path in self.record.rasters.values():
            if not path.exists():
                yield f"{path.name}, which the run made, is gone from {self.path}: it is not scored"
        mark = read_json(self.path / "work" / "plan.json")
        if mark is not None and mark.get("fingerprint") != self.record.fingerprint:
            yield (
                f"another run into {self.path} is not finished, and may have replaced some of the rasters already; "
                "finish it first, by --resume"
            )


class Classes(NamedTuple):
    """What is known of a map's classes: their taxonomy, and the mapping that leads there from the map's values."""

    taxonomy: Taxonomy | None = None
    mapping: ClassMapping | None = None


def open_prediction(
    path: str | Path,
    classes: Classes,
    confidence: str | Path | None,
    options: ReferenceOptions,
    geobox: GeoBox | None = None,
) -> Prediction:
    """The map at ``path``; ``geobox`` is the grid for one of polygons.

    Its classes are those told, those the mapping leads to, or the run's own.

    Raises
    ------
    InputError
        It can't be read, its classes are unknown, or confidences are not on its grid.
    """
    folder = Folder.at(path)
    source = str(path) if folder is None else str(folder.path / LABELS)
    tree = _classes(path, *classes, folder)
    mapped = None if classes.mapping is None else classes.mapping.onto(tree)
    if is_vector(source):
        if confidence is not None:
            raise InputError(f"a confidence raster needs a prediction that is a raster, and {path} is not")
        return _polygons(source, tree, mapped, options, geobox)
    given = [name for name in ("column", "label", "outside", "layer") if getattr(options, name) is not None]
    file = LabelFile.open(source, "prediction")
    if given:
        raise InputError(f"{' and '.join(given)} need polygons, and the prediction {path} is a raster")
    labels = RasterReference(file, file.geobox, (0, 0), mapped)
    remarks = (*file.remarks, *(folder.remarks if folder else ()))
    if folder is None or mapped is not None:
        if folder is not None or (confidence is not None and mapped is not None):
            remarks += ("confidences are not scored: they are not those of the classes that were mapped to",)
        sure = None if mapped is not None else _confidence(confidence, file)
        return Prediction(_name(path), labels, file.geobox, tree, sure, remarks=remarks)
    known = folder.taxonomy == tree
    return Prediction(
        _name(path),
        labels,
        file.geobox,
        tree,
        _confidence(confidence or folder.raster("confidence"), file),
        {k: _same_grid(path, file) for k, path in folder.rasters("confidence").items()} if known else {},
        {k: _same_labels(path, file) for k, path in folder.rasters("labels").items()} if known else {},
        remarks,
        _undecided(folder.taxonomy, tree),
    )


def _classes(
    path: str | Path, taxonomy: Taxonomy | None, mapping: ClassMapping | None, folder: Folder | None
) -> Taxonomy:
    own = folder.taxonomy if folder else None
    if mapping is not None:
        return taxonomy or mapping.target
    if taxonomy is None:
        if own is None:
            raise InputError(
                f"which classes has the prediction {path}? Name their taxonomy, a file or one of "
                f"{', '.join(Taxonomy.available())}"
            )
        return own
    if own is not None and own != taxonomy:
        _check_same_codes(own, taxonomy, path)
    return taxonomy


def _check_same_codes(own: Taxonomy, given: Taxonomy, path: str | Path) -> None:
    """Refuses to read a run's codes by another tree where they mean something else."""
    names = {node.code: node.name for node in given.nodes}
    for node in own.nodes:
        if (other := names.get(node.code)) not in (None, node.name):
            raise InputError(
                f"the run {path} has the classes of taxonomy {own.name!r}, where code {node.code} is {node.name!r}; in "
                f"{given.name!r} it is {other!r}. Give a mapping for the prediction, or leave the taxonomy out"
            )
    if (code := undecided_code(own)) in names:
        raise InputError(
            f"the run {path} has the classes of taxonomy {own.name!r} and {code} for pixels left undecided; in "
            f"{given.name!r} that is {names[code]!r}. Give a mapping for the prediction, or leave the taxonomy out"
        )


def _undecided(own: Taxonomy | None, tree: Taxonomy) -> tuple[int, int] | None:
    """The run's code of undecided pixels and that of ``tree``, where they differ."""
    stored, code = undecided_code(own or tree), undecided_code(tree)
    return None if stored is None or code is None or stored == code else (stored, code)


def _polygons(
    path: str,
    tree: Taxonomy,
    mapping: ClassMapping | None,
    options: ReferenceOptions,
    geobox: GeoBox | None,
) -> Prediction:
    if geobox is None:
        raise InputError(
            f"the prediction {path} and the reference are polygons both: on which pixels are they to be compared? Give "
            "a raster whose grid is used (grid), as the scene's"
        )
    label = None if options.label is None else tree.node(options.label).code
    outside = 0 if options.outside is None else tree.node(options.outside).code
    source = FeatureSource(
        path, geobox, "prediction", options.layer, options.column, label, tree, mapping, stamp(path)
    )
    remarks = features_on(source).remarks
    return Prediction(_name(path), ShapeReference(source, outside), geobox, tree, remarks=remarks)


def _confidence(path: str | Path | None, file: LabelFile) -> LabelRaster | None:
    return None if path is None else _same_grid(path, file)


def _same_grid(path: str | Path, file: LabelFile) -> LabelRaster:
    raster = LabelRaster.of_bytes(path)
    _check_grid(f"the confidence {path}", raster, file)
    return raster


def _same_labels(path: Path, file: LabelFile) -> LabelFile:
    level = LabelFile.open(path, "prediction")
    _check_grid(f"the level's map {path}", level.raster, file)
    return level


def _check_grid(what: str, raster: LabelRaster, file: LabelFile) -> None:
    """Raises SceneError where ``raster`` doesn't lie on the map's pixels."""
    between = ~file.geobox.affine * raster.geobox.affine
    rows, cols = file.shape
    apart = max(
        abs(place - own)
        for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))
        for place, own in zip(between * corner, corner, strict=True)
    )
    if raster.shape != file.shape or apart > 0.01:
        raise SceneError(
            f"{what} isn't on the pixel grid of {file.path}: it has {raster.shape[0]} x "
            f"{raster.shape[1]} px that lie up to {apart:.3g} px off, not {rows} x {cols}; give the one that belongs "
            "to the prediction"
        )


def _name(path: str | Path) -> str:
    """A short name of the scene: the last two parts of the path, with "?" for bytes that are no text."""
    return "/".join(Path(path).absolute().parts[-2:]).encode("utf-8", "replace").decode()
