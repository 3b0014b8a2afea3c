"""Settings of a run, checked when they are made."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
)

from rssegment.errors import SettingsError

__all__ = ["Area", "Decide", "Length", "PolygonOptions", "SceneOptions", "Settings", "parse_length"]

Format = Literal["geojson", "geojsonseq", "parquet", "flatgeobuf", "gpkg", "pmtiles", "shp"]


class Length(NamedTuple):
    """A length in metres on the ground, or in pixels (``unit`` "m" or "px")."""

    value: float
    unit: str


class Area(NamedTuple):
    """An area in square metres on the ground, or in pixels (``unit`` "m2" or "px")."""

    value: float
    unit: str


class Decide(NamedTuple):
    """How a pixel's class is decided: ``rule`` "leaf", "level", "backoff", "cost" or "conformal", and its ``value``.

    The value is the level (int), the threshold τ or the share of errors α (float), or a file of costs (str).
    """

    rule: str
    value: int | float | str | None = None

    def __str__(self) -> str:
        return self.rule if self.value is None else f"{self.rule}:{self.value}"


def _decide(value: Any) -> Any:
    text = str(Decide(*value)) if isinstance(value, list | tuple) else str(value)
    rule, _, given = (part.strip() for part in text.partition(":"))
    try:
        if rule == "level" and int(given) >= 1:
            return Decide(rule, int(given))
        if rule == "backoff" and 0 <= float(given) <= 1:
            return Decide(rule, float(given))
        if rule == "conformal" and 0 < float(given) < 1:
            return Decide(rule, float(given))
    except ValueError:
        pass
    if rule == "cost" or (rule == "leaf" and not given):
        return Decide(rule, given or None)
    raise ValueError(
        "expected leaf, level:2 (a level from 1), backoff:0.7 (a threshold from 0 to 1), cost or cost:matrix.csv, "
        "or conformal:0.1 (a share of errors between 0 and 1)"
    )


def _length(value: Any) -> Any:
    return Length(*_measured(value, {"": "m", "m": "m", "px": "px"}, "metres, or in pixels as '1.5px'"))


def parse_length(value: float | str, what: str) -> Length:
    """A length from a number of metres, or from text as "1.5px"; ``what`` it is, for the message.

    Raises
    ------
    SettingsError
        It is no length.
    """
    try:
        length: Length = _length(value)
    except ValueError as error:
        raise SettingsError(f"{what} is {value!r}: {error}") from None
    return length


def _area(value: Any) -> Any:
    units = {"": "m2", "m2": "m2", "m²": "m2", "px": "px"}
    return Area(*_measured(value, units, "square metres, or in pixels as '20px'"))


def _levels(value: Any) -> Any:
    if value == "all":
        return value
    levels = list(value) if isinstance(value, list | tuple | set | range) else []
    whole = all(isinstance(level, int) and not isinstance(level, bool) and level >= 1 for level in levels)
    if not levels or not whole or len(set(levels)) < len(levels):
        raise ValueError("expected 'all', or levels counted from 1, each of them once, as 1 or 1,2,3")
    return tuple(sorted(levels))


def _classes(value: Any) -> Any:
    classes = list(value) if isinstance(value, list | tuple | set) else [value]
    if not classes or not all(
        isinstance(k, int | str) and not isinstance(k, bool) and k != "" for k in classes
    ):
        raise ValueError("expected classes, by code or name, as 'building' or [1, 7]")
    return tuple(dict.fromkeys(classes))


def _measured(value: Any, units: dict[str, str], expected: str) -> tuple[float, str]:
    if isinstance(value, list | tuple) and len(value) == 2:  # as it was dumped
        value = f"{value[0]}{value[1]}"
    text = "" if isinstance(value, bool) else str(value).strip().lower()
    number = re.match(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", text)
    try:
        size = float(number.group()) if number else math.nan
    except ValueError:
        size = math.nan
    unit = units.get(text[number.end() :].strip()) if number else None
    if unit is None or not 0 <= size < math.inf:
        raise ValueError(f"expected a number, 0 or more, of {expected}")
    return size, unit


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        """Checks every value; raises SettingsError that names each one at fault."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = (
                f"{'.'.join(map(str, f['loc'])) or 'settings'} = {f['input']!r}: "
                + f["msg"].removeprefix("Value error, ")
                for f in error.errors()
            )
            raise SettingsError("; ".join(faults)) from error


