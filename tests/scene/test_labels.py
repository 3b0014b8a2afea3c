"""Label rasters of every kind that people have, and what is none."""

from __future__ import annotations

import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from rssegment.errors import ReadError, SceneError
from rssegment.grid import BlockGrid, Box
from rssegment.scene import LabelRaster
from rssegment.scene.codes import scan_boxes

PLACE = Affine(2, 0, 500000, 0, -2, 4800000)


def write(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """Writes ``values`` (H, W) or (C, H, W)."""
    bands = values if values.ndim == 3 else values[None]
    defaults = {"driver": "GTiff", "crs": "EPSG:32631", "transform": PLACE, "dtype": values.dtype.name}
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **(defaults | shape | profile)) as file:
            file.write(bands)
    return path


def some(dtype: str = "uint8", shape: tuple[int, int] = (7, 9)) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 5, shape).astype(dtype)


def whole(raster: LabelRaster) -> NDArray[np.int64]:
    """Codes of all pixels, -999 for no data."""
    table = np.array((-999, *raster.codes), np.int64)
    return table[raster.read(Box.of(raster.shape))]


TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("nodata", [None, 3])
@pytest.mark.parametrize("scan", [True, False])
def test_every_whole_type(tmp_path: Path, dtype: str, nodata: int | None, scan: bool) -> None:
    labels = some(dtype)
    raster = LabelRaster.open(write(tmp_path / "l.tif", labels, nodata=nodata), scan=scan)
    missing = 0 if nodata is None else nodata
    assert raster.nodata == missing
    assert np.array_equal(whole(raster), np.where(labels == missing, -999, labels.astype(np.int64)))
    assert raster.scanned == (scan or np.dtype(dtype).itemsize > 2)
    if raster.scanned:
        assert raster.codes == tuple(sorted({0, 1, 2, 3, 4} - {missing}))
    else:
        assert len(raster.codes) == 2 ** (8 * np.dtype(dtype).itemsize) - 1
        assert missing not in raster.codes


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(TYPES))
def test_any_codes(tmp_path: Path, data: st.DataObject, dtype: str) -> None:
    bounds = np.iinfo(dtype)
    ends = st.integers(int(bounds.min), min(int(bounds.max), 2**63 - 1))
    near = st.integers(max(int(bounds.min), -5), 5)
    classes = data.draw(st.lists(ends | near, min_size=1, max_size=9, unique=True))
    labels = np.array(classes, dtype)[np.random.default_rng(1).integers(0, len(classes), (6, 5))]
    labels.flat[0] = 7
    nodata = data.draw(st.sampled_from(classes))
    labels.flat[1] = nodata
    if (labels == nodata).all():
        return
    path = write(tmp_path / "l.tif", labels)
    raster = LabelRaster.open(path, nodata)
    expected = sorted({int(value) for value in labels.flat} - {nodata})
    assert list(raster.codes) == expected
    positions = raster.read(Box.of(raster.shape))
    assert positions.dtype == np.uint16
    found = [None if place == 0 else raster.codes[place - 1] for place in positions.flat]
    assert found == [None if value == nodata else int(value) for value in labels.flat]


def test_the_user_outranks_the_file(tmp_path: Path) -> None:
    labels = some()
    path = write(tmp_path / "l.tif", labels, nodata=3)
    raster = LabelRaster.open(path, nodata=1)
    assert np.array_equal(whole(raster) == -999, labels == 1)
    assert raster.remarks == ()


@pytest.mark.parametrize("nodata", [300, -1, 0.5, float("nan")])
def test_no_data_that_can_not_be(tmp_path: Path, nodata: float) -> None:
    with pytest.raises(SceneError, match="can't hold: it is of uint8, whole numbers from 0 to 255"):
        LabelRaster.open(write(tmp_path / "l.tif", some()), nodata)


def test_no_data_of_the_file_that_can_not_be(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", some())
    vrt = tmp_path / "l.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="9" rasterYSize="7"><SRS>EPSG:32631</SRS><GeoTransform>0,2,0,0,0,-2</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>2.5</NoDataValue><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    raster = LabelRaster.open(vrt)
    assert raster.codes == (1, 2, 3, 4)
    assert "nodata value 2.5 is ignored" in raster.remarks[0]


@pytest.mark.parametrize("beside", ["YES", "NO"])
def test_a_mask_tells_and_zero_is_a_class(tmp_path: Path, beside: str) -> None:
    labels = some()
    path = tmp_path / "l.tif"
    mask = np.random.default_rng(1).random(labels.shape) < 0.7
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=beside):
        write(path, labels)
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    for scan in (True, False):
        raster = LabelRaster.open(path, scan=scan)
        assert np.array_equal(whole(raster), np.where(mask, labels.astype(int), -999))
    assert np.array_equal(whole(LabelRaster.open(path, nodata=2)) == -999, ~mask | (labels == 2))


