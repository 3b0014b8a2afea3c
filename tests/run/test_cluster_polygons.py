"""Polygons on the workers of a Dask cluster: the same bytes as on threads, and plain errors where it goes away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, Scheduler, SpecCluster

import rssegment as rs
from rssegment.errors import InputError, RunError, SettingsError
from rssegment.run import side_by_side
from rssegment.run.cluster import local_cluster
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import smooth_noise
from tests.run.test_polygons import CHOICES, Landscape, contents, paths_of, run, write_labels


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    return Landscape(tmp_path_factory.mktemp("landscape"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """Two worker processes."""
    with local_cluster(2, 1, 4 << 30) as client:
        assert len(set(client.run(os.getpid).values()) | {os.getpid()}) == 3
        yield client


@pytest.fixture
def deserted() -> Iterator[Client]:
    """A scheduler that no worker has come to."""
    options = {"host": "127.0.0.1", "dashboard_address": ":0"}
    with (
        SpecCluster(scheduler={"cls": Scheduler, "options": options}, workers={}) as known,
        Client(known) as client,
    ):
        yield client


@pytest.mark.parametrize("name", CHOICES)
def test_two_processes_write_the_bytes_of_threads(
    landscape: Landscape, tmp_path: Path, cluster: Client, name: str
) -> None:
    """In all formats, with all options, and whether the client or its address is given."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    alone = run(landscape, paths_of(here), CHOICES[name], block=64)
    client = cluster.scheduler.address if name == "plain" else cluster
    both = run(landscape, paths_of(there), CHOICES[name], block=37, client=client)
    assert contents(there) == contents(here)
    assert both.counts == alone.counts


def test_a_task_that_fails_is_told_as_it_is_on_threads(
    landscape: Landscape, tmp_path: Path, cluster: Client
) -> None:
    lacking = Taxonomy.loads("name: t\nclasses: [{code: 1, name: field, color: '#E0C040'}]")
    for client in (None, cluster):
        with pytest.raises(InputError, match="taxonomy 't' lacks"):
            rs.vectorize(landscape.path, tmp_path / "r.gpkg", taxonomy=lacking, block=64, client=client)
        assert not list(tmp_path.iterdir())


def test_a_scheduler_without_workers(landscape: Landscape, tmp_path: Path, deserted: Client) -> None:
    for client in (deserted, deserted.scheduler.address):
        with pytest.raises(SettingsError, match="has no worker; start some"):
            run(landscape, paths_of(tmp_path), {}, client=client)
    with pytest.raises(SettingsError, match="no Dask scheduler answers"):
        run(landscape, paths_of(tmp_path), {}, client="not-an-address://")
    assert not list(tmp_path.iterdir())


def test_a_client_that_was_closed(landscape: Landscape, tmp_path: Path, deserted: Client) -> None:
    deserted.close()
    with pytest.raises(SettingsError, match="client is closed"):
        run(landscape, paths_of(tmp_path), {}, client=deserted)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels in some dozens of blocks."""
    fields = np.stack([smooth_noise((500, 500), seed, 1.5) for seed in range(4)])
    return write_labels(tmp_path_factory.mktemp("large") / "l.tif", fields.argmax(0).astype("uint8"))


def at_once(stage: str, action: Callable[[], object]) -> Callable[[str, int, int, int], None]:
    """Progress that does ``action`` when a first block of ``stage`` is done."""
    left = [action]

    def progress(name: str, done: int, total: int, pixels: int) -> None:
        if name == stage and left:
            left.pop()()

    return progress


OPTIONS: dict[str, Any] = {"min_area": "9px", "simplify": "1px", "block": 64}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["trace", "clean", "simplify"])
def test_a_worker_that_is_killed_costs_nothing(
    large: Path, tmp_path: Path, cluster: Client, stage: str
) -> None:
    """Its work, and the task that it was given, go to another; a new worker takes its place."""
    rs.vectorize(large, tmp_path / "a.geojson", **OPTIONS)
    victims = list(cluster.run(os.getpid).values())
    dead: list[int] = []

    def kill() -> None:
        for pid in victims if stage == "clean" else victims[:1]:
            os.kill(pid, signal.SIGKILL)
            dead.append(pid)

    rs.vectorize(large, tmp_path / "b.geojson", client=cluster, progress=at_once(stage, kill), **OPTIONS)
    assert dead
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()
    cluster.wait_for_workers(2, timeout=60)


def ids() -> tuple[int, int]:
    return os.getppid(), os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["trace", "simplify"])
def test_workers_that_go_for_good(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """No one waits for them for ever."""
    monkeypatch.setattr(side_by_side, "POLL", 0.2)
    monkeypatch.setattr(side_by_side, "PATIENCE", 1.0)
    with local_cluster(1, 1, 2 << 30) as client:
        ((nanny, worker),) = client.run(ids).values()
        assert nanny != os.getpid()

        def kill() -> None:
            os.kill(nanny, signal.SIGKILL)  # who would start another worker
            os.kill(worker, signal.SIGKILL)

        with pytest.raises(RunError, match=r"lost the work on polygons .*no worker has been there"):
            rs.vectorize(large, tmp_path / "r.shp", client=client, progress=at_once(stage, kill), **OPTIONS)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_scheduler_that_goes(large: Path, tmp_path: Path) -> None:
    with local_cluster(1, 1, 2 << 30) as client:
        assert client.cluster is not None
        with pytest.raises(RunError, match="lost the work on polygons"):
            rs.vectorize(
                large,
                tmp_path / "r.shp",
                client=client,
                progress=at_once("trace", client.cluster.close),
                **OPTIONS,
            )
    assert not list(tmp_path.iterdir())
