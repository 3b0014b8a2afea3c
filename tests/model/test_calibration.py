from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rssegment.errors import BundleError, OutputError, SettingsError, StorageError
from rssegment.model import Bundle, Calibration, save_bundle, save_calibration
from rssegment.model.calibration import read_calibration
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import Tiny, make_spec

pytestmark = pytest.mark.filterwarnings("ignore:`?torch.jit")
SOME = Calibration(
    temperature=1.7, thresholds={"0.2": 0.6, "0.05": 0.9}, measured={"scenes": ["a"], "pixels": 3}
)


@pytest.fixture
def bundle(tmp_path: Path, taxonomy: Taxonomy) -> Path:
    torch.manual_seed(4)
    spec = make_spec(artifact="torchscript", architecture="tiny", architecture_options={})
    return save_bundle(tmp_path / "plain", torch.jit.script(Tiny()), spec, taxonomy).path


PLAIN = ["model.json", "model.pt", "taxonomy.yaml"]


def calibration_of(bundle: Path) -> Path:
    return bundle / Bundle.open(bundle).files["calibration"].href


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The value


@given(st.dictionaries(st.integers(1, 99), st.integers(0, 100), max_size=6), st.floats(1e-6, 1e6))
def test_it_survives_its_file(thresholds: dict[int, int], temperature: float) -> None:
    falling = sorted(thresholds.values(), reverse=True)
    shares = sorted(thresholds)
    known = {f"{a / 100:.2f}": tau / 100 for a, tau in zip(shares, falling, strict=True)}
    calibration = Calibration(temperature=temperature, thresholds=known)
    assert Calibration(**json.loads(calibration.dump())) == calibration
    for text, tau in known.items():
        assert calibration.threshold(float(text)) == tau


def test_the_threshold_of_the_next_smaller_share_is_safe() -> None:
    assert SOME.threshold(0.05) == 0.9
    assert SOME.threshold(0.1999) == 0.9
    assert SOME.threshold(0.2) == SOME.threshold(0.9) == 0.6
    assert list(SOME.thresholds) == ["0.05", "0.2"]
    with pytest.raises(SettingsError, match=r"share of 0.01: .*has them from 0.05 to 0.2"):
        SOME.threshold(0.01)
    with pytest.raises(SettingsError, match="has none"):
        Calibration(temperature=2).threshold(0.1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"temperature": 0}, "temperature = 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"thresholds": {"0.1": 1.2}}, r"thresholds.0.1 = 1.2"),
        ({"thresholds": {"0.1": float("nan")}}, "thresholds"),
        ({"thresholds": {"a": 0.5}}, "'a' is no share of errors"),
        ({"thresholds": {"0": 0.5}}, "no share of errors"),
        ({"thresholds": {"nan": 0.5}}, "no share of errors"),
        ({"thresholds": {"0.1": 0.5, "0.10": 0.5}}, "the same share"),
        ({"thresholds": {"0.1": 0.5, "0.2": 0.6}}, "fewer errors can't need a lower one"),
        ({"measured": {"x": float("nan")}}, "JSON"),
        ({"measured": {"x": object()}}, "JSON"),
        ({"bias": 1}, "bias"),
    ],
)
def test_what_can_not_be_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=f"bad calibration: .*{said}"):
        Calibration(**values)


# In a bundle


def test_a_bundle_is_calibrated_in_place(bundle: Path, values: Tensor) -> None:
    before = Bundle.open(bundle)
    (bundle / "notes.txt").write_text("mine")
    weights = before.weights.read_bytes()
    plain = before.load()
    after = save_calibration(bundle, SOME)
    assert after.path == bundle
    assert after.calibration == SOME == Bundle.open(bundle).calibration
    assert sorted(files(bundle)) == [calibration_of(bundle).name, *PLAIN[:2], "notes.txt", PLAIN[2]]
    assert after.weights.read_bytes() == weights
    assert after.fingerprint != before.fingerprint
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["plain"]
    model = after.load()
    assert model.temperature == 1.7
    assert torch.equal(model.leaf_logits(values), plain.leaf_logits(values))
    torch.testing.assert_close(model(values), (plain.leaf_logits(values) / 1.7).softmax(1))
    assert torch.equal(after.load(calibrated=False)(values), plain(values))


def test_a_second_calibration_replaces_the_first(bundle: Path) -> None:
    first = save_calibration(bundle, SOME)
    second = save_calibration(bundle, Calibration(temperature=0.5))
    assert second.calibration == Calibration(temperature=0.5)
    assert second.fingerprint != first.fingerprint
    assert save_calibration(bundle, SOME).fingerprint == first.fingerprint
    assert save_calibration(bundle, SOME).fingerprint == first.fingerprint
    assert sorted(files(bundle)) == [calibration_of(bundle).name, *PLAIN]


