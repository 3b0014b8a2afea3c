"""Calibration: what truth drawn from a model at a known temperature must give back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

import rssegment as rs
from rssegment.cli import main
from rssegment.decode import Backoff, decide
from rssegment.errors import InputError, OutputError, SettingsError
from rssegment.grid import Box
from rssegment.model import Bundle
from rssegment.predict import leased
from rssegment.run.block import strips
from rssegment.run.held_out import Sampling, Sweep, log_loss
from rssegment.scene import Scene
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import scene_values, write_scene
from tests.run.test_segment import settings

TEMPERATURE = 2.2
SHAPE = (512, 640)


def probabilities(scene: Path, bundle: Path, temperature: float) -> NDArray[np.float32]:
    """Blended leaf probabilities (L, H, W) of a whole scene."""
    plan = rs.plan(scene, bundle, "nowhere", settings=settings())
    model = leased(Sweep(Bundle.open(bundle).load(), [temperature]))
    return np.concatenate(
        [strip.probabilities for strip in strips(plan, Box.of(plan.blocks.shape), model)], axis=1
    )


def write_labels(path: Path, codes: NDArray[np.uint8], **profile: object) -> Path:
    defaults: dict[str, object] = {
        "driver": "GTiff",
        "count": 1,
        "height": codes.shape[0],
        "width": codes.shape[1],
    }
    defaults |= {"dtype": "uint8", "crs": "EPSG:32631", "transform": Affine(0.5, 0, 500000, 0, -0.5, 4800000)}
    with rasterio.open(path, "w", **(defaults | profile)) as file:
        file.write(codes, 1)
    return path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = np.maximum(scene_values(SHAPE), 1)  # no hole in it
    return write_scene(tmp_path_factory.mktemp("ground") / "scene.tif", values)


@pytest.fixture(scope="module")
def truth(ground: Path, bundle: Path, tree: Taxonomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each pixel's class drawn with the probabilities that the model gives at :data:`TEMPERATURE`; every eleventh is
    known to its top class only, every thirteenth not at all.
    """
    shares = probabilities(ground, bundle, TEMPERATURE).cumsum(0)
    drawn = np.random.default_rng(5).random(SHAPE) * shares[-1]
    codes = tree.leaf_codes[(drawn > shares).sum(0)].astype(np.uint8)
    pixel = np.arange(codes.size).reshape(SHAPE)
    codes = np.where(pixel % 11 == 0, tree.ancestor_lookup(1)[codes], codes)
    codes = np.where(pixel % 13 == 0, 0, codes).astype(np.uint8)
    return write_labels(tmp_path_factory.mktemp("truth") / "truth.tif", codes)


