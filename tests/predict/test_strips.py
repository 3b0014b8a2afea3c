from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import ModelError, SettingsError
from rssegment.grid import BlockGrid, Box, PatchLattice
from rssegment.model import Model
from rssegment.predict import predict_strips, set_forward_workers
from tests.predict.conftest import LEAVES, ArrayScene, Net, gather, make_model, make_scene, make_spec, plainly

MODEL = make_model(32)


def run(scene: ArrayScene, lattice: PatchLattice, core: Box, model: Model = MODEL, **options: Any) -> Any:
    return gather(predict_strips(scene.read, lattice, core, model, **options), core)


def test_it_is_the_weighted_mean_of_all_patches() -> None:
    scene = make_scene((117, 143), holes=True)
    for overlap, window in ((0, "blend"), (8, "blend"), (16, "blend"), (15, "blend"), (8, "crop")):
        lattice = PatchLattice(scene.shape, 32, overlap)
        found = run(scene, lattice, Box.of(scene.shape), window=window)
        expected = plainly(scene, lattice, MODEL, window)
        np.testing.assert_array_equal(found.valid, scene.valid)
        np.testing.assert_allclose(found.probabilities[:, scene.valid], expected[:, scene.valid], atol=2e-6)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("window", ["blend", "crop"])
@pytest.mark.parametrize("holes", [False, True])
def test_a_pixel_does_not_depend_on_its_block(batch: int, window: str, holes: bool) -> None:
    """Law 1."""
    scene = make_scene((150, 170), holes=holes)
    lattice = PatchLattice(scene.shape, 32, 10)
    whole = run(scene, lattice, Box.of(scene.shape), batch=batch, window=window)
    for block in (64, 100, 33):
        for part in BlockGrid(scene.shape, block):
            found = run(scene, lattice, part.core, batch=batch, window=window)
            np.testing.assert_array_equal(found.valid, whole.valid[part.core.slices])
            assert found.probabilities.tobytes() == whole.probabilities[:, *part.core.slices].tobytes()


@given(st.data())
@settings(max_examples=40)
def test_any_core_of_any_lattice(data: st.DataObject) -> None:
    """Law 1 for scenes smaller than a patch, odd patches, any overlap, and cores of one pixel."""
    shape = data.draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    patch = data.draw(st.integers(1, 41))
    lattice = PatchLattice(shape, patch, data.draw(st.integers(0, patch // 2)))
    window = data.draw(st.sampled_from(["blend", "crop"]))
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    core = Box.between(
        row, col, data.draw(st.integers(row + 1, shape[0])), data.draw(st.integers(col + 1, shape[1]))
    )
    scene = make_scene(shape, holes=data.draw(st.booleans()), seed=data.draw(st.integers(0, 9)))
    model = make_model(patch)
    whole = run(scene, lattice, Box.of(shape), model, window=window, batch=2)
    found = run(scene, lattice, core, model, window=window, batch=2)
    assert found.probabilities.tobytes() == whole.probabilities[:, *core.slices].tobytes()
    np.testing.assert_array_equal(found.valid, scene.valid[core.slices])
    np.testing.assert_allclose(found.probabilities.sum(0)[found.valid], 1, atol=3e-6)


def test_number_of_workers_changes_no_bit() -> None:
    scene = make_scene((130, 130))
    lattice = PatchLattice(scene.shape, 32, 8)
    results = []
    try:
        for workers in (1, 2, 5):
            set_forward_workers(workers)
            results.append(run(scene, lattice, Box.of(scene.shape), batch=2).probabilities.tobytes())
        torch.set_num_threads(1)
        results.append(run(scene, lattice, Box.of(scene.shape), batch=2).probabilities.tobytes())
    finally:
        set_forward_workers(None)
        torch.set_num_threads(2)
    assert len(set(results)) == 1


def test_forward_passes_leave_torch_as_it_was() -> None:
    before = torch.get_num_threads()
    scene = make_scene((40, 40))
    run(scene, PatchLattice(scene.shape, 32, 8), Box.of(scene.shape))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (5, 7), (31, 33), (32, 32), (76, 76)])
@pytest.mark.parametrize("overlap", [0, 7, 16])
def test_every_pixel_of_small_and_ragged_scenes_is_predicted(shape: tuple[int, int], overlap: int) -> None:
    """A network that gives each pixel's own class: scenes smaller than a patch, patch + 44 px, frames."""

    def own(x: Any) -> Any:
        classes = (x[:, :1] * 60 + 120).round()  # the stored value again
        return torch.cat([10.0 * (classes == leaf) for leaf in range(len(LEAVES))], 1)

    truth = np.random.default_rng(1).integers(0, len(LEAVES), shape)
    scene = ArrayScene(np.stack([truth] * 3).astype(np.float32), np.ones(shape, bool))
    found = run(scene, PatchLattice(shape, 32, overlap), Box.of(shape), make_model(32, own))
    np.testing.assert_array_equal(found.probabilities.argmax(0), truth)
    np.testing.assert_allclose(found.probabilities.max(0), np.exp(10) / (np.exp(10) + 3), rtol=1e-5)


def test_values_are_normalised_by_constants_alone() -> None:
    """A pixel's value must mean the same in a dark patch and a bright one."""
    seen = []

    def spy(x: Any) -> Any:
        seen.append(x.clone())
        return x.repeat(1, 2, 1, 1)[:, :4]

    scene = make_scene((96, 96))
    scene.values[:, :48] *= 0.1
    run(scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, spy))
    stored = np.sort(np.concatenate([x[:, 0].numpy().ravel() for x in seen]))
    np.testing.assert_allclose(stored, np.sort((scene.values[0].ravel() - 120) / 60)[:], atol=1e-5)