def test_the_fingerprint_covers_what_decides_the_result(bundle: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        return save_calibration(bundle, SOME.model_copy(update=changes)).fingerprint

    plain = fingerprint()
    assert fingerprint(temperature=1.71) != plain
    assert fingerprint(thresholds={"0.05": 0.9}) != plain
    assert fingerprint(measured={}) == plain


def test_a_copy_is_calibrated_and_the_original_is_not(bundle: Path, tmp_path: Path) -> None:
    before = files(bundle)
    made = save_calibration(bundle, SOME, tmp_path / "deep" / "calibrated")
    assert files(bundle) == before
    assert Bundle.open(tmp_path / "deep" / "calibrated").calibration == SOME == made.calibration
    assert made.weights.stat().st_ino != (bundle / "model.pt").stat().st_ino
    with pytest.raises(OutputError, match="exists already"):
        save_calibration(bundle, SOME, tmp_path / "deep" / "calibrated")
    with pytest.raises(OutputError, match="inside the bundle"):
        save_calibration(bundle, SOME, bundle / "again")


def test_bundles_of_the_installation_are_copied_only(tmp_path: Path) -> None:
    for source in ("demo", Bundle.open("demo").path):
        with pytest.raises(OutputError, match=r"belongs to the installation.*name a folder for a copy"):
            save_calibration(source, SOME)
    made = save_calibration("demo", SOME, tmp_path / "demo")
    assert made.calibration == SOME
    assert Bundle.open("demo").calibration is None
    facts = made.describe()["calibration"]
    assert facts == {"temperature": 1.7, "thresholds": {"0.05": 0.9, "0.2": 0.6}, "measured": SOME.measured}
    plain = json.loads((Bundle.open("demo").path / "model.json").read_text())
    item = json.loads((made.path / "model.json").read_text())
    assert item["assets"].pop("calibration")["href"] == f"./{calibration_of(made.path).name}"
    assert item == plain


def test_a_link_to_a_bundle_stays_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    save_calibration(tmp_path / "link", SOME)
    assert (tmp_path / "link").is_symlink()
    assert Bundle.open(bundle).calibration == SOME


@pytest.mark.parametrize("where", ["itself", "copy"])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_nothing_changes_where_the_disk_is_full(
    bundle: Path, tmp_path: Path, where: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(bundle)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if where == "itself":
        monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], full)
    else:
        monkeypatch.setattr(*{"fsync": (shutil, "copyfile"), "replace": (Path, "rename")}[step], full)
    with pytest.raises(StorageError, match="No space left"):
        save_calibration(bundle, SOME, None if where == "itself" else tmp_path / "copy")
    assert files(bundle) == before
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]


def test_bundles_with_the_former_name_of_the_file(bundle: Path) -> None:
    save_calibration(bundle, SOME)
    name = calibration_of(bundle).name
    (bundle / name).rename(bundle / "calibration.json")
    (bundle / "model.json").write_text((bundle / "model.json").read_text().replace(name, "calibration.json"))
    assert Bundle.open(bundle).calibration == SOME
    save_calibration(bundle, Calibration(temperature=3))
    assert sorted(files(bundle)) == [calibration_of(bundle).name, *PLAIN]


def test_only_calibrations_are_removed_whatever_the_description_says(bundle: Path) -> None:
    """A description that calls other files its calibration must not have them deleted."""
    (bundle / "thesis.txt").write_text(SOME.dump())
    item = json.loads((bundle / "model.json").read_text())
    digest = hashlib.sha256(SOME.dump().encode()).hexdigest()
    item["assets"]["calibration"] = {
        "href": "./thesis.txt",
        "file:size": 1,
        "file:checksum": f"1220{digest}",
    }
    (bundle / "model.json").write_text(json.dumps(item))
    save_calibration(bundle, SOME)
    assert (bundle / "thesis.txt").exists()


# Whose files and what rights


def rights(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_mode for p in (folder, *folder.rglob("*"))}