def test_sixteen_bits_with_a_mask_are_scanned(tmp_path: Path) -> None:
    """65536 values may be classes then, one more than there are places."""
    path = write(tmp_path / "l.tif", some("uint16"))
    with rasterio.open(path, "r+") as file:
        file.write_mask(np.ones((7, 9), bool))
    raster = LabelRaster.open(path, scan=False)
    assert raster.scanned
    assert raster.codes == (0, 1, 2, 3, 4)


def test_an_alpha_band_is_a_mask(tmp_path: Path) -> None:
    labels = some()
    alpha = np.where(np.random.default_rng(1).random(labels.shape) < 0.7, 255, 0).astype("uint8")
    path = write(tmp_path / "l.tif", np.stack([labels, alpha]))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    assert np.array_equal(whole(LabelRaster.open(path)), np.where(alpha, labels.astype(int), -999))


def test_one_bit(tmp_path: Path) -> None:
    labels = some() % 2
    raster = LabelRaster.open(write(tmp_path / "l.tif", labels, nbits=1))
    assert np.array_equal(whole(raster) == 1, labels == 1)
    assert raster.codes == (1,)


def test_one_pixel(tmp_path: Path) -> None:
    raster = LabelRaster.open(write(tmp_path / "l.tif", np.array([[9]], "uint8")))
    assert raster.shape == (1, 1)
    assert whole(raster).tolist() == [[9]]


@pytest.mark.parametrize(
    "affine",
    [
        PLACE * Affine.rotation(30),
        PLACE * Affine.shear(10, 5),
        PLACE * Affine.scale(1, -1),
        PLACE * Affine.scale(-1, 1),
    ],
    ids=["rotated", "sheared", "south up", "leftward"],
)
def test_transforms(tmp_path: Path, affine: Affine) -> None:
    raster = LabelRaster.open(write(tmp_path / "l.tif", some(), transform=affine))
    assert raster.geobox.affine.almost_equals(affine)
    assert raster.georeferenced


@pytest.mark.parametrize(
    ("values", "profile", "words"),
    [
        (np.zeros((5, 5), "uint8"), {}, r"no class: every pixel is no data \(0\).*--nodata"),
        (np.full((5, 5), 9, "uint8"), {"nodata": 9}, r"no data \(9\)"),
        (np.ones((5, 5), "float32"), {}, "float32 values; expected class codes.*gdal_translate -ot"),
        (np.ones((5, 5), "complex64"), {}, "complex64 values"),
        (np.ones((2, 5, 5), "uint8"), {}, "2 bands.*gdal_translate -b 1"),
        (np.ones((3, 5, 5), "uint8"), {}, "3 bands, as of a picture"),
        (np.arange(70_000, dtype="int32").reshape(200, 350), {}, "more than 65535 distinct values"),
        (np.array([[2**63 + 5]], "uint64"), {}, "smaller codes"),
        (np.ones((5, 5), "uint8"), {"transform": Affine(0, 0, 1, 0, 0, 1)}, "pixels have no size"),
        (
            np.ones((5, 5), "uint8"),
            {"crs": "EPSG:4326", "transform": Affine(1, 0, 0, 0, -1, 700)},
            "latitudes",
        ),
    ],
    ids=[
        "zero",
        "no data",
        "float",
        "complex",
        "bands",
        "picture",
        "classes",
        "uint64",
        "no size",
        "off the Earth",
    ],
)
def test_what_is_no_label_raster(
    tmp_path: Path, values: NDArray[Any], profile: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "l.tif", values, **profile)
    with pytest.raises(SceneError, match=words):
        LabelRaster.open(path)


def test_too_many_classes_stop_early(tmp_path: Path) -> None:
    """The rest is not read: it is not there."""
    path = tmp_path / "l.tif"
    labels = np.arange(4200 * 1024, dtype="uint32").reshape(4200, 1024)
    write(path, labels, tiled=False, blockysize=100)
    with rasterio.open(path) as file:
        assert file.block_shapes[0] == (100, 1024)
    with pytest.raises(SceneError, match=r"more than 65535 distinct values, up to row 40\d\d already"):
        LabelRaster.open(path)


