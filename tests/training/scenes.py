"""Labelled scenes in memory, for tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import ReadError
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from rssegment.training.ground import Sample
from rssegment.training.recipe import Role

__all__ = ["TREE", "ArrayScene", "random_scene"]

TREE = Taxonomy.loads(
    """
name: small
classes:
  - code: 1
    name: built
    color: "#aa0000"
    classes: [{code: 2, name: house, color: "#bb0000"}, {code: 3, name: road, color: "#cc0000"}]
  - code: 4
    name: green
    color: "#00aa00"
    classes: [{code: 5, name: tree, color: "#00bb00"}, {code: 6, name: grass, color: "#00cc00"}]
  - {code: 7, name: water, color: "#0000aa"}
"""
)


@dataclass(frozen=True, eq=False)
class ArrayScene:
    """A LabelledScene whose pixels are arrays: ``values`` (C, H, W), ``labels`` (H, W), ``valid`` (H, W) or all.

    A read that touches ``broken`` fails.
    """

    values: NDArray[Any]
    labels: NDArray[np.uint16]
    valid: NDArray[np.bool_] | None = None
    name: str = "scene"
    source: str = "source"
    region: str = "region"
    role: Role = "split"
    resolution: float = 1.0
    missing: tuple[int, ...] = ()
    geobox: GeoBox | None = None
    credit: str = ""
    broken: Box | None = None
    reads: list[Box] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    @property
    def dtype(self) -> str:
        return str(self.values.dtype)

    @property
    def present(self) -> tuple[bool, ...]:
        return tuple(band not in self.missing for band in range(len(self.values)))

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.values.tobytes() + self.labels.tobytes())
        digest.update(b"" if self.valid is None else self.valid.tobytes())
        return digest.hexdigest()

    def read(self, box: Box) -> Sample:
        assert box.clip(Box.of(self.shape)) == box
        assert box.size
        self.reads.append(box)
        if self.broken is not None and box.clip(self.broken).size:
            raise ReadError(f"can't read rows {box.row} to {box.stop_row - 1} of {self.name}: damaged")
        valid = np.ones(self.shape, bool) if self.valid is None else self.valid
        seen = valid[box.slices].copy()
        values = np.where(seen, self.values[(slice(None), *box.slices)], 0).astype(self.values.dtype)
        for band in self.missing:
            values[band] = 0
        return Sample(values, seen, np.where(seen, self.labels[box.slices], 0).astype(np.uint16))


def random_scene(
    shape: tuple[int, int] = (300, 200), seed: int = 0, bands: int = 3, dtype: str = "uint8", **more: Any
) -> ArrayScene:
    """Noise with labels in patches of 20 px, about a tenth of them 0."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 255, (bands, *shape)).astype(dtype)
    patches = rng.choice(
        8, tuple(-(-side // 20) for side in shape), p=[0.1, 0.05, 0.1, 0.2, 0.05, 0.2, 0.28, 0.02]
    )
    labels = patches.repeat(20, 0).repeat(20, 1)[: shape[0], : shape[1]].astype(np.uint16)
    return ArrayScene(values, labels, **more)
