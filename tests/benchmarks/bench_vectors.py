"""Labels to polygons: speed beside others, on two processes, of the simplification, and memory of whole rasters."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.vector import Simplification, trace_bands, trace_block, trace_raster
from rssegment.vector.pieces import Chains
from rssegment.vector.polylines import simplified
from tests.benchmarks.rasters import cropland, cropland_path, noise_labels, tiled
from tests.benchmarks.rivals import rivals
from tests.benchmarks.timing import in_turns, show

__all__ = ["Sizes", "main"]

BLOCK = 2048


@dataclass(frozen=True)
class Sizes:
    """How much is measured: sides and roughness in px, numbers of vertices, and how often."""

    noise: int = 4096
    sigmas: tuple[float, ...] = (1.5, 4.0, 12.0)
    cropland: int = 8000
    vertices: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    coverage_vertices: int = 1_000_000
    memory: tuple[int, ...] = (8192, 32768)
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(1024, (1.5, 4.0, 12.0), 2000, (20_000, 200_000), 200_000, (1024, 4096), 3)


def _rasters(sizes: Sizes) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for sigma in sizes.sigmas:
        yield f"noise, sigma {sigma:g}", noise_labels(sizes.noise, sigma)
    path = cropland_path()
    if path is None:
        print("no real data: set RSSEGMENT_DATA to measure the Cropland Data Layer too")
    else:
        yield "Cropland Data Layer", cropland(path, sizes.cropland)


def polygons(labels: NDArray[Any]) -> NDArray[np.object_]:
    """What is measured: labels (H, W) to shapely polygons."""
    bands = [regions.to_shapely() for regions in trace_bands(labels, BLOCK)]
    return np.concatenate(bands) if len(bands) > 1 else bands[0]


def speed(sizes: Sizes) -> None:
    """Labels to polygons, beside the others."""
    others = rivals()
    rows = []
    for name, labels in _rasters(sizes):
        regions = trace_raster(labels, BLOCK)
        trace = partial(trace_raster, labels, BLOCK)
        build = regions.to_shapely
        works = {"rssegment": partial(polygons, labels), "trace": trace, "build": build}
        works |= {each: partial(work, labels) for each, work in others.items()}
        seconds = in_turns(works, sizes.repeats)
        row: list[object] = [name, f"{labels.shape[0]}²", len(regions), len(regions.corners)]
        row += [seconds[each] for each in ("rssegment", "trace", "build")]
        for each in others:
            row += [seconds[each], f"{seconds[each] / seconds['rssegment']:.1f}x"]
        rows.append(row)
    head = ["raster", "side", "regions", "corners", "rssegment s", "its arrays", "its geometries"]
    head += [cell for each in others for cell in (f"{each} s", "ratio")]
    show(f"Labels to shapely polygons, one process, CPU seconds, median of {sizes.repeats}", head, rows)


def _count(path: Path, core: Box) -> int:
    """Polygons of one block alone."""
    labels = np.load(path, mmap_mode="r")[core.slices]
    return len(polygons(np.ascontiguousarray(labels)))


def processes(sizes: Sizes) -> None:
    """Blocks of a raster, one after the other, on one process and on two."""
    cores = os.cpu_count() or 1
    if cores < 2:
        print("\nTwo processes: left out, there is one core here")
        return
    side = sizes.noise // 8
    blocks = [
        Box(row, col, side, side)
        for row in range(0, sizes.noise, side)
        for col in range(0, sizes.noise, side)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for sigma in sizes.sigmas:
            path = Path(folder) / f"{sigma}.npy"
            np.save(path, noise_labels(sizes.noise, sigma))
            seconds = {workers: _spread(path, blocks, workers, sizes.repeats) for workers in (1, 2)}
            rows.append(
                (f"noise, sigma {sigma:g}", seconds[1], seconds[2], f"{seconds[1] / seconds[2]:.2f}x")
            )
    title = (
        f"{len(blocks)} blocks of {side}² px to polygons, each alone, wall seconds, median of {sizes.repeats}"
    )
    show(title, ["raster", "one process s", "two processes s", "ratio"], rows)


def _spread(path: Path, blocks: list[Box], workers: int, repeats: int) -> float:
    """Seconds for all blocks once; done several times over where that takes less than a second."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:

        def once(rounds: int) -> float:
            begin = time.perf_counter()
            pool.map(partial(_count, path), blocks * rounds, chunksize=1)
            return (time.perf_counter() - begin) / rounds

        once(1)  # kernels loaded
        rounds = 1 + int(1 / once(1))
        return statistics.median(once(rounds) for _ in range(repeats))


