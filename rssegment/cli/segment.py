"""The verb ``segment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import (
    Bands,
    Connectivity,
    Crs,
    FillHoles,
    Json,
    Levels,
    Method,
    MinArea,
    Nodata,
    Overwrite,
    Quiet,
    Rescale,
    Simplify,
    Smooth,
    Square,
    SquareLimit,
    band,
    block_size,
    byte_count,
    count,
    level_numbers,
    polygon_choices,
    settings_from,
)
from rssegment.errors import InputError
from rssegment.report import reporter


@app.command(epilog=example("rssegment segment scene.tif --model bundle/ --out out/scene"))
def segment(
    scene: Annotated[
        list[str], typer.Argument(help="A raster, by path or URL; several files make one scene.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A bundle's folder, or the name of one: demo.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the result.")],
    config: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of settings; options win.")
    ] = None,
    bands: Bands = None,
    nodata: Nodata = None,
    crs: Crs = None,
    rescale: Rescale = None,
    grid: Annotated[
        str | None, typer.Option(help="Output on the grid of the 'scene' (default) or 'model'.")
    ] = None,
    block: Annotated[str | None, typer.Option(help="Side of a block, px; never changes the result.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that neighbouring patches share.")] = None,
    window: Annotated[str | None, typer.Option(help="How patches meet: 'blend' (default) or 'crop'.")] = None,
    batch: Annotated[int | None, typer.Option(help="Patches in one forward pass.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: what is there).")
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="leaf (default), level:2, backoff:0.7, conformal:0.1, cost, or cost:matrix.csv.",
        ),
    ] = None,
    margin: Annotated[
        bool, typer.Option("--margin", help="Write margin.tif, the lead over the next class.")
    ] = False,
    level_rasters: Annotated[
        str | None,
        typer.Option(
            help="Class map and confidence of each of these levels: '1,2', 'all'.", metavar="LEVELS"
        ),
    ] = None,
    connectivity: Connectivity = None,
    min_area: MinArea = None,
    fill_holes: FillHoles = None,
    simplify: Simplify = None,
    method: Method = None,
    smooth: Smooth = None,
    levels: Levels = None,
    square: Square = None,
    square_limit: SquareLimit = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="geojson (default), geojsonseq, parquet, flatgeobuf, gpkg, pmtiles, shp; may be repeated.",
        ),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes here: a number or 'auto'; 0: this one.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to keep within, as 4GB.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, run nothing.")] = False,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the block parts.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Segment a scene: class map, confidence and polygons."""
    given = {
        "block": block_size(block),
        "overlap": overlap,
        "window": window,
        "batch": batch,
        "device": device,
        "grid": grid,
        "decide": decide,
        "margin": margin or None,
        "level_rasters": level_numbers(level_rasters, "--level-rasters"),
        "formats": formats and tuple(formats),
        "workers": workers and count(workers),
        "memory": memory and byte_count(memory),
        **polygon_choices(
            connectivity, min_area, fill_holes, simplify, method, smooth, levels, square, square_limit
        ),
    }
    scene_given = {
        "bands": bands and tuple(band(name) for name in bands.split(",")),
        "nodata": nodata,
        "crs": crs,
        "rescale": rescale,
    }
    settings = settings_from(config, given, scene_given)
    source: str | list[str] = scene[0] if len(scene) == 1 else scene
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume exclude each other: start afresh, or go on with what is there"
        )
    if dry_run:
        plan = rs.plan(source, model, out, settings, scheduler)
        return emit(plan.describe(), str(plan), quiet, as_json)
    with reporter(quiet or as_json) as report:
        result = rs.segment(
            source,
            model,
            out,
            settings=settings,
            client=scheduler,
            overwrite=overwrite,
            resume=resume,
            keep_work=keep_work,
            progress=report.progress,
        )
    return emit(result.as_dict(), str(result), quiet, as_json)
