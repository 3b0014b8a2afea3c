"""How much memory a block needs, and what block size and number of workers follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rssegment.config import Settings
from rssegment.errors import PlanError
from rssegment.model import ModelSpec
from rssegment.run.cores import cores

__all__ = ["Cluster", "Demand", "Resources", "choose", "forward_share"]

BLOCK_SIZES = (8192, 4096, 2048, 1024, 512)
# A process before it holds any block: Python, torch, numba and GDAL's cache.
PROCESS_BYTES = 900 << 20
# Activations alive at once in a forward pass, per pixel of a batch.
ACTIVATION_BYTES = 1024
# Per pixel of a core: label, confidence, region number and their copies while they are traced and encoded.
CORE_BYTES = 24
# And of each further raster, with its encoded copy.
RASTER_BYTES = 3
# Forward passes run on threads of one process; beyond this many they begin to wait for the interpreter's lock.
CORES_PER_WORKER = 4
# Below this many pixels, starting processes takes longer than it saves.
SMALL_SCENE = 4_000_000


@dataclass(frozen=True)
class Resources:
    """What a run may use: ``block`` px, ``workers`` processes (0: this one), ``memory`` bytes in all."""

    block: int
    workers: int
    memory: int
    bytes_per_worker: int


@dataclass(frozen=True)
class Cluster:
    """What there is already: ``workers`` processes of ``threads`` each, ``memory`` bytes in all (0: unknown)."""

    workers: int
    threads: int
    memory: int


@dataclass(frozen=True)
class Demand:
    """What decides the memory of a block: the model and its ``leaves``, the batch, the size of a model pixel in output
    pixels, and how many ``rasters`` there will be.

    ``threads`` is the number of forward passes that a worker runs side by side, 0 for its share of this machine.
    """

    spec: ModelSpec
    leaves: int
    rasters: int
    batch: int
    factor: tuple[float, float]
    in_flight: int
    on_cpu: bool
    threads: int = 0

    def bytes_for(self, block: int, workers: int) -> int:
        """Peak bytes of one of ``workers`` processes, with ``in_flight`` blocks of ``block`` px."""
        patch, bands, classes = self.spec.patch, len(self.spec.bands), self.leaves
        width = math.ceil(block / self.factor[1]) + 2 * patch
        strip = patch * width * 4 * (2 * bands + 2 * classes)
        # resampled strips are in output pixels, one lattice row of model pixels at a time
        resampled = (
            math.ceil(patch * self.factor[0]) * block * 4 * classes if self.factor != (1.0, 1.0) else 0
        )
        one = strip + resampled + block * block * (CORE_BYTES + RASTER_BYTES * max(0, self.rasters - 2))
        passes = (self.threads or forward_share(workers)) if self.on_cpu else 1
        # each pass's activations, and the input batches that wait for it
        forward = passes * self.batch * patch * patch * (ACTIVATION_BYTES + 8 * bands * self.in_flight)
        return PROCESS_BYTES + forward + self.in_flight * one


def choose(
    settings: Settings, demand: Demand, shape: tuple[int, int], device: str, cluster: Cluster | None
) -> Resources:
    """Fills in the block size and number of workers that ``settings`` leave open.

    ``cluster`` is one that exists already. Large blocks repeat less work at their
    edges; every worker should still get several.

    Raises
    ------
    PlanError
        A block needs more memory than there is, with the size that fits.
    """
    memory = settings.memory or (cluster and cluster.memory) or memory_limit()
    count = cluster.workers if cluster else _workers(settings, demand, shape, device, memory)
    share = memory // max(1, count)
    fitting = [size for size in BLOCK_SIZES if demand.bytes_for(size, count) <= share]
    block = settings.block if settings.block != "auto" else _block(fitting, shape, count)
    need = demand.bytes_for(block or BLOCK_SIZES[-1], count)
    if not block or need > share:
        fewer = "give each more memory, or put fewer blocks in flight at once (in_flight in --settings)"
        cure = f"use --block {fitting[0]}" if fitting else fewer
        raise PlanError(
            f"a worker needs {need / 1e9:.1f} GB for blocks of {block or BLOCK_SIZES[-1]} px, "
            f"{settings.in_flight} at a time, and there are {share / 1e9:.1f} GB for each of {max(1, count)}; {cure}"
        )
    return Resources(block, count, memory, need)


def memory_limit() -> int:
    """Bytes this process may use: the machine's free memory, or less where a container allows less."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return int(min(MEMORY_LIMIT, psutil.virtual_memory().available) * 0.9)


def forward_share(workers: int) -> int:
    """Forward passes that each of ``workers`` processes on one machine may run side by side on the CPU."""
    return max(1, cores() // max(1, workers))


def _workers(settings: Settings, demand: Demand, shape: tuple[int, int], device: str, memory: int) -> int:
    if settings.workers != "auto":
        return settings.workers
    if device != "cpu" or math.prod(shape) < SMALL_SCENE:
        return 0
    count = math.ceil(cores() / CORES_PER_WORKER)
    count = min(count, memory // demand.bytes_for(2048, count))
    return count if count > 1 else 0  # one process more would only cost its start


def _block(fitting: list[int], shape: tuple[int, int], workers: int) -> int | None:
    """The largest size that fits and gives every worker two blocks and the run four, so that reading and tracing go
    on beside prediction; else the smallest worth its edges.
    """
    smallest = 1024 if workers else 2048
    for size in fitting:
        blocks = math.ceil(shape[0] / size) * math.ceil(shape[1] / size)
        if blocks >= max(4, 2 * workers) or size <= smallest:
            return max(16, min(size, max(shape)))
    return None
