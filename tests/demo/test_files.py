"""The landscape's rasters and the picture, read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from rssegment.demo.files import write_landscape
from rssegment.demo.landscape import BANDS, Landscape
from rssegment.demo.picture import render_overview
from rssegment.errors import OutputError
from rssegment.taxonomy import Taxonomy


@pytest.fixture(scope="module")
def written(landscape: Landscape, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_landscape(landscape, tmp_path_factory.mktemp("demo") / "new" / "folder")


def test_scene_reads_back(landscape: Landscape, written: tuple[Path, Path]) -> None:
    with rasterio.open(written[0]) as file:
        assert np.array_equal(file.read(), landscape.bands)
        assert file.crs.to_epsg() == 32631
        assert file.transform == landscape.geobox.affine
        assert file.descriptions == BANDS
        assert file.profile["tiled"]


def test_scene_s_masks_are_the_wedge_and_infrared_is_not_alpha(
    landscape: Landscape, written: tuple[Path, Path]
) -> None:
    with rasterio.open(written[0]) as file:
        assert ColorInterp.alpha not in file.colorinterp
        assert file.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        for band in file.indexes:
            assert np.array_equal(file.read_masks(band) > 0, landscape.valid)


def test_truth_reads_back(landscape: Landscape, written: tuple[Path, Path]) -> None:
    with rasterio.open(written[1]) as file:
        assert file.dtypes == ("uint16",)
        assert np.array_equal(file.read(1), landscape.truth)
        assert np.array_equal(file.dataset_mask() > 0, landscape.valid)


def test_nothing_else_is_left(written: tuple[Path, Path]) -> None:
    assert sorted(path.name for path in written[0].parent.iterdir()) == ["scene.tif", "truth.tif"]


def test_writing_again_replaces(landscape: Landscape, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_landscape(landscape, tmp_path)]
    assert [path.read_bytes() for path in write_landscape(landscape, tmp_path)] == first


def test_a_file_in_place_of_the_folder_is_refused(landscape: Landscape, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="choose another folder"):
        write_landscape(landscape, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("with_truth", [True, False])
def test_picture_shows_the_classes(written: tuple[Path, Path], tmp_path: Path, with_truth: bool) -> None:
    scene, truth = written
    path = render_overview(scene, truth, truth if with_truth else None, tmp_path / "page.png")
    with Image.open(path) as image:
        page = np.asarray(image.convert("RGB"))
    assert page.shape[0] > (1500 if with_truth else 700)
    for node in Taxonomy.load("demo").nodes:
        assert (page == node.color).all(2).any(), node.name


def test_picture_marks_what_differs(landscape: Landscape, written: tuple[Path, Path], tmp_path: Path) -> None:
    scene, truth = written
    wrong = np.where(landscape.valid, 1 + landscape.truth % 8, 0).astype(
        np.uint16
    )  # the next class everywhere
    with rasterio.open(truth) as file:
        profile = file.profile
    with rasterio.open(tmp_path / "wrong.tif", "w", **profile) as file:
        file.write(wrong, 1)

    def reds(labels: Path) -> int:
        with Image.open(render_overview(scene, labels, truth, tmp_path / "page.png")) as image:
            return int((np.asarray(image.convert("RGB")) == (222, 38, 38)).all(2).sum())

    assert reds(truth) == 0
    assert reds(tmp_path / "wrong.tif") > 300_000


def test_picture_that_can_t_be_written(written: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="picture"):
        render_overview(*written, None, tmp_path / "no" / "folder" / "page.png")
