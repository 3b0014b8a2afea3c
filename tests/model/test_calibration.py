from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rssegment.errors import BundleError, OutputError, SettingsError
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
    assert sorted(files(bundle)) == [
        "calibration.json",
        "model.json",
        "model.pt",
        "notes.txt",
        "taxonomy.yaml",
    ]
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
    assert item["assets"].pop("calibration")["href"] == "./calibration.json"
    assert item == plain


def test_a_link_to_a_bundle_stays_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    save_calibration(tmp_path / "link", SOME)
    assert (tmp_path / "link").is_symlink()
    assert Bundle.open(bundle).calibration == SOME


def test_nothing_changes_where_saving_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(bundle)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rssegment.model.saving.write_manifest", full)
    with pytest.raises(Exception, match="No space left"):
        save_calibration(bundle, SOME)
    assert files(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == ["plain"]


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
    path = bundle / "calibration.json"
    path.write_text(path.read_text().replace("1.7", "2.7"))
    with pytest.raises(BundleError, match="changed or damaged"):
        Bundle.open(bundle)
    path.unlink()
    with pytest.raises(BundleError, match=r"lacks its file calibration\.json"):
        Bundle.open(bundle)


def test_a_calibrated_bundle_can_be_moved(bundle: Path, tmp_path: Path) -> None:
    fingerprint = save_calibration(bundle, SOME).fingerprint
    shutil.move(bundle, tmp_path / "elsewhere")
    assert Bundle.open(tmp_path / "elsewhere").fingerprint == fingerprint
