"""Models of several networks in blocks: where a specialist runs must not depend on what else a block or batch holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rssegment.grid import BlockGrid, Box, PatchLattice
from rssegment.model import Cascade, Model
from rssegment.model.cascade import Member
from rssegment.predict import predict_strips
from rssegment.taxonomy import Taxonomy
from tests.predict.conftest import Net, gather, make_scene, make_spec

TREE = Taxonomy.loads(
    """
name: toy
classes:
  - {code: 1, name: one, color: "#112233"}
  - {code: 2, name: two, color: "#112233", classes: [
      {code: 21, name: a, color: "#112233"}, {code: 22, name: b, color: "#112233"}]}
"""
)


def make_cascade(patch: int, threshold: float) -> Cascade:
    torch.manual_seed(8)
    main, below = Net(classes=2).eval(), Net(bands=1, classes=2).eval()
    spec = make_spec(patch).model_copy(update={"channels": (1, 2)})
    inner = make_spec(patch, 1).model_copy(update={"channels": (21, 22)})
    member = Member(2, Model(below, inner, (21, 22)), threshold, spec.band_names)
    return Cascade(Model(main, spec, (1, 2)), [member], TREE)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_pixel_does_not_depend_on_its_block(batch: int) -> None:
    """Law 1."""
    scene = make_scene((150, 170), holes=True)
    lattice = PatchLattice(scene.shape, 32, 10)
    peaks = _peaks(make_cascade(32, 0.0), scene.values)
    threshold = float(np.median(peaks))  # so that about half of the patches need the specialist
    model = make_cascade(32, threshold)
    whole = gather(
        predict_strips(scene.read, lattice, Box.of(scene.shape), model, batch), Box.of(scene.shape)
    )
    found_shares = whole.probabilities[1:, whole.valid]
    same = np.isclose(*found_shares)
    assert 0.02 < same.mean() < 0.98  # some pixels have equal shares of the node, others the specialist's
    for block in (64, 100, 33):
        for part in BlockGrid(scene.shape, block):
            found = gather(predict_strips(scene.read, lattice, part.core, model, batch), part.core)
            assert found.probabilities.tobytes() == whole.probabilities[:, *part.core.slices].tobytes()


def _peaks(model: Cascade, values: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]) -> list[float]:
    """The node's highest probability in squares of 32 px."""
    squares = [values[:, r : r + 32, c : c + 32] for r in range(0, 118, 22) for c in range(0, 138, 22)]
    return [float(model.main(square[None].copy())[0, 1].max()) for square in squares]
