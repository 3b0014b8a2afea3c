"""Calibration: what truth drawn from a model at a known temperature must give back, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import rssegment as rs
from rssegment.cli import main
from rssegment.decode import Backoff, decide
from rssegment.errors import InputError, OutputError, PlanError, SettingsError
from rssegment.grid import Box
from rssegment.model import Bundle
from rssegment.predict import leased
from rssegment.run.block import strips
from rssegment.run.calibration import SWEEPS, _Measured
from rssegment.run.held_out import FEWEST, Sampling, SpatialBlocks, default_side
from rssegment.run.sweeps import SIDES, TOGETHER, Effort, Sweep, log_loss
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
def corner(truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for 256 px of the scene's first rows and columns."""
    with rasterio.open(truth) as file:
        codes = file.read(1)
    codes[256:], codes[:, 256:] = 0, 0
    return write_labels(tmp_path_factory.mktemp("corner") / "corner.tif", codes)


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


PX32 = rs.config.Length(32, "px")


def test_spatial_blocks_of_a_scene(ground: Path) -> None:
    grid = Scene.open(ground, rs.SceneOptions()).geobox
    blocks = Sampling(PX32, 0.25, 0).cut(grid)
    assert blocks == SpatialBlocks(SHAPE, (32, 32))
    assert blocks.grid_shape == (16, 20)
    numbers = blocks.numbers(Box.of(SHAPE))
    assert sorted(np.unique(numbers).tolist()) == list(range(320))
    box = Box(31, 64, 2, 33)
    np.testing.assert_array_equal(blocks.numbers(box), numbers[box.slices])
    touched = np.zeros(blocks.grid_shape, bool)
    touched[blocks.touching(box)] = True
    assert set(np.flatnonzero(touched).tolist()) == set(np.unique(blocks.numbers(box)).tolist())
    assert Sampling(rs.config.Length(16, "m"), 0, 0).cut(grid).side == (32, 32)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 0.95),
    st.integers(0, 99),
)
def test_what_is_kept_back_is_a_share_of_the_labelled_blocks_of_each_scene(
    scenes: list[tuple[int, int, float]], check: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labelled = [rng.random((rows, cols)) < share for rows, cols, share in scenes]
    count = sum(int(each.sum()) for each in labelled)
    sampling = Sampling(PX32, check, seed)
    back = max(1, int(check * count + 1e-9)) if check else 0
    if count - back < FEWEST:
        with pytest.raises(InputError, match=f"cover {count} spatial blocks of 32 px.*at least 8"):
            sampling.draw(labelled)
        return
    kept = sampling.draw(labelled)
    assert sum(int(each.sum()) for each in kept) == back
    for known, each in zip(labelled, kept, strict=True):
        assert not (each & ~known).any()
        assert abs(each.sum() - back / count * known.sum()) < 1 + 1e-9
    for one, other in zip(kept, sampling.draw(labelled), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_keeps_back_other_blocks() -> None:
    labelled = [np.ones((16, 20), bool)] * 2
    first, second = (Sampling(PX32, 0.25, seed).draw(labelled) for seed in (0, 1))
    assert first[0].sum() == first[1].sum() == 80
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], first[1]), "scenes are drawn from each for itself"