class SceneOptions(_Model):
    """How a raster is to be read where the file itself is silent or wrong.

    ``bands`` picks and orders bands by 1-based index or name; ``nodata`` and ``crs`` override the file's;
    ``rescale`` maps the values ``(low, high)`` linearly to the model's own value range.
    """

    bands: tuple[int | str, ...] | None = None
    nodata: float | None = None
    crs: str | None = None
    rescale: tuple[float, float] | None = None

    @field_validator("rescale")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 1e-30 < value[1] - value[0] < math.inf:
            raise ValueError("low must be less than high, and both must be numbers that a scene can hold")
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _no_flags(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(band, bool) for band in value):
            raise ValueError("a band is a number counted from 1, or a name")
        return value


class PolygonOptions(_Model):
    """How a class map becomes polygons.

    ``connectivity``: pixels hang together over their edges (4), or over corners too (8). Regions smaller than
    ``min_area`` go to the neighbour with the longest shared boundary, and holes smaller than ``fill_holes`` are filled:
    a number is m², "20px" is pixels. ``simplify``: tolerance, a number is metres, "1.5px" is pixels; ``method`` "vw"
    (Visvalingam-Whyatt: corners that span less than tolerance² are dropped) or "dp" (Douglas-Peucker: corners nearer
    to the line than the tolerance are dropped; where others are in the way, fewer); ``smooth``: rounds of Chaikin's
    corner cutting, which move nothing further than the tolerance, or one pixel. ``levels``: levels of the taxonomy, one
    set of polygons each, or "all"; without, the labels as they are. ``square``: classes, by code or by name or path in
    the taxonomy, with all that is under them, whose outlines get right angles where one such region lies within one
    other; these are not smoothed, and move no farther than ``square_limit`` from the pixels: of 1 to 4 pixels, the
    larger one finds walls in rougher class maps. ``formats``: what is written.
    """

    connectivity: Literal[4, 8] = 4
    min_area: Annotated[Area, BeforeValidator(_area)] | None = None
    fill_holes: Annotated[Area, BeforeValidator(_area)] | None = None
    simplify: Annotated[Length, BeforeValidator(_length)] | None = None
    method: Literal["vw", "dp"] = "vw"
    smooth: Annotated[int, Field(ge=0, le=3)] = 0
    levels: Annotated[tuple[int, ...] | Literal["all"], BeforeValidator(_levels)] | None = None
    square: Annotated[tuple[int | str, ...], BeforeValidator(_classes)] | None = None
    square_limit: Annotated[Length, BeforeValidator(_length)] = Length(4.0, "px")
    formats: tuple[Format, ...] = ("geojson",)

    @property
    def cleans(self) -> bool:
        """Whether small regions or holes go."""
        return any(limit is not None and limit.value > 0 for limit in (self.min_area, self.fill_holes))


class Settings(PolygonOptions):
    """How a scene is segmented and its class map made polygons. Nothing here changes with the machine that runs it.

    ``decide``: how a pixel's class follows from its probabilities: "leaf", the most probable leaf; "level:2", the most
    probable class of that level; "backoff:0.7", down the tree from the top as long as the most probable child has that
    probability; "cost", the leaf of least expected tree distance, "cost:file.csv" of least expected cost;
    "conformal:0.1", as far down as calibration says is wrong on at most that share of the area. ``margin`` and
    ``level_rasters`` (levels, or "all"): further rasters to write. ``block`` (px), ``workers``, ``in_flight``,
    ``retries`` and ``memory`` never change the result; the rest may, and so may the kind of ``device`` in the last
    digits of a probability.
    """

    block: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    overlap: Annotated[int, Field(ge=0)] | None = None
    window: Literal["blend", "crop"] = "blend"
    decide: Annotated[Decide, BeforeValidator(_decide), PlainSerializer(str)] = Decide("leaf")
    margin: bool = False
    level_rasters: Annotated[tuple[int, ...] | Literal["all"], BeforeValidator(_levels)] | None = None
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: str = "auto"
    grid: Literal["scene", "model"] = "scene"
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    in_flight: Annotated[int, Field(ge=1)] = 2
    retries: Annotated[int, Field(ge=0)] = 2
    memory: Annotated[int, Field(ge=1)] | None = None
    scene: SceneOptions = SceneOptions()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Settings from a YAML file whose keys are the field names."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise SettingsError(f"can't read the settings in {path}: {error}") from error
        if not isinstance(values, dict):
            raise SettingsError(
                f"{path} holds a {type(values).__name__}; expected keys and values, as 'block: 2048'"
            )
        return cls(**{str(key): value for key, value in values.items()})
