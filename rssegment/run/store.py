"""The work folder: what each block left, written so that doing a block twice is harmless."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Block
from rssegment.run.planning import Plan
from rssegment.vector import BlockTrace
from rssegment.write.atomic import staged, storage_errors, write_bytes
from rssegment.write.rasters import confidence_kind, write_part

__all__ = ["BlockResult", "Store"]


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
    """Part files of a run: per block a label raster, a confidence raster, a trace, and a marker written last.

    The folder bears the run's fingerprint and block size, so that a task of an earlier run that ends late on some
    worker can't be taken for one of this run.
    """

    folder: Path

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls(plan.work / f"{plan.fingerprint[:16]}-{plan.resources.block}")

    def labels(self, block: Block) -> Path:
        return self.folder / "labels" / f"{block.name}.tif"

    def confidence(self, block: Block) -> Path:
        return self.folder / "confidence" / f"{block.name}.tif"

    def trace(self, block: Block) -> Path:
        return self.folder / "trace" / f"{block.name}.npz"

    def marker(self, block: Block) -> Path:
        return self.folder / "done" / f"{block.name}.json"

    def create(self) -> None:
        """Makes the folders."""
        for name in ("labels", "confidence", "trace", "done"):
            with storage_errors(self.folder / name):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def save(
        self,
        plan: Plan,
        block: Block,
        labels: NDArray[np.uint16],
        confidence: NDArray[np.uint8],
        trace: BlockTrace,
    ) -> dict[str, tuple[int, int]]:
        """Writes the parts of ``block``, each whole or not at all; returns their sizes and checksums."""
        part = plan.geobox[block.core.slices]
        write_part(self.labels(block), labels, part, plan.label_kind)
        write_part(self.confidence(block), confidence, part, confidence_kind())
        with staged(self.trace(block)) as temporary:
            trace.save(temporary)
        return {path.parent.name: _checksum(path) for path in self._parts(block)}

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

    def _parts(self, block: Block) -> tuple[Path, Path, Path]:
        return self.labels(block), self.confidence(block), self.trace(block)


def _checksum(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    return len(content), zlib.crc32(content)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``, or None if there is none to be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