def test_invalid_pixels_are_the_mean_to_the_model() -> None:
    seen = []

    def spy(x: Any) -> Any:
        seen.append(x)
        return x.repeat(1, 2, 1, 1)[:, :4]

    scene = make_scene((32, 32))
    scene.valid[4:9, 5:20] = False
    scene.values[:, ~scene.valid] = np.nan
    found = run(scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, spy))
    assert (seen[0][0, :, 4:9, 5:20] == 0).all()
    assert not found.valid[4:9, 5:20].any()


def test_patches_without_data_are_not_computed() -> None:
    calls = []

    def count(x: Any) -> Any:
        calls.append(len(x))
        return x.repeat(1, 2, 1, 1)[:, :4]

    scene = make_scene((160, 160))
    scene.valid[:, 70:] = False
    found = run(scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, count))
    assert len(calls) == 5 * 3
    assert (found.probabilities[:, :, 96:] == 0).all()
    scene.valid[:] = False
    calls.clear()
    assert not run(
        scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, count)
    ).valid.any()
    assert not calls


def test_batches_have_one_size() -> None:
    sizes = []

    def count(x: Any) -> Any:
        sizes.append(len(x))
        return x.repeat(1, 2, 1, 1)[:, :4]

    scene = make_scene((96, 160))
    run(scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, count), batch=4)
    assert sizes == [4, 4, 4, 4]  # 15 patches, across rows of the lattice


def test_each_row_is_read_once() -> None:
    scene = make_scene((200, 150))
    core = Box(60, 30, 120, 60)
    run(scene, PatchLattice(scene.shape, 32, 16), core)
    rows = [row for box in scene.reads for row in range(box.row, box.stop_row)]
    assert len(rows) == len(set(rows))
    assert min(rows) > core.row - 32
    assert max(rows) < core.stop_row + 32
    assert all(box.width < core.width + 64 for box in scene.reads)