@given(
    st.tuples(st.integers(1, 9000), st.integers(1, 9000)),
    st.tuples(st.sampled_from([1, 7, 256, 512, 5000]), st.sampled_from([1, 256, 512, 5000, 9000])),
)
def test_scanning_covers_all_with_bounded_memory(shape: tuple[int, int], block: tuple[int, int]) -> None:
    boxes = list(scan_boxes(shape, block))
    assert sum(box.size for box in boxes) == shape[0] * shape[1]
    assert {box.clip(Box.of(shape)) for box in boxes} == set(boxes)
    assert max(box.size for box in boxes) <= 26_000_000


def test_what_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"nowhere\.tif"):
        LabelRaster.open(tmp_path / "nowhere.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(SceneError, match=r"can't open .*text\.tif as a raster"):
        LabelRaster.open(tmp_path / "text.tif")
    path = write(tmp_path / "cut.tif", some(shape=(500, 500)))
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(SceneError, match="truncated"):
        LabelRaster.open(path)


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "l.tif",
        some(shape=(600, 600)),
        compress="deflate",
        tiled=True,
        blockxsize=256,
        blockysize=256,
    )
    raster = LabelRaster.open(path)
    stamp = path.stat().st_mtime_ns
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    os.utime(path, ns=(stamp, stamp))
    with (
        ThreadPoolExecutor(1) as fresh,
        pytest.raises(ReadError, match="can't read rows 256 to 511, columns 256 to 511"),
    ):
        fresh.submit(raster.read, Box(256, 256, 256, 256)).result()


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", some())
    raster = LabelRaster.open(path)
    write(path, some() + 7)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ReadError, match="changed since it was opened"):
        raster.read(Box(0, 0, 2, 2))


def test_a_sparse_file(tmp_path: Path) -> None:
    """100 megapixels of which one tile is there."""
    path = tmp_path / "l.tif"
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": 10_000,
        "width": 10_000,
        "crs": "EPSG:32631",
    }
    with rasterio.open(
        path,
        "w",
        **profile,
        transform=PLACE,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        sparse_ok=True,
        compress="lzw",
    ) as file:
        file.write(np.full((512, 512), 4, "uint8"), 1, window=((512, 1024), (0, 512)))
    assert path.stat().st_size < 100_000
    raster = LabelRaster.open(path)
    assert raster.codes == (4,)
    assert raster.read(Box(510, 0, 4, 2)).tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


def test_a_huge_grid_is_opened_without_being_read(tmp_path: Path) -> None:
    """A mosaic of 10^12 pixels: all that its type can hold are codes."""
    path = write(tmp_path / "l.tif", some())
    vrt = tmp_path / "l.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="1000000" rasterYSize="1000000"><SRS>EPSG:3857</SRS>'
        '<GeoTransform>0,1,0,0,0,-1</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="9" '
        'ySize="7"/><DstRect xOff="999000" yOff="500000" xSize="9" ySize="7"/></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    raster = LabelRaster.open(vrt, scan=False)
    assert raster.shape == (1_000_000, 1_000_000)
    assert raster.codes == tuple(range(1, 256))
    assert np.array_equal(raster.read(Box(500_000, 999_000, 7, 9)), some())
    assert "no class" in str(raster.no_class())


def test_without_crs(tmp_path: Path) -> None:
    path = write(tmp_path / "l.png", some(), driver="PNG", crs=None, transform=Affine.identity())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster = LabelRaster.open(path)
        assert np.array_equal(raster.read(Box(0, 0, 7, 9)), some())
    assert not raster.georeferenced
    assert "no CRS" in raster.remarks[0]


def test_control_points_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", some(), crs=None, transform=Affine.identity())
    points = [
        rasterio.control.GroundControlPoint(r, c, c * 2, r * 2, 0)
        for r, c in ((0, 0), (0, 9), (7, 0), (7, 9))
    ]
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.CRS.from_epsg(32631)
    raster = LabelRaster.open(path)
    assert "ground control points: gdalwarp" in raster.remarks[0]


def test_a_building_site_is_not_on_the_map(tmp_path: Path) -> None:
    raster = LabelRaster.open(write(tmp_path / "l.tif", some(), crs='LOCAL_CS["site",UNIT["metre",1]]'))
    assert not raster.georeferenced
    assert "no map of the Earth" in raster.remarks[0]


def aux(path: Path, body: str) -> None:
    path.with_name(path.name + ".aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{body}</PAMRasterBand></PAMDataset>', encoding="utf-8"
    )


CATEGORIES = (
    "<CategoryNames><Category>none</Category><Category>wood &amp; bush</Category><Category/></CategoryNames>"
)


