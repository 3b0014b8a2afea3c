"""The verb ``vectorize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import (
    Connectivity,
    FillHoles,
    Json,
    Levels,
    Method,
    MinArea,
    Nodata,
    Overwrite,
    Quiet,
    Simplify,
    Smooth,
    Square,
    SquareLimit,
    polygon_choices,
)
from rssegment.report import reporter


@app.command(epilog=example("rssegment vectorize labels.tif regions.gpkg --simplify 1.5px --min-area 50"))
def vectorize(
    labels: Annotated[Path, typer.Argument(help="A raster of class codes, one band.")],
    out: Annotated[
        list[Path],
        typer.Argument(help="Files to write: .geojson .geojsonl .parquet .fgb .gpkg .pmtiles .shp"),
    ],
    taxonomy: Annotated[str | None, typer.Option(help="The classes: a taxonomy's file or name.")] = None,
    confidence: Annotated[Path | None, typer.Option(help="Confidence raster on the same grid.")] = None,
    margin: Annotated[Path | None, typer.Option(help="Margin raster on the same grid.")] = None,
    connectivity: Connectivity = None,
    min_area: MinArea = None,
    fill_holes: FillHoles = None,
    simplify: Simplify = None,
    method: Method = None,
    smooth: Smooth = None,
    levels: Levels = None,
    square: Square = None,
    square_limit: SquareLimit = None,
    nodata: Nodata = None,
    block: Annotated[int, typer.Option(help="Side of a block, px; never changes the result.", min=16)] = 2048,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a running Dask scheduler; default: threads of this process."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Turn any label raster into polygons, in one format or several at once."""
    choices = polygon_choices(
        connectivity, min_area, fill_holes, simplify, method, smooth, levels, square, square_limit
    )
    with reporter(quiet or as_json) as report:
        result = rs.vectorize(
            labels,
            out,
            taxonomy=taxonomy,
            confidence=confidence,
            margin=margin,
            nodata=nodata,
            block=block,
            overwrite=overwrite,
            client=scheduler,
            progress=report.progress,
            **{name: value for name, value in choices.items() if value is not None},
        )
    emit(result.as_dict(), str(result), quiet, as_json)
