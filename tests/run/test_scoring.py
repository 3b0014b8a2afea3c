"""Scores of raster files: the same for any block, grids compared, nodata honoured, clear refusals."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import rssegment as rs
from rssegment.errors import InputError, ReadError, TaxonomyError
from rssegment.evaluation import Confusion
from rssegment.run import evaluate
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
UTM = Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0)


def write(
    path: Path, labels: NDArray[Any], crs: str | None = "EPSG:32631", transform: Affine = UTM, **options: Any
) -> Path:
    bands = labels if labels.ndim == 3 else labels[None]
    count, height, width = bands.shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": labels.dtype,
    } | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dataset:
            dataset.write(bands)
    return path


@pytest.fixture(scope="module")
def pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    codes = [0, *(node.code for node in DEMO.nodes)]
    return rng.choice(codes, (61, 83)).astype(np.uint8), rng.choice(codes, (61, 83)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("labels")
    return write(folder / "prediction.tif", pair[0]), write(folder / "reference.tif", pair[1])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(1, 100).filter(lambda side: side > 8))
def test_blocks_never_change_the_scores(files: tuple[Path, Path], pair: tuple[Any, Any], block: int) -> None:
    scores = evaluate(*files, DEMO, block=block)
    assert scores.confusion == Confusion.of(*pair, DEMO)


def test_a_taxonomy_by_name_or_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    DEMO.save(tmp_path / "tree.yaml")
    expected = evaluate(*files, DEMO).as_dict()
    assert evaluate(*map(str, files), "demo").as_dict() == expected
    assert evaluate(*files, tmp_path / "tree.yaml").as_dict() == expected
    with pytest.raises(TaxonomyError, match="did you mean 'demo'"):
        evaluate(*files, "demoo")


def test_perfect_map(files: tuple[Path, Path]) -> None:
    scores = evaluate(files[1], files[1], DEMO)
    assert [level.pixel_accuracy for level in scores.levels[:1]] == [1]
    assert scores.levels[0].mean_iou == 1


def test_nodata_values_and_masks_of_the_files(tmp_path: Path) -> None:
    reference = write(tmp_path / "r.tif", np.array([[1, 2, 255, 0]], np.uint8), nodata=255)
    prediction = write(tmp_path / "p.tif", np.array([[1, -9999, 2, 2]], np.int16), nodata=-9999)
    confusion = evaluate(prediction, reference, DEMO).confusion
    assert confusion.pixels == 2
    assert confusion.at_level(3).counts[:2, [0, 1, -1]].tolist() == [[1, 0, 0], [0, 0, 1]]
    masked = write(tmp_path / "m.tif", np.array([[1, 2, 2, 2]], np.uint8))
    with rasterio.open(masked, "r+") as dataset:
        dataset.write_mask(np.array([[255, 0, 255, 0]], np.uint8))
    assert evaluate(masked, masked, DEMO).confusion.pixels == 2


def test_ignored_values(tmp_path: Path) -> None:
    reference = write(tmp_path / "r.tif", np.array([[1, 2, 255, 8]], np.uint8))
    prediction = write(tmp_path / "p.tif", np.array([[1, 2, 2, 2]], np.uint8))
    with pytest.raises(InputError, match=r"255 \(1 px\)"):
        evaluate(prediction, reference, DEMO)
    assert evaluate(prediction, reference, DEMO, ignore=(255, 8)).leaf.pixel_accuracy == 1


@pytest.mark.filterwarnings("ignore:the prediction has no CRS")
def test_plain_images_without_georeference(tmp_path: Path) -> None:
    labels = np.array([[1, 2], [3, 8]], np.uint8)
    one = write(tmp_path / "a.png", labels, None, Affine.identity(), driver="PNG")
    other = write(tmp_path / "b.tif", labels, None, Affine.identity())
    assert evaluate(one, other, DEMO).leaf.pixel_accuracy == 1


@pytest.mark.parametrize(
    ("crs", "transform", "shape", "reason"),
    [
        ("EPSG:32632", UTM, (4, 5), "CRS EPSG:32632 and EPSG:32631"),
        ("EPSG:32631", UTM * Affine.translation(0.5, 0), (4, 5), "pixels up to 0.5 px apart"),
        ("EPSG:32631", UTM * Affine.scale(1.01), (4, 5), "px apart"),
        ("EPSG:32631", UTM * Affine.translation(0, 4) * Affine.scale(1, -1), (4, 5), "rows run"),
        ("EPSG:32631", UTM * Affine.rotation(2), (4, 5), "px apart"),
    ],
)
def test_grids_that_differ(
    crs: str | None, transform: Affine, shape: tuple[int, int], reason: str, tmp_path: Path
) -> None:
    reference = write(tmp_path / "r.tif", np.ones((4, 5), np.uint8))
    prediction = write(tmp_path / "p.tif", np.ones(shape, np.uint8), crs, transform)
    with pytest.raises(InputError, match=f"prediction .*r.tif are not on one grid: .*{reason}.*gdalwarp"):
        evaluate(prediction, reference, DEMO)


def test_plain_images_of_different_sizes(tmp_path: Path) -> None:
    one = write(tmp_path / "a.tif", np.ones((4, 5), np.uint8), None, Affine.identity())
    other = write(tmp_path / "b.tif", np.ones((4, 6), np.uint8), None, Affine.identity())
    with pytest.raises(InputError, match="sizes 4 x 5 and 4 x 6, and neither is georeferenced"):
        evaluate(one, other, DEMO)


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (3, -2), (-5, 7), (60, 80)])
def test_a_reference_that_overlaps_by_whole_pixels(
    pair: tuple[Any, Any], tmp_path: Path, rows: int, cols: int
) -> None:
    """The part that both have is scored; the rest of the map has no label."""
    prediction = write(tmp_path / "p.tif", pair[0])
    reference = write(tmp_path / "r.tif", pair[1], transform=UTM * Affine.translation(cols, rows))
    placed = np.zeros_like(pair[0])
    height, width = placed.shape
    down, across = (
        slice(max(0, rows), min(height, height + rows)),
        slice(max(0, cols), min(width, width + cols)),
    )
    placed[down, across] = pair[1][
        max(0, -rows) : height - max(0, rows), max(0, -cols) : width - max(0, cols)
    ]
    for block in (17, 2048):
        scores = evaluate(prediction, reference, DEMO, block=block)
        assert scores.confusion == Confusion.of(pair[0], placed, DEMO)
        assert int(scores.evidence.areas.pixels.sum()) == pair[0].size  # type: ignore[union-attr]


def test_no_overlap_says_where_the_reference_lies(tmp_path: Path) -> None:
    prediction = write(tmp_path / "p.tif", np.ones((4, 5), np.uint8))
    reference = write(
        tmp_path / "r.tif", np.ones((4, 5), np.uint8), transform=UTM * Affine.translation(9, -40)
    )
    with pytest.raises(InputError, match=r"r.tif doesn't overlap .*36 rows above and 4 columns to the right"):
        evaluate(prediction, reference, DEMO)


def test_rounded_coordinates_are_the_same_grid(tmp_path: Path) -> None:
    labels = np.ones((4, 5), np.uint8)
    degrees = Affine(1 / 3600, 0, 3.123456789, 0, -1 / 3600, 43.987654321)
    rounded = Affine(round(1 / 3600, 9), 0, 3.12345679, 0, -round(1 / 3600, 9), 43.98765432)
    one = write(tmp_path / "a.tif", labels, "EPSG:4326", degrees)
    other = write(tmp_path / "b.tif", labels, "EPSG:4326", rounded)
    assert evaluate(one, other, DEMO).confusion.pixels == 20


def test_files_that_are_no_label_rasters(tmp_path: Path) -> None:
    good = write(tmp_path / "good.tif", np.ones((4, 5), np.uint8))
    rgb = write(tmp_path / "rgb.tif", np.ones((3, 4, 5), np.uint8))
    floats = write(tmp_path / "floats.tif", np.ones((4, 5), np.float32))
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(InputError, match=r"prediction: .*rgb.tif has 3 bands.*a label raster has one"):
        evaluate(rgb, good, DEMO)
    with pytest.raises(InputError, match=r"reference: .*floats.tif holds float32 values"):
        evaluate(good, floats, DEMO)
    with pytest.raises(InputError, match=r"can't open the prediction: .*absent.tif"):
        evaluate(tmp_path / "absent.tif", good, DEMO)
    with pytest.raises(InputError, match=r"can't open the reference: .*text.tif"):
        evaluate(good, tmp_path / "text.tif", DEMO)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = write(tmp_path / "good.tif", rng.integers(1, 9, (64, 64)).astype(np.uint8), blockysize=4)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(InputError, match=r"broken.tif is truncated"):
        evaluate(broken, good, DEMO)


def test_damaged_pixels_name_the_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    good = write(tmp_path / "good.tif", rng.integers(1, 9, (64, 64)).astype(np.uint8), compress="deflate")
    data = bytearray(good.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (tmp_path / "broken.tif").write_bytes(data)
    with pytest.raises(
        ReadError, match=r"prediction: can't read rows 0 to 63, columns 0 to 63 of .*broken.tif: ."
    ):
        evaluate(tmp_path / "broken.tif", good, DEMO)


def test_flair_labels_are_labels_of_the_flair_taxonomy(data: Path) -> None:
    reference = sorted((data / "flair_d034").glob("*_labels.tif"))[0]
    scores = evaluate(reference, reference, "flair", ignore=range(14, 20))
    assert scores.confusion.pixels > 0
    assert {level.pixel_accuracy for level in scores.levels} == {1.0}


def test_the_public_function_works_whatever_was_imported_before(files: tuple[Path, Path]) -> None:
    """Importing a room must not take a public function's name away."""
    importlib.import_module("rssegment.evaluation")
    expected = evaluate(*files, DEMO).as_dict()
    assert rs.evaluate(*files, taxonomy="demo").as_dict() == expected
