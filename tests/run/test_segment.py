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
from collections.abc import Callable, Iterator
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
from rssegment.run import pipeline, runners
from rssegment.run.cluster import local_cluster
from rssegment.run.folder import prepare
from rssegment.run.store import Pixels
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
    assert names == {*PRODUCTS, "labels.tif.aux.xml", "taxonomy.yaml", "run.json"}


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


# ------------------------------------------------------------------------------- law 1 for polygons, all options

POLISHED: dict[str, object] = {
    "min_area": "20px", "fill_holes": "60px", "simplify": "1.2px", "smooth": 1, "levels": "all",
    "formats": ("geojson", "gpkg", "pmtiles", "shp"),
}  # fmt: skip


def vectors(out: Path) -> dict[str, str]:
    """Digests of all vector files, a shapefile's companions too."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("regions.*")}
    assert len(found) in (4 + 4, 1 + 5, 1)
    return found


def polished(connectivity: int, **values: object) -> rs.Settings:
    return settings(**(POLISHED | {"connectivity": connectivity} | values))


@pytest.fixture(scope="module")
def polygons(
    scene: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, str]]:
    """Vector files of a run with all options, in blocks of 256 px in this process, by connectivity."""
    known: dict[int, dict[str, str]] = {}

    def made(connectivity: int) -> dict[str, str]:
        if connectivity not in known:
            out = tmp_path_factory.mktemp(f"polygons{connectivity}")
            result = rs.segment(scene, bundle, out, settings=polished(connectivity))
            assert result.counts["levels"] == [1, 2, 3]
            known[connectivity] = vectors(out)
        return known[connectivity]

    return made


@pytest.mark.parametrize(
    ("connectivity", "block", "processes"),
    [(4, 333, 1), (4, 1024, 1), (4, 256, 2), (4, 333, 2), (4, 1024, 2), (8, 333, 1), (8, 256, 2)],
)
def test_blocks_and_processes_change_no_byte_of_polygons(
    scene: Path,
    bundle: Path,
    tmp_path: Path,
    polygons: Callable[[int], dict[str, str]],
    request: pytest.FixtureRequest,
    connectivity: int,
    block: int,
    processes: int,
) -> None:
    client = request.getfixturevalue("cluster") if processes > 1 else None
    rs.segment(scene, bundle, tmp_path, settings=polished(connectivity, block=block), client=client)
    assert vectors(tmp_path) == polygons(connectivity)
    assert polygons(4) != polygons(8)


def whole_margin(out: Path, like: Path) -> Path:
    """A raster of the margin, from the parts of the blocks."""
    path = out / "work" / "margin.tif"
    with rasterio.open(like) as file:
        profile = file.profile | {"driver": "GTiff", "dtype": "uint8", "nodata": 255}
        values, transform = np.full(file.shape, 255, np.uint8), file.transform
    for part in (out / "work").glob("*/margin/*.tif"):
        with rasterio.open(part) as file:
            col, row = map(round, ~transform * (file.transform.c, file.transform.f))
            values[row : row + file.height, col : col + file.width] = file.read(1)
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return path


def vectorized(
    out: Path, folder: Path, tree: Taxonomy, connectivity: int, block: int = 500
) -> dict[str, str]:
    """Vector files of the class map in ``out``, whose parts were kept."""
    folder.mkdir()
    paths = [folder / path.name for path in out.glob("regions.*") if path.suffix[1:] in
             ("geojson", "gpkg", "pmtiles", "shp")]  # fmt: skip
    values = polished(connectivity).model_dump(
        include={"connectivity", "min_area", "fill_holes", "simplify", "smooth", "levels"}
    )
    rs.vectorize(
        out / "labels.tif",
        paths,
        taxonomy=tree,
        confidence=out / "confidence.tif",
        margin=whole_margin(out, out / "labels.tif"),
        block=block,
        **values,
    )
    return vectors(folder)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_failed_blocks_are_holes_in_polygons_until_they_are_mended(
    scene: Path,
    bundle: Path,
    tree: Taxonomy,
    tmp_path: Path,
    polygons: Callable[[int], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    connectivity: int,
) -> None:
    """Polygons are those of the class map, whether blocks are missing or not."""
    real, broken = block_module._classify, Box(256, 512, 256, 256)

    def fails(plan: rs.Plan, core: Box) -> dict[str, Pixels]:
        if core == broken:
            raise RuntimeError("a passing trouble")
        return real(plan, core)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(block_module, "_classify", fails)
        with pytest.raises(BlocksFailedError, match=r"1 of 12 blocks"):
            rs.segment(scene, bundle, out, settings=polished(connectivity, retries=0))
    assert vectors(out) == vectorized(out, tmp_path / "partial", tree, connectivity)
    features = json.loads((out / "regions.geojson").read_text())["features"]
    valid = (scene_values() != 0).any(0)
    valid[broken.slices] = False
    for level in (1, 2, 3):
        pixels = [each["properties"]["pixels"] for each in features if each["properties"]["level"] == level]
        assert sum(pixels) == valid.sum()
    rs.segment(scene, bundle, out, settings=polished(connectivity), resume=True, keep_work=True)
    assert vectors(out) == polygons(connectivity)
    assert vectors(out) == vectorized(out, tmp_path / "whole", tree, connectivity)


def test_polygons_around_failed_blocks_touch_no_data(
    scene: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed block is never filled, however small a hole it would be, and what is around it says so."""
    world = np.full((700, 900), 1, np.uint16)
    world[300:600, 300:800] = 2  # the block that fails lies inside of it
    world[50:60, 600:610] = 3
    broken, blocks = Box(400, 500, 100, 100), classified_as(world)

    def fails(plan: rs.Plan, core: Box) -> dict[str, Pixels]:
        if core == broken:
            raise RuntimeError("a lasting trouble")
        return blocks(plan, core)

    monkeypatch.setattr(block_module, "_classify", fails)
    with pytest.raises(BlocksFailedError):
        rs.segment(scene, bundle, tmp_path, settings=settings(block=100, retries=0, fill_holes="20000px"))
    import geopandas

    frame = geopandas.read_file(tmp_path / "regions.geojson")
    assert frame.touches_nodata.tolist() == [True, True]  # the scene's wedge of no data, and the failed block
    assert frame.code.tolist() == [1, 2]
    with rasterio.open(tmp_path / "labels.tif") as file:
        found = rasterio.features.rasterize(
            zip(frame.to_crs(file.crs).geometry, frame.code, strict=True),
            file.shape,
            transform=file.transform,
        )
        labels = file.read(1)
    assert (labels[broken.slices] == 0).all()
    np.testing.assert_array_equal(found != 0, labels != 0)


