"""From real tiles to batches: resampled, cached, counted, split, read by a worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from rssegment.training.cache import PixelCache
from rssegment.training.census import TRAIN, VALIDATION, take_census
from rssegment.training.loading import windows_loader
from rssegment.training.recipe import Recipe
from rssegment.training.sampling import Sampler
from rssegment.training.sources import open_sources
from rssegment.training.split import split_cells
from rssegment.training.windows import ValidationWindows, Windows

RECIPE = """
name: small
taxonomy: landcover
bands: [red, green, blue, nir]
optional_bands: [nir]
resolution: 0.4
split: {block: 60, gap: 20, validation: 0.3}
sample: {patch: 128, batch: 4}
sources:
  - name: flair
    images: flair_d034/Z[12]_*_val.tif
    labels: "{folder}/{stem}_labels.tif"
    mapping: flair_to_landcover
    region: "{stem:5}"
  - name: dubai
    images: dubai_hitl/tile_1/images/image_part_00[12].jpg
    labels: "{parent}/masks/{stem}.png"
    mapping: dubai_to_landcover
    bands: [red, green, blue]
    resolution: 0.4
    role: train
    weight: 0.3
"""


@pytest.mark.data
def test_real_tiles_become_batches(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.loads(RECIPE)
    taxonomy = Taxonomy.load(recipe.taxonomy)
    scenes = open_sources(recipe, data, taxonomy=taxonomy)
    cache = PixelCache(tmp_path, scenes, 1 << 30)
    census = take_census(scenes, taxonomy, cache)
    for scene in scenes:
        box = Box(scene.shape[0] // 3, scene.shape[1] // 4, 150, 170)
        kept, direct = cache.read(scene, box), scene.read(box)
        assert np.array_equal(kept.values, direct.values)
        assert np.array_equal(kept.labels, direct.labels)
        assert np.array_equal(kept.valid, direct.valid)
    roles = split_cells(scenes, census, recipe.split, recipe.seed).roles
    assert census.area(roles, VALIDATION) / census.area(roles) > 0.1
    held = census.pixels(roles, VALIDATION)
    common = census.pixels(roles, TRAIN) > 20_000
    assert (held[common & (held + census.pixels(roles) > 100_000)] > 0).mean() > 0.5
    statistics = census.statistics(roles)
    assert ((statistics.mean > 40) & (statistics.mean < 200) & (statistics.std > 10)).all()
    assert statistics.pixels[3] < statistics.pixels[0]  # no near infrared in Dubai
    sampler = Sampler(census, roles, recipe)
    batches = list(windows_loader(scenes, sampler, recipe, range(24), cache=cache, workers=1))
    again = Windows(scenes, sampler, cache)
    for number, batch in enumerate(batches):
        other = again.__getitems__(range(4 * number, 4 * number + 4))
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
        assert batch.labels.flatten(1).any(1).all()
        assert not batch.values[:, 3][~batch.present[:, 3]].any()
    assert {tuple(row) for batch in batches for row in batch.present.tolist()} == {
        (True,) * 4,
        (True,) * 3 + (False,),
    }
    windows = ValidationWindows(scenes, census, roles, cache, patch=256, overlap=64)
    scored = sum(int(windows[k].scored.sum()) for k in range(len(windows)))
    assert scored == held.sum()
