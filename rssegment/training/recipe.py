"""Recipes: what a model is trained on, how, and what it is called. YAML files, every value of which is checked."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rssegment.errors import InputError, TaxonomyError
from rssegment.model.spec import ModelName
from rssegment.taxonomy.packaged import RECIPES, read_yaml
from rssegment.training.faults import faults_of

__all__ = [
    "AugmentOptions",
    "ModelOptions",
    "OptimizerOptions",
    "Recipe",
    "SampleOptions",
    "SourceOptions",
    "SplitOptions",
]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SourceKind = Literal["rasters", "polygons", "voc", "coco_panoptic", "coco_instances", "suite"]
BandName = Annotated[str, Field(pattern=r"\S")]
Role = Literal["split", "train", "validation"]
Head = Literal["flat", "hierarchical"]  # of rssegment.model.hierarchy, which needs torch
Mapped = str | dict[int | str, int | str | None] | None


_SET = ("bands", "classes", "head", "in_channels", "name", "taxonomy")
_ENCODER = ("encoder", "encoder_name")


class Part(BaseModel):
    """A part of a recipe: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses true and false (YAML's yes and no) where a number or a name is meant, which they would become."""
        kind = cls.model_fields[info.field_name or ""].annotation
        free = kind == dict[str, Any] or (isinstance(kind, type) and issubclass(kind, bool | Part))
        found = value.values() if isinstance(value, dict) else (value,)
        if not free and any(isinstance(each, bool) for each in found):
            raise ValueError(
                "true and false (in YAML also yes and no) are no value for it; put names in quotes"
            )
        return value


class SourceOptions(Part):
    """One set of scenes with labels. Of kind "rasters" if none is given; "polygons" if the labels' ending says so.

    ``images`` and ``labels`` are paths relative to the data folder, with ``*`` as in the shell; in ``labels``,
    ``{stem}``, ``{folder}`` (of the image, relative to the data folder) and ``{parent}`` (that folder's) stand for
    parts of each image's path. Folders of VOC, COCO and suites are named by ``folder`` instead. ``mapping`` leads from
    the source's values, names or colours ("#3C1098") to nodes of the recipe's taxonomy: a mapping file, a packaged
    mapping's name, or the pairs themselves. ``bands`` are what the images' bands are, in their order (None: as the
    recipe's); ``resolution`` (m) is the size of a pixel where images have no georeference, and ``resample`` false
    leaves such images at their own pixels. ``column``, ``label`` and ``outside`` tell the class of polygons and of what
    none covers; beyond the polygons of the file ``within`` there are no labels. ``region`` names the ground for scores
    by region ("{stem}" and the like as above). ``weight`` is the share of all windows (None: by area, of what the
    others leave). ``role``: whether its area is split into blocks, or all for one purpose.
    """

    name: Annotated[str, Field(min_length=1)]
    kind: SourceKind = "rasters"
    images: str | tuple[str, ...] | None = None
    labels: str | None = None
    folder: str | None = None
    subset: str | None = None
    mapping: Mapped = None
    column: str | None = None
    label: int | str | None = None
    outside: int | str | None = None
    within: str | None = None
    bands: tuple[str, ...] | None = None
    resolution: Positive | None = None
    resample: bool = True
    region: str | None = None
    weight: Positive | None = None
    role: Role = "split"
    credit: str = ""
    license: str = ""

    @model_validator(mode="before")
    @classmethod
    def _kind_of_labels(cls, values: Any) -> Any:
        """The kind that the ending of the labels' files implies."""
        if isinstance(values, dict) and "kind" not in values and _are_polygons(values.get("labels")):
            return {**values, "kind": "polygons"}
        return values


def _are_polygons(labels: Any) -> bool:
    if not isinstance(labels, str) or not (ending := PurePath(labels).suffix) or "}" in ending:
        return False
    from rssegment.reference.vector_files import is_vector  # takes as long to import as all else

    return is_vector(f"*{ending}")  # no file's name, so that it goes by the ending


class SplitOptions(Part):
    """Validation by blocks of ground: ``validation`` is their share, ``block`` (m) their side, ``gap`` (m) around."""

    validation: Share = 0.2
    block: Positive = 150.0
    gap: NotNegative = 25.0


class SampleOptions(Part):
    """Windows that a step sees: ``patch`` (px, at the recipe's resolution), ``batch`` of them, ``balance`` the share
    that is drawn around a rare class rather than by area; ``workers`` processes read them (None: as cores allow),
    through a cache of decoded pixels of at most ``cache`` GiB on disk."""

    patch: Annotated[int, Field(ge=32, le=4096)] = 256
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    balance: Share = 0.4
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    cache: NotNegative = 8.0


class AugmentOptions(Part):
    """Chances and strengths of what is done to a batch, on the device. 0 turns one off.

    ``scale`` is the largest factor of zoom, in and out; ``rotate`` the share of windows turned by any angle (others by
    right angles); ``brightness`` and ``contrast`` standard deviations' shares, of all bands and half of it for each;
    ``haze``, ``blur``, ``noise``, ``cutmix`` and ``drop_optional_bands`` are chances.
    """

    flips: bool = True
    scale: Annotated[float, Field(ge=1, le=4, allow_inf_nan=False)] = 1.4
    rotate: Share = 0.5
    brightness: NotNegative = 0.3
    contrast: NotNegative = 0.25
    haze: Share = 0.2
    blur: Share = 0.2
    noise: Share = 0.3
    cutmix: Share = 0.3
    drop_optional_bands: Share = 0.3


class ModelOptions(Part):
    """The network: an architecture of :func:`rssegment.model.architecture_names`, new or begun from other weights.

    ``encoder_weights``: a local file of pretrained weights; ``start``: a bundle to fine-tune, whose architecture is
    taken. Paths are relative to the recipe's folder, or to the data folder; "package:name/path" is a file of an
    installed Python package. ``credit``: whom pretrained weights are from; a bundle tells it itself.
    """

    architecture: str = "smp:Unet"
    encoder: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    head: Head = "flat"
    encoder_weights: str | None = None
    start: str | None = None
    credit: str = ""

    @model_validator(mode="after")
    def _unambiguous(self) -> ModelOptions:
        beside = ("architecture", "encoder", "options", "encoder_weights")
        if self.start is not None and (
            given := [key for key in beside if key in self.model_fields_set and getattr(self, key)]
        ):
            raise ValueError(f"start takes the bundle's network and weights; leave out {', '.join(given)}")
        if given := [option for option in _SET if option in self.options]:
            raise ValueError(
                f"options: {', '.join(given)} is set by bands, taxonomy and head of the recipe; leave it out"
            )
        if self.encoder is not None and (given := [o for o in _ENCODER if o in self.options]):
            raise ValueError(f"options: {', '.join(given)} says the same as encoder; leave it out")
        return self


class OptimizerOptions(Part):
    """AdamW with warm-up and cosine, ``steps`` of ``accumulate`` batches; the encoder's rate is ``rate`` times
    ``encoder_rate``. ``average`` is the decay of the moving average of weights that is validated and kept (0: none).
    """

    steps: Annotated[int, Field(ge=1)] = 10_000
    rate: Positive = 1e-3
    encoder_rate: NotNegative = 1.0
    weight_decay: NotNegative = 0.02
    warmup: Share = 0.04
    clip: Positive = 1.0
    accumulate: Annotated[int, Field(ge=1)] = 1
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    precision: Literal["auto", "bf16", "float32"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dice: NotNegative = 0.0
    lovasz: NotNegative = 0.0
    class_weights: dict[int | str, NotNegative] = Field(default_factory=dict)


class Recipe(Part):
    """All that decides a training, apart from the data itself.

    ``bands`` are the model's input; ``optional_bands`` those of them that a scene may lack. ``resolution`` is the side
    of a pixel on the ground (m). Every ``validate_every`` steps the model is scored on validation ground; training ends
    early where the mean IoU over the levels has not risen for ``patience`` such times (None: never). ``patch`` and
    ``overlap`` (px) are those of inference, ``half`` stores weights in half precision.
    """

    name: ModelName
    taxonomy: str
    bands: Annotated[tuple[BandName, ...], Field(min_length=1)]
    resolution: Positive
    sources: Annotated[tuple[SourceOptions, ...], Field(min_length=1)]
    title: str = ""
    description: str = ""
    limits: str = ""
    license: str = "other"
    optional_bands: tuple[str, ...] = ()
    split: SplitOptions = SplitOptions()
    sample: SampleOptions = SampleOptions()
    augment: AugmentOptions = AugmentOptions()
    model: ModelOptions = ModelOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    validate_every: Annotated[int, Field(ge=1)] = 500
    patience: Annotated[int, Field(ge=1)] | None = None
    patch: Annotated[int, Field(ge=32, le=65536)] = 512
    overlap: Annotated[int, Field(ge=0)] = 128
    half: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """The recipe in a YAML file, or the packaged one of that bare name.

        Raises
        ------
        InputError
            There is no such file or name, or it is no recipe; names each key at fault.
        """
        try:
            return cls.loads(*read_yaml(source, RECIPES))
        except TaxonomyError as error:
            raise InputError(str(error)) from error

    @classmethod
    def loads(cls, text: str, source: str = "<string>") -> Self:
        """The recipe written in ``text``; ``source`` names it in messages. Raises as :meth:`load`."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"{source} is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise InputError(
                f"{source} is no recipe: expected keys such as name, taxonomy, bands, resolution, sources"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"bad recipe {source}: {faults_of(error, cls, values)}") from error

    @field_validator("sources")
    @classmethod
    def _distinct(cls, value: tuple[SourceOptions, ...]) -> tuple[SourceOptions, ...]:
        names = [source.name for source in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources are called {', '.join(twice)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len({name.casefold() for name in self.bands}) < len(self.bands):
            raise ValueError(f"bands: one is listed twice: {', '.join(self.bands)}")
        if self.overlap > self.patch // 2:
            raise ValueError(f"overlap: {self.overlap} px is more than half the patch of {self.patch} px")
        if strange := [name for name in self.optional_bands if name not in self.bands]:
            raise ValueError(
                f"optional_bands: {', '.join(strange)} is none of the bands {', '.join(self.bands)}"
            )
        if set(self.optional_bands) == set(self.bands):
            raise ValueError("optional_bands: at least one band must be there always")
        return self

    @property
    def optional(self) -> tuple[bool, ...]:
        """(C,): whether a scene may lack the band."""
        return tuple(name in self.optional_bands for name in self.bands)

    def credits(self, earlier: str = "") -> tuple[str, ...]:
        """Whom to credit, each once: for data, for pretrained weights, and for the bundle that is gone on from."""
        given = [*(source.credit for source in self.sources), self.model.credit, *earlier.split("; ")]
        return tuple(dict.fromkeys(text for text in given if text))

    @property
    def window(self) -> int:
        """Side (px) of the windows that are read: a patch and what turning and zooming out need around it."""
        return -(-round(self.sample.patch * self.augment.scale) // 8) * 8
