"""Results of one task for many boxes, in their order: on threads of this process, or on a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import psutil

from rssegment.errors import RssegmentError, RunError
from rssegment.grid import Box
from rssegment.run.cores import cores
from rssegment.run.side_by_side import _lost, _patient

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["on_cluster", "on_threads"]

Value = TypeVar("Value")
Task = Callable[[Box], Value]


def on_threads(task: Task[Value], boxes: Iterable[Box], memory: int) -> Iterator[Value]:
    """What ``task`` gives for each box; ``memory`` (bytes) is what one call needs.

    As many at a time as there are cores, and as fit into half of the free memory.
    """
    workers = max(1, min(cores(), psutil.virtual_memory().available // (2 * max(1, memory))))
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        yield from _in_order(
            lambda box: pool.submit(task, box), boxes, 2 * workers, lambda future: future.result()
        )


def on_cluster(client: Client, task: Task[Value], boxes: Iterable[Box]) -> Iterator[Value]:
    """The same on the workers of a Dask cluster that see the same files: the task is sent to each once.

    Raises
    ------
    RunError
        Workers or the scheduler went away.
    SettingsError
        There is no worker, or the client is not connected.
    """
    from rssegment.run.cluster import measure

    size = measure(client)
    run = uuid4().hex[:8]
    try:
        sent = client.submit(_given, task, key=f"evaluate-task-{run}", pure=False)

        def submit(box: Box) -> Any:
            return client.submit(_call, sent, box, key=f"evaluate-{run}-{box.row}-{box.col}", pure=False)

        def wait(future: Any) -> Value:
            _patient(client, future)
            value: Value = future.result()
            return value

        yield from _in_order(submit, boxes, 2 * size.workers * size.threads, wait)
    except Exception as error:
        if isinstance(error, RssegmentError) or (
            client.status == "running" and not isinstance(error, _lost())
        ):
            raise
        raise RunError(
            f"the Dask cluster lost the evaluation ({type(error).__name__}: {error}); see to its workers and "
            "scheduler, then run again"
        ) from error


def _given(task: Task[Value]) -> Task[Value]:
    """The task itself, as a result that Dask keeps on its workers, and makes again where it was lost."""
    return task


def _call(task: Task[Value], box: Box) -> Value:
    return task(box)


def _in_order(
    submit: Callable[[Box], Any], boxes: Iterable[Box], at_once: int, wait: Callable[[Any], Value]
) -> Iterator[Value]:
    """Results in the order of ``boxes``, with ``at_once`` submitted at any time."""
    waiting: deque[Any] = deque()
    try:
        for box in boxes:
            waiting.append(submit(box))
            if len(waiting) >= at_once:
                yield wait(waiting.popleft())
        while waiting:
            yield wait(waiting.popleft())
    finally:
        with suppress(Exception):  # what is lost needs no cancelling
            for future in waiting:
                future.cancel()
