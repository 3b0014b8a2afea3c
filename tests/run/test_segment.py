"""Whole runs: the laws of invariance, coherence with the reference, and no silent hole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
from distributed import Client
from numpy.typing import NDArray
from shapely.geometry import shape

import rssegment as rs
from rssegment.errors import BlocksFailedError, OutputError, RunError, SceneError
from rssegment.grid import Box
from rssegment.run import block as block_module
from rssegment.run import runners
from rssegment.run.cluster import local_cluster
from rssegment.run.folder import prepare
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import make_bundle, scene_values, write_scene
from tests.write.rfc7946 import check as check_rfc7946

PRODUCTS = ("labels.tif", "confidence.tif", "regions.geojson")


def settings(**values: object) -> rs.Settings:
    return rs.Settings(**({"workers": 0, "block": 256} | values))


def digests(out: Path) -> dict[str, str]:
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in PRODUCTS}


@pytest.fixture(scope="module")
def reference(scene: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in this process, in blocks of 256 px."""
    out = tmp_path_factory.mktemp("reference")
    rs.segment(scene, bundle, out, settings=settings())
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    with local_cluster(2, 2, 8 << 30) as client:
        yield client


@pytest.mark.parametrize("block", [333, 1024])
def test_block_size_does_not_change_a_byte(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, block: int
) -> None:
    rs.segment(scene, bundle, tmp_path, settings=settings(block=block))
    assert digests(tmp_path) == digests(reference)


@pytest.mark.parametrize("block", [256, 333, 1024])
def test_two_processes_do_not_change_a_byte(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, block: int, cluster: Client
) -> None:
    rs.segment(scene, bundle, tmp_path, settings=settings(block=block), client=cluster)
    assert digests(tmp_path) == digests(reference)


def test_a_cluster_of_its_own(scene: Path, bundle: Path, reference: Path, tmp_path: Path) -> None:
    result = rs.segment(scene, bundle, tmp_path, settings=settings(workers=2))
    assert result.status == "done"
    assert digests(tmp_path) == digests(reference)


def test_products_hold_together(reference: Path, scene: Path, tree: Taxonomy) -> None:
    """Labels on valid pixels and nowhere else; polygons equal to the reference vectoriser's; counts true."""
    valid = (scene_values() != 0).any(0)
    with rasterio.open(reference / "labels.tif") as file:
        labels, transform = file.read(1), file.transform
    with rasterio.open(reference / "confidence.tif") as file:
        confidence = file.read(1)
    np.testing.assert_array_equal(labels != 0, valid)
    np.testing.assert_array_equal(confidence != 255, valid)
    assert set(np.unique(labels)) - {0} <= set(tree.leaf_codes.tolist())
    assert len(set(np.unique(labels)) - {0}) >= 3, "the toy model should not be trivial"
    run = json.loads((reference / "run.json").read_text())
    features = json.loads((reference / "regions.geojson").read_text())["features"]
    expected = list(rasterio.features.shapes(labels, mask=labels != 0, transform=transform))
    assert run["counts"]["regions"] == len(features) == len(expected)
    assert Counter(f["properties"]["code"] for f in features) == Counter(int(code) for _, code in expected)
    by_code = {c["code"]: c for c in run["counts"]["classes"]}
    for code in np.unique(labels[labels != 0]):
        pixels = int((labels == code).sum())
        assert by_code[code]["pixels"] == pixels
        assert by_code[code]["area_m2"] == pytest.approx(
            pixels * 0.25, rel=2e-3
        )  # UTM's scale off the meridian
        assert sum(f["properties"]["pixels"] for f in features if f["properties"]["code"] == code) == pixels
    sample = features[0]["properties"]
    assert sample["path"] == "/".join(tree.node(sample["code"]).path)
    mean = sum(f["properties"]["confidence"] * f["properties"]["pixels"] for f in features) / valid.sum()
    assert mean == pytest.approx(confidence[valid].mean() / 254, abs=1e-3)


def test_polygons_lie_where_the_pixels_are(reference: Path) -> None:
    import geopandas

    frame = geopandas.read_file(reference / "regions.geojson").to_crs(32631)
    with rasterio.open(reference / "labels.tif") as file:
        labels, transform = file.read(1), file.transform
    burned = rasterio.features.rasterize(
        zip(frame.geometry, frame.code, strict=True), labels.shape, transform=transform, dtype="uint16"
    )
    np.testing.assert_array_equal(burned, labels)


