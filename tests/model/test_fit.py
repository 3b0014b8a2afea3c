from __future__ import annotations

from typing import Any

import pytest

from rssegment.errors import MismatchError
from rssegment.model import SceneFacts, check_scene, match_bands
from tests.model.conftest import make_spec


def facts(**changes: Any) -> SceneFacts:
    values: dict[str, Any] = {
        "band_names": ("red", "green", "nir"),
        "dtype": "uint8",
        "scaled": False,
        "ground_resolution": (0.5, 0.5),
    }
    return SceneFacts(**(values | changes))


def test_bands_by_name_in_the_models_order() -> None:
    assert match_bands(make_spec(), ["NIR", "blue", "Green", "red "]) == (4, 3, 1)
    assert match_bands(make_spec(), ["nir", "red", "green"], chosen=True) == (1, 2, 3)  # as the user says


@pytest.mark.parametrize(
    "names", [["band_1", "band_2", "band_3"], ["Band 1", "Band 2", "Band 3"], ["", "", ""]]
)
def test_nameless_bands_by_order(names: list[str]) -> None:
    assert match_bands(make_spec(), names) == (1, 2, 3)


def test_chosen_bands_by_order() -> None:
    assert match_bands(make_spec(), ["B04", "B03", "B08"], chosen=True) == (1, 2, 3)
    assert match_bands(make_spec(), ["red", "red", "nir"], chosen=True) == (1, 2, 3)


@pytest.mark.parametrize(
    ("names", "chosen", "said"),
    [
        (["red", "green", "blue"], False, "no nir; pick them .* '--bands 1,2,3'"),
        (["band_1", "band_2", "band_3", "band_4"], False, "has 4, .*'--bands 1,2,3'"),
        (["red", "green"], False, "use a scene with these bands"),
        (["a", "b"], True, "wants 3 bands, red, green, nir"),
        (["red", "Red", "green", "nir"], False, "several bands named red"),
        (["red", "band_2", "nir"], False, "no green"),
        ([], False, "has 0"),
    ],
)
def test_other_bands_are_refused(names: list[str], chosen: bool, said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        match_bands(make_spec(), names, chosen=chosen)


def test_a_fitting_scene_has_no_notes() -> None:
    fit = check_scene(make_spec(), facts())
    assert (fit.bands, fit.notes) == ((1, 2, 3), ())


def test_order_and_coarse_pixels_are_noted() -> None:
    fit = check_scene(
        make_spec(), facts(band_names=("band_1", "band_2", "band_3"), ground_resolution=(0.9, 0.9))
    )
    assert "band_3 as nir" in fit.notes[0]
    assert "coarser" in fit.notes[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "uint16"}, "stores uint16, .* trained on uint8 values from 0 to 255; use '--rescale"),
        ({"scaled": True}, "values are scaled .* trained on stored"),
        ({"ground_resolution": (0.5, 1.1)}, "1.1 m, 2.2 times .* at most 2 times"),
        ({"ground_resolution": (0.0, 0.5)}, "check its transform"),
    ],
)
def test_mismatches_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        check_scene(make_spec(), facts(**changes))


def test_rescaling_answers_for_type_and_scaling_only() -> None:
    assert check_scene(make_spec(), facts(dtype="uint16", scaled=True, rescaled=True)).bands == (1, 2, 3)
    with pytest.raises(MismatchError, match="at most"):
        check_scene(make_spec(), facts(rescaled=True, ground_resolution=(5.0, 5.0)))


def test_finer_scenes_and_the_limit_itself_pass() -> None:
    for metres in (0.001, 0.5, 1.0):
        check_scene(make_spec(), facts(ground_resolution=(metres, metres)))
