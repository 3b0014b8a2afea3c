"""Pictures: what they show, that they are the same every time, and files."""

from __future__ import annotations

import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rssegment.errors import InputError, OutputError
from rssegment.evaluation.backoff import THRESHOLDS, BackoffCurve
from rssegment.evaluation.boundaries import BoundaryCounts
from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.evaluation.drawing import INK, as_svg
from rssegment.evaluation.plots import (
    backoff_plot,
    class_plot,
    confusion_plot,
    reliability_plot,
    save_plot,
)
from rssegment.evaluation.reliability import Reliability
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy

FLAIR = Taxonomy.load("flair")


def flat(names: list[str]) -> Taxonomy:
    return Taxonomy.flat("flat", {code: (name, (code % 256, 9, 9)) for code, name in enumerate(names, 1)})


def counted(taxonomy: Taxonomy, seed: int = 0) -> Confusion:
    """A quarter of the pixels wrong; some without prediction."""
    rng = np.random.default_rng(seed)
    reference = rng.choice(taxonomy.leaf_codes, 20_000)
    prediction = np.where(
        rng.random(reference.shape) < 0.25, rng.choice(taxonomy.leaf_codes, 20_000), reference
    )
    prediction[:100] = 0
    return Confusion.of(prediction, reference, taxonomy)


def reliability(pixels: int = 5000) -> Reliability:
    rng = np.random.default_rng(1)
    confidence = rng.random(pixels)
    return Reliability.of(confidence, rng.random(pixels) < confidence**1.4)


def curve(correct: NDArray | None = None) -> BackoffCurve:
    rising = 0.8 + 0.2 * THRESHOLDS**2 if correct is None else correct
    return BackoffCurve(THRESHOLDS, rising, 1 - 0.5 * THRESHOLDS**3, 1 - 0.2 * THRESHOLDS**4)


def texts(figure: Figure) -> list[str]:
    """All that can be read in a figure."""
    root = ET.fromstring(as_svg(figure))  # well-formed, or this raises
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def figures() -> dict[str, Figure]:
    level = counted(FLAIR).at_level(1)
    return {
        "matrix": confusion_plot(level),
        "bars": class_plot(level),
        "reliability": reliability_plot({0: reliability(), 1: reliability(100), 2: Reliability.empty()}),
        "backoff": backoff_plot(curve()),
    }


def test_every_picture_is_the_same_every_time(tmp_path: Path) -> None:
    again = figures()
    for name, figure in figures().items():
        for suffix in (".svg", ".png") if name == "bars" else (".svg",):
            save_plot(figure, tmp_path / f"one{suffix}")
            save_plot(again[name], tmp_path / f"two{suffix}")
            assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes(), name
    with Image.open(tmp_path / "one.png") as image:
        assert min(image.size) > 200
    assert "<svg" in (tmp_path / "one.svg").read_text()


def test_threads_do_not_disturb_each_other() -> None:
    level = counted(FLAIR).at_level(1)
    expected = as_svg(confusion_plot(level))
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda _: as_svg(confusion_plot(level)), range(3)))
    assert set(drawn) == {expected}


def test_the_users_settings_neither_matter_nor_change() -> None:
    expected = as_svg(backoff_plot(curve()))
    with mpl.rc_context(
        {"font.size": 30, "text.color": "red", "axes.facecolor": "black", "svg.fonttype": "path"}
    ):
        before = dict(mpl.rcParams)
        assert as_svg(backoff_plot(curve())) == expected
        assert dict(mpl.rcParams) == before


def test_the_confusion_matrix_by_hand() -> None:
    trees = flat(["field", "forest", "lake", "moor"])
    counts = np.array([[90, 10, 0, 0, 0], [2, 196, 0, 0, 2], [0, 0, 50, 0, 0], [0, 0, 0, 0, 0]])
    found = texts(confusion_plot(LevelCounts(1, trees.nodes, counts, 0)))
    assert [text for text in found if text in {"90", "98", "1"}].count("1") == 3  # two cells and the legend
    assert {"90", "98", "100", "field", "forest", "lake", "no class", "200"} <= set(found)
    assert "moor" not in found
    assert "1 classes without pixels are left out" in found


def test_a_matrix_without_gaps_has_no_column_for_them() -> None:
    trees = flat(["field", "forest"])
    found = texts(confusion_plot(LevelCounts(1, trees.nodes, np.array([[5, 1, 0], [0, 7, 0]]), 0)))
    assert "no class" not in found
    assert "other classes" not in found