def test_of_scenes_with_one_block_each_every_second_is_kept_back() -> None:
    labelled = [np.ones((1, 1), bool)] * 40
    drawn = [[bool(each.any()) for each in Sampling(PX32, 0.5, seed).draw(labelled)] for seed in (0, 1)]
    assert sum(drawn[0]) == sum(drawn[1]) == 20
    assert drawn[0] != drawn[1]


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
        (
            {"spatial_block": "300px", "check": 0.0},
            InputError,
            r"cover 6 spatial blocks of 300 px; at least 8",
        ),
        ({"spatial_block": "200px"}, InputError, r"cover 12 spatial blocks.*and 6 of them would be kept"),
        ({}, InputError, r"spatial blocks of 100 m"),
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = {
        "model": bundle,
        "pairs": [(ground, truth)],
        "out": tmp_path / "out",
        "settings": settings(),
    } | changes
    if changes.get("model") == "demo":
        wanted["out"] = None
    monkeypatch.setattr(Bundle, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(kind, match=why):
        rs.calibrate(wanted.pop("model"), wanted.pop("pairs"), **wanted)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_labels_that_the_model_lacks_are_named(ground: Path, bundle: Path, tmp_path: Path) -> None:
    wrong = write_labels(tmp_path / "wrong.tif", np.full(SHAPE, 77, np.uint8))
    with pytest.raises(InputError, match=r"wrong\.tif has codes that the model's classes lack: 77.*--map"):
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


def copy_of(scene: Path, path: Path, **profile: object) -> Path:
    with rasterio.open(scene) as file:
        return write_scene(path, file.read(), **profile)


def test_the_same_ground_twice(ground: Path, truth: Path, bundle: Path, tmp_path: Path) -> None:
    def refused(pairs: list[tuple[Path, Path]], why: str) -> None:
        with pytest.raises(InputError, match=why):
            rs.calibrate(bundle, pairs, out=tmp_path / "out", settings=settings(), spatial_block="32px")

    refused([(ground, truth)] * 4, r"scene\.tif and .*scene\.tif show the same ground: 100\.0%.*as one file")
    half = copy_of(ground, tmp_path / "half.tif", transform=Affine(0.5, 0, 500160, 0, -0.5, 4800000))
    refused(
        [(ground, truth), (half, truth)], r"scene\.tif and .*half\.tif show the same ground: 50\.0%.*crop"
    )


def test_pixels_weigh_as_much_as_their_area(
    ground: Path, corner: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Affine(0.9, 0, 510000, 0, -0.9, 4800000)  # other ground, with larger pixels
    with rasterio.open(corner) as file:
        labels = write_labels(tmp_path / "labels.tif", file.read(1), transform=place)
    other = copy_of(ground, tmp_path / "other.tif", transform=place)
    seen: list[_Measured] = []
    whole = _Measured.on

    def watched(*given: Any) -> _Measured:
        seen.append(whole(*given))
        return seen[-1]

    monkeypatch.setattr(_Measured, "on", watched)
    rs.calibrate(
        bundle,
        [(ground, corner), (other, labels)],
        out=tmp_path / "out",
        settings=settings(),
        spatial_block=32,
    )
    fine, large = seen[0].grounds
    assert (fine.weight, fine.blocks.side) == (1000, (64, 64))
    assert large.weight == pytest.approx(3240, abs=3)
    assert large.blocks.side == (36, 36)
    areas = dict(zip(seen[0].misses.blocks, seen[0].misses.area.tolist(), strict=True))
    for scene, each in enumerate((fine, large)):
        for block, pixels in enumerate(each.labelled.ravel().tolist()):
            assert areas.get(f"{scene}/{block}", 0) == pixels * each.weight
    assert seen[0].misses.capacity == 36 * 36 * large.weight


def test_scenes_of_one_pixel_size_count_in_pixels(calibrated: rs.run.CalibrationResult, truth: Path) -> None:
    with rasterio.open(truth) as file:
        labels = np.count_nonzero(file.read(1))
    assert 0.45 * labels < calibrated.calibration.measured["pixels"] < 0.55 * labels


def test_labels_in_a_corner_are_what_is_drawn_from(
    ground: Path, corner: Path, bundle: Path, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int, int]] = []

    def calibrated(**values: object) -> rs.run.CalibrationResult:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        chosen = {"out": out, "settings": settings(), "spatial_block": "32px"} | values
        return rs.calibrate(bundle, [(ground, corner)], **chosen)  # type: ignore[arg-type]

    facts = calibrated(progress=lambda *step: told.append(step)).calibration.measured
    assert (facts["blocks"], facts["blocks_checked"]) == (32, 32)
    assert 0 < facts["pixels"] < 256 * 256
    stages = {stage: (done, total, pixels) for stage, done, total, pixels in told}
    assert list(stages) == ["labels", "calibrate"]
    assert stages["labels"] == (1, 1, SHAPE[0] * SHAPE[1])
    done, total, pixels = stages["calibrate"]
    assert done == total
    assert 1.5 * 256 * 256 < pixels <= 3 * 256 * 256, "only what has labels is predicted"
    facts = calibrated(check=0.01).calibration.measured
    assert (facts["blocks"], facts["blocks_checked"]) == (63, 1)
    assert facts["pixels"] > 0
    none = calibrated(check=0)
    facts = none.calibration.measured
    assert (facts["blocks"], facts["blocks_checked"]) == (64, 0)
    with rasterio.open(corner) as file:
        assert facts["pixels"] == np.count_nonzero(file.read(1))
    assert "checked on the same blocks" in str(none)


def test_labels_where_there_is_no_data(scene: Path, bundle: Path, tmp_path: Path) -> None:
    codes = np.zeros((700, 900), np.uint8)
    codes[:100, :100] = 1  # in the wedge
    with pytest.raises(
        InputError, match=r"t\.tif labels no pixel of the scene scene: its 10000 labels lie where"
    ):
        rs.calibrate(bundle, [(scene, write_labels(tmp_path / "t.tif", codes))], out=tmp_path / "out")
    with pytest.raises(InputError, match=r"t\.tif labels no pixel of the scene scene; give"):
        rs.calibrate(bundle, [(scene, write_labels(tmp_path / "t.tif", codes * 0))], out=tmp_path / "out")


def test_labels_of_top_classes_alone(
    ground: Path, corner: Path, bundle: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    with rasterio.open(corner) as file:
        codes = tree.ancestor_lookup(1)[file.read(1)]
    codes[codes == 5] = 0  # water is a leaf and known at every level
    result = rs.calibrate(
        bundle,
        [(ground, write_labels(tmp_path / "top.tif", codes.astype(np.uint8)))],
        out=tmp_path / "out",
        settings=settings(),
        spatial_block="64px",
    )
    assert result.calibration.measured["calibration_error"]["3"] == {"before": None, "after": None}
    assert re.search(r"level 3 +– +–\n", str(result))


def test_blocks_smaller_than_a_patch_are_remarked(
    calibrated: rs.run.CalibrationResult, ground: Path, corner: Path, bundle: Path, tmp_path: Path
) -> None:
    why = r"spatial blocks of 32 px are smaller than the model's patch \(32 m, 64 px of 0\.5 m\).*too narrow"
    assert any(re.match(why, remark) for remark in calibrated.remarks)
    assert "  note: spatial blocks of 32 px" in str(calibrated)
    wide = rs.calibrate(
        bundle, [(ground, corner)], out=tmp_path / "out", settings=settings(), spatial_block="64px"
    )
    assert not any("patch" in remark for remark in wide.remarks)


def test_spatial_blocks_are_as_large_as_a_patch(bundle: Path) -> None:
    spec = Bundle.open(bundle).spec
    assert default_side(spec) == (100, "m")
    assert default_side(spec.model_copy(update={"patch": 512})) == (256, "m")


# Memory


def test_what_is_held_at_once_changes_nothing(
    ground: Path, corner: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for effort in (Effort(1024, 5), Effort(96, 1)):
        monkeypatch.setattr(Effort, "of", lambda *_, effort=effort: effort)
        out = tmp_path / str(effort.side)
        result = rs.calibrate(bundle, [(ground, corner)], out=out, settings=settings(), spatial_block="32px")
        found.append(result.calibration)
    large, small = found
    assert small.temperature == pytest.approx(large.temperature, abs=1e-4)
    assert small.thresholds == large.thresholds
    assert small.measured == large.measured


def test_less_memory_holds_less_at_once(ground: Path, bundle: Path) -> None:
    leaves = "\n".join(f'  - {{code: {k}, name: "c{k}", color: "#000000"}}' for k in range(1, 301))
    many = Taxonomy.loads(f"name: many\nclasses:\n{leaves}\n")
    plan = replace(rs.plan(ground, bundle, "nowhere", settings=settings()), taxonomy=many)
    needs = {each: each.bytes_for(plan) for each in (Effort(side, k) for side in SIDES for k in TOGETHER)}
    chosen = []
    for memory in sorted(needs.values()):
        effort = Effort.within(memory, [plan], SWEEPS)
        assert needs[effort] <= memory
        chosen.append(effort)
    assert chosen[0] == Effort(SIDES[-1], 1)
    assert chosen[-1].temperatures == TOGETHER[0]
    times = [each._seconds([plan], SWEEPS) for each in chosen]
    assert times == sorted(times, reverse=True)
    with pytest.raises(PlanError, match=r"needs .* GB for a model of 300 classes"):
        Effort.within(min(needs.values()) - 1, [plan], SWEEPS)
    assert Effort.of(settings(memory=min(needs.values())), [plan], SWEEPS) == chosen[0]


def test_interruption_leaves_the_bundle_as_it_was(
    ground: Path, truth: Path, bundle: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(bundle, tmp_path / "own")

    def digest() -> dict[str, bytes]:
        return {
            str(path.relative_to(tmp_path)): path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    before = digest()
    for stage, at in (("labels", 1), ("calibrate", 2)):

        def stop(name: str, done: int, total: int, pixels: int, stage: str = stage, at: int = at) -> None:
            if (name, done) == (stage, at):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rs.calibrate(own, [(ground, truth)], settings=settings(), spatial_block="32px", progress=stop)
        assert digest() == before
    assert Bundle.open(own).calibration is None


def test_a_run_with_another_window_is_noted(
    calibrated: rs.run.CalibrationResult, ground: Path, bundle: Path
) -> None:
    def notes(model: Path, **values: object) -> list[str]:
        plan = rs.plan(ground, model, "nowhere", settings=settings(**values))
        return [note for note in plan.notes if "calibration" in note]

    assert notes(calibrated.bundle) == notes(calibrated.bundle, decide="conformal:0.1") == []
    assert notes(calibrated.bundle, overlap=16) == []  # the model's own
    assert notes(bundle, overlap=4) == []
    (note,) = notes(calibrated.bundle, overlap=4, decide="conformal:0.1")
    assert "measured with window blend and overlap 16 px, and this run has blend and 4 px" in note
    assert len(notes(calibrated.bundle, window="crop")) == 1


def test_a_scene_without_its_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ground: Path, bundle: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["rssegment", "calibrate", str(bundle), str(ground)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "expected a reference after each scene" in capsys.readouterr().err