def test_nothing_is_left_behind(reference: Path) -> None:
    names = {path.name for path in reference.iterdir()}
    assert names == {*PRODUCTS, "labels.tif.aux.xml", "run.json"}


def test_model_grid_and_scene_grid(scene: Path, tree: Taxonomy, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "coarse", tree, ground_resolution=0.8)
    on_model = rs.segment(scene, bundle, tmp_path / "model", settings=settings(grid="model"))
    with rasterio.open(on_model.labels) as file:
        assert file.res == pytest.approx((0.8, 0.8), rel=1e-3)
        coarse = file.read(1)
    on_scene = [
        rs.segment(scene, bundle, tmp_path / f"scene{block}", settings=settings(block=block))
        for block in (256, 333)
    ]
    assert digests(on_scene[0].out) == digests(on_scene[1].out)
    with rasterio.open(on_scene[0].labels) as file:
        assert file.shape == (700, 900)
        fine = file.read(1)
    np.testing.assert_array_equal(fine != 0, (scene_values() != 0).any(0))
    rows, cols = np.indices(fine.shape)
    scale = on_model.plan["ground_resolution_m"][0] / 0.5
    nearest = coarse[
        np.minimum(((rows + 0.5) / scale).astype(int), coarse.shape[0] - 1),
        np.minimum(((cols + 0.5) / scale).astype(int), coarse.shape[1] - 1),
    ]
    both = (fine != 0) & (nearest != 0)
    assert (fine == nearest)[both].mean() > 0.8  # they differ along boundaries only


def damaged(path: Path, shape_: tuple[int, int] = (700, 900)) -> Path:
    """A scene with one tile whose bytes are broken: 128 px from (512, 512), inside block (1, 1) of 384 px."""
    write_scene(path, scene_values(shape_))
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=1))
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * 200)
    return path


@pytest.mark.parametrize("distributed", [False, True], ids=["serial", "cluster"])
def test_a_block_that_fails_is_named_and_can_be_mended(
    bundle: Path, tmp_path: Path, reference: Path, cluster: Client, distributed: bool
) -> None:
    path = damaged(tmp_path / "scene.tif")
    out = tmp_path / "out"
    client = cluster if distributed else None
    with pytest.raises(BlocksFailedError, match=r"1 of 6 blocks failed .*r0001_c0001") as caught:
        rs.segment(path, bundle, out, settings=settings(retries=0, block=384), client=client)
    assert [name for name, _ in caught.value.failures] == ["r0001_c0001"]
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "partial"
    assert run["missing"][0]["block"] == "r0001_c0001"
    with rasterio.open(out / "labels.tif") as file:
        labels = file.read(1)
    hole = np.zeros(labels.shape, bool)
    hole[384:, 384:768] = True
    np.testing.assert_array_equal(labels != 0, (scene_values() != 0).any(0) & ~hole)
    feature = json.loads((out / "missing.geojson").read_text())["features"][0]
    assert feature["properties"]["block"] == "r0001_c0001"
    assert shape(feature["geometry"]).is_valid
    write_scene(path, scene_values())  # another scene by its content, so it is begun afresh
    with pytest.raises(OutputError, match="another scene"):
        rs.segment(path, bundle, out, settings=settings(block=384), client=client, resume=True)
    rs.segment(path, bundle, out, settings=settings(block=384), client=client, overwrite=True)
    assert digests(out) == digests(reference)
    assert not (out / "missing.geojson").exists()


