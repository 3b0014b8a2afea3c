"""Options that several verbs have, and what their texts mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import rssegment as rs
from rssegment.errors import InputError

__all__ = [
    "Bands",
    "Connectivity",
    "Crs",
    "FillHoles",
    "Json",
    "Levels",
    "Method",
    "MinArea",
    "Nodata",
    "Overwrite",
    "Quiet",
    "Rescale",
    "Simplify",
    "Smooth",
    "Square",
    "SquareLimit",
    "band",
    "block_size",
    "byte_count",
    "class_names",
    "count",
    "level_numbers",
    "number",
    "numbers",
    "polygon_choices",
    "settings_from",
]

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


def settings_from(path: Path | None, given: dict[str, Any], scene_given: dict[str, Any]) -> rs.Settings:
    """Settings of a file with what was ``given`` on the command line put over them."""
    base = rs.Settings.load(path) if path else rs.Settings()
    values = base.model_dump(exclude_unset=True) | {k: v for k, v in given.items() if v is not None}
    scene = base.scene.model_dump(exclude_unset=True) | {
        k: v for k, v in scene_given.items() if v is not None
    }
    return rs.Settings(**values | {"scene": rs.SceneOptions(**scene)})


def polygon_choices(
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
    """What :class:`rssegment.PolygonOptions` is to be given."""
    return {
        "connectivity": connectivity,
        "min_area": min_area,
        "fill_holes": fill_holes,
        "simplify": simplify,
        "method": method,
        "smooth": smooth,
        "levels": level_numbers(levels, "--levels"),
        "square": square and class_names(square),
        "square_limit": square_limit,
    }


def level_numbers(text: str | None, option: str) -> tuple[int, ...] | str | None:
    """Levels of a taxonomy: "1,2", or "all"."""
    if text is None or text == "all":
        return text
    return numbers(text, option, " or 'all'")


def block_size(text: str | None) -> int | str | None:
    """Side of a block, px, or "auto"."""
    return text if text is None or text == "auto" else number(text, "--block", " or 'auto'")


def count(text: str) -> int | Literal["auto"]:
    """Number of processes, or "auto"."""
    return "auto" if text == "auto" else number(text, "--workers", " or 'auto'")


def number(text: str, option: str, other: str = "") -> int:
    """A whole number; ``other``: what else could be given, for the message."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected a whole number{other}") from None


def numbers(text: str, option: str, other: str = "") -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise InputError(f"{option} is {text!r}; expected whole numbers, as 1,2{other}") from None


def band(text: str) -> int | str:
    """A band by its number or name."""
    name = text.strip()
    return int(name) if name.isdecimal() else name


def class_names(text: str) -> tuple[int | str, ...]:
    """Classes by code or name; names may have commas of their own only in a file of settings."""
    names = (name.strip() for name in text.split(","))
    return tuple(int(name) if re.fullmatch("[+-]?[0-9]+", name) else name for name in names)


def byte_count(text: str) -> int:
    """Bytes of a size such as 4GB."""
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(text))
    except (ValueError, OverflowError):
        raise InputError(f"--memory is {text!r}; expected a size, as 4GB or 500MiB") from None
