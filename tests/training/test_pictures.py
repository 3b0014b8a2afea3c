"""Contact sheets and curves: what is shown is what is there."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rssegment.errors import InputError, OutputError
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from rssegment.training.batch import Batch
from rssegment.training.pictures import curves_picture, sample_picture, scored_boxes
from rssegment.training.sheet import PAPER

TREE = Taxonomy.load("landcover")
RED, GREY = (222, 38, 38), (206, 202, 194)


def a_batch(count: int = 2, bands: int = 4, side: int = 48, dtype: str = "uint8") -> Batch:
    rng = np.random.default_rng(0)
    leaves = TREE.leaf_codes.astype(np.int32)
    labels = np.repeat(
        np.repeat(leaves[rng.integers(0, len(leaves), (count, 4, 4))], side // 4, 1), side // 4, 2
    )
    values = rng.integers(0, 255, (count, bands, side, side)).astype(dtype)
    return Batch(
        torch.from_numpy(values),
        torch.from_numpy(labels),
        torch.ones(count, side, side, dtype=torch.bool),
        torch.ones(count, bands, dtype=torch.bool),
    )


def colors(path: Path) -> dict[tuple[int, int, int], int]:
    pixels = np.asarray(Image.open(path)).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(color): int(n) for color, n in zip(found.tolist(), counts.tolist(), strict=True)}


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_bands_of_any_type_make_a_sheet(tmp_path: Path, bands: int, dtype: str) -> None:
    batch = a_batch(bands=bands, dtype=dtype)
    sample_picture(batch, batch.labels, TREE, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        assert image.width > 4 * 288
        assert image.height > 2 * 288
    assert [item.name for item in tmp_path.iterdir()] == ["sheet.png"]


def test_labels_have_their_colours_each_pixel(tmp_path: Path) -> None:
    batch = a_batch(count=1)
    sample_picture(batch, batch.labels, TREE, tmp_path / "sheet.png")
    found = colors(tmp_path / "sheet.png")
    for code in batch.labels.unique().tolist():
        expected = 2 * 36 * int((batch.labels == code).sum())  # in two panels, each pixel 6 x 6
        assert expected <= found[TREE.node(code).color] < expected + 400  # and the legend's
    assert RED not in found


def test_errors_are_red_where_prediction_and_label_exclude_each_other(tmp_path: Path) -> None:
    batch = a_batch(count=1)
    labels = torch.zeros_like(batch.labels)
    labels[:, :12] = TREE.node("vegetation").code
    labels[:, 12:24] = TREE.node("deciduous").code
    predicted = torch.full_like(labels, TREE.node("woody").code)  # below the first, above the second
    predicted[:, :12, :4] = TREE.node("building").code
    sample_picture(batch._replace(labels=labels), predicted, TREE, tmp_path / "sheet.png")
    assert colors(tmp_path / "sheet.png")[RED] == 36 * 12 * 4


def test_the_invalid_is_grey_and_an_absent_band_is_at_half(tmp_path: Path) -> None:
    batch = a_batch(count=1, bands=3)
    valid = batch.valid.clone()
    valid[:, :10] = False
    present = torch.tensor([[False, False, False]])
    sample_picture(batch._replace(valid=valid, present=present), None, TREE, tmp_path / "sheet.png")
    found = colors(tmp_path / "sheet.png")
    assert found[GREY] == 2 * 36 * 10 * 48
    assert found[(128, 128, 128)] >= 36 * 38 * 48


def test_no_label_is_paper(tmp_path: Path) -> None:
    batch = a_batch(count=1)._replace(labels=torch.zeros(1, 48, 48, dtype=torch.int32))
    sample_picture(batch, None, TREE, tmp_path / "none.png")
    assert colors(tmp_path / "none.png")[PAPER] > 288 * 288


def test_probabilities_are_decided_and_show_how_sure(tmp_path: Path) -> None:
    batch = a_batch(count=1)
    leaves = torch.as_tensor(TREE.leaf_codes.astype(np.int32))
    certain = (batch.labels[:, None] == leaves.view(1, -1, 1, 1)).float()
    sample_picture(batch, batch.labels, TREE, tmp_path / "codes.png")
    sample_picture(batch, certain, TREE, tmp_path / "sure.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("codes", "sure"))
    assert other.shape[1] == one.shape[1] + 300
    right = 12 + 4 * 300
    assert np.array_equal(one[:, : right - 12], other[:, : right - 12])
    assert (other[34 : 34 + 288, right : right + 288] == 255).all()


def test_parts_of_windows_are_shown(tmp_path: Path) -> None:
    batch = a_batch(count=2)
    labels = torch.full_like(batch.labels, TREE.node("water").code)
    labels[0, :24, :24] = TREE.node("building").code
    labels[1, 24:, 24:] = TREE.node("building").code
    boxes = [Box(0, 0, 24, 24), Box(24, 24, 24, 24)]
    sample_picture(batch._replace(labels=labels), labels, TREE, tmp_path / "parts.png", boxes=boxes)
    found = colors(tmp_path / "parts.png")
    assert TREE.node("water").color not in found
    assert found[TREE.node("building").color] >= 4 * 288 * 288
    sample_picture(batch._replace(labels=labels), labels, TREE, tmp_path / "all.png")
    assert TREE.node("water").color in colors(tmp_path / "all.png")


def test_titles_of_narrow_parts_stay_apart(tmp_path: Path) -> None:
    batch = a_batch(count=1)
    sizes = []
    for width in (1, 3, 40):
        sample_picture(batch, batch.labels, TREE, tmp_path / "part.png", boxes=[Box(0, 0, 48, width)])
        with Image.open(tmp_path / "part.png") as image:
            sizes.append(image.width)
    assert sizes[0] < sizes[2]
    assert sizes[0] > 4 * 12 + 150 + 170  # its titles and the legend


@given(st.data(), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))
def test_what_is_scored_is_shown(data: st.DataObject, count: int, height: int, width: int) -> None:
    scored = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in scored:
        for _ in range(data.draw(st.integers(0, 3))):
            mask[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))] = True
    boxes = scored_boxes(scored)
    for mask, box in zip(scored, boxes, strict=True):
        assert box.clip(Box.of((height, width))) == box
        assert mask[box.slices].sum() == mask.sum()


def test_little_more_than_what_is_scored_is_shown() -> None:
    scored = torch.zeros(2, 100, 100, dtype=torch.bool)
    scored[0, 40:60, 40:50] = True
    scored[1, :5, 95:] = True
    assert scored_boxes(scored) == [Box(24, 24, 52, 42), Box(0, 79, 21, 21)]


def test_the_legend_has_the_classes_that_are_there(tmp_path: Path) -> None:
    batch = a_batch(count=1)
    few = batch._replace(labels=torch.full_like(batch.labels, TREE.node("water").code))
    sample_picture(few, None, TREE, tmp_path / "few.png")
    sample_picture(batch, None, TREE, tmp_path / "many.png")
    assert TREE.node("building").color not in colors(tmp_path / "few.png")
    with Image.open(tmp_path / "few.png") as one, Image.open(tmp_path / "many.png") as other:
        assert one.height < other.height


def test_pictures_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        sample_picture(a_batch(), a_batch().labels, TREE, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("shape", [(2, 48, 47), (2, 3, 48, 48), (1, 48, 48)])
def test_predictions_of_another_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected codes"):
        sample_picture(a_batch(), torch.zeros(shape), TREE, tmp_path / "no.png")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        sample_picture(a_batch(), None, TREE, tmp_path / "nowhere" / "sheet.png")


def write_log(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["step"])
        writer.writeheader()
        writer.writerows(rows)
    return path


ROWS: list[dict[str, object]] = [
    {
        "step": 100 * i,
        "loss": 2.0 / i,
        "rate": 1e-3 / i,
        "mean_iou_level_1": 0.3 + i / 20,
        "mean_iou": 0.2 + i / 20,
    }
    for i in range(1, 9)
]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curves_are_drawn(tmp_path: Path, suffix: str) -> None:
    log = write_log(tmp_path / "log.csv", ROWS)
    for name in ("a", "b"):
        curves_picture(log, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_the_best_step_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **kwargs: titles.append(text))
    rows = [*ROWS, {**ROWS[0], "step": 900, "mean_iou": 0.1}]
    curves_picture(write_log(tmp_path / "log.csv", rows), tmp_path / "curves.png")
    assert titles == ["best: 0.600 at step 800"]


def test_a_log_with_gaps_is_drawn(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": ""}, {"step": 2, "loss": "nan"}, {"step": 3, "loss": "what"}]
    curves_picture(write_log(tmp_path / "log.csv", rows), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("text", ["", "step\n", "loss,rate\n1,2\n", "no table at all\n"])
def test_what_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(InputError, match=r"log\.csv is no log of a training"):
        curves_picture(tmp_path / "log.csv", tmp_path / "curves.png")


def test_a_missing_log_and_a_strange_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't read"):
        curves_picture(tmp_path / "log.csv", tmp_path / "curves.png")
    log = write_log(tmp_path / "log.csv", ROWS)
    with pytest.raises(InputError, match=r"use \.png or \.svg"):
        curves_picture(log, tmp_path / "curves.gif")
    assert [item.name for item in tmp_path.iterdir()] == ["log.csv"]
