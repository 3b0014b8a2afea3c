"""The application that the verbs belong to, and how its results are printed."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

import rssegment as rs
from rssegment.errors import StorageError

__all__ = ["app", "emit", "example"]

app = typer.Typer(
    name="rssegment",
    help="Large satellite and aerial scenes to trustworthy class maps and polygons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def example(text: str) -> str:
    """What stands under a verb's help."""
    return f"[dim]Example:[/dim] {text}"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(rs.__version__)
        raise typer.Exit


def emit(facts: dict[str, Any], text: str, quiet: bool, as_json: bool) -> None:
    if quiet and not as_json:
        return
    try:
        print(json.dumps(facts, indent=2) if as_json else text, flush=True)
    except BrokenPipeError:  # the reader has seen enough; the interpreter would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise StorageError(f"can't write to standard output: {error.strerror}") from error
