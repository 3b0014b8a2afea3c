"""Scores of maps from files: read block by block, on threads or on a cluster, and summed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning

from rssegment.config import Length, parse_length
from rssegment.errors import InputError, SettingsError
from rssegment.evaluation import Evidence, Scores
from rssegment.grid import BlockGrid
from rssegment.reference.ground_areas import on_ground
from rssegment.reference.references import ReferenceOptions, open_reference
from rssegment.reference.vector_files import is_vector
from rssegment.run.comparison import Comparison, Counted
from rssegment.run.object_matching import ObjectOptions, match_objects
from rssegment.run.predictions import Classes, open_prediction
from rssegment.run.progress import Progress
from rssegment.run.score_files import merged
from rssegment.run.side_by_side import workers
from rssegment.scene import grid_of_raster
from rssegment.taxonomy import ClassMapping, Taxonomy

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["TOLERANCE", "Evaluation", "EvaluationOptions", "compare", "evaluate", "merge_evaluations"]

TOLERANCE = Length(2.0, "px")
"""Of boundaries: what people who outline the same thing differ by, and one pixel of shift in any direction."""

_PLAIN = ReferenceOptions()
_PIXEL_BYTES = 48  # of a block: labels of both, confidences, distances of boundaries


@dataclass(frozen=True)
class EvaluationOptions:
    """What is compared, and how.

    ``taxonomy``: the classes; default: the run's own, or those that ``prediction_mapping`` leads to. ``ignore``: values
    of the reference, as it stores them, that are left out, before ``mapping`` brings the others to the taxonomy.
    ``confidence``: a raster of bytes, as segment writes it. ``tolerance``: of boundaries, in metres or as "3px"
    (default 2 px; 0 leaves boundaries out). ``objects``: classes whose regions are matched one by one, at an
    intersection over union of at least ``iou``; they are held in memory. ``reference_options`` and
    ``prediction_options``: how each is read. ``grid``: a raster that tells on which pixels, where both are polygons.
    """

    taxonomy: Taxonomy | str | Path | None = None
    ignore: Collection[int] = ()
    mapping: ClassMapping | str | Path | None = None
    prediction_mapping: ClassMapping | str | Path | None = None
    confidence: str | Path | None = None
    tolerance: Length | float | str | None = None
    objects: Sequence[int | str] | None = None
    iou: float = 0.5
    reference_options: ReferenceOptions = _PLAIN
    prediction_options: ReferenceOptions = _PLAIN
    grid: str | Path | None = None

    def chosen(self, **choices: Any) -> Self:
        """The same with other fields, by name; those of ``reference_options`` are named as if they were fields, too.

        Raises
        ------
        SettingsError
            There is no such field.
        """
        own, theirs = set(type(self).__dataclass_fields__), set(ReferenceOptions.__dataclass_fields__)
        if unknown := sorted(set(choices) - own - theirs):
            known = ", ".join([*type(self).__dataclass_fields__, *ReferenceOptions.__dataclass_fields__])
            raise SettingsError(
                f"{', '.join(unknown)}: no such choice of an evaluation; expected some of {known}"
            )
        mine = {name: value for name, value in choices.items() if name in own}
        found = replace(self, **mine)
        rest = {name: value for name, value in choices.items() if name in theirs}
        return replace(found, reference_options=replace(found.reference_options, **rest))


@dataclass(frozen=True)
class Evaluation:
    """The ``scores``; ``facts`` and ``remarks`` on what was compared; ``seconds`` and ``pixels`` of the map."""

    scores: Scores
    facts: dict[str, Any]
    remarks: tuple[str, ...] = ()
    seconds: float = 0.0
    pixels: int = 0

    @property
    def title(self) -> str:
        scenes = self.scores.evidence.scenes
        return scenes[0] if len(scenes) == 1 else f"{len(scenes)} scenes"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "facts": self.facts,
            **self.scores.as_dict(),
            "remarks": [*self.remarks, *self.scores.remarks],
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return "\n".join([self.scores.table(), *(f"warning: {text}" for text in self.remarks)])


def evaluate(
    prediction: str | Path,
    reference: str | Path,
    taxonomy: Taxonomy | str | Path | None = None,
    *,
    block: int = 2048,
    client: Client | str | None = None,
    progress: Progress | None = None,
    options: EvaluationOptions | None = None,
    **choices: Any,
) -> Scores:
    """Scores of the map ``prediction`` against ``reference``, at every level of ``taxonomy``.

    ``prediction``: a label raster, the folder of a run (whose taxonomy and confidences are used), or polygons.
    ``reference``: a label raster on the same pixels, of any extent, or polygons or points in any CRS, which are drawn
    onto the map's pixels. Both hold codes of the taxonomy at any level, or are brought there by ``prediction_mapping``
    and ``mapping``. What has no label in the reference, or a value in ``ignore``, is left out; where it has one and the
    prediction none, that is a miss.

    ``choices`` are the fields of :class:`EvaluationOptions` (``options`` gives them all at once): ``ignore``,
    ``mapping``, ``prediction_mapping``, ``confidence``, ``tolerance``, ``objects``, ``iou``, ``prediction_options``,
    ``grid``; and those of :class:`ReferenceOptions`, for the reference: ``column``, ``label``, ``outside``, ``within``,
    ``layer``, ``resample``. ``block`` (px) is the side of what is read at a time and never changes the result.
    ``client``: a Dask cluster whose workers see the same files. What is worth knowing beside the scores is told as
    warnings.

    Raises
    ------
    InputError
        A file can't be used, they don't lie on one grid or on one ground, or hold values that are no classes; or
        there is no such choice.
    ReadError
        Pixels could not be read.
    """
    how = EvaluationOptions() if options is None else options
    if not isinstance(how, EvaluationOptions):
        raise SettingsError(
            f"options are {type(how).__name__}; expected EvaluationOptions, or choices by name"
        )
    if taxonomy is not None:
        choices["taxonomy"] = taxonomy
    found = compare(
        prediction, reference, how.chosen(**choices), block=block, client=client, progress=progress
    )
    for remark in found.remarks:
        warnings.warn(remark, stacklevel=2)
    return found.scores


def compare(
    prediction: str | Path,
    reference: str | Path,
    how: EvaluationOptions,
    *,
    block: int = 2048,
    client: Client | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """What :func:`evaluate` does, with what there is to say beside the scores."""
    start = time.perf_counter()
    if not isinstance(block, int) or isinstance(block, bool) or block < 1:
        raise SettingsError(f"block is {block!r}; expected a whole number of pixels, 1 or more")
    comparison, length = _comparison(prediction, reference, how)
    chosen = None if how.objects is None else ObjectOptions.of(how.objects, comparison.taxonomy, how.iou)
    total = _counted(comparison, block, client, progress)
    map_ = comparison.prediction
    evidence = replace(total.evidence, scenes=(map_.name,))
    if chosen is not None:
        evidence = replace(evidence, objects=match_objects(comparison, chosen, block))
    remarks = (*map_.remarks, *comparison.reference.remarks, *_notes(total, length, comparison))
    seconds = round(time.perf_counter() - start, 3)
    return Evaluation(
        Scores(evidence),
        _facts(prediction, reference, how, comparison),
        tuple(dict.fromkeys(remarks)),
        seconds,
        map_.shape[0] * map_.shape[1],
    )


def merge_evaluations(sources: Sequence[str | Path]) -> Evaluation:
    """Several evaluations as one, from the folders or ``evidence.json`` files that they left.

    Raises
    ------
    InputError
        A file is no evidence, one is there twice, or they don't belong together.
    """
    return Evaluation(merged(sources), {"Merged": [str(each) for each in sources]})


def _facts(
    prediction: str | Path, reference: str | Path, how: EvaluationOptions, comparison: Comparison
) -> dict[str, Any]:
    """What was compared, for people."""
    unit = "m" if comparison.areas is not None else "px"
    options = {
        name: value for name, value in vars(how.reference_options).items() if value not in (None, False)
    }
    mappings = [each.name for each in (_mapping(how.prediction_mapping), _mapping(how.mapping)) if each]
    return {
        "Prediction": str(prediction),
        "Reference": str(reference),
        **{f"Reference, {name}": str(value) for name, value in options.items()},
        "Mappings": mappings,
        "Ignored values": list(_ignored(how.ignore)),
        "Boundary tolerance": f"{comparison.tolerance:g} {unit}" if comparison.tolerance else "none",
    }


def _comparison(
    prediction: str | Path, reference: str | Path, how: EvaluationOptions
) -> tuple[Comparison, Length]:
    """What is compared, all checked, and the tolerance as it was asked for."""
    mine, theirs = _mapping(how.prediction_mapping), _mapping(how.mapping)
    tree = how.taxonomy
    if tree is not None and not isinstance(tree, Taxonomy):
        tree = Taxonomy.load(tree)
    classes = Classes(tree, mine)
    predicted = open_prediction(
        prediction, classes, how.confidence, how.prediction_options, _grid(prediction, reference, how.grid)
    )
    ignored = _ignored(how.ignore)
    if theirs is not None:  # it speaks of the values that are stored, and so does what is ignored
        theirs, ignored = _without(theirs, ignored), ()
    true = open_reference(reference, predicted.geobox, predicted.taxonomy, theirs, how.reference_options)
    length = TOLERANCE if how.tolerance is None else _length(how.tolerance)
    comparison = Comparison(predicted, true, ignored, *on_ground(predicted.geobox, length))
    _ = comparison.margin  # what it refuses is refused here, not in every block
    return comparison, length


def _counted(
    comparison: Comparison, block: int, client: Client | str | None, progress: Progress | None
) -> Counted:
    blocks = BlockGrid(comparison.prediction.shape, block)
    total, pixels = Counted(Evidence.empty(comparison.taxonomy), 0), 0
    if progress:
        progress("evaluate", 0, len(blocks), 0)
    with (
        warnings.catch_warnings(),  # here and not in the threads, which would undo each other's filters
        workers(client, "scores", (block + 2 * comparison.margin) ** 2, _PIXEL_BYTES) as each,
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        counts = each(comparison.count, (part.core for part in blocks))
        for done, (core, counted) in enumerate(counts, start=1):
            total += counted
            pixels += core.size
            if progress:
                progress("evaluate", done, len(blocks), pixels)
    return total


def _mapping(source: ClassMapping | str | Path | None) -> ClassMapping | None:
    return source if source is None or isinstance(source, ClassMapping) else ClassMapping.load(source)


def _grid(prediction: str | Path, reference: str | Path, grid: str | Path | None) -> GeoBox | None:
    """The grid for polygons as prediction: of the raster that was named, or of the reference."""
    if Path(prediction).is_dir() or not is_vector(str(prediction)):
        if grid is not None:
            raise InputError("grid is for polygons as prediction; a raster has its own")
        return None
    if grid is not None:
        return grid_of_raster(grid)
    return None if is_vector(str(reference)) else grid_of_raster(reference)


def _length(tolerance: Length | float | str) -> Length:
    return tolerance if isinstance(tolerance, Length) else parse_length(tolerance, "the boundary tolerance")


def _ignored(ignore: Collection[int]) -> tuple[int, ...]:
    for value in ignore:
        if not 0 <= value <= 65535:
            raise InputError(f"the value to ignore is {value}; expected one from 0 to 65535")
    return tuple(sorted(set(ignore)))


def _without(mapping: ClassMapping, ignored: tuple[int, ...]) -> ClassMapping:
    """The same mapping, but for values that are left out."""
    out = {*ignored, *map(str, ignored)}
    kept = [(value, code) for value, code in mapping.classes if value not in out]
    return replace(mapping, classes=(*kept, *((value, 0) for value in ignored)))


def _notes(total: Counted, tolerance: Length, comparison: Comparison) -> Iterator[str]:
    if not total.evidence.confusion.pixels:
        yield "no pixel of the prediction's grid has a label in the reference: there is nothing to score"
    if total.contested:
        yield (
            f"{total.contested} px are under polygons of different classes; the later one in the file counts there"
        )
    if comparison.areas is None and tolerance.value:
        yield "the prediction has no CRS: areas are unknown, and the boundary tolerance is in pixels"