def test_resume_does_the_failed_blocks_and_no_other(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, traced, broken = block_module._classify, list[Box](), [True]

    def fails_at_first(plan: rs.Plan, core: Box) -> object:
        if core == Box(256, 512, 256, 256) and broken[0]:
            raise RuntimeError("a passing trouble")
        traced.append(core)
        return real(plan, core)

    monkeypatch.setattr(block_module, "_classify", fails_at_first)
    with pytest.raises(BlocksFailedError, match=r"1 of 12 blocks failed .*RuntimeError: a passing trouble"):
        rs.segment(scene, bundle, tmp_path, settings=settings(retries=1))
    assert len(traced) == 11
    broken[0] = False
    result = rs.segment(scene, bundle, tmp_path, settings=settings(), resume=True)
    assert traced[11:] == [Box(256, 512, 256, 256)]
    assert result.status == "done"
    assert digests(tmp_path) == digests(reference)
    assert not (tmp_path / "missing.geojson").exists()


def test_a_passing_trouble_is_retried(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = block_module._classify, Counter[Box]()

    def fails_once(plan: rs.Plan, core: Box) -> object:
        tries[core] += 1
        if tries[core] == 1:
            raise RuntimeError("a passing trouble")
        return real(plan, core)

    monkeypatch.setattr(block_module, "_classify", fails_once)
    rs.segment(scene, bundle, tmp_path, settings=settings(retries=1))
    assert set(tries.values()) == {2}
    assert digests(tmp_path) == digests(reference)


def test_a_damaged_part_is_done_again(scene: Path, bundle: Path, reference: Path, tmp_path: Path) -> None:
    rs.segment(scene, bundle, tmp_path, settings=settings(), keep_work=True)
    (tmp_path / "run.json").unlink()
    part = next((tmp_path / "work").glob("*/labels/r0001_c0001.tif"))
    content = bytearray(part.read_bytes())
    content[-300:] = bytes(300)
    part.write_bytes(content)
    rs.segment(scene, bundle, tmp_path, settings=settings(), resume=True)
    assert digests(tmp_path) == digests(reference)


def test_nobodys_own_files_are_touched(scene: Path, bundle: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "work" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match="not from a run"):
            rs.segment(scene, bundle, tmp_path, settings=settings(), **flags)
    assert theirs.read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "labels.tif").write_text("mine")
    with pytest.raises(OutputError, match="no run that could be resumed"):
        rs.segment(scene, bundle, tmp_path / "other", settings=settings(), resume=True)
    assert (tmp_path / "other" / "labels.tif").read_text() == "mine"


@pytest.mark.parametrize("name", ["labels.tif", "work/scene.tif"])
def test_a_run_never_writes_over_its_input(scene: Path, bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "work").mkdir()
    shutil.copy(scene, tmp_path / name)
    with pytest.raises(OutputError, match=r"its own input"):
        rs.segment(tmp_path / name, bundle, tmp_path, settings=settings(), overwrite=True)
    assert (tmp_path / name).read_bytes() == scene.read_bytes()


def test_an_earlier_result_stays_until_there_is_a_new_one(
    bundle: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    empty = write_scene(tmp_path / "empty.tif", np.zeros((3, 100, 100), np.uint8))
    with pytest.raises(SceneError, match="no data"):
        rs.segment(empty, bundle, out, settings=settings(), overwrite=True)
    assert digests(out) == digests(reference)
    assert (out / "run.json").exists()


def test_leftovers_of_a_killed_run_are_swept(scene: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / ".labels.tif.abc123").mkdir()
    (tmp_path / ".labels.tif.abc123" / "labels.tif").write_bytes(b"half")
    rs.segment(scene, bundle, tmp_path, settings=settings())
    assert not (tmp_path / ".labels.tif.abc123").exists()


def test_runs_share_a_cluster(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, cluster: Client
) -> None:
    def run(name: str) -> None:
        rs.segment(scene, bundle, tmp_path / name, settings=settings(), client=cluster)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, "abc"))
    assert all(digests(tmp_path / name) == digests(reference) for name in "abc")


def test_a_model_changed_on_the_way_ends_the_run(scene: Path, tree: Taxonomy, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "model", tree)

    def change(stage: str, done: int, total: int, pixels: int) -> None:
        if done == 2 and stage == "segment":
            shutil.rmtree(path)
            make_bundle(path, tree, resolution_factor=3)

    with pytest.raises(BlocksFailedError, match="changed since the run began"):
        rs.segment(scene, path, tmp_path / "out", settings=settings(block=128), progress=change)


def test_a_scene_changed_on_the_way_gives_no_result(scene: Path, bundle: Path, tmp_path: Path) -> None:
    path = shutil.copy(scene, tmp_path / "scene.tif")

    def change(stage: str, done: int, total: int, pixels: int) -> None:
        if done == 2 and stage == "segment":
            write_scene(path, scene_values()[::-1])

    with pytest.raises(RunError, match="changed or removed while it was segmented"):
        rs.segment(path, bundle, tmp_path / "out", settings=settings(), progress=change)
    assert not any((tmp_path / "out" / name).exists() for name in PRODUCTS)