@pytest.mark.skipif(os.name != "posix", reason="rights of files are those of POSIX")
def test_rights_are_kept_and_links_are_not_followed(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "secret").write_text("mine")
    (elsewhere / "secret").chmod(0o600)
    shutil.move(bundle / "model.pt", elsewhere / "weights")
    (elsewhere / "weights").chmod(0o400)
    os.link(elsewhere / "secret", bundle / "hard")
    for name, place in {"model.pt": "weights", "more": "secret", "all": ".", "gone": "none"}.items():
        (bundle / name).symlink_to(elsewhere / place)
    (bundle / "loop").symlink_to(".")
    (bundle / "model.json").chmod(0o640)
    (bundle / "taxonomy.yaml").chmod(0o444)
    (bundle / "run.sh").touch(mode=0o750)
    bundle.chmod(0o751)
    before = rights(bundle), rights(elsewhere)
    save_calibration(bundle, SOME)
    after = rights(bundle)
    assert stat.S_IMODE(after.pop(calibration_of(bundle).name)) == 0o640
    assert (after, rights(elsewhere)) == before
    # a copy has what its description names, with the rights of any new file
    made = save_calibration(bundle, SOME, tmp_path / "copy").path
    (tmp_path / "new").touch()
    assert sorted(files(made)) == [calibration_of(bundle).name, *PLAIN]
    assert {p.lstat().st_mode for p in made.iterdir()} == {(tmp_path / "new").stat().st_mode}
    assert rights(elsewhere) == before[1]


def test_a_description_that_is_a_link_becomes_a_file_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "model.json", tmp_path / "blob")
    (tmp_path / "blob").chmod(0o400)
    (bundle / "model.json").symlink_to(tmp_path / "blob")
    blob, mode = (tmp_path / "blob").read_bytes(), (tmp_path / "blob").stat().st_mode
    assert save_calibration(bundle, SOME).calibration == SOME
    assert not (bundle / "model.json").is_symlink()
    assert ((tmp_path / "blob").read_bytes(), (tmp_path / "blob").stat().st_mode) == (blob, mode)


def test_a_calibration_of_another_model_is_refused(bundle: Path, tmp_path: Path, taxonomy: Taxonomy) -> None:
    measured = Bundle.open(bundle)
    save_calibration(bundle, SOME)  # that is no other model
    assert save_calibration(measured, Calibration(temperature=2)).calibration == Calibration(temperature=2)
    torch.manual_seed(9)
    spec = make_spec(artifact="torchscript", architecture="tiny", architecture_options={})
    save_bundle(bundle, torch.jit.script(Tiny()), spec, taxonomy, overwrite=True)
    for out in (None, tmp_path / "copy"):
        with pytest.raises(BundleError, match="another model than when it was opened"):
            save_calibration(measured, SOME, out)
    assert Bundle.open(bundle).calibration is None


# Stopped, killed, and two at once: see also interrupted.py


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["calibrate", "overwrite"])
@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_bundle_survives_any_step_of(what: str, how: str, bundle: Path) -> None:
    script = Path(__file__).with_name("interrupted.py")
    done = subprocess.run(
        [sys.executable, script, what, how, bundle], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    steps, old, new, named = map(int, done.stdout.split())
    assert steps >= 7
    assert old >= 4
    assert new >= 2
    assert named == (1 if (what, how) == ("overwrite", "kill") else 0)


@pytest.mark.parametrize("locks", [True, False])
def test_several_at_once_and_readers_all_see_a_sound_bundle(
    bundle: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        monkeypatch.setattr("rssegment.model.folder.fcntl", None)
    save_calibration(bundle, Calibration(temperature=1))

    def calibrate(first: int) -> None:
        for k in range(12):
            save_calibration(bundle, Calibration(temperature=first + k))

    def read(_: int) -> None:
        for _ in range(60):
            assert Bundle.open(bundle).calibration is not None

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(calibrate, 100 * k) for k in range(1, 4)]
        work += [pool.submit(read, k) for k in range(3)]
        for each in work:
            each.result()
    left = sorted(set(files(bundle)) - {calibration_of(bundle).name})
    assert left == PLAIN if locks else set(PLAIN) <= set(left)
    save_calibration(bundle, SOME)
    assert not locks or sorted(files(bundle)) == [calibration_of(bundle).name, *PLAIN]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "can't be read"),
        ("[1]", "no calibration"),
        ("{}", "no calibration"),
        ('{"temperature": "hot"}', "temperature = 'hot'"),
        ('{"temperature": 1, "thresholds": {"0.1": 7}}', "thresholds"),
        ("\udcff", "can't be read"),
    ],
)
def test_a_damaged_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=f"calibration.json.*{said}.*"):
        read_calibration(path)


def test_a_calibration_that_was_changed_or_lost(bundle: Path) -> None:
    save_calibration(bundle, SOME)
    path = calibration_of(bundle)
    path.write_text(path.read_text().replace("1.7", "2.7"))
    with pytest.raises(BundleError, match="changed or damaged"):
        Bundle.open(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=f"lacks its file {path.name}"):
        Bundle.open(bundle)


def test_a_calibrated_bundle_can_be_moved(bundle: Path, tmp_path: Path) -> None:
    fingerprint = save_calibration(bundle, SOME).fingerprint
    shutil.move(bundle, tmp_path / "elsewhere")
    assert Bundle.open(tmp_path / "elsewhere").fingerprint == fingerprint
