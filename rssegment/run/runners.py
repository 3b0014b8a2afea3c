"""Two ways to work through blocks: in this process, or on a Dask cluster. Results come as they are done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from distributed import Client, as_completed, get_worker

from rssegment.errors import InputError, StorageError
from rssegment.grid import Block
from rssegment.predict import forward_workers, set_forward_workers
from rssegment.run.planning import Plan
from rssegment.run.store import BlockResult

__all__ = ["Outcome", "run_on_cluster", "run_serial"]

Outcome = tuple[Block, BlockResult | Exception]
Task = Callable[[Plan, Block], BlockResult]

# A retry can't cure these.
FINAL = (InputError, StorageError)


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
    queue = iter(blocks)
    running: dict[str, Block] = {}

    def submit(count: int) -> list[Any]:
        futures = []
        for block in islice(queue, count):
            key = f"block-{plan.fingerprint[:8]}-{block.name}"
            futures.append(client.submit(_on_worker, task, plan, block, forward, key=key, pure=False))
            running[key] = block
        return futures

    finished = as_completed(submit(_slots(client, plan)))
    try:
        for future in finished:
            block = running.pop(future.key)
            outcome = _outcome(future)
            future.release()
            # workers may come and go: fill up to what there is now
            finished.update(submit(max(0, _slots(client, plan) - len(running))))
            yield block, outcome
    finally:
        client.cancel(list(finished.futures), force=True)


def _slots(client: Client, plan: Plan) -> int:
    """Blocks to have submitted: those in work on every thread, and one more each to follow at once."""
    workers = max(1, len(client.nthreads()))
    return workers * (plan.settings.in_flight + 1)


def _on_worker(task: Task, plan: Plan, block: Block, forward: int | None) -> BlockResult:
    count = forward or get_worker().state.nthreads
    if forward_workers() != count:
        set_forward_workers(count)
    return _attempt(task, plan, block)


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
    error = future.exception()
    if error is None:
        result: BlockResult = future.result()
        return result
    if not isinstance(error, Exception):
        raise error
    return error
