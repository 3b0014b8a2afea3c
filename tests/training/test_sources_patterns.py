"""Which files of a source are images, and which are their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rssegment.errors import InputError
from rssegment.training.recipe import SourceOptions
from rssegment.training.sources.patterns import pairs_of
from tests.training.folders import WEST, geojson, noise, opened, raster, whole

LABELS = "{folder}/{stem}_labels.tif"


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names_of(root: Path, images: str | tuple[str, ...], labels: str = LABELS) -> list[tuple[str, str]]:
    found = pairs_of(images, labels, root, "west")
    return [tuple(Path(path).relative_to(root).as_posix() for path in pair) for pair in found]  # type: ignore[misc]


def test_the_labels_of_an_image_are_no_image(tmp_path: Path) -> None:
    files(tmp_path, "west/a.tif", "west/a_labels.tif", "west/b.tif", "west/b_labels.tif")
    expected = [("west/a.tif", "west/a_labels.tif"), ("west/b.tif", "west/b_labels.tif")]
    assert names_of(tmp_path, "west/*.tif") == expected
    assert names_of(tmp_path, ("west/a*.tif", "west/../west/b*.tif"))[0] == expected[0]
    assert len(names_of(tmp_path, ("west/a*.tif", "./west/b*.tif"))) == 2
    files(tmp_path, "west/a_labels_labels.tif")  # labels of labels are no image either
    assert names_of(tmp_path, "west/*.tif") == expected


def test_labels_without_their_image_are_images_without_labels(tmp_path: Path) -> None:
    files(tmp_path, "west/a.tif", "west/a_labels.tif", "west/c_labels.tif", "west/d.tif")
    with pytest.raises(
        InputError, match=r"2 of 3 images of source 'west' have no labels:\n.*c_labels\.tif: no "
    ):
        names_of(tmp_path, "west/*.tif")


def test_several_labels_are_refused_of_images_only(tmp_path: Path) -> None:
    files(tmp_path, "a.tif", "a_x.tif", "a_x_1.tif", "a_x_2.tif")
    with pytest.raises(InputError, match=r"2 files match the labels of .*a_x\.tif"):
        names_of(tmp_path, ("a_x.tif",), "{stem}_?.tif")
    assert names_of(tmp_path, ("a.tif", "a_x.tif"), "{stem}_?.tif") == [("a.tif", "a_x.tif")]


def test_an_image_may_be_its_own_labels(tmp_path: Path) -> None:
    files(tmp_path, "a.tif", "b.tif")
    assert names_of(tmp_path, "*.tif", "{stem}.tif") == [("a.tif", "a.tif"), ("b.tif", "b.tif")]
    assert names_of(tmp_path, "*.tif", "b.tif") == [("a.tif", "b.tif")]


def test_the_least_recipe_opens_its_images(tmp_path: Path) -> None:
    for name in "ab":
        raster(tmp_path / "west" / f"{name}.tif", noise((3, 20, 20)))
        raster(tmp_path / "west" / f"{name}_labels.tif", np.ones((20, 20), np.uint8))
    scenes = opened(tmp_path, {"images": "west/*.tif", "labels": LABELS})
    assert [scene.name for scene in scenes] == ["west/a.tif", "west/b.tif"]


def test_vector_files_imply_polygons(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {"use": "house"})])
    source = {
        "images": "*_image.tif",
        "labels": "land.geojson",
        "column": "use",
        "mapping": {"house": "building"},
    }
    (scene,) = opened(pair, source)
    assert (whole(scene).labels[:20, :20] == 1).all()


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ("a.geojson", "polygons"),
        ("{folder}/{stem}.GPKG", "polygons"),
        ("a/*.parquet", "polygons"),
        ("a.shp", "polygons"),
        ("a.fgb", "polygons"),
        ("a.tif", "rasters"),
        ("a.geojson/{stem}", "rasters"),
        ("{stem}.{parent}", "rasters"),
        ("", "rasters"),
    ],
)
def test_kinds_by_the_labels_ending(labels: str, kind: str) -> None:
    options = SourceOptions(name="a", images="*", labels=labels)
    assert options.kind == kind
    assert SourceOptions(**options.model_dump()) == options
    assert SourceOptions(**options.model_dump(exclude_defaults=True)) == options
    assert SourceOptions(name="a", kind="coco_panoptic", labels=labels).kind == "coco_panoptic"