@pytest.fixture(scope="module")
def calibrated(
    ground: Path, truth: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> rs.run.CalibrationResult:
    out = tmp_path_factory.mktemp("calibrated") / "toy"
    return rs.calibrate(bundle, [(ground, truth)], out=out, settings=settings(), spatial_block="32px")


def test_the_temperature_that_truth_was_drawn_with_is_found(calibrated: rs.run.CalibrationResult) -> None:
    facts = calibrated.calibration.measured
    assert calibrated.calibration.temperature == pytest.approx(TEMPERATURE, rel=0.03)
    assert facts["log_loss"]["after"] < facts["log_loss"]["before"]
    for level, error in facts["calibration_error"].items():
        # truth known to its top class only can't be counted below, which leaves a little more of water there
        assert error["after"] < (0.006 if level == "1" else 0.02), level
        assert error["before"] > error["after"], level


def test_all_blocks_are_used_once(calibrated: rs.run.CalibrationResult) -> None:
    facts = calibrated.calibration.measured
    assert facts["blocks"] == facts["blocks_checked"] == 16 * 20 // 2


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_the_share_of_errors_keeps_its_promise_on_blocks_kept_back(
    calibrated: rs.run.CalibrationResult, alpha: float
) -> None:
    row = next(row for row in calibrated.calibration.measured["coverage"] if row["alpha"] == alpha)
    assert row["covered"] + row["half_width"] >= 1 - alpha
    assert row["covered"] <= 1 - alpha + 0.05, "no more is left open than the promise needs"


def test_thresholds_fall_as_more_errors_are_allowed(calibrated: rs.run.CalibrationResult) -> None:
    taus = [calibrated.calibration.thresholds[alpha] for alpha in sorted(calibrated.calibration.thresholds)]
    assert taus == sorted(taus, reverse=True)
    assert len(taus) > 20


def test_a_calibrated_bundle_decides_by_its_own_threshold(
    calibrated: rs.run.CalibrationResult, ground: Path, bundle: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    result = rs.segment(
        ground, calibrated.bundle, tmp_path / "out", settings=settings(decide="conformal:0.1")
    )
    tau = calibrated.calibration.threshold(0.1)
    expected = decide(probabilities(ground, bundle, calibrated.calibration.temperature), tree, Backoff(tau))
    with rasterio.open(result.labels) as file:
        np.testing.assert_array_equal(file.read(1), expected.codes)
    assert json.loads((result.out / "run.json").read_text())["plan"]["rule"] == {
        "rule": "backoff",
        "tau": tau,
    }


def test_another_seed_keeps_back_other_blocks(ground: Path) -> None:
    grid = Scene.open(ground, rs.SceneOptions()).geobox
    side = rs.config.Length(32, "px")
    (rows, cols), first = Sampling(side, 0.25, 0).cut(grid)
    assert (rows, cols) == (32, 32)
    assert first.shape == (16, 20)
    assert first.sum() == 80
    assert not np.array_equal(first, Sampling(side, 0.25, 1).cut(grid)[1])
    assert not np.array_equal(first, Sampling(side, 0.25, 0, scene=1).cut(grid)[1])
    assert Sampling(rs.config.Length(16, "m"), 0, 0).cut(grid)[0] == (32, 32)


def test_log_loss_of_labels_at_any_level(tree: Taxonomy) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(5), (2, 3, 4)).transpose(0, 3, 1, 2).astype(np.float32)
    truth = np.array([[1, 2, 10, 0], [11, 5, 3, 4], [10, 11, 0, 1]], np.uint16)
    expected = np.zeros(2)
    for (row, col), code in np.ndenumerate(truth):
        if code:
            below = [
                k
                for k, leaf in enumerate(tree.leaves)
                if code in (leaf.code, *(n.code for n in tree.ancestors(leaf)))
            ]
            expected -= np.log(shares[:, below, row, col].astype(np.float64).sum(1))
    np.testing.assert_allclose(log_loss(shares, truth, tree), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({"spatial_block": "300px", "check": 0.0}, InputError, r"cover 6 spatial blocks.*at least 8"),
        ({"spatial_block": 0}, SettingsError, r"smaller than a pixel"),
        ({"spatial_block": "wide"}, SettingsError, r"spatial block is 'wide'"),
        ({"check": 1.0}, SettingsError, r"less than 1"),
        ({"pairs": []}, InputError, r"no scene was given"),
        ({"model": "demo"}, InputError, r"demo"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    changes: dict[str, object],
    kind: type[Exception],
    why: str,
    ground: Path,
    truth: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    given = {
        "model": bundle,
        "pairs": [(ground, truth)],
        "out": tmp_path / "out",
        "settings": settings(),
    } | changes
    if changes.get("model") == "demo":
        given["out"] = None
    with pytest.raises(kind, match=why):
        rs.calibrate(given.pop("model"), given.pop("pairs"), **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_labels_that_the_model_lacks_are_named(ground: Path, bundle: Path, tmp_path: Path) -> None:
    wrong = write_labels(tmp_path / "wrong.tif", np.full(SHAPE, 77, np.uint8))
    with pytest.raises(InputError, match="77"):
        rs.calibrate(
            bundle, [(ground, wrong)], out=tmp_path / "out", settings=settings(), spatial_block="32px"
        )


def test_reference_elsewhere(ground: Path, bundle: Path, tmp_path: Path) -> None:
    far = write_labels(
        tmp_path / "far.tif", np.ones(SHAPE, np.uint8), transform=Affine(0.5, 0, 9e5, 0, -0.5, 48e5)
    )
    with pytest.raises(InputError, match="overlap"):
        rs.calibrate(bundle, [(ground, far)], out=tmp_path / "out", settings=settings())


def test_a_copy_is_never_written_over(ground: Path, truth: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        rs.calibrate(bundle, [(ground, truth)], out=tmp_path / "out", settings=settings())


def test_a_scene_without_its_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ground: Path, bundle: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["rssegment", "calibrate", str(bundle), str(ground)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "expected a reference after each scene" in capsys.readouterr().err