def test_a_lost_scheduler_is_reported(scene: Path, bundle: Path, tmp_path: Path) -> None:
    with local_cluster(1, 1, 4 << 30) as client:

        def close(stage: str, done: int, total: int, pixels: int) -> None:
            if done == 2:
                client.cluster.close()

        with pytest.raises(RunError, match="--resume"):
            rs.segment(scene, bundle, tmp_path, settings=settings(block=100), client=client, progress=close)


def test_lost_workers_are_reported(
    scene: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "POLL", 0.2)
    monkeypatch.setattr(runners, "PATIENCE", 1.0)
    with local_cluster(1, 1, 4 << 30) as client:

        def retire(stage: str, done: int, total: int, pixels: int) -> None:
            if done == 2:
                client.cluster.scale(0)

        with pytest.raises(RunError, match=r"no Dask worker .*--resume"):
            rs.segment(scene, bundle, tmp_path, settings=settings(block=100), client=client, progress=retire)


def test_auto_block_is_kept_on_resume(scene: Path, bundle: Path, tmp_path: Path) -> None:
    job, _ = prepare(rs.plan(scene, bundle, tmp_path, rs.Settings(workers=0, block=128)), False, False)
    assert job.resources.block == 128
    again, _ = prepare(rs.plan(scene, bundle, tmp_path, rs.Settings(workers=0)), False, True)
    assert again.resources.block == 128


def test_all_blocks_failing_makes_nothing(bundle: Path, tmp_path: Path, tree: Taxonomy) -> None:
    broken = tmp_path / "scene.tif"
    write_scene(broken, scene_values((120, 120)))
    with rasterio.open(broken) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    with broken.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * 200)
    with pytest.raises((BlocksFailedError, SceneError)):
        rs.segment(broken, bundle, tmp_path / "out", settings=settings())
    assert not any((tmp_path / "out" / name).exists() for name in PRODUCTS)


def test_all_no_data_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", np.zeros((3, 200, 200), np.uint8))
    with pytest.raises(SceneError, match=r"every pixel .* no data"):
        rs.segment(path, bundle, tmp_path / "out", settings=settings())
    assert not any((tmp_path / "out" / name).exists() for name in PRODUCTS)


def test_an_earlier_result_is_not_replaced_unasked(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path
) -> None:
    before = digests(reference)
    with pytest.raises(OutputError, match="--overwrite"):
        rs.segment(scene, bundle, reference, settings=settings())
    assert digests(reference) == before
    with pytest.raises(OutputError, match="exclude"):
        rs.segment(scene, bundle, reference, settings=settings(), overwrite=True, resume=True)


