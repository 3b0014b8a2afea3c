"""The files a run ends with, made from its block parts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from distributed import Client

from rssegment.errors import OutputError
from rssegment.grid import Block, Box
from rssegment.run.json_file import read_json
from rssegment.run.planning import Plan
from rssegment.run.polygons import ClassMap, make_polygons
from rssegment.run.progress import Progress
from rssegment.run.record import remove_replaced
from rssegment.run.regions import pixel_size
from rssegment.run.side_by_side import workers
from rssegment.run.store import RESUME, BlockResult, PartBlocks, Store
from rssegment.write.atomic import hinted, staged, write_bytes
from rssegment.write.geojson import write_geojson
from rssegment.write.rasters import write_cog, write_vrt

__all__ = ["Products", "Result", "Work", "read_result", "write_products"]

LIBRARIES = ("rssegment", "torch", "rasterio", "numpy", "numba", "shapely", "pyproj", "distributed")


@dataclass(frozen=True)
class Result:
    """What a run made: ``status`` ("done", or "partial" where blocks are missing), paths, counts, seconds by stage."""

    status: str
    out: Path
    rasters: dict[str, Path]
    regions: dict[str, Path]
    counts: dict[str, Any]
    seconds: dict[str, float]
    missing: tuple[dict[str, Any], ...] = ()
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """The class map."""
        return self.rasters["labels"]

    @property
    def confidence(self) -> Path:
        return self.rasters["confidence"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "status": self.status,
            "out": str(self.out),
            "rasters": {name: path.name for name, path in self.rasters.items()},
            "regions": {name: path.name for name, path in self.regions.items()},
            "counts": self.counts,
            "seconds": self.seconds,
            "missing": list(self.missing),
            "plan": self.plan,
        }

    def __str__(self) -> str:
        valid, total = self.counts["valid_pixels"], math.prod(self.plan["shape"])

        def layer(row: dict[str, Any]) -> str:
            return f"level {row['level']}  " if self.counts["levels"] else ""

        lines = [
            f"{self.counts['regions']} regions on {valid / 1e6:.2f} of {total / 1e6:.2f} Mpx "
            f"in {self.seconds['total']:.1f} s",
            *(
                f"  {layer(each)}{each['path']:<32} {each['area_m2'] / 1e4:12.2f} ha {each['regions']:8d} regions"
                for each in self.counts["classes"]
                if each["area_m2"] is not None
            ),
            *(f"  note: {note}" for note in self.plan["notes"]),
            *(f"  {path}" for path in (*self.rasters.values(), *self.regions.values())),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Work:
    """Blocks by what became of them, each in the grid's order."""

    done: tuple[tuple[Block, BlockResult], ...]
    empty: tuple[Block, ...]
    failed: tuple[tuple[Block, str], ...]

    @classmethod
    def of(cls, results: Sequence[tuple[Block, BlockResult]], failed: Sequence[tuple[Block, str]]) -> Self:
        done = sorted((each for each in results if each[1].status == "done"), key=lambda each: each[0])
        empty = sorted(block for block, result in results if result.status == "empty")
        return cls(tuple(done), tuple(empty), tuple(sorted(failed, key=lambda each: each[0])))

    @hinted(RESUME)
    def write_vrts(self, plan: Plan) -> dict[str, Path]:
        """Writes a VRT over the parts there are for each raster, as ``labels.vrt``, into the work folder."""
        store, vrts = Store.of(plan), {}
        for name, kind in plan.rasters.items():
            vrts[name] = plan.work / f"{name}.vrt"
            write_vrt(vrts[name], [(store.part(name, b), b.core) for b, _ in self.done], plan.geobox, kind)
        return vrts


@dataclass(frozen=True)
class Products:
    """What the products are made of: the plan, what its blocks came to, and when the run began."""

    plan: Plan
    work: Work
    started: datetime
    clock: float
    client: Client | None = None


@hinted(RESUME)
def write_products(products: Products, progress: Progress | None = None) -> Result:
    """Makes the final rasters, polygons and ``run.json``, each whole or not at all; ``run.json`` comes last.

    Files of the run that is replaced, which this one does not make, are removed: they tell of another map.

    Raises
    ------
    StorageError
        The disk is full; the parts are still there, so that the run can be resumed.
    """
    plan, work, paths = products.plan, products.work, products.plan.products
    steps = _Steps(progress, _stage_seconds(work), len(plan.rasters) + 1)
    for name, vrt in work.write_vrts(plan).items():
        with steps.step(name):
            write_cog(vrt, paths[name], plan.rasters[name])
    write_bytes(paths["taxonomy"], plan.taxonomy.dump().encode())
    with steps.step("regions"):
        counts = _write_polygons(products, progress)
    counts = {"valid_pixels": sum(result.valid_pixels for _, result in work.done), **counts}
    counts["blocks"] = {"done": len(work.done), "empty": len(work.empty), "failed": len(work.failed)}
    seconds = steps.seconds | {"total": round(time.perf_counter() - products.clock, 3)}
    result = Result(
        status="partial" if work.failed else "done",
        out=plan.out,
        rasters={name: paths[name] for name in plan.rasters},
        regions={name: paths[name] for name in plan.settings.formats},
        counts=counts,
        seconds=seconds,
        missing=_write_missing(plan, work),
        plan=plan.describe(),
    )
    # before the record: if this is interrupted, the earlier one is still there to tell what is to go
    remove_replaced(plan.out, set(paths.values()))
    _write_record(products, result)
    return result