def test_memory_does_not_grow_with_height() -> None:
    lattice = PatchLattice((4000, 64), 32, 8)

    def peak(height: int) -> int:
        class Endless:
            def read(self, box: Box) -> Any:
                return ArrayScene(np.zeros((3, *box.shape), np.float32), np.ones(box.shape, bool))

        model = make_model(32, lambda x: x.repeat(1, 2, 1, 1)[:, :4])
        tracemalloc.start()
        for _ in predict_strips(Endless().read, lattice, Box(0, 0, height, 64), model):
            pass
        return tracemalloc.get_traced_memory()[1] * (tracemalloc.stop() is None)

    assert peak(4000) < 1.5 * peak(400)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("raise", "RuntimeError: boom"), ("nan", "NaN"), ("shape", "shape")],
)
def test_a_failing_model_is_an_error_with_its_place(fault: str, said: str) -> None:
    def faulty(x: Any) -> Any:
        out = x.repeat(1, 2, 1, 1)[:, :4].clone()
        if (x > 50).any():  # the patch that holds the mark
            if fault == "raise":
                raise RuntimeError("boom")
            return out * float("nan") if fault == "nan" else out[:, :2]
        return out

    scene = make_scene((128, 128))
    scene.values[:, 70, 100] = 1e5
    with pytest.raises(
        ModelError, match=rf"(?s){said}.*rows 64 to 95, columns 96 to 127 of the model's grid"
    ):
        run(scene, PatchLattice(scene.shape, 32, 0), Box.of(scene.shape), make_model(32, faulty))


def test_a_failing_reader_is_heard() -> None:
    def broken(box: Box) -> Any:
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(predict_strips(broken, PatchLattice((64, 64), 32, 0), Box(0, 0, 64, 64), MODEL))


def test_a_core_outside_the_scene_is_refused() -> None:
    for core in (Box(0, 0, 65, 64), Box(-1, 0, 5, 5), Box(0, 0, 0, 5)):
        with pytest.raises(SettingsError, match="not inside"):
            list(predict_strips(make_scene((64, 64)).read, PatchLattice((64, 64), 32, 0), core, MODEL))


@pytest.mark.parametrize("architecture", ["enet", "smp:Unet"])
def test_real_networks_keep_the_law(architecture: str) -> None:
    """Convolutions of many shapes, whose kernels oneDNN chooses."""
    from rssegment.model import create_architecture

    torch.manual_seed(0)
    options: dict[str, Any] = {"encoder_name": "resnet18", "decoder_channels": [64, 32, 16, 16, 8]}
    net = create_architecture(architecture, 3, len(LEAVES), **({} if architecture == "enet" else options))
    model = Model(net.eval().requires_grad_(False), make_spec(64), LEAVES)
    scene = make_scene((200, 150))
    lattice = PatchLattice(scene.shape, 64, 16)
    for batch in (1, 4):
        whole = run(scene, lattice, Box.of(scene.shape), model, batch=batch)
        for core in (Box(0, 0, 64, 64), Box(100, 50, 100, 100), Box(64, 128, 1, 22)):
            found = run(scene, lattice, core, model, batch=batch)
            assert found.probabilities.tobytes() == whole.probabilities[:, *core.slices].tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_keeps_the_law_and_agrees_with_the_cpu() -> None:
    torch.manual_seed(0)
    net = Net().eval().requires_grad_(False)
    scene = make_scene((150, 170), holes=True)
    lattice = PatchLattice(scene.shape, 32, 10)
    on_cpu = run(scene, lattice, Box.of(scene.shape), Model(net, make_spec(32), LEAVES), batch=4)
    model = Model(net.to("cuda"), make_spec(32), LEAVES, "cuda")
    whole = run(scene, lattice, Box.of(scene.shape), model, batch=4)
    np.testing.assert_allclose(whole.probabilities, on_cpu.probabilities, atol=1e-3)
    core = Box(40, 33, 77, 64)
    found = run(scene, lattice, core, model, batch=4)
    assert found.probabilities.tobytes() == whole.probabilities[:, *core.slices].tobytes()