def simplification(sizes: Sizes) -> None:
    """All chains of rasters of one block, from few vertices to many."""
    rows = []
    for wanted in sizes.vertices:
        labels = noise_labels(int(np.sqrt(wanted / VERTICES_PER_PIXEL)), 4.0)
        trace = trace_block(labels, Box.of(labels.shape))
        chains = Chains(trace.nodes, trace.ends, trace.sides, trace.offsets, trace.vertices)
        pixels = np.append(trace.sums[:, 0], 0)[trace.sides]
        corners = np.concatenate([trace.nodes, trace.vertices])
        works = {
            method: partial(
                simplified, chains, pixels, partial(_all, corners), Simplification(1.5, method), trace.core
            )
            for method in ("vw", "dp")
        }
        count = len(corners)
        if count <= 1.1 * sizes.coverage_vertices:
            works["coverage"] = partial(shapely.coverage_simplify, polygons(labels), 1.5)
        seconds = in_turns(works, sizes.repeats)
        rates = [
            f"{count / seconds[name] / 1e6:.2f}" if name in seconds else "-"
            for name in ("vw", "dp", "coverage")
        ]
        rows.append((f"{count:,}", len(chains), *rates))
    title = f"Simplification by 1.5 px, million vertices a CPU second, median of {sizes.repeats}"
    show(
        title,
        ["vertices", "chains", "Visvalingam-Whyatt", "Douglas-Peucker", "shapely.coverage_simplify"],
        rows,
    )


def _all(corners: NDArray[np.int32], _: object) -> list[NDArray[np.int32]]:
    return [corners]


VERTICES_PER_PIXEL = 0.147  # of noise with sigma 4

_VECTORIZE = """
import sys, time
import rssegment as rs
begin = time.perf_counter()
result = rs.vectorize(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - begin
try:
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, int(peak) / 1024)
"""


def memory(sizes: Sizes) -> None:
    """Peak memory of ``vectorize``, each in a fresh process, of the Cropland Data Layer tiled."""
    source = cropland_path()
    if source is None:
        print("\nMemory: left out, no real data; set RSSEGMENT_DATA")
        return
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".geojson", ".parquet", ".fgb"):
            first = 0.0
            for side in sizes.memory:
                raster, out = (
                    tiled(source, side, Path(folder) / f"{side}.vrt"),
                    Path(folder) / f"{side}{suffix}",
                )
                done = subprocess.run(
                    [sys.executable, "-c", _VECTORIZE, str(raster), str(out)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    print(f"\nMemory: vectorize of {side}² px failed: {done.stderr.strip().splitlines()[-1]}")
                    return
                seconds, peak = map(float, done.stdout.split()[-2:])
                first = first or peak
                size = f"{out.stat().st_size / 1e6:.1f}"
                rows.append((suffix, f"{side}²", peak, f"{peak / first:.2f}x", seconds, size))
    show(
        "vectorize, a fresh process each",
        ["format", "raster", "peak MB", "to the first", "s", "file MB"],
        rows,
    )


SECTIONS = {"speed": speed, "processes": processes, "simplification": simplification, "memory": memory}


def main(arguments: list[str] | None = None) -> None:
    """Runs the sections asked for."""
    parser = argparse.ArgumentParser(prog="bench_vectors", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds together")
    parser.add_argument(
        "--only", choices=sorted(SECTIONS), action="append", help="a section; may be repeated"
    )
    parser.add_argument("--repeats", type=int, help="how often each is done")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    if options.repeats:
        sizes = replace(sizes, repeats=options.repeats)
    for name, section in SECTIONS.items():
        if not options.only or name in options.only:
            section(sizes)


if __name__ == "__main__":
    main()
