"""Time and size of many features in each vector format, in one table.

::

    python -m tests.benchmarks.bench_formats                      100,000 features; tiles of a tenth of them
    python -m tests.benchmarks.bench_formats --features 1000000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssegment.write.features import REGION_SCHEMA, Features, Layer, Rings
from rssegment.write.formats import FORMATS
from rssegment.write.vectors import write_vectors

CHUNK, CORNERS, SPACING = 20_000, 12, 60.0
LAYER = Layer("EPSG:32633", 10.0, schema=REGION_SCHEMA)


@dataclass(frozen=True)
class Row:
    """CPU and wall seconds and bytes of ``features`` features in one format."""

    name: str
    features: int
    cpu: float
    wall: float
    size: int

    def __str__(self) -> str:
        rate = self.features / self.cpu / 1e3
        return (
            f"{self.name:12} {self.features:10,d} {self.cpu:8.2f} {self.wall:8.2f} {rate:10.0f} "
            f"{self.size / 1e6:9.1f} {self.size / self.features:8.0f}"
        )


HEAD = (
    f"{'format':12} {'features':>10} {'CPU s':>8} {'wall s':>8} {'1000 / CPU s':>10} {'MB':>9} {'bytes':>8}"
)


def features(count: int) -> Iterator[Features]:
    """Stars of 12 corners in rows, with every column of a region."""
    width = int(np.sqrt(count)) + 1
    names = np.array(["water", "built/building", "vegetation/forest"], object)
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    for start in range(0, count, CHUNK):
        k = np.arange(start, min(start + CHUNK, count))
        radius = 10 + 19 * np.sin(7 * k[:, None] + np.arange(CORNERS)) ** 2
        row, col = np.divmod(k, width)
        x = (500_000 + col * SPACING)[:, None] + radius * np.cos(angle)
        y = (5_500_000 - row * SPACING)[:, None] + radius * np.sin(angle)
        xy = np.stack([x, y], axis=-1).round(1)
        points = np.concatenate([xy, xy[:, :1]], axis=1).reshape(-1, 2)
        each = np.arange(k.size + 1)
        yield Rings(points, each * (CORNERS + 1), each, each), columns(k, names)


def columns(k: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "id": k + 1,
        "parent_id": np.ma.masked_array(k // 4, k % 5 == 0),
        "code": k % 3 + 1,
        "name": names[k % 3],
        "level": np.ones(k.size, np.int64),
        "path": names[k % 3],
        "pixels": k % 100 + 1,
        "area_m2": np.round(k % 100 * 100.37, 2),
        "perimeter_m": np.round(k % 997 * 1.13, 2),
        "confidence": np.where(k % 7 == 0, np.nan, k % 1000 / 1000),
        "confidence_min": k % 10 / 10,
        "margin": np.round(k % 77 / 77, 4),
        "touches_nodata": k % 9 == 0,
        "touches_edge": k % 11 == 0,
    }


def measure(names: Sequence[str], count: int, folder: Path) -> Row:
    """One pass over the features to the formats ``names``."""
    paths = {name: folder / f"regions{FORMATS[name].suffixes[0]}" for name in names}
    wall, cpu = time.perf_counter(), time.process_time()
    assert write_vectors(paths, features(count), LAYER) == count
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    suffixes = {suffix for name in names for suffix in (paths[name].suffix, *FORMATS[name].companions)}
    size = sum((folder / f"regions{suffix}").stat().st_size for suffix in suffixes)
    return Row(names[0] if len(names) == 1 else f"{len(names)} at once", count, cpu, wall, size)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--tiled", type=int, help="features in PMTiles, which take longest; default a tenth")
    asked = parser.parse_args(arguments)
    tiled = max(1, asked.features // 10) if asked.tiled is None else asked.tiled
    quick = [name for name in FORMATS if name != "pmtiles"]
    print(HEAD)
    rows = []
    for names, count in [
        *(([name], asked.features) for name in quick),
        (quick, asked.features),
        (["pmtiles"], tiled),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(names, count, Path(folder)))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
