"""The same task for many nodes of a tree, side by side: on threads of this process, or on a Dask cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from rssegment.errors import RssegmentError, RunError
from rssegment.run.cores import cores
from rssegment.vector.tree import Node

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Each", "on_cluster", "threads"]

POLL, PATIENCE = 5.0, 60.0  # s: between looks at the workers, and to go on without any
PIXEL_BYTES = 64  # of a block while it is traced, cleaned or simplified; rough noise takes twice as much

Task = Callable[[Node], None]
Each = Callable[[Task, Iterable[Node]], Iterator[Node]]
"""Calls a task for every node, side by side; gives the nodes as they are done, and raises what a task raised."""


@contextmanager
def threads(pixels: int) -> Iterator[Each]:
    """Threads of this process, for blocks of ``pixels``: the kernels release the interpreter's lock."""
    workers = max(1, min(cores(), int(psutil.virtual_memory().available // (2 * pixels * PIXEL_BYTES))))
    with ThreadPoolExecutor(workers, thread_name_prefix="polygons") as pool:
        yield lambda task, nodes: _bounded(lambda node: pool.submit(task, node), nodes, 2 * workers)


def on_cluster(client: Client) -> Each:
    """Workers of a Dask cluster that see the same files: a task is sent to each once, then only nodes travel.

    What becomes of lost workers and schedulers is told as RunError.

    Raises
    ------
    SettingsError
        It has no worker, or is not connected.
    """
    from rssegment.run.cluster import measure

    size = measure(client)

    def each(task: Task, nodes: Iterable[Node]) -> Iterator[Node]:
        run = uuid4().hex[:8]
        try:
            sent = client.submit(_given, task, key=f"polygons-task-{run}", pure=False)

            def submit(node: Node) -> Any:
                return client.submit(_call, sent, node, key=f"polygons-{run}-{node}", pure=False)

            yield from _bounded(
                submit, nodes, 2 * size.workers * size.threads, lambda each: _patient(client, each)
            )
        except Exception as error:
            if isinstance(error, RssegmentError) or (
                client.status == "running" and not isinstance(error, _lost())
            ):
                raise
            raise RunError(
                f"the Dask cluster lost the work on polygons ({type(error).__name__}: {error}); see to its workers and "
                "scheduler, then run again"
            ) from error

    return each


def _lost() -> tuple[type[BaseException], ...]:
    """What a client meets when workers or the scheduler went away."""
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    return KilledWorker, NoValidWorkerError, CancelledError, TimeoutError, OSError


def _given(task: Task) -> Task:
    """The task itself, as a result that Dask keeps on its workers, and makes again where it was lost."""
    return task


def _call(task: Task, node: Node) -> None:
    task(node)


def _patient(client: Client, future: Any) -> object:
    """Waits for ``future``: for ever while there are workers, and for a while without."""
    seen = time.monotonic()
    while True:
        try:
            return future.result(timeout=POLL)
        except TimeoutError:
            if future.status == "error":  # the task's own
                raise
            if client.nthreads():
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE:
                raise TimeoutError(f"no worker has been there for {PATIENCE:g} s") from None


def _bounded(
    submit: Callable[[Node], Any],
    nodes: Iterable[Node],
    at_once: int,
    wait: Callable[[Any], object] = lambda future: future.result(),
) -> Iterator[Node]:
    """Nodes in their order, once they are done, with ``at_once`` submitted at any time."""
    waiting: deque[tuple[Node, Any]] = deque()
    try:
        for node in nodes:
            waiting.append((node, submit(node)))
            if len(waiting) >= at_once:
                yield _done(waiting, wait)
        while waiting:
            yield _done(waiting, wait)
    finally:
        with suppress(Exception):  # what is lost needs no cancelling
            for _, future in waiting:
                future.cancel()


def _done(waiting: deque[tuple[Node, Any]], wait: Callable[[Any], object]) -> Node:
    node, future = waiting[0]
    wait(future)
    waiting.popleft()
    return node
