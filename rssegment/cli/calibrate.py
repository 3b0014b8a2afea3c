"""The verb ``calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Bands, Crs, Json, Nodata, Quiet, Rescale, band, settings_from
from rssegment.errors import InputError
from rssegment.report import reporter

__all__ = ["calibrate"]


@app.command(epilog=example("rssegment calibrate bundle/ east.tif east_labels.tif west.tif west_labels.tif"))
def calibrate(
    model: Annotated[str, typer.Argument(help="A bundle's folder, or the name of one.")],
    pairs: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENE REFERENCE ...",
            help="Scenes that the model was not trained on, each with its reference: a label raster or polygons.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for a calibrated copy; default: the bundle itself."),
    ] = None,
    spatial_block: Annotated[
        str | None,
        typer.Option(
            help="Side of the blocks that count as one observation: 200 (metres), 512px. Default: what a patch of the "
            "model sees, 100 m at least.",
            metavar="LENGTH",
        ),
    ] = None,
    check: Annotated[
        float,
        typer.Option(help="Share of the labelled blocks kept back to check the result on.", min=0, max=0.9),
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Which blocks are kept back.", min=0)] = 0,
    mapping: Annotated[
        str | None,
        typer.Option("--map", help="Mapping of the reference's classes to the model's: a file or name."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of polygons that names the class.")] = None,
    config: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of settings for prediction; options win.")
    ] = None,
    bands: Bands = None,
    nodata: Nodata = None,
    crs: Crs = None,
    rescale: Rescale = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: what is there).")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find how sure a model may be: a temperature, and thresholds for decisions with a known share of errors."""
    if len(pairs) % 2:
        raise InputError(f"{len(pairs)} files were given; expected a reference after each scene")
    chosen = None if bands is None else tuple(band(name) for name in bands.split(","))
    scene_given = {"bands": chosen, "nodata": nodata, "crs": crs, "rescale": rescale}
    with reporter(quiet or as_json) as report:
        result = rs.calibrate(
            model,
            list(zip(pairs[::2], pairs[1::2], strict=True)),
            out=out,
            settings=settings_from(config, {"device": device}, scene_given),
            spatial_block=spatial_block,
            check=check,
            seed=seed,
            mapping=mapping,
            column=column,
            progress=report.progress,
        )
    emit(result.as_dict(), str(result), quiet, as_json)
