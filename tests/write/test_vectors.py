"""Every vector format: what goes in comes out, and the same features give the same bytes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rssegment.errors import InputError, OutputError, StorageError
from rssegment.write.atomic import staged
from rssegment.write.features import REGION_SCHEMA, Features, Layer, Rings
from rssegment.write.formats import FORMATS, format_of
from rssegment.write.shapefile import FIELDS
from rssegment.write.vectors import write_vectors
from tests.write.rfc7946 import check, check_polygon, polygons_of
from tests.write.samples import LAYER, cut, regions

ALL = list(FORMATS)
TABLES = [name for name in ALL if name != "pmtiles"]  # those that give back what they got
NATIVE = [name for name in TABLES if FORMATS[name].place == "native"]
ORDERED = {"parquet", "flatgeobuf"}  # in an order of their own


def paths(folder: Path, names: list[str] = ALL) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return {name: folder / f"regions{FORMATS[name].suffixes[0]}" for name in names}


def read(path: Path) -> geopandas.GeoDataFrame:
    frame = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
    frame = frame.rename(columns={short: name for name, short in FIELDS.items()})
    return frame.sort_values("id").reset_index(drop=True) if "id" in frame else frame


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of all formats over the same features."""
    folder = tmp_path_factory.mktemp("all")
    features = regions()
    assert write_vectors(paths(folder), [features], LAYER) == len(features[0])
    return folder


@pytest.mark.parametrize("name", TABLES)
def test_values_come_back(written: Path, name: str) -> None:
    frame = read(paths(written)[name])
    polygons, table = regions()
    assert list(frame.columns.drop("geometry")) == list(REGION_SCHEMA)
    assert len(frame) == len(polygons)
    for column, values in table.items():
        mask = np.ma.getmaskarray(np.ma.masked_invalid(values)) if values.dtype.kind in "if" else None
        found = frame[column]
        if mask is not None and mask.any():
            assert np.array_equal(found.isna(), mask), column
            known = found[~mask].to_numpy(float)
            np.testing.assert_allclose(known, np.asarray(values)[~mask], rtol=1e-12, err_msg=column)
        else:
            assert found.tolist() == values.tolist(), column


@pytest.mark.parametrize("name", NATIVE)
def test_geometries_come_back_to_the_last_digit(written: Path, name: str) -> None:
    frame = read(paths(written)[name])
    polygons = regions()[0]
    assert frame.crs == "EPSG:32633"
    assert any(len(p.geoms) > 1 for p in polygons if p.geom_type == "MultiPolygon")
    assert any(len(p.interiors) for p in shapely.get_parts(polygons))
    assert shapely.equals(frame.geometry.to_numpy(), polygons).all()
    assert shapely.is_valid(frame.geometry.to_numpy()).all()
    if name != "shp":  # whose exteriors run clockwise
        for polygon in shapely.get_parts(frame.geometry.to_numpy()):
            check_rings(polygon)


def check_rings(polygon: shapely.Polygon) -> None:
    assert polygon.exterior.is_ccw
    assert not any(hole.is_ccw for hole in polygon.interiors)


@pytest.mark.parametrize("name", ["geojson", "geojsonseq"])
def test_lonlat_geometries(written: Path, name: str) -> None:
    frame = read(paths(written)[name])
    assert frame.crs == "EPSG:4326"
    back = frame.to_crs(32633).geometry.to_numpy()
    assert shapely.hausdorff_distance(back, regions()[0]).max() < 0.1


def test_lines_are_the_features_of_the_collection(written: Path) -> None:
    import json

    lines = paths(written)["geojsonseq"].read_text().split("\n")
    assert lines[-1] == ""
    features = check(paths(written)["geojson"])
    assert [json.loads(line) for line in lines[:-1]] == features
    for feature in features:
        for polygon in polygons_of(feature):
            check_polygon(polygon)


