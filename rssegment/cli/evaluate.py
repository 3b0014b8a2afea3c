"""The verb ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Json, Overwrite, Quiet, class_names, numbers
from rssegment.errors import InputError
from rssegment.report import reporter

__all__ = ["evaluate"]


@app.command(
    epilog=example("rssegment evaluate out/scene reference.gpkg --column class --out out/scene/scores")
)
def evaluate(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="PREDICTION REFERENCE",
            help="A label raster, a run's folder or polygons; and a label raster, polygons or points. "
            "With --merge: earlier evaluations.",
        ),
    ],
    taxonomy: Annotated[
        str | None, typer.Option(help="The classes: a taxonomy's file or name; default: the run's own.")
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Values of the reference, as stored (before --map), to leave out: '14,15'.", metavar="VALUES"
        ),
    ] = None,
    mapping: Annotated[
        str | None, typer.Option("--map", help="Mapping of the reference's classes: a file or name.")
    ] = None,
    prediction_mapping: Annotated[
        str | None, typer.Option("--map-prediction", help="Mapping of the prediction's classes.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the reference that names the class.")] = None,
    label: Annotated[str | None, typer.Option(help="Class of all polygons or points.")] = None,
    outside: Annotated[
        str | None, typer.Option(help="Class of what no polygon covers; default: no label.")
    ] = None,
    within: Annotated[
        Path | None, typer.Option(help="Polygons that limit what counts.", metavar="FILE")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of the reference, if there are several.")] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Allow a reference raster on another grid.")
    ] = False,
    prediction_column: Annotated[
        str | None, typer.Option(help="Column of polygons as prediction; default: code.", metavar="COLUMN")
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(help="Raster whose pixels are used, where both are polygons.", metavar="FILE"),
    ] = None,
    confidence: Annotated[
        Path | None, typer.Option(help="Confidence raster; a run's own is found.", metavar="FILE")
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(help="Of boundaries: 1 (metres), 3px; default 2px; 0: no boundaries.", metavar="LENGTH"),
    ] = None,
    objects: Annotated[
        str | None, typer.Option(help="Classes whose regions are matched one by one.", metavar="CLASSES")
    ] = None,
    iou: Annotated[float, typer.Option(help="Overlap (IoU) from which objects are the same.")] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for scores.json, scores.html, evidence.json and pictures."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add up evaluations: their folders or evidence.json files.")
    ] = False,
    block: Annotated[int, typer.Option(help="Side of a block, px; never changes the result.", min=16)] = 2048,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a running Dask scheduler; default: threads of this process."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score a class map against a reference, at every level of its classes."""
    from rssegment.reference.references import ReferenceOptions
    from rssegment.run.score_files import check_out, write_scores
    from rssegment.run.scoring import EvaluationOptions, compare, merge_evaluations

    if out is not None:
        check_out(out, overwrite)
    if merge:
        _refuse_with_merge(context)
        found = merge_evaluations(files)
    else:
        prediction, reference = _two(files)
        how = EvaluationOptions(
            taxonomy=taxonomy,
            ignore=() if ignore is None else numbers(ignore, "--ignore"),
            mapping=mapping,
            prediction_mapping=prediction_mapping,
            confidence=confidence,
            tolerance=tolerance,
            objects=objects and class_names(objects),
            iou=iou,
            reference_options=ReferenceOptions(
                column, _class(label), _class(outside), within, layer, resample
            ),
            prediction_options=ReferenceOptions(prediction_column),
            grid=grid,
        )
        with reporter(quiet or as_json) as report:
            found = compare(
                prediction, reference, how, block=block, client=scheduler, progress=report.progress
            )
    paths = {} if out is None else write_scores(found, out, overwrite=overwrite)
    facts = found.as_dict() | {"files": {name: str(path) for name, path in paths.items()}}
    emit(facts, "\n".join([str(found), *(f"  {path}" for path in paths.values())]), quiet, as_json)


def _refuse_with_merge(context: typer.Context) -> None:
    """Counts are what they are: of all options, only those on what is written go with --merge."""
    kept = {"files", "merge", "out", "overwrite", "quiet", "as_json"}
    options = {each.name: each.opts[0] for each in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in kept}
    given = [options[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"]
    if given:
        raise InputError(f"{', '.join(given)} can't change what was counted; leave it out with --merge")


def _two(files: Sequence[str]) -> tuple[str, str]:
    if len(files) != 2:
        raise InputError(
            f"{len(files)} file(s) were given; expected a prediction and a reference (or --merge, and evaluations)"
        )
    return files[0], files[1]


def _class(text: str | None) -> int | str | None:
    return None if text is None else class_names(text)[0]
