"""Promises on real imagery: FLAIR scenes, and a small network that is trained on them here.

A network is trained on the first part of each zone's training file. What is left, and the validation files, is cut into
tiles of 100 m; lots decide which are calibrated on and which are looked at afterwards. That is what a threshold's
promise is about: for ground of another kind than what was calibrated on there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window
from torch import Tensor, nn
from torch.nn import functional

import rssegment as rs
from rssegment.decode.conformal import MissCounts, scores
from rssegment.decode.sums import marginals
from rssegment.grid import Box, PatchLattice
from rssegment.model import BandSpec, Bundle, Model, ModelSpec, save_bundle
from rssegment.predict import leased, predict_strips
from rssegment.run.block import strips
from rssegment.taxonomy import Taxonomy

pytestmark = [pytest.mark.data, pytest.mark.slow, pytest.mark.filterwarnings("ignore:`?torch.jit")]

TREE = Taxonomy.load("flair")
LEAVES = tuple(TREE.leaf_codes.tolist())
BANDS = ("red", "green", "blue", "nir")
MEANS, STDS = (105.0, 110.0, 100.0, 115.0), (52.0, 46.0, 43.0, 45.0)
ZONES = ("Z1_NN", "Z2_AA", "Z3_NF", "Z4_UU", "Z5_UA")
SHRINK = 2  # pixels of 0.4 m
TILE = 256  # px, 102.4 m: the side of a block of ground
TRAINED = 2048  # px of 0.2 m along a training file that the network sees; the next 512 are nobody's
TILES = 8  # of each zone, to calibrate on and to check on
ALPHAS = (0.05, 0.1, 0.2)
RULES = ("leaf", "level:2", "backoff:0.6", "backoff:0.95")

Pair = tuple[Path, Path]


class Small(nn.Module):
    """Half-size features of three sizes, about 40 px wide."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(len(BANDS), 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 32, 3, padding=4, dilation=4)
        self.wider = nn.Conv2d(32, 32, 3, padding=8, dilation=8)
        self.head = nn.Conv2d(48, len(LEAVES), 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.fine(x))
        half = torch.relu(self.down(fine))
        half = half + torch.relu(self.wide(half))
        half = half + torch.relu(self.wider(half))
        coarse = functional.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(torch.cat([fine, coarse], 1))


@dataclass(frozen=True)
class Crop:
    """Bands (C, H, W) and labels (H, W) of a part of a file, on pixels of 0.4 m."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    profile: dict[str, Any]

    @classmethod
    def read(cls, path: Path, row: int, col: int, height: int, width: int) -> Crop:
        """The pixels of a window, all in those of the file."""
        window = Window(col, row, width, height)
        shape = height // SHRINK, width // SHRINK
        with rasterio.open(path) as image, rasterio.open(path.with_name(f"{path.stem}_labels.tif")) as labels:
            pixels = image.read(window=window, out_shape=(4, *shape), resampling=Resampling.average)
            codes = labels.read(1, window=window, out_shape=shape, resampling=Resampling.mode)
            transform = image.window_transform(window) * image.transform.scale(SHRINK)
            profile = {"driver": "GTiff", "crs": image.crs, "transform": transform, "dtype": "uint8"}
        return cls(pixels, codes, profile | {"height": shape[0], "width": shape[1]})

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Files of the imagery and of its labels."""
        image, labels = folder / f"{name}.tif", folder / f"{name}_labels.tif"
        with rasterio.open(image, "w", count=len(BANDS), tiled=True, **self.profile) as file:
            file.write(self.image)
            file.descriptions = BANDS
        with rasterio.open(labels, "w", count=1, **self.profile) as file:
            file.write(self.labels, 1)
        return image, labels


def normalised(images: NDArray[np.uint8]) -> Tensor:
    shape = (1, -1, 1, 1)
    return (torch.from_numpy(images).float() - torch.tensor(MEANS).view(shape)) / torch.tensor(STDS).view(
        shape
    )


