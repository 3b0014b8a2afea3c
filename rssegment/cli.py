"""The command line: one verb per command, no logic."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import rssegment as rs
from rssegment.errors import BlocksFailedError, InputError, RssegmentError, StorageError
from rssegment.report import outline, reporter

__all__ = ["app", "main"]

app = typer.Typer(
    name="rssegment",
    help="Large satellite and aerial scenes to trustworthy class maps and polygons.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
Bands = Annotated[str | None, typer.Option(help="Bands for the model, in its order: '4,3,2' or names.")]
Nodata = Annotated[float | None, typer.Option(help="Value that marks no data, if the file doesn't say.")]
Crs = Annotated[str | None, typer.Option(help="CRS, if the file has none: EPSG:32631.")]
Rescale = Annotated[
    tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Values to map to the model's range.")
]
Connectivity = Annotated[int | None, typer.Option(help="4 (default) or 8: do diagonal pixels touch?")]
MinArea = Annotated[
    str | None, typer.Option(help="Regions below it go to a neighbour: 50 (m²), 20px.", metavar="AREA")
]
FillHoles = Annotated[
    str | None, typer.Option(help="Holes below it are filled: 50 (m²), 20px.", metavar="AREA")
]
Simplify = Annotated[
    str | None, typer.Option(help="Tolerance of outlines: 2 (metres), 1.5px.", metavar="LENGTH")
]
Method = Annotated[
    str | None, typer.Option(help="How outlines are simplified: 'vw' (Visvalingam, default) or 'dp'.")
]
Smooth = Annotated[int | None, typer.Option(help="Rounds of corner cutting, 0 to 3.")]
Levels = Annotated[
    str | None, typer.Option(help="Polygons for each of these levels of the taxonomy: '1,2', 'all'.")
]

Square = Annotated[
    str | None,
    typer.Option(help="Classes whose outlines get right angles: 'building' or '1,7'.", metavar="CLASSES"),
]
SquareLimit = Annotated[
    str | None,
    typer.Option(help="How far these may move: 0.8 (metres), 4px (default).", metavar="LENGTH"),
]


def _example(text: str) -> str:
    return f"[dim]Example:[/dim] {text}"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(rs.__version__)
        raise typer.Exit


@app.command(epilog=_example("rssegment demo --out my-demo"))
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
            workers=_count(workers),
            progress=report.progress,
        )
    _emit(outcome.as_dict(), str(outcome), quiet, as_json)


@app.command(epilog=_example("rssegment segment scene.tif --model bundle/ --out out/scene"))
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
        "block": _block(block),
        "overlap": overlap,
        "window": window,
        "batch": batch,
        "device": device,
        "grid": grid,
        "formats": formats and tuple(formats),
        "workers": workers and _count(workers),
        "memory": memory and _bytes(memory),
        **_polygon_choices(
            connectivity, min_area, fill_holes, simplify, method, smooth, levels, square, square_limit
        ),
    }
    scene_given = {
        "bands": bands and tuple(_band(name) for name in bands.split(",")),
        "nodata": nodata,
        "crs": crs,
        "rescale": rescale,
    }
    settings = _settings(config, given, scene_given)
    source: str | list[str] = scene[0] if len(scene) == 1 else scene
    if overwrite and resume:
        raise InputError(
            "--overwrite and --resume exclude each other: start afresh, or go on with what is there"
        )
    if dry_run:
        plan = rs.plan(source, model, out, settings, scheduler)
        return _emit(plan.describe(), str(plan), quiet, as_json)
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
    return _emit(result.as_dict(), str(result), quiet, as_json)


@app.command(epilog=_example("rssegment vectorize labels.tif regions.gpkg --simplify 1.5px --min-area 50"))
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
    choices = _polygon_choices(
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
    _emit(result.as_dict(), str(result), quiet, as_json)


@app.command(epilog=_example("rssegment inspect scene.tif"))
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
    chosen = None if bands is None else tuple(_band(name) for name in bands.split(","))
    options = rs.SceneOptions(bands=chosen, nodata=nodata, crs=crs, rescale=rescale)
    facts = rs.inspect(path, model=model, options=options)
    _emit(facts, outline(facts), quiet, as_json)
    if facts.get("fits") is False:
        typer.echo(f"rssegment: {facts['why']}", err=True)
        raise typer.Exit(2)


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not KeyboardInterrupt, which the command-line library would swallow."""


def main() -> None:
    """Runs the command line; exits with 0 done, 1 done in part or failed, 2 bad input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except RssegmentError as error:
        _fail(error)
    except _Stopped:
        kept = (
            "; what is done is kept: run the command again with --resume"
            if "segment" in sys.argv[1:2]
            else ""
        )
        print(f"rssegment: stopped{kept}", file=sys.stderr)
        sys.stderr.flush()
        # blocks may still be at work on threads; all they write is whole or not at all
        os._exit(1)


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _fail(error: RssegmentError) -> None:
    if "--json" in sys.argv:
        facts: dict[str, Any] = {"status": "failed", "error": type(error).__name__, "message": str(error)}
        if isinstance(error, BlocksFailedError):
            facts |= {
                "status": "partial",
                "missing": [dict(zip(("block", "reason"), f, strict=True)) for f in error.failures],
            }
        typer.echo(json.dumps(facts))
    typer.echo(f"rssegment: {error}", err=True)
    sys.exit(error.exit_code)


def _emit(facts: dict[str, Any], text: str, quiet: bool, as_json: bool) -> None:
    if quiet and not as_json:
        return
    try:
        print(json.dumps(facts, indent=2) if as_json else text, flush=True)
    except BrokenPipeError:  # the reader has seen enough; the interpreter would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise StorageError(f"can't write to standard output: {error.strerror}") from error


def _settings(path: Path | None, given: dict[str, Any], scene_given: dict[str, Any]) -> rs.Settings:
    base = rs.Settings.load(path) if path else rs.Settings()
    values = base.model_dump(exclude_unset=True) | {k: v for k, v in given.items() if v is not None}
    scene = base.scene.model_dump(exclude_unset=True) | {
        k: v for k, v in scene_given.items() if v is not None
    }
    return rs.Settings(**values | {"scene": rs.SceneOptions(**scene)})


def _polygon_choices(
    connectivity: int | None,
    min_area: str | None,
    fill_holes: str | None,
    simplify: str | None,
    method: str | None,
    smooth: int | None,
    levels: str | None,
    square: str | None,
    square_limit: str | None,
) -> dict[str, Any]:
    chosen = (
        levels
        if levels is None or levels == "all"
        else tuple(_number(k, "--levels") for k in levels.split(","))
    )
    return {
        "connectivity": connectivity,
        "min_area": min_area,
        "fill_holes": fill_holes,
        "simplify": simplify,
        "method": method,
        "smooth": smooth,
        "levels": chosen,
        "square": square and _names(square),
        "square_limit": square_limit,
    }


def _block(text: str | None) -> int | str | None:
    return text if text is None or text == "auto" else _number(text, "--block")


def _count(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else _number(text, "--workers")


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected a whole number or 'auto'") from None


def _band(text: str) -> int | str:
    name = text.strip()
    return int(name) if name.isdecimal() else name


def _names(text: str) -> tuple[int | str, ...]:
    """Classes by code or name; names may have commas of their own only in a file of settings."""
    names = (name.strip() for name in text.split(","))
    return tuple(int(name) if re.fullmatch("[+-]?[0-9]+", name) else name for name in names)


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(text))
    except (ValueError, OverflowError):
        raise InputError(f"--memory is {text!r}; expected a size, as 4GB or 500MiB") from None


if __name__ == "__main__":
    main()
