"""From a scene to class maps and polygons: plan, run the blocks, make the products."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from distributed import Client

from rssegment.config import Settings
from rssegment.errors import BlocksFailedError, OutputError, RunError, SceneError, StorageError
from rssegment.grid import Block
from rssegment.model import Bundle
from rssegment.run.block import run_block
from rssegment.run.cluster import connect, local_cluster, measure
from rssegment.run.folder import prepare, remarks
from rssegment.run.planning import Plan, make_plan
from rssegment.run.products import Products, Result, Work, write_products
from rssegment.run.progress import Progress
from rssegment.run.resources import forward_share
from rssegment.run.runners import Outcome, run_on_cluster, run_serial
from rssegment.run.store import BlockResult
from rssegment.scene import Scene

__all__ = ["plan", "segment"]

Source = str | Path | Sequence[str | Path]

SECONDS_BETWEEN_VRTS = 20.0


def plan(
    source: Source,
    model: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    client: Client | str | None = None,
) -> Plan:
    """What :func:`segment` would do with the same arguments, without doing it.

    Raises
    ------
    InputError
        The scene, the model or the settings can't be used, or don't fit each other.
    """
    with _client(client) as cluster:
        job = _planned(source, model, out, settings or Settings(), cluster)
    return replace(job, notes=(*job.notes, *remarks(job)))


def segment(
    source: Source,
    model: str | Path,
    out: str | Path,
    *,
    settings: Settings | None = None,
    client: Client | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_work: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Segments the scene ``source`` with ``model`` into the folder ``out``.

    ``source`` is any raster that GDAL reads, by path or URL, or several on one grid; ``model`` is a bundle's folder or
    the name of one that rssegment comes with. ``client`` is a ``distributed.Client``, or the address of a scheduler;
    without it, this process or workers of its own do the work, as ``settings.workers`` says. ``overwrite`` replaces an
    earlier run in ``out``; ``resume`` goes on with one that was interrupted.

    Returns
    -------
    Result
        Paths, counts and timings; the same is in ``run.json``.

    Raises
    ------
    InputError
        Something about the input can't be used; nothing was run.
    BlocksFailedError
        Some blocks failed; what could be made is in ``out``, and ``missing.geojson`` says where it has holes.
    StorageError
        The disk is full. Make room and resume.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    with _client(client) as cluster:
        job = _planned(source, model, out, settings or Settings(), cluster)
        job, finished = prepare(job, overwrite, resume)
        if finished is not None:
            return finished
        work = _run(job, cluster, progress)
        _refuse_changed(job)
        result = write_products(Products(job, work, started, clock, cluster), progress)
    if work.failed:
        raise BlocksFailedError(
            _failure_message(work), [(block.name, reason) for block, reason in work.failed]
        )
    if not keep_work:
        shutil.rmtree(job.work, ignore_errors=True)
    return result


@contextmanager
def _client(client: Client | str | None) -> Iterator[Client | None]:
    with connect(client) if isinstance(client, str) else nullcontext(client) as connected:
        yield connected


def _planned(
    source: Source, model: str | Path, out: str | Path, settings: Settings, cluster: Client | None
) -> Plan:
    if not str(out).strip():
        raise OutputError("the output folder is empty; name one, as out/scene")
    known = None if cluster is None else measure(cluster)
    return make_plan(Scene.open(source, settings.scene), Bundle.open(model), settings, Path(out), known)


def _refuse_changed(plan: Plan) -> None:
    """Refuses to make a result of a scene that was written to meanwhile: no one could say what it shows."""
    local = {Path(source.path): source.stamp for source in plan.scene.sources if source.stamp}
    same = all(path.is_file() and path.stat().st_mtime_ns == stamp for path, stamp in local.items())
    if not same or plan.scene.fingerprint() != plan.scene_id:
        shutil.rmtree(plan.work, ignore_errors=True)
        raise RunError(
            f"scene {plan.scene.name} was changed or removed while it was segmented; run again with --overwrite"
        )


def _run(plan: Plan, cluster: Client | None, progress: Progress | None) -> Work:
    """Does every block that is not done yet."""
    if cluster is not None:
        return _collect(plan, run_on_cluster(cluster, run_block, plan, plan.blocks), progress)
    resources = plan.resources
    if resources.workers == 0:
        return _collect(plan, run_serial(run_block, plan, plan.blocks), progress)
    with local_cluster(resources.workers, plan.settings.in_flight, resources.memory) as own:
        forward = forward_share(resources.workers)
        return _collect(plan, run_on_cluster(own, run_block, plan, plan.blocks, forward), progress)


def _collect(plan: Plan, outcomes: Generator[Outcome, None, None], progress: Progress | None) -> Work:
    """Gathers outcomes as they come; keeps a VRT of what there is for whoever wants to look meanwhile."""
    done: list[tuple[Block, BlockResult]] = []
    failed: list[tuple[Block, str]] = []
    pixels, last = 0, time.monotonic()
    if progress:
        progress("segment", 0, len(plan.blocks), 0)
    with closing(outcomes):  # whatever happens here, no block is left running
        for block, outcome in outcomes:
            if isinstance(outcome, StorageError):
                raise outcome
            if isinstance(outcome, Exception):
                failed.append((block, f"{type(outcome).__name__}: {outcome}"))
            else:
                done.append((block, outcome))
            pixels += block.core.size
            if progress:
                progress("segment", len(done) + len(failed), len(plan.blocks), pixels)
            if time.monotonic() - last > SECONDS_BETWEEN_VRTS:
                Work.of(done, failed).write_vrts(plan)
                last = time.monotonic()
    return _checked(plan, Work.of(done, failed))


def _checked(plan: Plan, work: Work) -> Work:
    if work.done:
        return work
    if work.failed:
        block, reason = work.failed[0]
        message = f"every block failed, the first ({block.name}) with {reason}; nothing was made of {plan.scene.name}"
        raise BlocksFailedError(message, [(block.name, reason) for block, reason in work.failed])
    shutil.rmtree(plan.work, ignore_errors=True)
    raise SceneError(
        f"every pixel of {plan.scene.name} is no data, so there is nothing to segment; "
        "if its no-data value is wrong, give the right one by --nodata"
    )


def _failure_message(work: Work) -> str:
    names = ", ".join(block.name for block, _ in work.failed[:5]) + (", ..." if len(work.failed) > 5 else "")
    total = len(work.failed) + len(work.done) + len(work.empty)
    return (
        f"{len(work.failed)} of {total} blocks failed and are no data in the output: {names} "
        f"({work.failed[0][1]}); see missing.geojson and run.json, mend the cause, then run again with --resume"
    )
