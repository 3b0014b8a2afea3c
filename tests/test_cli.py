"""The command line: exit codes, one clear message, never a traceback, nothing half-written at a final name."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.control import GroundControlPoint

import rssegment as rs
from rssegment import cli
from rssegment.model import save_bundle
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import (
    TREE,
    bundle,
    scene,
    scene_values,
    smooth_noise,
    toy_network,
    toy_spec,
    tree,
    write_scene,
)

__all__ = ["bundle", "scene", "tree"]  # fixtures

FINAL = ("labels.tif", "confidence.tif", "regions.geojson", "run.json")


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """Runs the command line in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["rssegment", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        code = caught.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def refused(outcome: Outcome, *words: str, code: int = 2) -> None:
    """The outcome is a refusal: its exit code, one line on standard error that has all ``words``."""
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("rssegment: ")
    for word in words:
        assert word in lines[0], outcome.err
    assert "Traceback" not in outcome.err + outcome.out


SMALL = scene_values((300, 300))[:, 130:, 130:]


def test_segment_and_inspect(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    outcome = run("segment", scene, "--model", bundle, "--out", tmp_path / "out", "--workers", 0, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    facts = json.loads(outcome.out)
    assert facts["status"] == "done"
    assert all((tmp_path / "out" / name).exists() for name in FINAL)
    assert json.loads(run("inspect", tmp_path / "out", "--json").out)["kind"] == "run"
    assert json.loads(run("inspect", bundle, "--json").out)["kind"] == "bundle"
    seen = json.loads(run("inspect", scene, "--model", bundle, "--json").out)
    assert (seen["kind"], seen["fits"]) == ("scene", True)
    assert "vegetation" in run("inspect", "demo").out or "bands" in run("inspect", "demo").out
    assert json.loads(run("inspect", "flair", "--json").out)["kind"] == "taxonomy"


def test_quiet_says_nothing(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    outcome = run("segment", scene, "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_progress_is_plain_lines_where_there_is_no_terminal(  # type: ignore[no-untyped-def]
    run, scene: Path, bundle: Path, tmp_path: Path
) -> None:
    outcome = run("segment", scene, "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "--block", 256)
    assert "segment: 12 of 12" in outcome.err
    assert "\x1b" not in outcome.err
    assert "regions.geojson" in outcome.out


def test_dry_run_prints_the_plan(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    outcome = run("segment", scene, "-m", bundle, "-o", tmp_path / "out", "--dry-run", "--json")
    assert json.loads(outcome.out)["shape"] == [700, 900]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["demo", "segment", "vectorize", "inspect"])
def test_every_verb_has_help_with_an_example(run, verb: str) -> None:  # type: ignore[no-untyped-def]
    outcome = run(verb, "--help")
    assert outcome.code == 0
    assert f"rssegment {verb}" in outcome.out.replace("\n", " ")
    assert "Example" in outcome.out


def no_crs(folder: Path) -> Path:
    return write_scene(folder / "s.tif", SMALL, crs=None)


def control_points_only(folder: Path) -> Path:
    path = folder / "s.tif"
    points = [
        GroundControlPoint(r, c, 5e5 + c, 48e5 - r) for r, c in [(0, 0), (0, 100), (100, 0), (100, 100)]
    ]
    with rasterio.open(path, "w", driver="GTiff", count=3, height=170, width=170, dtype="uint8") as file:
        file.gcps = (points, rasterio.CRS.from_epsg(32631))
        file.write(SMALL)
    return path


def truncated(folder: Path) -> Path:
    path = write_scene(folder / "s.tif", SMALL)
    path.write_bytes(path.read_bytes()[:300])
    return path


def not_a_raster(folder: Path) -> Path:
    (folder / "s.tif").write_text("hello")
    return folder / "s.tif"


def two_bands(folder: Path) -> Path:
    return write_scene(folder / "s.tif", SMALL[:2])


def sixteen_bits(folder: Path) -> Path:
    return write_scene(folder / "s.tif", SMALL.astype(np.uint16) * 40)


def too_coarse(folder: Path) -> Path:
    return write_scene(folder / "s.tif", SMALL, transform=Affine(10, 0, 500000, 0, -10, 4800000))


def all_no_data(folder: Path) -> Path:
    return write_scene(folder / "s.tif", np.zeros_like(SMALL))


def missing(folder: Path) -> Path:
    return folder / "nowhere.tif"


def a_folder(folder: Path) -> Path:
    return folder


BAD_SCENES = {
    no_crs: ("CRS", "--crs"),
    control_points_only: ("gdalwarp",),
    truncated: ("s.tif",),
    not_a_raster: ("s.tif",),
    two_bands: ("3 bands", "red, green"),
    sixteen_bits: ("uint16", "uint8", "--rescale"),
    too_coarse: ("10", "0.5 m"),
    all_no_data: ("no data", "--nodata"),
    missing: ("nowhere.tif", "exist"),
    a_folder: ("folder",),
}


@pytest.mark.parametrize(
    ("make", "words"), BAD_SCENES.items(), ids=lambda case: getattr(case, "__name__", "")
)
def test_a_bad_scene_is_refused(run, make, words, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    outcome = run(
        "segment", make(tmp_path / "in"), "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "-q"
    )
    refused(outcome, *words)
    assert not any((tmp_path / "out" / name).exists() for name in FINAL)


BAD_OPTIONS = {
    ("--block", "none"): ("--block", "whole number"),
    ("--block", "3"): ("block", "16"),
    ("--overlap", "60"): ("overlap", "32"),
    ("--window", "hann"): ("window", "blend"),
    ("--device", "tpu"): ("device", "tpu"),
    ("--format", "dxf"): ("formats", "geojson"),
    ("--bands", "red,green,infrared"): ("infrared", "blue"),
    ("--bands", "1,2,9"): ("9",),
    ("--bands", ""): ("band",),
    ("--rescale", "9", "3"): ("rescale",),
    ("--rescale", "0", "inf"): ("rescale",),
    ("--rescale", "0", "1e-320"): ("rescale",),
    ("--bands", "²,1,1"): ("²", "blue"),
    ("--memory", "1e400"): ("--memory", "4GB"),
    ("--memory", "lots"): ("--memory", "4GB"),
    ("--memory", "1MB"): ("GB",),
    ("--workers", "some"): ("--workers",),
    ("--settings", "nowhere.yaml"): ("nowhere.yaml",),
    ("--crs", "EPSG:nonsense"): ("nonsense",),
    ("--overwrite", "--resume"): ("exclude",),
    ("--scheduler", "tcp://127.0.0.1:9"): ("scheduler", "127.0.0.1:9"),
}


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS.items(), ids=" ".join)
def test_a_bad_option_is_refused(  # type: ignore[no-untyped-def]
    run, options: tuple[str, ...], words: tuple[str, ...], scene: Path, bundle: Path, tmp_path: Path
) -> None:
    outcome = run("segment", scene, "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "-q", *options)
    refused(outcome, *words)
    assert not any((tmp_path / "out" / name).exists() for name in FINAL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1: 2", ("1 = 2",)),
        ("[" * 3000, ("settings.yaml",)),
        ("- a", ("list", "keys and values")),
        ("scene: {bands: [1, 2, true]}", ("bands", "counted from 1")),
        ("blok: 512", ("blok",)),
    ],
    ids=["number as key", "deep", "list", "flag as band", "misspelt"],
)
def test_bad_settings_are_refused(  # type: ignore[no-untyped-def]
    run, scene: Path, bundle: Path, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    options = ("-m", bundle, "-o", tmp_path / "out", "-q", "--settings", tmp_path / "settings.yaml")
    refused(run("segment", scene, *options), *words)


@pytest.mark.parametrize("kind", ["empty", "dangling link", "labels is a folder"])
def test_an_output_that_cannot_be(run, scene: Path, bundle: Path, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    if kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere" / "deep")
    elif kind == "labels is a folder":
        (out / "labels.tif").mkdir(parents=True)
    where = "" if kind == "empty" else out
    outcome = run("segment", scene, "-m", bundle, "-o", where, "-q", "--workers", 0, "--overwrite")
    refused(outcome, "empty" if kind == "empty" else "can't write")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_that_is_full(bundle: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("inspect", bundle), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough(bundle: Path) -> None:
    line = f"{sys.executable} -m rssegment.cli inspect {bundle} --json | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{"
    assert done.stderr == ""


def test_a_bad_model_is_refused(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused(run("segment", scene, "-m", "nonsense", "-o", tmp_path / "out", "-q"), "nonsense", "demo")
    refused(run("segment", scene, "-m", tmp_path, "-o", tmp_path / "out", "-q"), "model.json")
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "model.pt").write_bytes(b"123")
    refused(
        run("segment", scene, "-m", broken, "-o", tmp_path / "out", "-q", "--workers", 0),
        "model.pt",
    )
    (broken / "model.json").write_text("{")
    refused(run("segment", scene, "-m", broken, "-o", tmp_path / "out", "-q"), "model.json")


def test_an_existing_result_is_kept(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "labels.tif").write_bytes(b"precious")
    refused(run("segment", scene, "-m", bundle, "-o", tmp_path, "-q", "--workers", 0), "--overwrite")
    assert (tmp_path / "labels.tif").read_bytes() == b"precious"


def test_an_output_that_is_a_file(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "out").write_bytes(b"a file")
    refused(run("segment", scene, "-m", bundle, "-o", tmp_path / "out", "-q", "--workers", 0), "can't write")
    assert (tmp_path / "out").read_bytes() == b"a file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output(run, scene: Path, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "shut").mkdir(mode=0o500)
    refused(
        run("segment", scene, "-m", bundle, "-o", tmp_path / "shut" / "out", "-q", "--workers", 0),
        "can't write",
    )


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where nobody may write")
def test_an_output_where_nobody_may_write(run, scene: Path, bundle: Path) -> None:  # type: ignore[no-untyped-def]
    refused(run("segment", scene, "-m", bundle, "-o", "/proc/rssegment", "-q", "--workers", 0), "can't write")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rssegment.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 1.5 MB."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"can't mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("ballast", [0, 300, 600, 900, 1200])
def test_a_full_disk(run, small_disk: Path, bundle: Path, tmp_path: Path, ballast: int) -> None:  # type: ignore[no-untyped-def]
    """Ends clean with one message wherever the disk fills up; resumes to the same bytes when there is room."""
    values = np.random.default_rng(0).integers(1, 255, (3, 900, 900)).astype(np.uint8)
    path = write_scene(tmp_path / "s.tif", values)
    out = small_disk / "out"
    (small_disk / "ballast").write_bytes(bytes(ballast * 1024))
    common = ("segment", path, "-m", bundle, "--workers", 0, "-q", "--block", 300)
    refused(run(*common, "-o", out), "no space left", "--resume", code=1)
    assert not any((out / name).exists() for name in ("regions.geojson", "run.json"))
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    try:
        assert run(*common, "-o", out, "--resume").code == 0
        assert run(*common, "-o", tmp_path / "calm").code == 0
        for name in FINAL[:3]:
            assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    finally:
        shutil.rmtree(out)
        subprocess.run(["mount", "-o", "remount,size=1536k", small_disk], check=True)


def test_a_file_size_limit(scene: Path, bundle: Path, tmp_path: Path) -> None:
    """The same on any Linux, with a limit on file size in place of a small disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    arguments = command("segment", scene, "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "-q")
    done = subprocess.run(
        arguments, preexec_fn=limit, capture_output=True, text=True, timeout=300, check=False
    )
    refused(Outcome(done.returncode, done.stdout, done.stderr), "no space left", code=1)
    assert not any((tmp_path / "out" / name).exists() for name in FINAL)


# ------------------------------------------------------------------------------------------- vectorize


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of the toy taxonomy, with no data in a corner."""
    fields = np.stack([smooth_noise((160, 200), seed, 3) for seed in range(5)])
    codes = fields.argmax(0).astype(np.uint8) + 1
    codes[:20, :30] = 0
    path = tmp_path_factory.mktemp("labels") / "l.tif"
    place = Affine(2, 0, 500000, 0, -2, 4800000)
    shape = dict(zip(("height", "width"), codes.shape, strict=True))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        dtype="uint8",
        crs="EPSG:32631",
        transform=place,
        nodata=0,
        **shape,
    ) as file:
        file.write(codes, 1)
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("taxonomy") / "toy.yaml"
    path.write_text(TREE)
    return path


def test_vectorize_with_all_its_options(run, labels: Path, toy: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    paths = [tmp_path / name for name in ("a.gpkg", "b.parquet", "c.geojson")]
    options = (
        "--simplify",
        "1.5px",
        "--min-area",
        "20px",
        "--fill-holes",
        100,
        "--levels",
        "all",
        "--smooth",
        1,
    )
    common = ("--connectivity", 8, "--method", "dp", "--taxonomy", toy, "--block", 64, "--json")
    outcome = run("vectorize", labels, *paths, *options, *common)
    assert (outcome.code, outcome.err) == (0, "")
    facts = json.loads(outcome.out)
    assert list(facts["paths"].values()) == list(map(str, paths))
    assert {each["level"] for each in facts["counts"]["classes"]} == {1, 2, 3}
    assert facts["warnings"] == []
    frames = [geopandas.read_file(paths[0]), geopandas.read_parquet(paths[1]), geopandas.read_file(paths[2])]
    for frame in frames:
        assert len(frame) == facts["counts"]["regions"]
        assert set(frame["level"]) == {1, 2, 3}
    made = rs.vectorize(
        labels, tmp_path / "d.geojson", simplify="1.5px", min_area="20px", fill_holes=100, levels="all", smooth=1,
        connectivity=8, method="dp", taxonomy=toy,
    )  # fmt: skip
    assert paths[2].read_bytes() == made.path.read_bytes()


def test_vectorize_some_levels(run, labels: Path, toy: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "r.geojson"
    outcome = run("vectorize", labels, out, "--levels", "3,1", "--taxonomy", toy)
    assert outcome.code == 0
    assert "r.geojson" in outcome.out
    features = json.loads(out.read_text())["features"]
    assert {each["properties"]["level"] for each in features} == {1, 3}
    assert [each["properties"]["level"] for each in features] == sorted(
        each["properties"]["level"] for each in features
    )
    assert run("vectorize", labels, out, "-q").code == 2
    again = run("vectorize", labels, out, "--overwrite", "-q")
    assert (again.code, again.out, again.err) == (0, "", "")
    assert len(json.loads(out.read_text())["features"]) != len(features)


BAD_VECTORIZE = {
    ("--min-area", "-3"): ("min_area", "-3", "square metres"),
    ("--min-area", "x"): ("min_area", "'x'"),
    ("--fill-holes", "3ha"): ("fill_holes", "3ha"),
    ("--simplify", "2px2"): ("simplify", "2px2"),
    ("--method", "best"): ("method", "best", "'vw' or 'dp'"),
    ("--smooth", "4"): ("smooth", "4"),
    ("--connectivity", "6"): ("connectivity", "4 or 8"),
    ("--levels", "1,4"): ("level 4", "1 to 3"),
    ("--levels", "1,1"): ("levels", "once"),
    ("--levels", "0"): ("levels", "counted from 1"),
    ("--levels", "fine"): ("--levels", "fine"),
    ("--square", "castle"): ("square", "'castle'", "toy"),
    ("--square", "1,,2"): ("square", "by code or name"),
    ("--square", "1", "--square-limit", "0px"): ("0.0 px", "more than 0"),
    ("--square", "1", "--square-limit", "2 ft"): ("square_limit", "2 ft", "metres"),
    ("--taxonomy", "nonsense"): ("nonsense",),
    ("--confidence", "nowhere.tif"): ("nowhere.tif",),
}


@pytest.mark.parametrize(("options", "words"), BAD_VECTORIZE.items(), ids=" ".join)
def test_a_bad_option_of_vectorize_is_refused(  # type: ignore[no-untyped-def]
    run, options: tuple[str, ...], words: tuple[str, ...], labels: Path, toy: Path, tmp_path: Path
) -> None:
    refused(run("vectorize", labels, tmp_path / "r.geojson", "--taxonomy", toy, "-q", *options), *words)
    assert not list(tmp_path.iterdir())


def test_vectorize_refuses_what_it_cannot_write(run, labels: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused(run("vectorize", labels, tmp_path / "r.dxf", "-q"), "suffix", ".gpkg")
    refused(run("vectorize", labels, tmp_path / "a.json", tmp_path / "b.geojson", "-q"), "one format")
    refused(run("vectorize", labels, tmp_path / "no" / "r.fgb", "-q"), "no folder")
    refused(run("vectorize", labels, tmp_path / "r.fgb", "--levels", "all", "-q"), "--taxonomy")
    refused(run("vectorize", tmp_path / "no.tif", tmp_path / "r.fgb", "-q"), "no.tif")
    failed = run("vectorize", labels, tmp_path / "r.dxf", "--json")
    assert json.loads(failed.out)["status"] == "failed"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("side", "where"), [(400, "/r.g"), (80, "/r.g")], ids=["of traces", "of the output"])
def test_vectorize_on_a_full_disk(  # type: ignore[no-untyped-def]
    run, small_disk: Path, tmp_path: Path, side: int, where: str
) -> None:
    """One message, and nothing left."""
    values = np.random.default_rng(0).integers(1, 5, (1, side, side)).astype(np.uint8)
    path = write_scene(tmp_path / "l.tif", values)
    outcome = run("vectorize", path, small_disk / "r.gpkg", small_disk / "r.geojson", "-q", "--block", 128)
    refused(outcome, "no space left", where, code=1)
    assert not list(small_disk.iterdir())


def test_a_part_that_fails_gives_exit_code_1(run, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from tests.run.test_segment import damaged

    path = damaged(tmp_path / "s.tif")
    outcome = run("segment", path, "-m", bundle, "-o", tmp_path / "out", "--workers", 0, "--block", 384, "-q")
    refused(outcome, "1 of 6 blocks failed", "r0001_c0001", "missing.geojson", code=1)
    assert (tmp_path / "out" / "labels.tif").exists()


def test_a_model_that_gives_nan_is_reported(  # type: ignore[no-untyped-def]
    run, scene: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    class Diverging(torch.nn.Module):
        """Fine on blank input, NaN on a real scene."""

        def __init__(self) -> None:
            super().__init__()
            self.network = toy_network()

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.network(values) * torch.where(values.abs().mean() > 0.1, torch.nan, 1.0)

    made = tmp_path / "nan"
    save_bundle(made, torch.jit.trace(Diverging(), torch.zeros(1, 3, 64, 64)), toy_spec(), tree)
    outcome = run("segment", scene, "-m", made, "-o", tmp_path / "out", "--workers", 0, "-q")
    refused(outcome, "NaN", code=1)
    assert not any((tmp_path / "out" / name).exists() for name in FINAL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_at_once_and_can_be_resumed(
    scene: Path, bundle: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    arguments = command("segment", scene, "-m", bundle, "-o", out, "--block", 100, "--workers", 0)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list((out / "work").glob("*/done/*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume" in err
    assert "Traceback" not in err
    assert not (out / "labels.tif").exists()
    assert subprocess.run([*arguments, "--resume", "-q"], check=False).returncode == 0


DEAF = """
import importlib, os, signal, sys, time
from rssegment.cli import app  # noqa
module = importlib.import_module("rssegment.cli.main")

class Deaf:
    def __del__(self):  # no exception gets out of here
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def busy():
    Deaf()
    time.sleep(60)
    print("went on")

module.app = busy
module.main()
"""


def test_a_stop_that_comes_where_no_exception_gets_out_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "rssegment: stopped\n")
