"""The verb ``inspect``."""

from __future__ import annotations

from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Bands, Crs, Json, Nodata, Quiet, Rescale, band
from rssegment.errors import InputError
from rssegment.report import outline, reporter


@app.command(epilog=example("rssegment inspect scene.tif"))
def inspect(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A scene, bundle, taxonomy or run; or the name of a bundle, taxonomy or architecture."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Would this model run on the scene?")
    ] = None,
    bands: Bands = None,
    nodata: Nodata = None,
    crs: Crs = None,
    rescale: Rescale = None,
    architectures: Annotated[
        bool,
        typer.Option(
            "--architectures", help="List network architectures: parameters, cost, receptive field."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what a scene, bundle, taxonomy, run or architecture is, and what would go wrong.

    The exit code is 2 if the scene doesn't fit the --model: its facts are printed first, then why.
    """
    if architectures or path is None:
        _list_architectures(path, architectures, quiet, as_json)
        return
    chosen = None if bands is None else tuple(band(name) for name in bands.split(","))
    options = rs.SceneOptions(bands=chosen, nodata=nodata, crs=crs, rescale=rescale)
    facts = rs.inspect(path, model=model, options=options)
    emit(facts, outline(facts), quiet, as_json)
    if facts.get("fits") is False:
        typer.echo(f"rssegment: {facts['why']}", err=True)
        raise typer.Exit(2)


def _list_architectures(path: str | None, asked: bool, quiet: bool, as_json: bool) -> None:
    if path is not None:
        raise InputError(f"--architectures lists them all; for one alone: rssegment inspect {path}")
    if not asked:
        raise InputError(
            "say what to inspect: a scene, bundle, taxonomy or run, or --architectures for a list"
        )
    from rssegment.model import architecture_facts, architecture_names
    from rssegment.model.architectures.facts import facts_table

    names, found = architecture_names(), []
    with reporter(quiet or as_json) as bar:
        for done, name in enumerate(names, 1):
            found.append(architecture_facts(name))
            bar.progress("architectures", done, len(names), 0)
    facts = {"kind": "architectures", "architectures": [each.describe() for each in found]}
    emit(facts, facts_table(found), quiet, as_json)