def table(heads: list[tuple[str, int, int]], rows: list[tuple[Any, ...]]) -> str:
    """An attribute table of heads (name, type, usage)."""
    fields = "".join(
        f'<FieldDefn index="{k}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for k, (name, kind, usage) in enumerate(heads)
    )
    cells = ["".join(f"<F>{cell}</F>" for cell in row) for row in rows]
    body = "".join(f'<Row index="{k}">{row}</Row>' for k, row in enumerate(cells))
    return f'<GDALRasterAttributeTable tableType="thematic">{fields}{body}</GDALRasterAttributeTable>'


def test_names_of_categories(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", some())
    aux(path, CATEGORIES)
    assert LabelRaster.open(path).names == {0: "none", 1: "wood & bush"}


@pytest.mark.parametrize("head", ["class_name", "Class", "Name", "landcover", "Land Cover", "LABEL"])
def test_names_of_an_attribute_table(tmp_path: Path, head: str) -> None:
    path = write(tmp_path / "l.tif", some())
    heads = [("Count", 1, 1), ("VALUE", 2, 0), (head, 2, 0), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    aux(
        path,
        CATEGORIES
        + table(heads, [(9, 3, "sea", 0, 0, 255), (8, 1, "wood", 0, 1, 0), (7, "?", "x", 1, 2, 3)]),
    )
    raster = LabelRaster.open(path)
    assert raster.names == {0: "none", 1: "wood", 3: "sea"}
    assert raster.colors == {3: (0, 0, 255), 1: (0, 1, 0)}


def test_an_attribute_table_of_erdas(tmp_path: Path) -> None:
    """Its rows are counted from 0 and have no value column."""
    path = write(tmp_path / "l.img", some(), driver="HFA")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (1, 2, 3)})
    heads = [("Histogram", 1, 1), ("Class_Names", 2, 2), ("Red", 1, 6), ("Green", 1, 7), ("Blue", 1, 8)]
    aux(path, table(heads, [(0, "", 0, 0, 0), (5, "wood", 0, 128, 0), (6, "sea", 0, 0, 1)]))
    raster = LabelRaster.open(path)
    assert raster.colors[2] == (1, 2, 3)
    assert raster.names in ({1: "wood", 2: "sea"}, {})  # GDAL lets ERDAS' own table outrank the sidecar's


def test_rows_without_values_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", some())
    heads = [("Histogram", 1, 1), ("Class_Names", 2, 2), ("Red", 1, 6), ("Green", 1, 7), ("Blue", 1, 8)]
    aux(path, table(heads, [(0, "", 0, 0, 0), (5, "wood", 0, 128, 0), (6, "sea", 0, 0, 1)]))
    raster = LabelRaster.open(path)
    assert raster.names == {1: "wood", 2: "sea"}
    assert raster.colors[1] == (0, 128, 0)


def test_the_table_of_arcgis(tmp_path: Path) -> None:
    import pyogrio

    path = write(tmp_path / "l.tif", some("int16"))
    names = np.array(["deep sea", None, "wood"], object)
    columns = [
        np.array([2, 3, -1], np.int32),
        np.array([10.0, 20.0, 1.0]),
        names,
        *(np.array([0.0, 0.25, 1.0]),) * 3,
    ]
    pyogrio.raw.write(
        tmp_path / "t.dbf", None, columns, ["VALUE", "COUNT", "CLASS_NAME", "RED", "GREEN", "BLUE"],
        driver="ESRI Shapefile", geometry_type=None, crs=None,
    )  # fmt: skip
    (tmp_path / "t.dbf").rename(tmp_path / "l.tif.vat.dbf")
    raster = LabelRaster.open(path)
    assert raster.names == {2: "deep sea", -1: "wood"}
    assert raster.colors[3] == (64, 64, 64)


@pytest.mark.parametrize(
    "text", ["<PAMDataset>", "", "<PAMDataset><PAMRasterBand band='1'><GDALRasterAttributeTable/>"]
)
def test_a_broken_sidecar_is_no_hindrance(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "l.tif", some())
    path.with_name("l.tif.aux.xml").write_text(text)
    path.with_name("l.tif.vat.dbf").write_text(text)
    assert LabelRaster.open(path).names == {}


def test_a_colour_table(tmp_path: Path) -> None:
    path = write(tmp_path / "l.png", some(), driver="PNG", crs=None, transform=Affine.identity())
    path = tmp_path / "l.tif"
    write(path, some(), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0), 4: (9, 8, 7, 255)})
    raster = LabelRaster.open(path)
    assert raster.colors[4] == (9, 8, 7)
    assert raster.codes == (1, 2, 3, 4)


