"""Ground with labels: what every source of training data looks like from the inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.grid import Box
from rssegment.training.recipe import Role

__all__ = ["LabelledScene", "Sample"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A box of ground.

    ``values`` (C, H, W): the recipe's bands in stored units and the scene's ``dtype`` (rounded where it was resampled),
    0 where there is none. ``valid`` (H, W): whether the pixel has data. ``labels`` (H, W) uint16: codes of nodes at any
    level, 0 where there is no label or no data.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_]
    labels: NDArray[np.uint16]


class LabelledScene(Protocol):
    """One image with its labels on the recipe's pixels: a value without open files, fit to travel to workers."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str:
        """Name of the source that it belongs to."""

    @property
    def region(self) -> str:
        """The ground it shows, for scores by region."""

    @property
    def role(self) -> Role: ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, at the recipe's resolution."""

    @property
    def dtype(self) -> str:
        """numpy type of ``values``."""

    @property
    def present(self) -> tuple[bool, ...]:
        """(C,): which of the recipe's bands it has."""

    @property
    def resolution(self) -> float:
        """Side of a pixel in metres: the recipe's, or the images' own where nothing can be known of it."""

    @property
    def geobox(self) -> GeoBox | None:
        """The grid of its pixels; None where it is not known where on the Earth it lies. Then scenes of one ``name``
        show the same ground."""

    @property
    def credit(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of image and labels: another one means other pixels."""

    def read(self, box: Box) -> Sample:
        """The ground in ``box``, which lies inside the scene; raises ReadError where a file can't be read there."""