def train(crops: list[Crop], steps: int = 120, size: int = 96, seed: int = 0) -> Small:
    """Cross-entropy and Adam, under changing light."""
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), Small()
    optimizer = torch.optim.Adam(net.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    channel = np.full(256, -1)
    channel[list(LEAVES)] = np.arange(len(LEAVES))
    for _ in range(steps):
        images, truths = [], []
        for crop in (crops[k] for k in rng.integers(0, len(crops), 10)):
            row, col = (int(rng.integers(0, n - size + 1)) for n in crop.labels.shape)
            images.append(crop.image[:, row : row + size, col : col + size])
            truths.append(channel[crop.labels[row : row + size, col : col + size]])
        light = torch.from_numpy(rng.uniform(0.8, 1.25, (10, 1, 1, 1)).astype(np.float32))
        logits = net(
            normalised(np.stack(images)) * light + torch.from_numpy(rng.normal(0, 0.2, (10, 4, 1, 1))).float()
        )
        loss = functional.cross_entropy(logits, torch.from_numpy(np.stack(truths)), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def spec_of(**changes: Any) -> ModelSpec:
    bands = tuple(BandSpec(name=n, mean=m, std=s) for n, m, s in zip(BANDS, MEANS, STDS, strict=True))
    facts = {"name": "small", "bands": bands, "channels": LEAVES, "ground_resolution": 0.2 * SHRINK}
    return ModelSpec(**(facts | {"artifact": "torchscript", "patch": 128, "overlap": 32} | changes))


@pytest.fixture(scope="module")
def flair(data: Path) -> Path:
    folder = data / "flair_d034"
    if not folder.is_dir():
        pytest.skip(f"no FLAIR scenes at {folder}")
    return folder


def shape_of(path: Path) -> tuple[int, int]:
    with rasterio.open(path) as file:
        return file.shape


def seen(flair: Path, zone: str) -> Crop:
    """What the network is trained on."""
    path = flair / f"{zone}_train.tif"
    height, width = (min(n, TRAINED if n == max(shape_of(path)) else 1024) for n in shape_of(path))
    return Crop.read(path, 0, 0, height, width)


def unseen_tiles(flair: Path, zone: str) -> list[tuple[Path, int, int]]:
    """Places of all tiles of a zone that the network didn't see: file, row, column."""
    side, found = TILE * SHRINK, []
    for path in (flair / f"{zone}_train.tif", flair / f"{zone}_val.tif"):
        shape = shape_of(path)
        starts = [TRAINED + 512 if "train" in path.stem and n == max(shape) else 0 for n in shape]
        rows, cols = (range(start, n - side + 1, side) for start, n in zip(starts, shape, strict=True))
        found += [(path, row, col) for row in rows for col in cols]
    return found


@pytest.fixture(scope="module")
def tiles(flair: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Pair], list[Pair]]:
    """Imagery and labels, each tile a file of its own: those to calibrate on, and others."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(1)
    drawn: tuple[list[Pair], list[Pair]] = ([], [])
    for zone in ZONES:
        places = unseen_tiles(flair, zone)
        for k, at in enumerate(rng.permutation(len(places))[: 2 * TILES].tolist()):
            path, row, col = places[at]
            crop = Crop.read(path, row, col, TILE * SHRINK, TILE * SHRINK)
            drawn[k % 2].append(crop.write(folder, f"{zone}_{k}"))
    return drawn


@pytest.fixture(scope="module")
def network(flair: Path) -> Small:
    return train([seen(flair, zone) for zone in ZONES])


@pytest.fixture(scope="module")
def bundle(network: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "small"
    return save_bundle(path, torch.jit.trace(network, torch.zeros(1, 4, 128, 128)), spec_of(), TREE).path


@pytest.fixture(scope="module")
def town(flair: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A whole validation file, and its labels."""
    path = flair / "Z4_UU_val.tif"
    return Crop.read(path, 0, 0, *shape_of(path)).write(tmp_path_factory.mktemp("town"), "town")


@pytest.fixture(scope="module")
def calibrated(
    bundle: Path, tiles: tuple[list[Pair], list[Pair]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "small"
    how = {"spatial_block": f"{TILE}px", "check": 0, "settings": rs.Settings(workers=0)}
    return rs.calibrate(bundle, tiles[0], out=out, **how).bundle


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def holds(decided: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the decided class is the true one, lies above it or in it; undecided is right everywhere."""
    paths = {node.code: node.path for node in TREE.nodes} | {TREE.undecided: ()}
    right = np.zeros(truth.shape, bool)
    for mine in np.unique(decided).tolist():
        for theirs in np.unique(truth[decided == mine]).tolist():
            length = min(len(paths[mine]), len(paths[theirs]))
            if paths[mine][:length] == paths[theirs][:length]:
                right |= (decided == mine) & (truth == theirs)
    return right


# Coherence


@pytest.mark.parametrize("rule", RULES)
def test_decided_paths_are_valid_and_no_pixel_is_incoherent(
    rule: str, bundle: Path, town: Pair, tmp_path: Path
) -> None:
    scene, truth = town
    settings = rs.Settings(block=400, workers=0, decide=rule, level_rasters="all")
    rs.segment(scene, bundle, tmp_path, settings=settings)
    decided, finer = read(tmp_path / "labels.tif"), read(tmp_path / "confidence.tif")
    codes = set(np.unique(decided).tolist())
    assert codes <= {node.code for node in TREE.nodes} | {TREE.undecided}
    assert len(codes) >= 4
    assert (TREE.undecided in codes) == rule.startswith("backoff")
    assert bool(codes & {node.parent for node in TREE.nodes}) == (rule != "leaf")
    for level in range(TREE.depth, 0, -1):
        lookup = TREE.ancestor_lookup(level)
        lookup[TREE.undecided] = TREE.undecided
        np.testing.assert_array_equal(read(tmp_path / f"labels_level{level}.tif"), lookup[decided])
        confidence = read(tmp_path / f"confidence_level{level}.tif")
        assert (confidence >= finer).all()
        finer = confidence
    scores_ = rs.evaluate(tmp_path, truth)
    assert scores_.hierarchy["incoherence_rate"] == 0
    coherence = scores_.evidence.coherence
    assert coherence is not None
    assert coherence.pixels == decided.size
    assert coherence.incoherent == 0


# What calibration promises


def missed(scene: Path, labels: Path, bundle: Bundle) -> NDArray[np.float32]:
    """Of each pixel, the threshold up to which its class is wrong."""
    plan = rs.plan(scene, bundle.path, "nowhere", settings=rs.Settings(workers=0))
    found = strips(plan, Box.of(plan.blocks.shape), leased(bundle.load()))
    return scores(np.concatenate([strip.probabilities for strip in found], 1), TREE, read(labels))


def test_on_other_tiles_at_least_what_was_promised_is_right(
    calibrated: Path, tiles: tuple[list[Pair], list[Pair]]
) -> None:
    bundle = Bundle.open(calibrated)
    assert bundle.calibration is not None
    assert bundle.calibration.measured["blocks"] == len(ZONES) * TILES
    parts = [MissCounts.of(missed(*pair, bundle), pair[0].stem, TILE**2) for pair in tiles[1]]
    misses = MissCounts.joined(parts)
    assert len(misses) == len(ZONES) * TILES
    for alpha in ALPHAS:
        tau = bundle.calibration.threshold(alpha)
        covered, half = misses.coverage(tau)
        assert covered >= 1 - alpha - half, (alpha, tau, covered, half)
        assert half < 0.1, "an interval that wide would prove nothing"
        assert misses.coverage(1e-3)[0] < 1 - alpha - half, "leaves alone would break it"


def test_a_run_is_wrong_where_its_calibration_says(calibrated: Path, town: Pair, tmp_path: Path) -> None:
    """From files to files, pixel by pixel."""
    bundle = Bundle.open(calibrated)
    assert bundle.calibration is not None
    for alpha in ALPHAS[1:]:
        settings = rs.Settings(workers=0, decide=f"conformal:{alpha}")
        rs.segment(town[0], calibrated, tmp_path / str(alpha), settings=settings)
        right = holds(read(tmp_path / str(alpha) / "labels.tif"), read(town[1]))
        tau = np.float32(bundle.calibration.threshold(alpha))
        np.testing.assert_array_equal(right, missed(*town, bundle) < tau)
        assert np.count_nonzero(~right) > 0


# Sums in half precision


@dataclass
class Pixels:
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_probabilities_of_a_network_in_bf16_add_up(
    how: str, temperature: float, network: Small, flair: Path
) -> None:
    """The network may be inexact; what is made of its logits is not."""
    half = Small().eval()
    half.load_state_dict(network.state_dict())
    if how == "bfloat16":
        half = half.bfloat16()

    def forward(x: Tensor) -> Tensor:
        if how == "bfloat16":
            return half(x.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            return half(x)

    assert forward(torch.zeros(1, 4, 32, 32)).dtype == torch.bfloat16
    image = Crop.read(flair / "Z5_UA_val.tif", 0, 0, 600, 620).image.astype(np.float32)
    scene = Box.of(image.shape[1:])

    def crop(box: Box) -> Pixels:
        return Pixels(image[:, *box.slices], np.ones((box.height, box.width), bool))

    def blended(net: Any) -> NDArray[np.float32]:
        model = Model(net, spec_of(), TREE, temperature=temperature)
        lattice = PatchLattice((scene.height, scene.width), 128, 32)
        return np.concatenate([s.probabilities for s in predict_strips(crop, lattice, scene, model)], 1)

    leaves = blended(forward)
    assert leaves.dtype == np.float32
    difference = np.abs(leaves - blended(network)).max()
    assert 1e-4 < difference < 0.5  # it was in half precision indeed, and is the same network
    nodes, rows = marginals(leaves, TREE), {node.code: row for row, node in enumerate(TREE.nodes)}
    np.testing.assert_allclose(leaves.sum(0, dtype=np.float64), 1, atol=1e-6, rtol=0)
    for node in TREE.nodes:
        if children := TREE.children(node):
            total = nodes[[rows[child.code] for child in children]].sum(0, dtype=np.float64)
            np.testing.assert_allclose(nodes[rows[node.code]], total, atol=1e-6, rtol=0)
    tops = [rows[node.code] for node in TREE.level(1) if node.level == 1]
    np.testing.assert_allclose(nodes[tops].sum(0, dtype=np.float64), 1, atol=1e-6, rtol=0)
