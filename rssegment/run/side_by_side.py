"""The same task for many nodes of a tree, side by side: on threads of this process, or on a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil

from rssegment.errors import RunError
from rssegment.run.cores import cores
from rssegment.vector.tree import Node

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Each", "on_cluster", "threads"]

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
    """

    def each(task: Task, nodes: Iterable[Node]) -> Iterator[Node]:
        from rssegment.run.cluster import measure

        size = measure(client)
        run, sent = (
            uuid4().hex[:8],
            client.submit(_given, task, key=f"polygons-task-{uuid4().hex[:8]}", pure=False),
        )

        def submit(node: Node) -> Any:
            return client.submit(_call, sent, node, key=f"polygons-{run}-{node}", pure=False)

        try:
            yield from _bounded(submit, nodes, 2 * size.workers * size.threads)
        except _lost() as error:
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


def _bounded(submit: Callable[[Node], Any], nodes: Iterable[Node], at_once: int) -> Iterator[Node]:
    """Nodes in their order, once they are done, with ``at_once`` submitted at any time."""
    waiting: deque[tuple[Node, Any]] = deque()
    try:
        for node in nodes:
            waiting.append((node, submit(node)))
            if len(waiting) >= at_once:
                yield _done(waiting)
        while waiting:
            yield _done(waiting)
    finally:
        for _, future in waiting:
            future.cancel()


def _done(waiting: deque[tuple[Node, Any]]) -> Node:
    node, future = waiting[0]
    future.result()
    waiting.popleft()
    return node
