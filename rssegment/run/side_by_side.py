"""The same task for many nodes of a tree, side by side: on threads of this process, or on a Dask cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rssegment.vector.tree import Node

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Each", "on_cluster", "threads"]

Task = Callable[[Node], None]
Each = Callable[[Task, Iterable[Node]], Iterator[Node]]
"""Calls a task for every node, side by side; gives the nodes as they are done, and raises what a task raised."""


@contextmanager
def threads(count: int | None = None) -> Iterator[Each]:
    """Threads of this process: the kernels release the interpreter's lock."""
    workers = count or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="polygons") as pool:
        yield lambda task, nodes: _bounded(lambda node: pool.submit(task, node), nodes, 2 * workers)


def on_cluster(client: Client) -> Each:
    """Workers of a Dask cluster that see the same files: the task is sent once, then only nodes travel."""

    def each(task: Task, nodes: Iterable[Node]) -> Iterator[Node]:
        run = uuid4().hex[:8]
        shared = client.scatter([task], broadcast=True, hash=False)[0]

        def submit(node: Node) -> Any:
            return client.submit(_call, shared, node, key=f"polygons-{run}-{node}", pure=False)

        return _bounded(submit, nodes, 2 * max(1, sum(client.nthreads().values())))

    return each


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