def test_decimal_numbers_look_decimal(written: Path) -> None:
    """Readers guess a column's type by its first values."""
    assert pyogrio.read_info(paths(written)["geojson"])["dtypes"].tolist()[7] == "float64"
    assert '"area_m2":401.0,' in paths(written)["geojson"].read_text()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ends", [[], [1, 2, 2, 100], list(range(0, 200, 7))], ids=str)
def test_chunks_do_not_change_a_byte(written: Path, tmp_path: Path, name: str, ends: list[int]) -> None:
    path = paths(tmp_path / name)[name]
    assert write_vectors(path, cut(regions(), ends), LAYER) == len(regions()[0])
    for each, content in contents(path.parent).items():
        assert content == (written / each).read_bytes(), each


def test_many_chunks_to_all_formats_at_once(written: Path, tmp_path: Path) -> None:
    write_vectors(paths(tmp_path / "b"), cut(regions(), list(range(1, 300))), LAYER)
    assert contents(tmp_path / "b") == contents(written)


@pytest.mark.parametrize("name", ALL)
def test_rings_are_as_good_as_shapely(written: Path, tmp_path: Path, name: str) -> None:
    polygons, table = regions()
    turned = Rings.of(shapely.reverse(polygons))
    path = paths(tmp_path / name)[name]
    write_vectors(path, [(turned, table)], LAYER)
    frame, expected = (geopandas.read_parquet if name == "parquet" else geopandas.read_file for _ in range(2))
    assert shapely.equals(
        frame(path).geometry.to_numpy(), expected(paths(written)[name]).geometry.to_numpy()
    ).all()


@pytest.mark.parametrize("name", TABLES)
def test_no_features_is_a_file_with_the_columns(tmp_path: Path, name: str) -> None:
    path = paths(tmp_path)[name]
    assert write_vectors(path, [], LAYER) == 0
    if name == "geojsonseq":
        assert path.read_bytes() == b""
        return
    if name == "geojson":
        assert check(path) == []
        return
    frame = read(path)
    assert len(frame) == 0
    assert list(frame.columns.drop("geometry")) == list(REGION_SCHEMA)
    assert frame.crs == "EPSG:32633"


@pytest.mark.parametrize("name", [name for name in TABLES if name != "geojsonseq"])
def test_no_features_and_no_schema(tmp_path: Path, name: str) -> None:
    assert write_vectors(paths(tmp_path)[name], [(np.empty(0, object), {})], Layer(None)) == 0
    assert len(read(paths(tmp_path)[name])) == 0


