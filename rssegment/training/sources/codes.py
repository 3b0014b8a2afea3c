"""Label rasters of codes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.reference.label_files import LabelFile
from rssegment.scene.label_header import unplaced_allowed
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.taxonomy.mapping import unknown_values
from rssegment.training.sources.classes import known_codes

__all__ = ["CodeFile"]


@dataclass(frozen=True)
class CodeFile(LabelFile):
    """A raster of codes; without a mapping they are codes of ``taxonomy``, and others are refused.

    ``bare``: the file has no georeference of its own, which is no news.
    """

    taxonomy: Taxonomy | None = None
    bare: bool = False

    def codes(self, box: Box, mapping: ClassMapping | None = None) -> NDArray[np.uint16]:
        with unplaced_allowed() if self.bare else nullcontext():
            codes = super().codes(box, mapping)
        if mapping is None and self.taxonomy is not None:
            known = known_codes(self.taxonomy)[codes]
            if not known.all():
                self._refuse(codes[~known])
        return codes

    def _refuse(self, values: NDArray[Any]) -> None:
        assert self.taxonomy is not None, "only codes of a taxonomy are refused"
        raise InputError(
            f"the {self.what} {self.path} have values that are no codes of taxonomy {self.taxonomy.name!r}: "
            f"{unknown_values(*np.unique(values, return_counts=True), 'px')}; give the source a 'mapping' from its "
            "values to classes, null to leave one out"
        )
