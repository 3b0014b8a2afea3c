"""The work folder: what each block left, written so that doing a block twice is harmless."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Block, BlockGrid, Box
from rssegment.run.planning import Plan
from rssegment.run.traces import LabelBlock, Traces
from rssegment.vector import Piece
from rssegment.write.atomic import hinted, storage_errors, write_bytes
from rssegment.write.rasters import RasterKind, confidence_kind, read_part, write_part

__all__ = ["RESUME", "BlockResult", "PartBlocks", "Pixels", "Store", "label_block"]

Pixels = NDArray[Any]  # of one raster: class codes, or bytes of a probability

RESUME = "; what is done is kept: go on with --resume"
"""What segment says to whoever has made room on a full disk."""


@dataclass(frozen=True)
class BlockResult:
    """What one block came to. ``seconds`` by stage; ``parts``: size (bytes) and CRC-32 of each part file, by name."""

    name: str
    status: Literal["done", "empty"]
    valid_pixels: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """Part files of a run: per block one for each raster of ``kinds``, a trace, and a marker written last.

    The folder bears the run's fingerprint and block size, so that a task of an earlier run that ends late on some
    worker can't be taken for one of this run.
    """

    folder: Path
    traces: Traces
    kinds: Mapping[str, RasterKind]

    @classmethod
    def of(cls, plan: Plan) -> Self:
        # a map that is cleaned is traced anew from its parts, and its polygons have margins
        kept = {"margin": confidence_kind("margin")} if plan.settings.cleans else {}
        return cls(plan.parts, plan.traces, plan.rasters | kept)

    def part(self, name: str, block: Block) -> Path:
        """Where the part of ``block`` for the raster ``name`` lies."""
        return self.folder / name / f"{block.name}.tif"

    def trace(self, block: Block) -> Path:
        return self.traces.path((0, *block.index))

    def marker(self, block: Block) -> Path:
        return self.folder / "done" / f"{block.name}.json"

    def create(self) -> None:
        """Makes the folders."""
        for name in (*self.kinds, "done"):
            with storage_errors(self.folder / name):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.traces.create()

    @hinted(RESUME)
    def save(
        self, plan: Plan, block: Block, pixels: Mapping[str, Pixels], piece: Piece
    ) -> dict[str, tuple[int, int]]:
        """Writes the parts of ``block``, each whole or not at all; returns their sizes and checksums."""
        area = plan.geobox[block.core.slices]
        for name, kind in self.kinds.items():
            write_part(self.part(name, block), pixels[name], area, kind)
        self.traces.save((0, *block.index), piece)
        return {path.parent.name: _checksum(path) for path in self._parts(block)}

    @hinted(RESUME)
    def finish(self, block: Block, result: BlockResult) -> None:
        """Marks ``block`` as done: from here on a resumed run passes over it."""
        write_bytes(self.marker(block), json.dumps(asdict(result)).encode())

    def result(self, block: Block) -> BlockResult | None:
        """What ``block`` came to earlier, or None if it is to be done (again)."""
        try:
            result = BlockResult(**json.loads(self.marker(block).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return result if self._intact(block, result) else None

    def _intact(self, block: Block, result: BlockResult) -> bool:
        paths = {path.parent.name: path for path in self._parts(block)}
        return all(
            paths[name].is_file() and _checksum(paths[name]) == tuple(facts)
            for name, facts in result.parts.items()
        )

    def _parts(self, block: Block) -> tuple[Path, ...]:
        return (*(self.part(name, block) for name in self.kinds), self.trace(block))


@dataclass(frozen=True)
class PartBlocks:
    """The blocks of a run, read back from their parts; those at the indexes ``blank`` are no data."""

    store: Store
    grid: BlockGrid
    blank: frozenset[tuple[int, int]]

    def read(self, core: Box) -> LabelBlock:
        block = self.grid[core.row // self.grid.block, core.col // self.grid.block]
        if block.index in self.blank:
            return LabelBlock(np.zeros(core.shape, np.uint16))
        names = ("labels", "confidence", "margin")
        return label_block({name: read_part(self.store.part(name, block)) for name in names})


def label_block(pixels: Mapping[str, Pixels]) -> LabelBlock:
    """What is traced of the ``pixels`` of a block."""
    return LabelBlock(pixels["labels"].astype(np.uint16, copy=False), pixels["confidence"], pixels["margin"])


def _checksum(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    return len(content), zlib.crc32(content)
