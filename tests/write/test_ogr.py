"""What GDAL writes for us: indexes, dates, tiles, and a Shapefile's limits."""

from __future__ import annotations

import gzip
import sqlite3
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import Compression, TileType

from rssegment.errors import OutputError
from rssegment.write.atomic import staged
from rssegment.write.features import REGION_SCHEMA, Features, Layer, Schema, chunks_of, region_schema
from rssegment.write.formats import FORMATS, check_format
from rssegment.write.pmtiles import zooms
from rssegment.write.shapefile import FIELDS, field_names, write_shapefile
from rssegment.write.vectors import write_vectors
from tests.write.samples import LAYER, cut, regions

BOX = shapely.box([500_000], 5_500_000, 500_010, 5_500_010)


@pytest.mark.parametrize("suffix", [".fgb", ".gpkg"])
def test_windows_are_found_by_the_index(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    polygons, columns = features = regions(60)
    write_vectors(path, [features], LAYER)
    assert pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
    window = (500_100, 5_499_700, 500_200, 5_499_800)
    found = pyogrio.read_dataframe(path, bbox=window)
    expected = columns["id"][shapely.intersects(polygons, shapely.box(*window))]
    assert sorted(found["id"]) == expected.tolist()


def test_a_geopackage_is_whole_and_has_no_date(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.gpkg", [regions()], LAYER)
    database = sqlite3.connect(tmp_path / "a.gpkg")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    name, kind, date, srs = database.execute(
        "SELECT table_name, data_type, last_change, srs_id FROM gpkg_contents"
    ).fetchone()
    assert (name, kind, date, srs) == ("regions", "features", "1970-01-01T00:00:00.000Z", 32633)
    kinds = dict(row[1:3] for row in database.execute("PRAGMA table_info(regions)"))
    assert kinds["geom"] == "MULTIPOLYGON"
    assert kinds["id"] == "INTEGER"
    assert kinds["code"] == "MEDIUMINT"
    assert kinds["touches_edge"] == "BOOLEAN"
    assert database.execute("SELECT count(*) FROM rtree_regions_geom").fetchone() == (len(regions()[0]),)
    database.close()


@pytest.mark.parametrize("name", ["fid", "geom", "GEOM"])
def test_names_that_a_geopackage_needs(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="needs the column"):
        write_vectors(tmp_path / "a.gpkg", [(BOX, {name: np.arange(1)})], Layer("EPSG:32633"))


def test_a_shapefile_has_all_its_files(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    with staged(path) as temporary:
        write_vectors(temporary, [regions()], LAYER)
    assert {each.suffix for each in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".prj", ".cpg"}
    assert (tmp_path / "a.cpg").read_text() == "UTF-8"
    assert "UTM_Zone_33N" in (tmp_path / "a.prj").read_text()
    info = pyogrio.read_info(path)
    assert info["fields"].tolist() == [FIELDS.get(name, name) for name in REGION_SCHEMA]
    assert dict(zip(info["fields"], info["dtypes"], strict=True))["at_edge"] == "bool"


def test_exteriors_of_a_shapefile_run_clockwise(tmp_path: Path) -> None:
    """ESRI 1998, p. 8; on the bytes themselves."""
    write_vectors(
        tmp_path / "a.shp", [(shapely.difference(BOX, shapely.buffer(BOX, -3)), {})], LAYER_OF_NOTHING
    )
    record = (tmp_path / "a.shp").read_bytes()[108:]
    parts, points = struct.unpack("<2i", record[36:44])
    starts = [*struct.unpack(f"<{parts}i", record[44 : 44 + 4 * parts]), points]
    xy = np.frombuffer(record[44 + 4 * parts :], "<f8").reshape(-1, 2)
    turns = [shapely.LinearRing(xy[a:b]).is_ccw for a, b in pairwise(starts)]
    assert turns == [False, True]


LAYER_OF_NOTHING = Layer("EPSG:32633", 10.0)


def test_a_shapefile_is_refused_before_it_overflows(tmp_path: Path) -> None:
    """The sizes that are reckoned are those of the files, to the byte."""
    path, features = tmp_path / "a.shp", regions()
    write_vectors(path, [features], LAYER)
    sizes = {suffix: path.with_suffix(suffix).stat().st_size for suffix in (".shp", ".dbf")}
    largest = max(sizes.values())
    assert sizes[".dbf"] == largest
    for limit, fits in ((largest, True), (largest - 1, False)):
        chunks = chunks_of(cut(features, [10, 50]), LAYER)
        if fits:
            write_shapefile(path, chunks, REGION_SCHEMA, LAYER, limit)
        else:
            with pytest.raises(OutputError, match=r"a\.dbf would grow beyond 0\.00 GB.*write gpkg"):
                write_shapefile(path, chunks, REGION_SCHEMA, LAYER, limit)
    plain = (features[0], {})
    write_vectors(path, [plain], LAYER_OF_NOTHING)
    with pytest.raises(OutputError, match=r"a\.shp would grow"):
        write_shapefile(
            path, chunks_of([plain], LAYER_OF_NOTHING), {}, LAYER_OF_NOTHING, path.stat().st_size - 1
        )


@pytest.mark.parametrize(("length", "fits"), [(80, True), (81, True), (254, True), (255, False)])
def test_text_of_a_shapefile(tmp_path: Path, length: int, fits: bool) -> None:
    path, text = tmp_path / "a.shp", "é" * (length // 2) + "x" * (length % 2)
    features: Features = (BOX, {"name": np.array([text], object)})
    if not fits:
        with pytest.raises(OutputError, match="'name' has one of 255; shorten it"):
            write_vectors(path, [features], LAYER_OF_NOTHING)
        return
    write_vectors(path, [features], LAYER_OF_NOTHING)
    assert geopandas.read_file(path)["name"].tolist() == [text]
    assert path.with_suffix(".dbf").stat().st_size == 33 + 32 + 1 + max(80, length) + 1


def test_names_of_a_shapefile() -> None:
    names = field_names(REGION_SCHEMA)
    assert all(len(name) <= 10 for name in names.values())
    assert len(set(names.values())) == len(REGION_SCHEMA)
    with pytest.raises(OutputError, match="'a_very_long_name' is longer"):
        field_names({"a_very_long_name": "int32"})
    with pytest.raises(OutputError, match="apart"):
        field_names({"Code": "int32", "code": "int32"})


def tiles_of(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[tuple[int, int, int], bytes]]:
    with path.open("rb") as file:
        source = MmapSource(file)
        reader = Reader(source)
        return reader.header(), reader.metadata(), dict(all_tiles(source))


def test_pmtiles_by_their_own_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.pmtiles"
    polygons, _ = features = regions(60)
    write_vectors(path, [features], Layer("EPSG:32633", 10.0, schema=REGION_SCHEMA, side=600.0))
    header, about, tiles = tiles_of(path)
    assert header["tile_type"] == TileType.MVT
    assert header["tile_compression"] == Compression.GZIP
    assert header["clustered"]
    assert (header["min_zoom"], header["max_zoom"]) == (12, 12)
    layer = about["vector_layers"][0]
    assert layer["id"] == "regions"
    assert set(layer["fields"]) == set(REGION_SCHEMA)
    assert {layer["fields"][name] for name in ("id", "margin")} == {"Number"}
    assert layer["fields"]["touches_edge"] == "Boolean"
    west, south, east, north = geopandas.GeoSeries(polygons, crs=32633).to_crs(4326).total_bounds
    assert header["min_lon_e7"] / 1e7 == pytest.approx(west, abs=1e-4)
    assert header["max_lat_e7"] / 1e7 == pytest.approx(north, abs=1e-4)
    assert east > west
    assert north > south
    assert {zoom for zoom, _, _ in tiles} == {12}
    assert all(b"Wald, dicht" in gzip.decompress(tile) for tile in tiles.values())


def test_tiles_show_the_regions_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.pmtiles"
    polygons, columns = features = regions()
    write_vectors(path, [features], Layer("EPSG:32633", 10.0, schema=REGION_SCHEMA, side=300.0))
    frame = geopandas.read_file(path).to_crs(32633).dissolve("id")
    assert frame.index.tolist() == columns["id"].tolist()
    far = [shapely.hausdorff_distance(a, b) for a, b in zip(frame.geometry, polygons, strict=True)]
    assert max(far) < 2.5  # a quarter of a pixel
    assert frame["touches_edge"].tolist() == columns["touches_edge"].tolist()
    assert np.array_equal(frame["margin"].isna(), np.isnan(columns["margin"]))


def test_tiles_end_where_the_map_does(tmp_path: Path) -> None:
    path = tmp_path / "a.pmtiles"
    boxes = np.array(
        [shapely.box(0, 80, 10, 90), shapely.box(0, 86, 10, 90), shapely.box(20, 0, 30, 10)], object
    )
    layer = Layer("EPSG:4326", 1.0, side=90.0)
    assert write_vectors(path, [(boxes, {"id": np.arange(3)})], layer) == 3
    frame = geopandas.read_file(path).to_crs(4326)
    assert set(frame["id"]) == {0, 2}
    assert frame.total_bounds[3] == pytest.approx(85.05, abs=0.02)
    only_beyond: Features = (boxes[1:2], {"id": np.arange(1)})
    write_vectors(path, [only_beyond], layer)
    assert tiles_of(path)[2] == {}


def test_no_features_are_an_archive_without_tiles(tmp_path: Path) -> None:
    path = tmp_path / "a.pmtiles"
    write_vectors(path, [], LAYER)
    header, about, tiles = tiles_of(path)
    assert tiles == {}
    assert header["tile_type"] == TileType.MVT
    assert header["tile_entries_count"] == 0
    assert set(about["vector_layers"][0]["fields"]) == set(REGION_SCHEMA)


def test_pmtiles_need_a_crs(tmp_path: Path) -> None:
    """Which is known before any region is made."""

    def untouched() -> Iterator[Features]:
        raise AssertionError("asked for features")
        yield

    with pytest.raises(OutputError, match="no CRS"):
        write_vectors(tmp_path / "a.pmtiles", untouched(), Layer(None))
    for name in FORMATS:
        check_format(name, "EPSG:32633")
        if name != "pmtiles":
            check_format(name, None)
    with pytest.raises(OutputError, match=r"^vector tiles .* has no CRS; choose another format$"):
        check_format("pmtiles", None)
    with pytest.raises(OutputError, match="no vector format 'kml'"):
        check_format("kml", None)


LARGEST = 2**62  # some readers give up one of the ends themselves


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pmtiles"])
@pytest.mark.parametrize("codes", [[2**31, 5], [-(2**31) - 1, -(10**17) + 1], [LARGEST, 1]])
def test_codes_beyond_32_bits(tmp_path: Path, name: str, codes: list[int]) -> None:
    values = np.array(codes)
    schema = {"code": region_schema(values)["code"]}
    features: Features = (shapely.box(np.arange(2), 0, np.arange(2) + 1, 1), {"code": values})
    path = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    layer = Layer("EPSG:32633", schema=schema)
    if name == "shp" and LARGEST in codes:
        with pytest.raises(OutputError, match=rf"18 digits, and 'code' has -?{LARGEST}; write gpkg"):
            write_vectors(path, [features], layer)
        return
    write_vectors(path, [features], layer)
    frame = (geopandas.read_parquet if name == "parquet" else geopandas.read_file)(path)
    assert frame["code"].dtype == np.int64
    assert sorted(frame["code"]) == sorted(codes)


def test_codes_of_32_bits_stay_so() -> None:
    for codes in (None, np.empty(0, int), np.array([0, 2**31 - 1, -(2**31)])):
        assert region_schema(codes) == REGION_SCHEMA
    assert list(region_schema(np.array([2**31]))) == list(REGION_SCHEMA)
    assert region_schema(np.array([2**31]))["code"] == "int64"


def test_long_numbers_of_a_shapefile_count(tmp_path: Path) -> None:
    path, n = tmp_path / "a.shp", 20
    table = {"text": np.array(["x" * 254] * n, object), "number": np.full(n, -(2**31), np.int32)}
    features: Features = (np.repeat(BOX, n), table)
    write_vectors(path, [features], LAYER_OF_NOTHING)
    size = path.with_suffix(".dbf").stat().st_size
    schema: Schema = {"text": "text", "number": "int32"}
    write_shapefile(path, chunks_of([features], LAYER_OF_NOTHING), schema, LAYER_OF_NOTHING, size)
    with pytest.raises(OutputError, match=r"a\.dbf would grow"):
        write_shapefile(path, chunks_of([features], LAYER_OF_NOTHING), schema, LAYER_OF_NOTHING, size - 1)


@pytest.mark.parametrize(
    ("crs", "pixel", "side", "expected"),
    [
        ("EPSG:32633", 10, 110_000, (8, 12)),
        ("EPSG:32633", 10, None, (7, 12)),
        ("EPSG:2154", 0.2, 1000, (15, 18)),
        ("EPSG:4326", 10 / 111_320, 1, (8, 12)),
        ("EPSG:32633", 0.001, 5, (22, 22)),
        ("EPSG:4326", 1, 360, (0, 0)),
        ("EPSG:2263", 10 / 0.3048, 360_000, (8, 12)),  # feet
    ],
)
def test_zooms_follow_the_pixel_and_the_scene(
    crs: str, pixel: float, side: float | None, expected: tuple[int, int]
) -> None:
    assert zooms(crs, pixel, side) == expected
