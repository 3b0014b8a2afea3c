"""Sources of real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from tests.training.folders import (
    RGB,
    opened,
    whole,
)


def test_flair_on_the_recipes_pixels(data: Path) -> None:
    source = {"labels": "{folder}/{stem}_labels.tif", "mapping": "flair_to_landcover"}
    scenes = opened(
        data,
        source | {"images": "flair_d034/*_train.tif", "role": "train"},
        source | {"images": "flair_d034/*_val.tif", "role": "validation", "region": "{stem}"},
        bands=(*RGB, "nir"),
        optional_bands=("nir",),
        resolution=0.4,
    )
    assert len(scenes) == 10
    assert all(scene.present == (True,) * 4 and scene.resolution == 0.4 for scene in scenes)
    scene = next(scene for scene in scenes if scene.region == "Z4_UU_val")
    assert all(
        abs(side / native - 0.5) < 2e-3 for side, native in zip(scene.shape, (1024, 2560), strict=True)
    )
    found, part = whole(scene), scene.read(Box(101, 203, 57, 63))
    assert np.array_equal(found.labels[101:158, 203:266], part.labels)
    assert np.array_equal(found.values[:, 101:158, 203:266], part.values)
    assert set(np.unique(found.labels).tolist()) <= {0, *range(1, 12)}
    red, green, nir = (found.values[k].astype(float) for k in (0, 1, 3))
    trees, roofs = np.isin(found.labels, (6, 7)), found.labels == 1
    assert (nir - red)[trees].mean() > (nir - red)[roofs].mean() + 20  # labels lie on what they name
    assert green[trees].mean() < green[roofs].mean()


def test_dubai_at_the_parents(data: Path) -> None:
    source = {
        "images": "dubai_hitl/tile_*/images/*.jpg",
        "labels": "{parent}/masks/{stem}.png",
        "mapping": "dubai_to_landcover",
        "bands": RGB,
    }
    scenes = opened(data, source, bands=(*RGB, "nir"), optional_bands=("nir",), resolution=0.4)
    assert len(scenes) == 54
    assert len({scene.name for scene in scenes}) == 54
    assert {scene.present for scene in scenes} == {(True, True, True, False)}
    codes = set().union(
        *(np.unique(scene.labels.read(Box.of(scene.shape))).tolist() for scene in scenes[::6])
    )
    assert codes <= {0, 1, 4, 5, 101, 102}
    assert len(codes) >= 5


def test_buildings_on_a_mosaic(data: Path) -> None:
    source = {
        "kind": "polygons",
        "images": "banepa_oam/banepa_z19_512.vrt",
        "labels": "banepa_oam/osm_buildings_central_block.geojson",
        "column": "building",
        "mapping": "osm_buildings",
    }
    tree = Taxonomy.load("buildings")
    (scene,) = opened(data, source, tree=tree, resolution=0.4)
    rows, cols = scene.shape
    box = Box(rows // 2 - 150, cols // 2 - 150, 300, 300)
    found = scene.read(box)
    assert 0.2 < (found.labels == tree.node("building").code).mean() < 0.7