def test_overwrite_replaces_and_leaves_other_files(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.tif").write_bytes(b"old")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    rs.segment(scene, bundle, tmp_path, settings=settings(), overwrite=True)
    assert digests(tmp_path) == digests(reference)
    assert (tmp_path / "notes.txt").read_bytes() == b"mine"


def test_resume_of_a_complete_run_does_nothing(scene: Path, bundle: Path, reference: Path) -> None:
    stamps = {path.name: path.stat().st_mtime_ns for path in reference.iterdir()}
    result = rs.segment(scene, bundle, reference, settings=settings(), resume=True)
    assert result.status == "done"
    assert result.counts["regions"] > 0
    assert stamps == {path.name: path.stat().st_mtime_ns for path in reference.iterdir()}


SCRIPT = """
import sys, rssegment as rs
rs.segment(*sys.argv[1:4], settings=rs.Settings(workers=int(sys.argv[4]), block=100, in_flight=1))
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_gives_the_same_bytes(
    scene: Path, bundle: Path, reference: Path, tmp_path: Path, workers: int
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(scene), str(bundle), str(tmp_path), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    done = tmp_path / "work"
    deadline = time.monotonic() + 120
    while len(list(done.glob("*/done/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = len(list(done.glob("*/done/*.json")))
    assert 4 <= kept < 63
    assert not (tmp_path / "labels.tif").exists()
    with pytest.raises(OutputError, match="--resume"):
        rs.segment(scene, bundle, tmp_path, settings=settings(block=100))
    with pytest.raises(OutputError, match="another scene, model, settings"):
        rs.segment(scene, bundle, tmp_path, settings=settings(block=100, overlap=0), resume=True)
    rs.segment(scene, bundle, tmp_path, settings=settings(block=100), resume=True)
    assert digests(tmp_path) == digests(reference)


def test_a_killed_worker_costs_nothing(scene: Path, bundle: Path, reference: Path, tmp_path: Path) -> None:
    with local_cluster(2, 1, 8 << 30) as client:
        victims = list(client.run(os.getpid).values())
        assert len(set(victims)) == 2
        killed: list[int] = []

        def kill_one(stage: str, done: int, total: int, pixels: int) -> None:
            if done == 3 and not killed:
                os.kill(victims[0], signal.SIGKILL)
                killed.append(victims[0])

        rs.segment(scene, bundle, tmp_path, settings=settings(block=150), client=client, progress=kill_one)
    assert killed
    assert digests(tmp_path) == digests(reference)


def test_a_script_needs_no_main_guard(scene: Path, bundle: Path, reference: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    subprocess.run([sys.executable, script, scene, bundle, out, "2"], check=True, timeout=300)
    assert digests(out) == digests(reference)


def test_pixels_outside_the_scene_are_never_labelled(bundle: Path, tmp_path: Path) -> None:
    """A scene smaller than the patch, and one of a patch plus 44 px: every pixel gets a class."""
    for size in [(1, 1), (1, 300), (40, 50), (108, 108)]:
        values: NDArray[np.uint8] = np.maximum(scene_values((500, 500))[:, -size[0] :, -size[1] :], 1)
        path = write_scene(tmp_path / f"{size}.tif", values, tiled=False)
        result = rs.segment(path, bundle, tmp_path / f"out{size}", settings=settings())
        with rasterio.open(result.labels) as file:
            assert file.shape == size
            assert (file.read(1) != 0).all()


def test_dry_run_touches_nothing(scene: Path, bundle: Path, tmp_path: Path) -> None:
    plan = rs.plan(scene, bundle, tmp_path / "out", settings())
    assert not (tmp_path / "out").exists()
    assert plan.describe()["blocks"] == 12
    assert "12 of 256 px" in str(plan)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ["gdalinfo", "labels.tif"],
            ["LAYOUT=COG", "ColorInterp=Palette", "roof", "NoData Value=0", "Overviews"],
        ),
        (["gdalinfo", "confidence.tif"], ["LAYOUT=COG", "NoData Value=255", "Scale:0.003937"]),
        (
            ["ogrinfo", "-so", "-al", "regions.geojson"],
            ["Geometry: Polygon", "area_m2: Real", "WGS 84"],
        ),
        (["rio", "cogeo", "validate", "--strict", "labels.tif"], ["is a valid cloud optimized GeoTIFF"]),
        (["rio", "cogeo", "validate", "--strict", "confidence.tif"], ["is a valid cloud optimized GeoTIFF"]),
    ],
    ids=lambda case: "-".join(case[:2]) if isinstance(case, list) else "",
)
def test_other_programs_accept_the_products(reference: Path, command: list[str], words: list[str]) -> None:
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    # GDAL_DATA and PROJ_DATA of Python's own GDAL would mislead the system's
    environment = {k: v for k, v in os.environ.items() if k not in ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB")}
    done = subprocess.run(
        [program, *command[1:]], cwd=reference, capture_output=True, text=True, check=True, env=environment
    )
    for word in words:
        assert word in done.stdout


def test_regions_are_as_rfc_7946_wants_them(reference: Path) -> None:
    assert len(check_rfc7946(reference / "regions.geojson")) > 100


def test_a_corrupt_jpeg_is_no_grey_patch(bundle: Path, tmp_path: Path) -> None:
    """GDAL only warns of it and fills the rest of the tile with grey."""
    path = write_scene(tmp_path / "scene.tif", np.maximum(scene_values(), 1), compress="jpeg", nodata=None)
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_4_4", "TIFF", bidx=1))
    with path.open("r+b") as raw:
        raw.seek(offset + size // 2)
        raw.write(b"\xff\xd9" * 20)
    with pytest.raises(BlocksFailedError, match=r"1 of 6 blocks failed .*r0001_c0001.*JPEG"):
        rs.segment(path, bundle, tmp_path / "out", settings=settings(retries=0, block=384))