def test_names_that_need_care() -> None:
    """Formulas, markup, other scripts, and names that differ in the middle only."""
    long = "a very long name of a class in the middle of which {} stands the difference between them"
    names = ["$x_1$ & $y$", "<b>bold & <br>", "水面", "_hidden", long.format("A"), long.format("B")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = texts(confusion_plot(counted(flat(names)).at_level(1)))
    assert {"$x_1$ & $y$", "<b>bold & <br>", "水面", "_hidden"} <= set(found)
    shortened = {text for text in found if "…" in text}
    assert len(shortened) == 2
    assert all(len(text) < 42 for text in shortened)


def test_classes_of_one_name_get_their_parents() -> None:
    found = texts(class_plot(counted(FLAIR).at_level(4)))
    assert "water" in found
    branch = '- {{code: {0}, name: {1}, color: "#000000", classes: [{{code: {2}, name: rock, color: "#000000"}}]}}\n'
    tree = Taxonomy.loads("name: t\nclasses:\n" + branch.format(1, "dry", 3) + branch.format(2, "wet", 4))
    assert {"dry/rock", "wet/rock"} <= set(texts(class_plot(counted(tree).at_level(2))))


@pytest.mark.parametrize("classes", [1, 2, 60])
def test_any_number_of_classes(classes: int) -> None:
    names = [f"class {i}" for i in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = texts(confusion_plot(counted(flat(names)).at_level(1)))
    assert all(found.count(name) == 2 for name in names)  # a row and a column


def test_too_many_classes_to_read() -> None:
    taxonomy = flat([f"class {i}" for i in range(200)])
    found = texts(confusion_plot(counted(taxonomy).at_level(1)))
    assert sum(text.startswith("class ") for text in found) == 240
    assert {"other classes", "the 120 classes with most pixels of 200"} <= set(found)


def test_nothing_to_show() -> None:
    empty = Confusion.empty(FLAIR).at_level(2)
    nothing = np.full(len(THRESHOLDS), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "no pixels" in texts(confusion_plot(empty))
        assert "no class has pixels" in texts(class_plot(empty))
        assert "no pixels" in texts(reliability_plot({}))
        assert "no pixels" in texts(reliability_plot({1: Reliability.empty()}))
        assert (
            texts(backoff_plot(BackoffCurve(THRESHOLDS, nothing, nothing, nothing))).count("no pixels") == 2
        )


def test_bars_say_their_values_and_the_boundaries() -> None:
    level = LevelCounts(1, flat(["field", "forest"]).nodes, np.array([[3, 1, 0], [0, 4, 0]]), 0)
    labels = np.array([[1, 1, 2, 2]], np.uint16)
    edges = BoundaryCounts.of(
        labels,
        labels,
        core=Box(0, 0, 1, 4),
        cell=(2, 2),
        tolerance=2.5,
        level=1,
        classes=(1, 2),
    )
    found = texts(class_plot(level, edges))
    assert {"0.750", "0.800", "Boundary IoU at 2.5 m"} <= set(found)
    assert not any("Boundary" in text for text in texts(class_plot(level)))


def test_one_diagram_for_each_level_with_pixels() -> None:
    found = texts(reliability_plot({0: reliability(), 3: reliability(), 2: Reliability.empty()}))
    assert [text for text in found if "ECE" in text] == [
        f"{name}: ECE {reliability().ece:.3f}" for name in ("predicted class", "level 3")
    ]


def test_thresholds_are_marked_where_they_can_be_read() -> None:
    found = [text for text in texts(backoff_plot(curve())) if text.startswith("τ ")]
    assert found[0] == "τ 0"
    assert "τ 0.8" in found
    still = BackoffCurve(THRESHOLDS, np.ones(101), np.ones(101), np.ones(101))  # all thresholds in one place
    assert [text for text in texts(backoff_plot(still)) if text.startswith("τ ")] == ["τ 0"]


def test_pictures_for_pages_have_no_background_and_text_as_text() -> None:
    svg = as_svg(class_plot(counted(FLAIR).at_level(1)))
    assert svg.startswith("<svg")
    assert INK in svg
    assert not re.search(r"fill: #ffffff(?!.*(marker|stroke))", svg.split("<defs>")[0])


@pytest.mark.parametrize("name", ["plot.jpg", "plot.pdf", "plot", "plot.png.txt"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"use \.png or \.svg"):
        save_plot(backoff_plot(curve()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't write the picture"):
        save_plot(backoff_plot(curve()), tmp_path / "absent" / "plot.PNG")