def test_it_is_a_value(tmp_path: Path) -> None:
    raster = LabelRaster.open(write(tmp_path / "l.tif", some()))
    assert pickle.loads(pickle.dumps(raster)) == raster


def test_reading_in_threads_and_blocks(tmp_path: Path) -> None:
    labels = some(shape=(300, 400))
    raster = LabelRaster.open(write(tmp_path / "l.tif", labels, tiled=True, blockxsize=128, blockysize=128))
    out = np.zeros(labels.shape, np.uint16)

    def one(box: Box) -> None:
        out[box.slices] = raster.read(box)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, (block.core for block in BlockGrid(raster.shape, 61))))
    assert np.array_equal(out, labels)


def test_bytes_that_mean_themselves(tmp_path: Path) -> None:
    sure = np.array([[0, 254, 255], [7, 0, 9]], "uint8")
    raster = LabelRaster.of_bytes(write(tmp_path / "c.tif", sure, nodata=255))
    assert np.array_equal(raster.read_values(Box(0, 0, 2, 3)), sure)
    other = LabelRaster.of_bytes(write(tmp_path / "d.tif", sure, nodata=0))
    assert other.read_values(Box(0, 0, 2, 3)).tolist() == [[255, 254, 255], [7, 255, 9]]
    with rasterio.open(write(tmp_path / "m.tif", sure), "r+") as file:
        file.write_mask(np.array([[1, 1, 1], [0, 1, 1]], bool))
    masked = LabelRaster.of_bytes(tmp_path / "m.tif")
    assert masked.read_values(Box(0, 0, 2, 3)).tolist() == [[0, 254, 255], [255, 0, 9]]
    with pytest.raises(SceneError, match="uint16; expected one band of uint8"):
        LabelRaster.of_bytes(write(tmp_path / "e.tif", sure.astype("uint16")))


def test_grids_that_differ(tmp_path: Path) -> None:
    raster = LabelRaster.open(write(tmp_path / "l.tif", some()))
    bare = LabelRaster.open(write(tmp_path / "b.tif", some(), crs=None))
    moved = Affine(2, 0, 500000.001, 0, -2, 4800000)
    raster.check_same_grid(LabelRaster.of_bytes(write(tmp_path / "1.tif", some(), transform=moved)))
    for profile, shape, words in (
        ({}, (7, 8), "7 x 8 px"),
        ({"crs": "EPSG:32632"}, (7, 9), "CRS is EPSG:32632, not EPSG:32631"),
        ({"transform": PLACE * Affine.translation(1, 0)}, (7, 9), "corners are up to 1 px off"),
        ({"crs": None}, (7, 9), "has no CRS"),
    ):
        other = LabelRaster.of_bytes(write(tmp_path / "2.tif", some(shape=shape), **profile))
        with pytest.raises(SceneError, match=words):
            raster.check_same_grid(other)
    bare.check_same_grid(LabelRaster.of_bytes(tmp_path / "b.tif"))
    with pytest.raises(SceneError, match="7 x 8 px"):
        bare.check_same_grid(LabelRaster.of_bytes(write(tmp_path / "3.tif", some(shape=(7, 8)), crs=None)))


def test_masks_of_pascal(data: Path) -> None:
    """Palette pictures without a place; 255 is the void between objects."""
    for path in sorted((data / "voc_sample" / "SegmentationClass").glob("*.png")):
        raster = LabelRaster.open(path, nodata=255)
        assert 0 in raster.codes
        assert 255 not in raster.codes
        assert raster.colors[1] == (128, 0, 0)
        assert not raster.georeferenced


def test_crop_classes(data: Path) -> None:
    path = data / "fixtures" / "label_rasters" / "CDL_2016_19_train.tif"
    raster, quick = LabelRaster.open(path), LabelRaster.open(path, scan=False)
    with rasterio.open(path) as file:
        present = np.unique(file.read(1))
    assert raster.codes == tuple(int(code) for code in present if code)
    box = Box(4000, 4000, 300, 300)
    assert np.array_equal(quick.read(box), quick.read_values(box))


@pytest.mark.parametrize("side", [64, 400, 700])
def test_a_png_that_was_cut_short_is_an_error(tmp_path: Path, side: int) -> None:
    """GDAL's reader of whole images would leave what is lacking as memory happened to be."""
    codes = np.random.default_rng(0).integers(1, 4, (side, side), np.uint8)
    path = write(tmp_path / "codes.png", codes, driver="PNG", crs=None, transform=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReadError, match="codes"):
        LabelRaster.open(path).read(Box(0, 0, side, side))
