"""Sources of training data: folders of many kinds, opened as scenes with labels on the recipe's pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rssegment.errors import InputError, MismatchError
from rssegment.taxonomy import Taxonomy
from rssegment.training.ground import LabelledScene
from rssegment.training.recipe import Recipe, SourceOptions
from rssegment.training.sources.apart import check_roles, left_out
from rssegment.training.sources.classes import mapping_of
from rssegment.training.sources.coco_instances import open_coco_instances
from rssegment.training.sources.coco_panoptic import open_coco_panoptic
from rssegment.training.sources.imagery import check_bands
from rssegment.training.sources.polygons import open_polygons
from rssegment.training.sources.rasters import open_rasters
from rssegment.training.sources.scenes import SourceScene, Task, check_labelled
from rssegment.training.sources.suite import open_suite
from rssegment.training.sources.voc import open_voc

__all__ = ["open_sources"]

_OPEN: Mapping[str, Callable[[Task], list[SourceScene]]] = {
    "rasters": open_rasters,
    "polygons": open_polygons,
    "voc": open_voc,
    "coco_panoptic": open_coco_panoptic,
    "coco_instances": open_coco_instances,
    "suite": open_suite,
}
# Options that not every kind has a use for, and the kinds that have.
_USED_BY: Mapping[str, frozenset[str]] = {
    "images": frozenset({"rasters", "polygons", "coco_panoptic", "coco_instances"}),
    "labels": frozenset({"rasters", "polygons", "coco_panoptic", "coco_instances"}),
    "folder": frozenset({"voc", "coco_panoptic", "coco_instances", "suite"}),
    "subset": frozenset({"voc", "coco_panoptic", "coco_instances", "suite"}),
    "column": frozenset({"polygons"}),
    "label": frozenset({"polygons"}),
    "outside": frozenset({"polygons", "coco_instances"}),
}


def open_sources(
    recipe: Recipe, root: Path, *, taxonomy: Taxonomy, leave_out: Sequence[str] = ()
) -> tuple[LabelledScene, ...]:
    """Every image of the recipe's sources with its labels, in the recipe's order; ``root`` is the data folder.

    Scenes of the regions ``leave_out`` have role "validation". Reads headers, and of each source as many labels as it
    takes to find one.

    Raises
    ------
    InputError
        A source is incomplete, can't be understood or doesn't fit the recipe, there is no such region to leave out, or
        ground of validation is trained on.
    """
    scenes: list[SourceScene] = []
    for options in recipe.sources:
        scenes += _opened(options, recipe, Path(root).absolute(), taxonomy)
    _check_types(scenes)
    scenes = left_out(scenes, leave_out)
    check_roles(scenes)
    return tuple(scenes)


def _opened(options: SourceOptions, recipe: Recipe, root: Path, taxonomy: Taxonomy) -> list[SourceScene]:
    _check_options(options)
    check_bands(options, recipe)
    found = _OPEN[options.kind](Task(options, recipe, root, taxonomy, mapping_of(options, taxonomy, root)))
    check_labelled(found, options.name)
    return found


def _check_options(options: SourceOptions) -> None:
    for name, kinds in _USED_BY.items():
        if options.kind not in kinds and getattr(options, name) is not None:
            raise InputError(
                f"source {options.name!r} is of kind {options.kind}, which has no use for {name!r}; leave it out, or "
                f"set the kind to {' or '.join(sorted(kinds))}"
            )


def _check_types(scenes: list[SourceScene]) -> None:
    """Refuses values of several types: one model has one range of values."""
    kinds: dict[str, SourceScene] = {}
    for scene in scenes:
        kinds.setdefault(scene.dtype, scene)
    if len(kinds) > 1:
        listing = "; ".join(
            f"{dtype}, as {scene.name} (source {scene.source!r})" for dtype, scene in kinds.items()
        )
        raise MismatchError(
            f"images hold values of {len(kinds)} types: {listing}; a model has one range of values, so bring them to "
            "one type and range first, as by gdal_translate -ot Byte -scale"
        )
