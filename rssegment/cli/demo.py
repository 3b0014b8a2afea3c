"""The verb ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Json, Quiet, count
from rssegment.report import reporter


@app.command(epilog=example("rssegment demo --out my-demo"))
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that it makes.")] = Path(
        "rssegment-demo"
    ),
    size: Annotated[int, typer.Option(help="Rows and columns of the landscape, px.", min=256)] = 4096,
    seed: Annotated[int | None, typer.Option(help="Which landscape; another seed, another one.")] = None,
    workers: Annotated[
        str, typer.Option(help="Processes: a number, or 'auto'; 0 is this one alone.")
    ] = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Segment a synthetic landscape with the bundled model and score it against its truth."""
    from rssegment.demo.run import DEMO_SEED, run_demo

    with reporter(quiet or as_json) as report:
        outcome = run_demo(
            out,
            size=size,
            seed=DEMO_SEED if seed is None else seed,
            workers=count(workers),
            progress=report.progress,
        )
    emit(outcome.as_dict(), str(outcome), quiet, as_json)
