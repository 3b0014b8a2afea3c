"""Two ways to work through blocks: in this process, or on a Dask cluster. Results come as they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from threading import BoundedSemaphore
from typing import Any
from uuid import uuid4

from distributed import Client, get_worker
from distributed import wait as wait_for_any

from rssegment.errors import InputError, RunError, StorageError
from rssegment.grid import Block
from rssegment.predict import forward_workers, set_forward_workers
from rssegment.run.planning import Plan
from rssegment.run.store import BlockResult

__all__ = ["Outcome", "run_on_cluster", "run_serial"]

Outcome = tuple[Block, BlockResult | Exception]
Task = Callable[[Plan, Block], BlockResult]

# A retry can't cure these.
FINAL = (InputError, StorageError)
# What a client meets when its scheduler went away.
LOST = (CancelledError, OSError)
POLL, PATIENCE = 5.0, 60.0  # s: between looks at the workers, and to go on without any


def run_serial(task: Task, plan: Plan, blocks: Iterable[Block]) -> Generator[Outcome, None, None]:
    """Works through ``blocks`` in this process, ``in_flight`` at a time on threads: while one holds the device lease,
    the others read and trace.
    """
    queue = iter(blocks)
    with ThreadPoolExecutor(plan.settings.in_flight, thread_name_prefix="block") as pool:
        running: dict[Future[BlockResult], Block] = {}
        try:
            while True:
                for block in islice(queue, plan.settings.in_flight - len(running)):
                    running[pool.submit(_attempt, task, plan, block)] = block
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda each: running[each]):
                    yield running.pop(future), _outcome(future)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_on_cluster(
    client: Client, task: Task, plan: Plan, blocks: Iterable[Block], forward: int | None = None
) -> Generator[Outcome, None, None]:
    """Works through ``blocks`` on the workers of ``client``, with a bounded number submitted at any time.

    ``forward`` is the number of forward passes that a worker may run side by side on its CPU; by default as many as
    it has threads. Only the plan, block names and small results travel; a worker that is lost costs the blocks it
    held, which Dask gives to another.
    """
    queue, run = iter(blocks), uuid4().hex[:8]
    running: dict[Any, Block] = {}
    seen = time.monotonic()
    try:
        while True:
            workers = _workers(client)
            # in_flight in work on every worker, and one more each to follow at once
            slots = max(1, workers) * (plan.settings.in_flight + 1)
            for block in islice(queue, max(0, slots - len(running))):
                key = f"block-{run}-{block.name}"
                future = client.submit(_on_worker, task, plan, block, forward, key=key, pure=False)
                running[future] = block
            if not running:
                return
            if workers:
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE:
                raise RunError(
                    "no Dask worker has been there for a minute; start some, then run again with --resume"
                )
            for future in _finished(list(running)):
                yield running.pop(future), _outcome(future)
                future.release()
    except LOST as error:
        raise RunError(
            f"the Dask scheduler is gone ({error}); start it, then run again with --resume"
        ) from error
    finally:
        with suppress(Exception):  # what is lost needs no cancelling
            client.cancel(list(running), force=True)


def _finished(futures: list[Any]) -> list[Any]:
    """Those that are done, in the order given; none if none is done within a while."""
    try:
        done = wait_for_any(futures, timeout=POLL, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return []
    return [future for future in futures if future in done]


def _workers(client: Client) -> int:
    """Number of workers there are now."""
    try:
        return len(client.nthreads())
    except AttributeError as error:  # the client has closed itself
        raise CancelledError("the connection was lost") from error


def _on_worker(task: Task, plan: Plan, block: Block, forward: int | None) -> BlockResult:
    count = forward or get_worker().state.nthreads
    if forward_workers() != count:
        set_forward_workers(count)
    with _in_flight(plan.settings.in_flight):
        return _attempt(task, plan, block)


@lru_cache(maxsize=8)
def _in_flight(limit: int) -> BoundedSemaphore:
    """At most ``limit`` blocks at once in this process, however many threads the worker has."""
    return BoundedSemaphore(limit)


def _attempt(task: Task, plan: Plan, block: Block) -> BlockResult:
    """Runs ``task``, again after a failure that may pass, ``retries`` times at most."""
    for _ in range(plan.settings.retries):
        try:
            return task(plan, block)
        except FINAL:
            raise
        except Exception:  # noqa: BLE001  # whatever went wrong: the last attempt below tells
            continue
    return task(plan, block)


def _outcome(future: Any) -> BlockResult | Exception:
    if future.cancelled():
        raise CancelledError("its work was cancelled")
    error = future.exception()
    if error is None:
        result: BlockResult = future.result()
        return result
    if not isinstance(error, Exception):
        raise error
    return error