def _write_polygons(products: Products, progress: Progress | None) -> dict[str, Any]:
    plan, work = products.plan, products.work
    done = {block.index for block, _ in work.done}
    lost = [block.index for block in plan.blocks if block.index not in done]
    plan.traces.blank((0, *index) for index in lost)
    job = ClassMap(
        PartBlocks(Store.of(plan), plan.blocks, frozenset(lost)), plan.blocks, plan.geobox, plan.legend
    )
    paths: dict[str, Path] = {name: plan.products[name] for name in plan.settings.formats}
    with workers(products.client, "polygons", plan.resources.block**2) as each:
        return make_polygons(job, plan.settings, plan.parts, paths, each, progress=progress, traced=True)


class _Steps:
    """Times the steps and tells of them."""

    def __init__(self, progress: Progress | None, seconds: dict[str, float], total: int) -> None:
        self.seconds = seconds
        self._total = total
        self._progress = progress
        self._done = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if self._progress:
            self._progress("write", self._done, self._total, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self._done += 1
        if self._progress:
            self._progress("write", self._done, self._total, 0)


def _stage_seconds(work: Work) -> dict[str, float]:
    """Seconds by stage, summed over blocks (more than passed on the clock, where blocks ran side by side)."""
    seconds: dict[str, float] = {}
    for _, result in work.done:
        for stage, spent in result.seconds.items():
            seconds[f"blocks_{stage}"] = round(seconds.get(f"blocks_{stage}", 0.0) + spent, 3)
    return seconds


def _write_missing(plan: Plan, work: Work) -> tuple[dict[str, Any], ...]:
    """Says which area is missing: ``missing.geojson``, a rectangle for each failed block with the reason."""
    path = plan.products["missing"]
    if not work.failed:
        path.unlink(missing_ok=True)
        return ()
    corners = [_corners(block.core) for block, _ in work.failed]
    outlines = shapely.polygons([[plan.geobox.affine * (col, row) for row, col in ring] for ring in corners])
    columns = {
        "block": np.array([block.name for block, _ in work.failed], object),
        "reason": np.array([reason for _, reason in work.failed], object),
        "pixels": np.array([block.core.size for block, _ in work.failed]),
    }
    with staged(path) as temporary:
        write_geojson(temporary, [(outlines, columns)], str(plan.geobox.crs), pixel_size(plan.geobox))
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return tuple(dict(zip(columns, row, strict=True)) for row in rows)


def _corners(box: Box) -> list[tuple[int, int]]:
    return [
        (box.row, box.col),
        (box.stop_row, box.col),
        (box.stop_row, box.stop_col),
        (box.row, box.stop_col),
    ]


def _write_record(products: Products, result: Result) -> None:
    facts = {
        "rssegment": version("rssegment"),
        "started": products.started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in LIBRARIES},
        "settings": products.plan.settings.model_dump(mode="json"),
        **result.as_dict(),
    }
    write_bytes(products.plan.products["run"], json.dumps(facts, indent=2).encode())


def read_result(plan: Plan) -> Result | None:
    """The result of an earlier run of this very plan that was complete; None if there is none.

    Raises
    ------
    OutputError
        The folder holds the complete result of another run.
    """
    record = read_json(plan.products["run"])
    if record is None or record.get("status") != "done":
        return None
    if _fingerprint(record) != plan.fingerprint:
        raise OutputError(
            f"{plan.out} holds the result of a run of another scene, model or settings; "
            "use --overwrite to replace it, or choose another folder"
        )
    paths = plan.products
    if not all(paths[name].exists() for name in (*plan.rasters, "taxonomy", *plan.settings.formats)):
        return None
    return Result(
        status="done",
        out=plan.out,
        rasters={name: paths[name] for name in plan.rasters},
        regions={name: paths[name] for name in plan.settings.formats},
        counts=record["counts"],
        seconds=record["seconds"],
        plan=record["plan"],
    )


def _fingerprint(record: dict[str, Any]) -> object:
    described = record.get("plan")
    return described.get("fingerprint") if isinstance(described, dict) else None