@pytest.mark.parametrize("name", TABLES)
def test_without_crs_coordinates_are_pixels(tmp_path: Path, name: str) -> None:
    path = paths(tmp_path)[name]
    features = regions(20, Affine.identity())
    write_vectors(path, [features], Layer(None, schema=REGION_SCHEMA))
    frame = read(path)
    assert shapely.equals(frame.geometry.to_numpy(), features[0]).all()
    if name == "gpkg":
        assert "Undefined Cartesian" in frame.crs.name
    elif name not in {"geojson", "geojsonseq"}:  # whose readers take all for degrees
        assert frame.crs is None


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="ogrinfo is not installed")
@pytest.mark.parametrize("name", ["geojson", "geojsonseq", "flatgeobuf", "gpkg", "shp"])
def test_ogrinfo_reads_it(written: Path, name: str) -> None:
    command = ["ogrinfo", "-so", "-al", paths(written)[name]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"Feature Count: {len(regions()[0])}" in said
    assert "regions" in said
    for column in REGION_SCHEMA:
        assert f"\n{FIELDS.get(column, column) if name == 'shp' else column}: " in said


@pytest.mark.parametrize("affine", [Affine(0.5, 0, 170, 0, -0.5, 10), Affine(0.5, 0, -190, 0, -0.5, 10)])
@pytest.mark.parametrize("name", ["geojson", "geojsonseq", "pmtiles"])
def test_over_the_antimeridian(tmp_path: Path, affine: Affine, name: str) -> None:
    path = paths(tmp_path)[name]
    boxes = np.array([shapely.box(0, 0, 40, 40), shapely.box(0, 40, 5, 45)], object)
    placed = shapely.transform(boxes, lambda xy: xy * [affine.a, affine.e] + [affine.c, affine.f])
    write_vectors(path, [(placed, {"id": np.array([1, 2])})], Layer("EPSG:4326", 0.5, side=20.0))
    frame = geopandas.read_file(path)
    assert set(frame["id"]) == {1, 2}
    parts = frame[frame["id"] == 1].to_crs(4326).geometry.to_numpy()
    west, _, east, _ = shapely.total_bounds(parts)
    assert west == pytest.approx(-180, abs=0.1)
    assert east == pytest.approx(180, abs=0.1)
    across = shapely.union_all(shapely.buffer(parts, 0.05))
    assert not across.intersects(shapely.Point(0, 0))
    assert across.area == pytest.approx(400, rel=0.03)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NUMBERS = st.floats(-1e9, 1e9) | st.just(float("nan")) | st.just(float("inf"))


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(TEXT, NUMBERS, st.integers(-(2**53), 2**53) | st.none(), st.booleans()),
        min_size=1,
        max_size=9,
    )
)
def test_any_value_comes_back(tmp_path: Path, name: str, rows: list[tuple]) -> None:  # type: ignore[type-arg]
    k = np.arange(len(rows))
    text, number, whole, truth = zip(*rows, strict=True)
    table = {
        "id": k,
        "text": np.array(text, object),
        "number": np.array(number),
        "whole": np.ma.masked_array(
            [each or 0 for each in whole], [each is None for each in whole], np.int64
        ),
        "truth": np.array(truth, bool),
    }
    path = paths(tmp_path)[name]
    write_vectors(path, [(shapely.box(k, 0, k + 1, 1), table)], Layer("EPSG:32633"))
    frame = read(path)
    spaces = name == "shp"  # whose texts are padded
    found = ["" if pandas.isna(each) else each for each in frame["text"]]  # and empty texts are null
    assert found == [each.rstrip(" ") if spaces else each for each in text]
    assert frame["truth"].astype(bool).tolist() == list(truth)
    known = np.isfinite(number)
    numbers = pandas.to_numeric(frame["number"]).to_numpy(float)
    assert np.array_equal(np.isfinite(numbers), known)
    np.testing.assert_allclose(
        numbers[known], np.array(number)[known], rtol=1e-12, atol=1e-14 if spaces else 0
    )
    assert [None if pandas.isna(each) else int(each) for each in frame["whole"]] == list(whole)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("suffixed", [True, False])
def test_every_suffix_names_its_format(name: str, suffixed: bool) -> None:
    for suffix in FORMATS[name].suffixes:
        assert format_of(f"a/b.c{suffix if suffixed else suffix.upper()}") == name


@pytest.mark.parametrize("path", ["regions.xyz", "regions", "a.tar.gz", ".gpkg/regions"])
def test_an_unknown_suffix_is_refused(path: str) -> None:
    with pytest.raises(OutputError, match=r"has the suffix .*; expected one of \.geojson, .*\.gpkg.*\.shp"):
        write_vectors(path, [], LAYER)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no vector format 'kml'; expected some of geojson, "):
        write_vectors({"kml": tmp_path / "a.kml"}, [], LAYER)


@pytest.mark.parametrize("name", ALL)
def test_a_folder_that_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="can't write"):
        write_vectors(tmp_path / "missing" / f"a{FORMATS[name].suffixes[0]}", [regions()], LAYER)


@pytest.mark.parametrize("name", ALL)
def test_a_place_where_nobody_may_write(name: str) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs /proc, where nobody may write")
    with pytest.raises(OutputError, match="can't write"):
        write_vectors(Path("/proc") / f"a{FORMATS[name].suffixes[0]}", [regions()], LAYER)


