"""GeoParquet 1.1: its metadata, its order, and its other readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rssegment.errors import OutputError
from rssegment.write import arrow, sorting
from rssegment.write.features import Features, Layer, chunks_of
from rssegment.write.parquet import write_parquet
from rssegment.write.vectors import write_vectors
from tests.write.samples import LAYER, cut, regions


def grid(n: int, side: float = 10.0) -> Features:
    """n x n squares, row by row."""
    row, col = np.divmod(np.arange(n * n), n)
    x, y = 5e5 + col * side, 5.5e6 - row * side
    return shapely.box(x, y, x + side, y + side), {"id": np.arange(n * n)}


def metadata(path: Path) -> dict[str, Any]:
    return json.loads(pq.read_metadata(path).metadata[b"geo"])


def test_metadata_is_what_the_specification_asks(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    polygons, _ = features = regions()
    write_vectors(path, [features], LAYER)
    geo = metadata(path)
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["orientation"] == "counterclockwise"
    assert column["edges"] == "planar"
    assert column["bbox"] == shapely.total_bounds(polygons).tolist()
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert column["crs"]["$schema"].startswith("https://proj.org/schemas/")
    assert CRS.from_json_dict(column["crs"]) == CRS.from_epsg(32633)
    schema = pq.read_schema(path)
    assert str(schema.field("geometry").type) == "binary"
    assert str(schema.field("bbox").type) == "struct<xmin: double, ymin: double, xmax: double, ymax: double>"


def test_boxes_are_those_of_the_geometries(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", [regions()], LAYER)
    table = pq.read_table(tmp_path / "a.parquet")
    boxes = np.array([list(box.values()) for box in table["bbox"].to_pylist()])
    assert np.array_equal(boxes, shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist())))


@pytest.mark.parametrize(("joined", "kinds"), [(False, ["Polygon"]), (True, ["MultiPolygon"])])
def test_kinds_of_geometry_are_those_there_are(tmp_path: Path, joined: bool, kinds: list[str]) -> None:
    boxes = shapely.box([0, 20], 0, [1, 21], 1)
    polygons = np.array([shapely.multipolygons(boxes)], object) if joined else boxes
    write_vectors(tmp_path / "a.parquet", [(polygons, {})], Layer("EPSG:4326"))
    assert metadata(tmp_path / "a.parquet")["columns"]["geometry"]["geometry_types"] == kinds


def test_without_crs_it_is_said_to_be_unknown(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", [regions()], Layer(None))
    assert metadata(tmp_path / "a.parquet")["columns"]["geometry"]["crs"] is None


def test_nothing_at_all(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", [], LAYER)
    column = metadata(tmp_path / "a.parquet")["columns"]["geometry"]
    assert column["geometry_types"] == []
    assert "bbox" not in column


def test_row_groups_are_compact(tmp_path: Path) -> None:
    """400 x 400 squares in three groups of 65536 rows: a quarter of the square each, and what is left."""
    write_vectors(
        tmp_path / "a.parquet", cut(grid(400), list(range(0, 160_000, 3001))), Layer("EPSG:32633", 10.0)
    )
    file = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [file.row_group(k).num_rows for k in range(file.num_row_groups)] == [
        65536,
        65536,
        160_000 - 2 * 65536,
    ]
    for k in range(3):
        columns = [file.row_group(k).column(c) for c in range(file.num_columns)]
        box = {c.path_in_schema: c.statistics for c in columns if c.path_in_schema.startswith("bbox")}
        width = box["bbox.xmax"].max - box["bbox.xmin"].min
        height = box["bbox.ymax"].max - box["bbox.ymin"].min
        assert width * height < 3 * file.row_group(k).num_rows * 100
        assert {c.compression for c in columns} == {"ZSTD"}


def test_neighbours_in_the_file_are_neighbours_on_the_ground(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.parquet", [grid(64)], Layer("EPSG:32633", 10.0))
    order = pq.read_table(tmp_path / "a.parquet", columns=["id"])["id"].to_numpy()
    row, col = np.divmod(order, 64)
    steps = np.abs(np.diff(row)) + np.abs(np.diff(col))
    assert np.median(steps) == 1
    assert steps.mean() < 1.5


@settings(max_examples=20)
@given(st.lists(st.integers(0, 400), max_size=8), st.integers(1, 200_000))
def test_memory_and_chunks_do_not_change_a_byte(
    tmp_path_factory: Any, ends: list[int], run_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    features = grid(20)
    write_vectors(folder / "a.parquet", [features], Layer("EPSG:32633", 10.0))
    layer = Layer("EPSG:32633", 10.0, schema={"id": "int64"})
    write_parquet(
        folder / "b.parquet",
        chunks_of(cut(features, sorted(ends)), layer),
        layer.schema or {},
        layer,
        run_bytes,
    )
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"a.parquet", "b.parquet"}


def test_duckdb_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    polygons, columns = features = regions()
    write_vectors(path, [features], LAYER)
    database = duckdb.connect()
    kinds = {row[0]: row[1] for row in database.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()}
    assert kinds["geometry"].startswith("GEOMETRY")
    assert kinds["touches_edge"] == "BOOLEAN"
    query = f"SELECT id, parent_id, name, margin, geometry::VARCHAR FROM '{path}' WHERE bbox.xmin >= 500100 ORDER BY id"
    rows = database.execute(query).fetchall()
    kept = np.flatnonzero(shapely.bounds(polygons)[:, 0] >= 500_100)
    assert [row[0] for row in rows] == columns["id"][kept].tolist()
    assert [row[1] for row in rows] == columns["parent_id"][kept].tolist()
    assert [row[2] for row in rows] == columns["name"][kept].tolist()
    assert [row[3] is None for row in rows] == np.isnan(columns["margin"][kept]).tolist()
    assert shapely.equals(shapely.from_wkt([row[4] for row in rows]), polygons[kept]).all()


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "_GROUP_ROWS", 4096)
    monkeypatch.setattr(sorting, "_HEAD_BYTES", 1 << 14)
    layer, usual = Layer("EPSG:32633", 10.0, schema={"id": "int64"}), pa.default_memory_pool()
    squares, peaks = grid(50), []
    for chunks in (12, 48):
        pool = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(pool)
        try:
            many = chunks_of((squares for _ in range(chunks)), layer)
            write_parquet(tmp_path / "a.parquet", many, layer.schema or {}, layer, 1 << 20)
        finally:
            pa.set_memory_pool(usual)
        peaks.append(pool.max_memory())
    assert peaks[0] > 1 << 20
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("name", ["geometry", "bbox"])
def test_names_that_the_format_needs(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=f"needs the column '{name}'"):
        write_vectors(
            tmp_path / "a.parquet", [(shapely.box([0], 0, 1, 1), {name: np.arange(1)})], Layer(None)
        )
