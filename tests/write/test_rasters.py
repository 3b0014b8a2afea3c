"""Block parts, the VRT over them, and the final COG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rio_cogeo.cogeo import cog_validate

from rssegment.grid import BlockGrid
from rssegment.write.rasters import RasterKind, confidence_kind, label_kind, write_cog, write_part, write_vrt

COLORS = {0: (0, 0, 0, 0), 1: (200, 0, 0, 255), 2: (0, 200, 0, 255), 7: (0, 0, 200, 255)}
NAMES = {0: "no data", 1: "a & <b>", 2: "c", 7: "d"}


def grid(shape: tuple[int, int], transform: Affine | None = None) -> GeoBox:
    return GeoBox(shape, transform or Affine(0.3, 0, 700000, 0, -0.3, 6000000), "EPSG:32631")


def write_all(folder: Path, values: NDArray[np.uint16], block: int, kind: RasterKind, geobox: GeoBox) -> Path:
    parts = []
    for each in BlockGrid(values.shape, block):
        path = folder / f"{block}_{each.name}.tif"
        write_part(path, values[each.core.slices], geobox[each.core.slices], kind)
        parts.append((path, each.core))
    write_vrt(folder / f"{block}.vrt", parts, geobox, kind)
    write_cog(folder / f"{block}.vrt", folder / f"{block}.tif", kind)
    return folder / f"{block}.tif"


def codes(shape: tuple[int, int]) -> NDArray[np.uint16]:
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 7], np.uint16), shape)


def test_cog_holds_pixels_colours_and_names(tmp_path: Path) -> None:
    values, kind = codes((700, 1100)), label_kind(COLORS, NAMES)
    path = write_all(tmp_path, values, 512, kind, grid(values.shape))
    with rasterio.open(path) as file:
        assert file.dtypes == ("uint8",)
        assert file.nodata == 0
        assert file.crs.to_epsg() == 32631
        assert file.colormap(1)[7] == COLORS[7]
        assert file.overviews(1) == [2, 4]
        np.testing.assert_array_equal(file.read(1), values)
    assert cog_validate(path, strict=True) == (True, [], [])
    assert "<Category>a &amp; &lt;b&gt;</Category>" in (tmp_path / "512.tif.aux.xml").read_text()


def test_bytes_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    values, kind = codes((700, 900)), label_kind(COLORS, NAMES)
    files = [
        write_all(tmp_path, values, block, kind, grid(values.shape)).read_bytes()
        for block in (256, 333, 1024)
    ]
    assert files[0] == files[1] == files[2]


def test_a_missing_part_is_no_data(tmp_path: Path) -> None:
    geobox, kind = grid((40, 60)), confidence_kind()
    block = BlockGrid((40, 60), 32)[0, 1]
    write_part(tmp_path / "p.tif", np.full(block.core.shape, 9), geobox[block.core.slices], kind)
    write_vrt(tmp_path / "p.vrt", [(tmp_path / "p.tif", block.core)], geobox, kind)
    with rasterio.open(tmp_path / "p.vrt") as file:
        values = file.read(1)
    assert (values[block.core.slices] == 9).all()
    values[block.core.slices] = 255
    assert (values == 255).all()


def test_codes_above_255_take_two_bytes(tmp_path: Path) -> None:
    values = np.array([[1, 523]], np.uint16)
    path = write_all(
        tmp_path, values, 512, label_kind({1: (1, 2, 3, 255), 523: (4, 5, 6, 255)}, {}), grid((1, 2))
    )
    with rasterio.open(path) as file:
        assert file.dtypes == ("uint16",)
        assert file.read(1).tolist() == [[1, 523]]
        assert file.colormap(1)[523] == (4, 5, 6, 255)


def test_confidence_reads_as_probability(tmp_path: Path) -> None:
    path = write_all(
        tmp_path, np.array([[0, 127, 254, 255]], np.uint16), 512, confidence_kind(), grid((1, 4))
    )
    with rasterio.open(path) as file:
        assert file.nodata == 255
        np.testing.assert_allclose(file.read(1, masked=True) * file.scales[0], [[0, 0.5, 1, 0]], atol=1e-9)


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    values = codes((30, 30))
    write_all(tmp_path / "here", values, 16, label_kind(COLORS, NAMES), grid((30, 30)))
    (tmp_path / "here").rename(tmp_path / "there")
    with rasterio.open(tmp_path / "there" / "16.vrt") as file:
        np.testing.assert_array_equal(file.read(1), values)


@pytest.mark.parametrize(
    "transform",
    [
        Affine.translation(500, 900) * Affine.rotation(30) * Affine.scale(2, -2),
        Affine(2, 0, 500, 0, 2, 900),
        Affine(2, 0.5, 500, 0.25, -2, 900),
    ],
    ids=["rotated", "south-up", "sheared"],
)
def test_any_transform_survives(tmp_path: Path, transform: Affine) -> None:
    values = codes((20, 30))
    path = write_all(tmp_path, values, 16, label_kind(COLORS, NAMES), grid((20, 30), transform))
    with rasterio.open(path) as file:
        assert file.transform.almost_equals(transform)
        np.testing.assert_array_equal(file.read(1), values)


@settings(max_examples=10)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(16, 80))
def test_any_shape(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, block: int) -> None:
    values = codes((height, width))
    folder = tmp_path_factory.mktemp("any")
    path = write_all(folder, values, block, label_kind(COLORS, NAMES), grid((height, width)))
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), values)


def test_overviews_of_an_earlier_file_go(tmp_path: Path) -> None:
    """As gdaladdo -ro makes them: readers prefer them to those inside."""
    values, kind = codes((1200, 1300)), label_kind(COLORS, NAMES)
    path = write_all(tmp_path, np.ones_like(values), 2048, kind, grid(values.shape))
    with rasterio.open(path) as file:
        low = file.read(1, out_shape=(300, 325))
    for name in (".ovr", ".msk"):
        path.with_name(path.name + name).write_bytes(path.read_bytes())
    write_all(tmp_path, np.where(values > 0, 2, 0).astype(np.uint16), 2048, kind, grid(values.shape))
    assert {each.name for each in tmp_path.glob("2048.*")} <= {"2048.tif", "2048.vrt", "2048.tif.aux.xml"}
    with rasterio.open(path) as file:
        assert (low == 1).all()
        assert not (file.read(1, out_shape=(300, 325)) == 1).any()
