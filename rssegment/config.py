"""Settings of a run, checked when they are made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rssegment.errors import SettingsError

__all__ = ["SceneOptions", "Settings"]

Format = Literal["geojson"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        """Checks every value; raises SettingsError that names each one at fault."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            faults = (
                f"{'.'.join(map(str, f['loc'])) or 'settings'} = {f['input']!r}: {f['msg']}"
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


class Settings(_Model):
    """How a scene is segmented. Nothing here changes with the machine that runs it.

    ``block`` (px), ``workers``, ``in_flight``, ``retries`` and ``memory`` never change the result; the rest may, and
    so may the kind of ``device`` in the last digits of a probability.
    """

    block: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    overlap: Annotated[int, Field(ge=0)] | None = None
    window: Literal["blend", "crop"] = "blend"
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: str = "auto"
    grid: Literal["scene", "model"] = "scene"
    connectivity: Literal[4, 8] = 4
    formats: tuple[Format, ...] = ("geojson",)
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
