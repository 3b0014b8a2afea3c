"""A Dask cluster on this machine, or a client of one that runs elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster, Scheduler, SpecCluster
from distributed.deploy.subprocess import SubprocessWorker

from rssegment.errors import SettingsError
from rssegment.run.resources import Cluster

__all__ = ["connect", "local_cluster", "measure"]

START_SECONDS = 120
_QUIET = 40  # logging.ERROR: workers report through their results


@contextmanager
def connect(address: str, timeout: float = 30) -> Iterator[Client]:
    """A client of the scheduler at ``address``, closed at the end; the cluster is left as it is."""
    try:
        client = Client(address, timeout=timeout)
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"no Dask scheduler answers at {address!r} ({error}); expected an address as 'tcp://host:8786' "
            "of a running 'dask scheduler'"
        ) from error
    with client:
        yield client


def measure(client: Client) -> Cluster:
    """The size of a cluster: its workers, the threads of the smallest, and the memory that all have if all are so.

    Raises
    ------
    SettingsError
        It has no worker, or the client is not connected.
    """
    if client.status != "running":
        raise SettingsError(
            f"the Dask client is {client.status}; expected one that is connected, or a scheduler's address"
        )
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise SettingsError("the Dask scheduler has no worker; start some with 'dask worker ADDRESS'")
    memory = min(each["memory_limit"] or 0 for each in workers)
    return Cluster(len(workers), min(each["nthreads"] for each in workers), int(memory * len(workers)))


@contextmanager
def local_cluster(workers: int, threads: int, memory: int) -> Iterator[Client]:
    """A client of ``workers`` new processes on this machine, of ``threads`` each and ``memory`` bytes in all.

    The scheduler lives in this process, so that workers leave by themselves if it is killed. Workers are started as
    programs of their own, so that a caller's script needs no ``if __name__ == "__main__"`` guard.
    """
    limit = max(1, memory // workers)
    with _start(workers, threads, limit) as cluster, Client(cluster) as client:
        client.wait_for_workers(workers, timeout=START_SECONDS)
        yield client


def _start(workers: int, threads: int, limit: int) -> SpecCluster:
    if sys.platform == "win32":
        return LocalCluster(
            n_workers=workers, threads_per_worker=threads, memory_limit=limit, silence_logs=_QUIET
        )
    options: dict[str, Any] = {
        "nthreads": threads,
        "memory_limit": limit,
        "death_timeout": 60,
        "silence_logs": _QUIET,
        "dashboard": False,
    }
    worker = {
        "cls": SubprocessWorker,
        "options": {"worker_class": "distributed.Nanny", "worker_kwargs": options},
    }
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}},
        workers=dict.fromkeys(range(workers), worker),
        silence_logs=_QUIET,
    )