def classified_as(world: NDArray[np.uint16]) -> Callable[[rs.Plan, Box], dict[str, Pixels]]:
    """What takes the model's place: the classes of ``world``, all equally sure."""

    def classify(plan: rs.Plan, core: Box) -> dict[str, Pixels]:
        sure: NDArray[np.uint8] = np.full(core.shape, 200, np.uint8)
        return {"labels": np.ascontiguousarray(world[core.slices]), "confidence": sure, "margin": sure}

    return classify


@pytest.mark.parametrize("speck", [False, True], ids=["all kept at last", "one cleaned at last"])
def test_what_cleaning_left_beside_a_failed_block_is_forgotten(
    scene: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speck: bool
) -> None:
    """A region of 154 px that reaches 22 px into the next block: too small only while the rest of it is missing."""
    world = np.full((700, 900), 1, np.uint16)
    world[300:311, 500:514] = 3
    if speck:
        world[600, 100:103] = 4
    blocks, broken = classified_as(world), [Box(256, 256, 256, 256)]

    def fails_at_first(plan: rs.Plan, core: Box) -> dict[str, Pixels]:
        if core in broken:
            raise RuntimeError("a passing trouble")
        return blocks(plan, core)

    def recoded(out: Path) -> set[str]:
        return {path.stem for path in out.glob("work/*/raw/*.npy")}

    monkeypatch.setattr(block_module, "_classify", fails_at_first)
    values, out = settings(min_area="30px", retries=0), tmp_path / "out"
    with pytest.raises(BlocksFailedError):
        rs.segment(scene, bundle, out, settings=values)
    kept = {"level0_r0002_c0000"} if speck else set[str]()
    assert recoded(out) == {"level0_r0001_c0002"} | kept
    broken.clear()
    rs.segment(scene, bundle, out, settings=values, resume=True, keep_work=True)
    assert recoded(out) == kept
    rs.segment(scene, bundle, tmp_path / "fresh", settings=values)
    assert vectors(out) == vectors(tmp_path / "fresh")
    codes = [
        each["properties"]["code"] for each in json.loads((out / "regions.geojson").read_text())["features"]
    ]
    assert sorted(codes) == [1, 3]


