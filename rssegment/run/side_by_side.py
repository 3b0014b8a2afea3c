"""The same task for many items, side by side: on threads of this process, or on a Dask cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

import psutil

from rssegment.errors import RssegmentError, RunError
from rssegment.run.cores import cores

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Each", "on_cluster", "threads", "workers"]

POLL, PATIENCE = 5.0, 60.0  # s: between looks at the workers, and to go on without any
PIXEL_BYTES = 64  # of a block while it is traced, cleaned or simplified; rough noise takes twice as much

Item = TypeVar("Item")
Value = TypeVar("Value")


class Each(Protocol):
    """Calls a task for every item, side by side, and gives what each came to, in the items' order.

    Raises what a task raised.
    """

    def __call__(
        self, task: Callable[[Item], Value], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Value]]: ...


@contextmanager
def workers(
    client: Client | str | None, work: str, pixels: int, pixel_bytes: int = PIXEL_BYTES
) -> Iterator[Each]:
    """Threads of this process, or the workers of a cluster, where a ``client`` or a scheduler's address names one.

    ``work`` is what they do, for messages; a task is about ``pixels``, and needs ``pixel_bytes`` for each.
    """
    if client is None:
        with threads(pixels, pixel_bytes) as each:
            yield each
        return
    from rssegment.run.cluster import connect

    with connect(client) if isinstance(client, str) else nullcontext(client) as connected:
        yield on_cluster(connected, work)


@contextmanager
def threads(pixels: int, pixel_bytes: int = PIXEL_BYTES) -> Iterator[Each]:
    """Threads of this process, for tasks of ``pixels`` each: the kernels release the interpreter's lock."""
    count = max(1, min(cores(), int(psutil.virtual_memory().available // (2 * pixels * pixel_bytes))))
    with ThreadPoolExecutor(count, thread_name_prefix="side-by-side") as pool:

        def each(task: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, Value]]:
            return _bounded(lambda item: pool.submit(task, item), items, 2 * count)

        yield each


def on_cluster(client: Client, work: str) -> Each:
    """Workers of a Dask cluster that see the same files: a task is sent to each once, then only items travel.

    What becomes of lost workers and schedulers is told as RunError, naming the ``work``.

    Raises
    ------
    SettingsError
        It has no worker, or is not connected.
    """
    from rssegment.run.cluster import measure

    size = measure(client)

    def each(task: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, Value]]:
        run = uuid4().hex[:8]
        try:
            sent = client.submit(_given, task, key=f"{work}-task-{run}", pure=False)

            def submit(item: Item) -> Any:
                return client.submit(_call, sent, item, key=f"{work}-{run}-{item}", pure=False)

            yield from _bounded(
                submit, items, 2 * size.workers * size.threads, lambda each: _patient(client, each)
            )
        except Exception as error:
            if isinstance(error, RssegmentError) or (
                client.status == "running" and not isinstance(error, _lost())
            ):
                raise
            raise RunError(
                f"the Dask cluster lost the work on {work} ({type(error).__name__}: {error}); see to its workers and "
                "scheduler, then run again"
            ) from error

    return each


def _lost() -> tuple[type[BaseException], ...]:
    """What a client meets when workers or the scheduler went away."""
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    return KilledWorker, NoValidWorkerError, CancelledError, TimeoutError, OSError


def _given(task: Callable[[Item], Value]) -> Callable[[Item], Value]:
    """The task itself, as a result that Dask keeps on its workers, and makes again where it was lost."""
    return task


def _call(task: Callable[[Item], Value], item: Item) -> Value:
    return task(item)


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
    submit: Callable[[Item], Any],
    items: Iterable[Item],
    at_once: int,
    wait: Callable[[Any], Any] = lambda future: future.result(),
) -> Iterator[tuple[Item, Any]]:
    """Items in their order with what they came to, once they are done, with ``at_once`` submitted at any time."""
    waiting: deque[tuple[Item, Any]] = deque()
    try:
        for item in items:
            waiting.append((item, submit(item)))
            if len(waiting) >= at_once:
                yield _done(waiting, wait)
        while waiting:
            yield _done(waiting, wait)
    finally:
        with suppress(Exception):  # what is lost needs no cancelling
            for _, future in waiting:
                future.cancel()


def _done(waiting: deque[tuple[Item, Any]], wait: Callable[[Any], Any]) -> tuple[Item, Any]:
    item, future = waiting[0]
    value = wait(future)
    waiting.popleft()
    return item, value