@pytest.mark.parametrize("name", ALL)
def test_an_earlier_file_is_replaced(written: Path, tmp_path: Path, name: str) -> None:
    path = paths(tmp_path)[name]
    write_vectors(path, [regions(40)], LAYER)
    write_vectors(path, [regions()], LAYER)
    assert path.read_bytes() == paths(written)[name].read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_all_files_appear_together(written: Path, tmp_path: Path, name: str) -> None:
    path = paths(tmp_path)[name]
    with staged(path) as temporary:
        write_vectors(temporary, [regions()], LAYER)
        assert not list(tmp_path.glob("regions*"))
    assert {each.name for each in tmp_path.iterdir()} == {
        f"regions{suffix}" for suffix in (path.suffix, *FORMATS[name].companions)
    }
    assert path.read_bytes() == paths(written)[name].read_bytes()


@pytest.mark.parametrize(
    "names", [[name] for name in ALL] + [ALL], ids=lambda names: names[0] if len(names) == 1 else "all"
)
def test_an_error_of_the_features_is_what_is_raised(tmp_path: Path, names: list[str]) -> None:
    def broken() -> Iterator[Features]:
        yield from cut(regions(), [50, 100])
        raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        write_vectors(paths(tmp_path, names), broken(), LAYER)


def test_one_writer_that_fails_stops_the_others(tmp_path: Path) -> None:
    endless = (regions() for _ in iter(int, 1))
    where = paths(tmp_path, ["geojson", "parquet"]) | {"gpkg": tmp_path / "missing" / "a.gpkg"}
    with pytest.raises(OutputError, match="can't write"):
        write_vectors(where, endless, LAYER)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"can't mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def noise(chunks: int) -> Iterator[Features]:
    """Features with numbers that can't be compressed."""
    polygons, table = regions(40)
    rng = np.random.default_rng(0)
    for _ in range(chunks):
        yield polygons, table | {name: rng.random(len(polygons)) for name in ("area_m2", "margin")}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ballast", [0, 150, 290])
def test_a_full_disk(small_disk: Path, name: str, ballast: int) -> None:
    (small_disk / "ballast").write_bytes(bytes(ballast * 1024))
    path = small_disk / f"regions{FORMATS[name].suffixes[0]}"
    with (
        pytest.raises(StorageError, match=rf"no space left while writing {re.escape(str(path))}: free some"),
        staged(path) as temporary,
    ):
        write_vectors(temporary, noise(150), LAYER)
    assert [each.name for each in small_disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize("name", ALL)
def test_features_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    path = paths(tmp_path)[name]
    box = np.array([shapely.box(0, 0, 1, 1)], object)
    other = Layer("EPSG:32633", schema={"id": "int32", "name": "text"})
    faults: list[tuple[Features, str]] = [
        ((np.array([shapely.Point(0, 0)], object), {"id": np.arange(1)}), "polygons"),
        ((box, {"id": np.arange(2)}), "'id' has 2 values for 1"),
        ((shapely.box([0], 0, np.nan, 1), {"id": np.arange(1)}), "not"),
        ((box, {"ID": np.arange(1)}), r"columns \['ID'\]; the layer has \['id'\]"),
    ]
    for features, message in faults:
        with pytest.raises(InputError, match=message):
            write_vectors(path, [features], replace(other, schema={"id": "int32"}))
    for values in (np.array([2**40]), np.array(["a"], object), np.array([0.5])):
        if name not in {"geojson", "geojsonseq"}:
            with pytest.raises(InputError, match="column 'id' holds a value that is no int32"):
                write_vectors(path, [(box, {"id": values})], replace(other, schema={"id": "int32"}))


def test_columns_may_not_change_on_the_way(tmp_path: Path) -> None:
    box = np.array([shapely.box(0, 0, 1, 1)], object)
    chunks = [(box, {"id": np.arange(1)}), (box, {"code": np.arange(1)})]
    with pytest.raises(InputError, match=r"columns \['code'\]; the layer has \['id'\]"):
        write_vectors(tmp_path / "a.geojson", chunks, Layer(None))