# ------------------------------------------------------------------- the driver is killed while polygons are made

KILLER = """
import contextlib, importlib, itertools, os, signal, sys, traceback
from pathlib import Path
import rssegment as rs, torch
from rssegment.run import pipeline, polygons, regions, traces
from rssegment.write.atomic import staged as real

def dies(stage, number, written):
    seen = itertools.count(1)

    @contextlib.contextmanager
    def staged(path, *rest, **more):
        here = stage_of(path) == stage and next(seen) == number
        with real(path, *rest, **more) as temporary:
            yield temporary
            if here and not written:
                os.kill(os.getpid(), signal.SIGKILL)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    for module in (polygons, regions, traces):
        module.staged = staged

def stage_of(path):
    kind = path.name.partition(".")[2]
    if path.name.startswith("regions."):
        return "write"
    if kind == "npz":
        of_block = path.name.startswith("level0")
        return {("raw", True): "blank", ("raw", False): "knit", ("trace", True): "clean",
                ("trace", False): "knit again"}[path.parent.name, of_block]
    return {"npy": "recode", "pixels.npy": "count", "outlines.npz": "outline"}[kind]

for kernels in Path(rs.__file__).with_name("vector").glob("_*_*.py"):
    importlib.import_module(f"rssegment.vector.{kernels.stem}")  # once, and not in every child
scene, bundle, settings, folder = sys.argv[1:5]
for case in sys.argv[5:]:  # each in a process of its own, that has imported everything already
    stage, number, written = case.split(",")
    if os.fork() == 0:
        try:
            dies(stage, int(number), written == "written")
            rs.segment(scene, bundle, Path(folder, case), settings=rs.Settings.load(settings), resume=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    print(case, os.waitstatus_to_exitcode(os.wait()[1]))
"""
DEATHS = ["blank,1,written", "knit,2,", "recode,2,", "clean,5,", "knit again,1,", "count,4,written"]
DEATHS += ["outline,3,", "outline,36,written", "write,1,", "write,1,written"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("small") / "scene.tif", scene_values((300, 400)))


def small_settings(**values: object) -> rs.Settings:
    return polished(4, block=64, formats=("geojson", "shp"), **values)


@pytest.fixture(scope="module")
def killed(small: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of DEATHS with what a run left that was killed there, and "fresh" with one that wasn't."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_products", failing)
        with pytest.raises(RunError, match="no products"):
            rs.segment(small, bundle, folder / "fresh", settings=small_settings())
    for case in DEATHS:
        shutil.copytree(folder / "fresh", folder / case)
    options = folder / "settings.yaml"
    options.write_text(json.dumps(small_settings().model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-c", KILLER, small, bundle, options, folder, *DEATHS]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{case} {-signal.SIGKILL}" for case in DEATHS], done.stderr
    rs.segment(small, bundle, folder / "fresh", settings=small_settings(), resume=True)
    return folder


def failing(*arguments: object) -> None:
    raise RunError("no products")


@pytest.mark.slow
@pytest.mark.parametrize("case", DEATHS)
def test_a_driver_killed_on_the_way_to_polygons(
    small: Path, bundle: Path, killed: Path, case: str, request: pytest.FixtureRequest
) -> None:
    out = killed / case
    assert (out / "regions.geojson").exists() == (case == "write,1,written")
    assert not (out / "run.json").exists()
    client = request.getfixturevalue("cluster") if case.startswith("clean") else None
    rs.segment(small, bundle, out, settings=small_settings(), resume=True, client=client)
    assert vectors(out) == vectors(killed / "fresh")
    assert {path.name for path in out.iterdir()} == {path.name for path in (killed / "fresh").iterdir()}
