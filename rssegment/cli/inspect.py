"""The verb ``inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Bands, Crs, Json, Nodata, Quiet, Rescale, band
from rssegment.report import outline


@app.command(epilog=example("rssegment inspect scene.tif"))
def inspect(
    path: Annotated[
        str, typer.Argument(help="A scene, bundle, taxonomy or run; or a bundle's or taxonomy's name.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Would this model run on the scene?")
    ] = None,
    bands: Bands = None,
    nodata: Nodata = None,
    crs: Crs = None,
    rescale: Rescale = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what a scene, bundle, taxonomy or run is, and what would go wrong.

    The exit code is 2 if the scene doesn't fit the --model: its facts are printed first, then why.
    """
    chosen = None if bands is None else tuple(band(name) for name in bands.split(","))
    options = rs.SceneOptions(bands=chosen, nodata=nodata, crs=crs, rescale=rescale)
    facts = rs.inspect(path, model=model, options=options)
    emit(facts, outline(facts), quiet, as_json)
    if facts.get("fits") is False:
        typer.echo(f"rssegment: {facts['why']}", err=True)
        raise typer.Exit(2)
