"""Images with labels as training sees them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.grid import BlockGrid, Box
from rssegment.scene.handles import is_remote
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.training.ground import LabelledScene, Sample
from rssegment.training.recipe import Recipe, Role, SourceOptions
from rssegment.training.sources.imagery import Image, open_image
from rssegment.training.sources.labels import Labels, content_of
from rssegment.training.sources.patterns import fill, name_of
from rssegment.training.sources.shapes import limited

__all__ = ["SourceScene", "Task", "check_labelled"]

_DECIDING = (
    "kind",
    "column",
    "label",
    "outside",
    "within",
)  # options that change labels where nothing else does
_LOOKED_AT = 1024  # px, side of what is looked through for a label


@dataclass(frozen=True)
class SourceScene:
    """One image of a source and its labels, on the recipe's pixels: a LabelledScene.

    ``meaning`` is all that decides labels beside the files' content, as text.
    """

    name: str
    source: str
    region: str
    role: Role
    credit: str
    image: Image
    labels: Labels
    meaning: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.scene.shape

    @property
    def dtype(self) -> str:
        return self.image.dtype

    @property
    def present(self) -> tuple[bool, ...]:
        return self.image.present

    @property
    def resolution(self) -> float:
        return self.image.resolution

    @property
    def geobox(self) -> GeoBox | None:
        return self.image.scene.geobox if self.image.placed else None

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of image and labels; reads samples of large files, and others once per process."""
        parts = [
            self.image.scene.fingerprint(),
            content_of(self.labels.files),
            self.meaning,
            self.image.places,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def read(self, box: Box) -> Sample:
        """The ground in ``box``, which lies inside the scene.

        Raises
        ------
        SceneError
            The box reaches beyond it.
        ReadError
            A file can't be read there.
        InputError
            Labels there have values that mean nothing.
        """
        values, valid = self.image.read(box)
        labels = self.labels.read(box)
        if not valid.all():
            labels = np.where(valid, labels, np.uint16(0))
        return Sample(values, valid, labels)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key in self.__dataclass_fields__}


@dataclass(frozen=True)
class Task:
    """One source to open: its options, the recipe and its taxonomy, the data folder, and what its values mean."""

    options: SourceOptions
    recipe: Recipe
    root: Path
    taxonomy: Taxonomy
    mapping: ClassMapping | None

    @property
    def name(self) -> str:
        return self.options.name

    def image(self, path: str) -> Image:
        return open_image(path, self.options, self.recipe)

    def scene(self, image: Image, labels: Labels) -> SourceScene:
        """The scene of an image and its labels."""
        options, region = self.options, self.name
        if options.region is not None:
            region = fill(options.region, image.path, self.root, f"region of source {self.name!r}")
        if options.within is not None:
            labels = limited(labels, image, self.located(options.within))
        decided = options.model_dump_json(include=set(_DECIDING))
        meaning = json.dumps([decided, self.taxonomy.fingerprint, repr(self.mapping), image.scene.shape])
        name = name_of(image.path, self.root)
        return SourceScene(name, self.name, region, options.role, options.credit, image, labels, meaning)

    def located(self, path: str) -> str:
        """A path in the data folder, or an absolute one."""
        return path if is_remote(path) else str(self.root / path)

    def folder(self) -> Path:
        """The source's folder.

        Raises
        ------
        InputError
            None is given, or there is no such folder.
        """
        if self.options.folder is None:
            raise InputError(
                f"source {self.name!r} is of kind {self.options.kind}; say by 'folder' where it is"
            )
        folder = self.root / self.options.folder
        if not folder.is_dir():
            raise InputError(f"source {self.name!r}: there is no folder {folder}")
        return folder


def check_labelled(scenes: Sequence[SourceScene], source: str) -> None:
    """Refuses a source none of whose pixels has a label; looks no further than the first that has one.

    Raises
    ------
    InputError
        There is no label, or a label file is found that means nothing.
    """
    if any(scene.labels.read(box).any() for scene in scenes for box in _likely_first(scene)):
        return
    raise InputError(
        f"no pixel of the {len(scenes)} images of source {source!r} has a label: its mapping leaves out all of its "
        "values, or its labels hold no data only; see what they hold (rssegment inspect) and what 'mapping' says"
    )


def _likely_first(scene: LabelledScene) -> Iterator[Box]:
    """Boxes that cover a scene, those in its middle first."""
    rows, cols = scene.shape
    boxes = [block.core for block in BlockGrid(scene.shape, _LOOKED_AT)]
    yield from sorted(
        boxes,
        key=lambda box: abs(2 * box.row + box.height - rows) + abs(2 * box.col + box.width - cols),
    )
