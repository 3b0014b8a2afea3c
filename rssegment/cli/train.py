"""The verb ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rssegment as rs
from rssegment.cli.app import app, emit, example
from rssegment.cli.options import Json, Overwrite, Quiet
from rssegment.report import reporter

__all__ = ["train"]


@app.command(epilog=example("rssegment train recipe.yaml --data data/ --out out/my_model"))
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file: sources, network, steps (see configs/train).")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the training; its bundle/ is the model.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the recipe's paths start from; default: the recipe's.")
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="A region not to train on but to score; may be given several times.", metavar="REGION"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Overwrite = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda (all GPUs), cuda:1 ... (default: one GPU, else cpu).")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe; ends in a bundle with its card, which segment runs at once."""
    with reporter(quiet or as_json) as report:
        result = rs.train(
            recipe,
            out,
            data=data,
            leave_out=tuple(leave_out or ()),
            device=device,
            resume=resume,
            overwrite=overwrite,
            progress=report.progress,
            say=report.say,
        )
    emit(result.as_dict(), str(result), quiet, as_json)
