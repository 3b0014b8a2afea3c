from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import BundleError, MismatchError
from rssegment.model import BandSpec, ModelSpec, SceneFacts, check_scene, match_bands
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


# Optional bands

RGBN = ("red", "green", "blue", "nir")


def optional_spec(names: tuple[str, ...] = RGBN, optional: tuple[str, ...] = ("nir",)) -> ModelSpec:
    return make_spec(bands=tuple(BandSpec(name=n, optional=n in optional) for n in names))


@pytest.mark.parametrize(
    ("names", "chosen", "found"),
    [
        (["red", "green", "blue"], False, (1, 2, 3, None)),
        (["Blue", "nir", "RED ", "green"], False, (3, 4, 1, 2)),
        (["red", "green", "blue", "swir", "coastal"], False, (1, 2, 3, None)),
        ([f"b{k}" for k in range(9)] + ["nir", "blue", "green", "red"], False, (13, 12, 11, 10)),
        (["band_1", "band_2", "band_3"], False, (1, 2, 3, None)),
        (["band_1", "band_2", "band_3", "band_4"], False, (1, 2, 3, 4)),
        (["B04", "B03", "B02"], True, (1, 2, 3, None)),
        (["B04", "B03", "B02", "B08"], True, (1, 2, 3, 4)),
        (["blue", "green", "red"], True, (1, 2, 3, None)),  # as the user says
        (["nir", "red", "green", "blue"], True, (1, 2, 3, 4)),
        (["red", "red", "red"], True, (1, 2, 3, None)),
        (["red", "green", "blue", "band_4"], True, (1, 2, 3, 4)),
    ],
)
def test_an_optional_band_may_be_lacking(
    names: list[str], chosen: bool, found: tuple[int | None, ...]
) -> None:
    assert match_bands(optional_spec(), names, chosen=chosen) == found


def test_what_must_be_there_is_taken_in_order_wherever_the_optional_one_stands() -> None:
    spec = optional_spec(("nir", "red", "swir", "green"), ("nir", "swir"))
    assert match_bands(spec, ["band_1", "band_2"]) == (None, 1, None, 2)
    assert match_bands(spec, ["a", "b"], chosen=True) == (None, 1, None, 2)
    assert match_bands(spec, ["green", "swir", "red"], chosen=True) == (
        None,
        3,
        2,
        1,
    )  # by name: all are known


@pytest.mark.parametrize(
    ("names", "chosen", "said"),
    [
        (["red", "green"], False, r"4 bands, red, green, blue, nir \(optional\); .* use a scene with these"),
        (["red", "green", "nir"], False, "no blue; use a scene with these"),
        (["red", "green", "nir"], True, "no blue; use a scene with these"),
        (["nir", "red", "green"], True, "no blue"),
        (
            ["red", "green", "swir", "nir"],
            False,
            "no blue; pick them .* '--bands 1,2,3,4' or '--bands 1,2,3'",
        ),
        (["B04", "B03", "B02", "B08"], False, "no red, green, blue; pick them"),
        (["band_1", "band_2", "band_3", "band_4", "band_5"], False, "has 5, .* pick them"),
        (["a", "b", "c", "d", "e"], True, "pick them"),
        (["red", "green", "blue", "swir", "e"], True, "pick them"),  # two that would go unused
        (["red", "green", "blue", "blue"], False, "several bands named blue"),
        (
            ["red", "green", "blue", "band_4"],
            False,
            "band_4 without a name: '--bands red,green,blue,band_4' takes it as nir; '--bands red,green,blue' does",
        ),
        (
            ["red", "green", "blue", "band_4", "band_5"],
            False,
            "band_4, band_5 without a name: if one is, pick",
        ),
        ([], False, "has 0"),
    ],
)
def test_unclear_bands_are_refused(names: list[str], chosen: bool, said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        match_bands(optional_spec(), names, chosen=chosen)


def test_some_of_several_optional_bands_go_by_name_only() -> None:
    spec = optional_spec((*RGBN, "swir"), ("nir", "swir"))
    assert match_bands(spec, ["red", "swir", "green", "blue"]) == (1, 3, 4, None, 2)
    for names in (["band_1", "band_2", "band_3", "band_4"], ["a", "b", "c", "d"]):
        with pytest.raises(MismatchError, match="pick them"):
            match_bands(spec, names, chosen=names[0] == "a")


def test_an_alpha_band_that_looks_like_data_is_asked_about() -> None:
    colours = facts(band_names=("red", "green", "blue"))
    assert check_scene(optional_spec(), colours).filled == ("nir",)
    doubtful = replace(colours, doubtful="4")
    with pytest.raises(
        MismatchError, match=r"alpha band \(4\) .* '--bands red,green,blue,4' takes it as nir"
    ):
        check_scene(optional_spec(), doubtful)
    for clear in (replace(doubtful, chosen=True), replace(doubtful, band_names=RGBN)):
        assert check_scene(optional_spec(), clear).present[:3] == (1, 2, 3)
    assert check_scene(make_spec(), facts(doubtful="4")).filled == ()  # a model that needs no more


def test_what_is_filled_is_noted_in_one_line() -> None:
    fit = check_scene(optional_spec(), facts(band_names=("blue", "green", "red")))
    assert (fit.bands, fit.present, fit.filled) == ((3, 2, 1, None), (3, 2, 1), ("nir",))
    assert fit.notes == ("the scene lacks nir: filled by its mean, as in training",)
    fit = check_scene(optional_spec(), facts(band_names=("blue", "green", "red", "swir")))
    assert fit.notes == ("the scene lacks nir: filled by its mean, as in training (not used: swir)",)
    fit = check_scene(optional_spec(), facts(band_names=("band_1", "band_2", "band_3")))
    assert fit.notes[0] == "bands are taken by their order: band_1 as red, band_2 as green, band_3 as blue"
    two = optional_spec(("red", "green", "blue", "nir"), ("nir", "blue"))
    assert (
        "lacks blue, nir: filled by their means"
        in check_scene(two, facts(band_names=("red", "green"))).notes[0]
    )


NAMES = ("red", "green", "blue", "nir", "swir", "coastal")


@given(st.data())
def test_named_bands_are_found_wherever_they_are_or_the_scene_is_refused(data: st.DataObject) -> None:
    wanted = tuple(data.draw(st.permutations(NAMES[:5])))[: data.draw(st.integers(2, 5))]
    optional = tuple(data.draw(st.sets(st.sampled_from(wanted), max_size=len(wanted) - 1)))
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    spec = optional_spec(wanted, optional)
    if set(spec.required) <= set(names):
        found = match_bands(spec, names)
        assert [place and names[place - 1] for place in found] == [n if n in names else None for n in wanted]
        chosen = [n for n in wanted if n in names]  # in the model's order, which is what --bands is in
        assert [p and chosen[p - 1] for p in match_bands(spec, chosen, chosen=True)] == [
            n if n in names else None for n in wanted
        ]
    else:
        with pytest.raises(MismatchError):
            match_bands(spec, names)


@given(st.data())
def test_without_optional_bands_every_scene_has_all_or_is_refused(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from((*NAMES, "band_1", "band_2", "")), max_size=6))
    chosen = data.draw(st.booleans())
    try:
        found = match_bands(make_spec(), names, chosen=chosen)
    except MismatchError:
        return
    assert None not in found
    assert len(set(found)) == 3


def test_one_band_must_always_be_there() -> None:
    with pytest.raises(BundleError, match="all are optional"):
        optional_spec(("red", "nir"), ("red", "nir"))
