"""What a model expects and gives: the part of a bundle that is facts and not weights."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from rssegment.errors import BundleError

__all__ = [
    "ARTIFACTS",
    "STORED_TYPES",
    "ArtifactKind",
    "BandSpec",
    "Facts",
    "ModelName",
    "ModelSpec",
    "OutputKind",
]

OutputKind = Literal["logits", "probabilities", "scores"]
ArtifactKind = Literal["safetensors", "pt2", "torchscript", "onnx"]
# File name and media type of each kind of weights.
ARTIFACTS: dict[str, tuple[str, str]] = {
    "safetensors": ("weights.safetensors", "application/vnd.safetensors"),
    "pt2": ("model.pt2", "application/zip; application=pytorch; profile=export"),
    "torchscript": ("model.pt", "application/zip; application=pytorch; profile=torchscript"),
    "onnx": ("model.onnx", "application/onnx"),
}
STORED_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]")  # of mlm:name in the MLM schema


def _plain_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("use a letter, then letters, digits, '_', '.' or '-', at least three in all")
    return value


ModelName = Annotated[str, AfterValidator(_plain_name)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Facts(BaseModel):
    """Values of a bundle that say what is wrong with them; ``subject`` names them in messages."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    subject: ClassVar[str] = "model description"

    def __init__(self, **values: Any) -> None:
        """Checks every value; raises BundleError that names each one at fault."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise BundleError(f"bad {self.subject}: {_faults(error)}") from error


class BandSpec(Facts):
    """One input band: its ``name``, and the ``mean`` and ``std`` that normalise its scene values.

    A scene may lack an ``optional`` one: the model was trained with its mean, 0 after normalisation, in its place.
    """

    name: Annotated[str, Field(min_length=1)]
    mean: Finite = 0.0
    std: Positive = 1.0
    optional: bool = False


class ModelSpec(Facts):
    """What a model expects of a scene and what its output channels are.

    ``dtype`` is the type in which a scene stores its values; ``scaled`` says that the model wants
    ``stored * scale + offset`` instead of the stored values. ``value_range`` holds the lowest and highest value it
    was trained on. ``ground_resolution`` is the side of its pixels in metres; a scene's pixels may be up to
    ``resolution_factor`` times as large (finer scenes are averaged). ``patch`` and ``overlap`` are in px.
    ``channels`` has the code of the leaf that each output channel stands for, None for one that is dropped
    (before the softmax of ``logits``); probabilities of channels that share a leaf add up. With the ``output``
    "scores", channels are scores of nodes, one for each node of the tree (see ``rssegment.model.hierarchy``).
    ``batch`` is set where the artifact works with one batch size only.
    ``architecture`` is a registered name for safetensors weights (see ``create_architecture``), else free text.
    """

    name: ModelName
    bands: Annotated[tuple[BandSpec, ...], Field(min_length=1)]
    channels: Annotated[tuple[int | None, ...], Field(min_length=1)]
    ground_resolution: Positive
    artifact: ArtifactKind = "safetensors"
    architecture: Annotated[str, Field(min_length=1)] = "unknown"
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    dtype: str = "uint8"
    scaled: bool = False
    value_range: tuple[Finite, Finite] = (0.0, 255.0)
    resolution_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    patch: Annotated[int, Field(ge=1, le=65536)] = 512
    overlap: Annotated[int, Field(ge=0)] = 128
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    output: OutputKind = "logits"
    title: str = ""
    description: str = ""
    license: str = "other"
    credit: str = ""
    training: dict[str, Any] = Field(default_factory=dict)

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in STORED_TYPES:
            raise ValueError(f"use one of {', '.join(STORED_TYPES)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        names = [band.name.casefold() for band in self.bands]
        given = [code for code in self.channels if code is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"two bands have the same name: {', '.join(self.band_names)}")
        if not self.required:
            raise ValueError("bands: all are optional; there must be one at least that every scene has")
        if not given:
            raise ValueError("channels: at least one output channel must stand for a leaf")
        if self.output == "scores" and len(set(given)) < len(given):
            raise ValueError("channels: two output channels have the same code; a node has one score")
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError(
                f"value_range: the low {self.value_range[0]} must be less than the high {self.value_range[1]}"
            )
        if self.overlap > self.patch // 2:
            raise ValueError(f"overlap: {self.overlap} px is more than half the patch of {self.patch} px")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(band.name for band in self.bands)

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the bands that a scene must have."""
        return tuple(band.name for band in self.bands if not band.optional)

    @property
    def codes(self) -> tuple[int, ...]:
        """Codes of the leaves (of ``scores``, nodes) that channels stand for, each once, in the channels' order."""
        return tuple(dict.fromkeys(code for code in self.channels if code is not None))

    @property
    def means(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Band means (C,), which stand in for invalid pixels."""
        return np.array([band.mean for band in self.bands], np.float32)

    @property
    def weights_name(self) -> str:
        """File name of the weights in a bundle."""
        return ARTIFACTS[self.artifact][0]


def _faults(error: ValidationError) -> str:
    parts = []
    for fault in error.errors():
        place = ".".join(map(str, fault["loc"]))
        found = f" = {fault['input']!r}" if place and _short(fault["input"]) else ""
        parts.append(f"{place}{found}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": "))
    return "; ".join(parts)


def _short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None) and len(str(value)) <= 80
