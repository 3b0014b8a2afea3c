from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rssegment.errors import BundleError, SettingsError
from rssegment.model import Bundle, save_bundle
from rssegment.predict import (
    cached_model,
    default_batch,
    forward_workers,
    leased,
    resolve_device,
    set_forward_workers,
)
from rssegment.taxonomy import Taxonomy
from tests.predict.conftest import LEAVES, Net, make_model, make_spec


def save(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    colors = {code: (f"c{code}", (code, 0, 0)) for code in LEAVES}
    script = torch.jit.trace(Net().eval(), torch.zeros(1, 3, 16, 16))
    save_bundle(
        path, script, make_spec(16, artifact="torchscript"), Taxonomy.flat("t", colors), overwrite=True
    )
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = save(tmp_path / "b")
    loads = []
    load = Bundle.load

    def slow(self: Bundle, device: Any = "cpu") -> Any:
        loads.append(1)
        time.sleep(0.05)
        return load(self, device)

    monkeypatch.setattr(Bundle, "load", slow)
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: cached_model(bundle), range(16)))
    assert len(loads) == 1
    assert len({id(m) for m in models}) == 1
    loads.clear()
    save(bundle, seed=1)
    os.utime(bundle / "model.json", ns=(1, 1))
    loads.clear()
    assert cached_model(bundle) is not models[0]  # changed on disk
    assert len(loads) == 1


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        cached_model(tmp_path / "none")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda:0")
    for name in ("cuda:77", "tpu", ""):
        with pytest.raises(SettingsError, match="there are cpu"):
            resolve_device(name)


def test_default_batches() -> None:
    assert default_batch("cpu") == 1
    assert default_batch("cuda:0") > 1
    assert default_batch("cuda:0", 3) == 3


def test_only_so_many_forward_passes_at_once() -> None:
    running, most, guard = 0, 0, threading.Lock()

    def busy(x: Any) -> Any:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with guard:
            running -= 1
        return x.repeat(1, 2, 1, 1)[:, :4]

    try:
        set_forward_workers(2)
        model = make_model(8, busy)
        first, second = leased(model), leased(make_model(8, busy))
        futures = [m.submit(torch.zeros(1, 3, 8, 8)) for m in (first, second) for _ in range(8)]
        assert all(f.result().shape == (1, 4, 8, 8) for f in futures)
    finally:
        set_forward_workers(None)
    assert most == 2
    assert leased(first) is first


def test_setting_the_same_number_keeps_the_workers() -> None:
    try:
        set_forward_workers(2)
        first = leased(make_model(8))
        set_forward_workers(2)
        assert leased(make_model(8))._pool is first._pool
        set_forward_workers(3)
        assert leased(make_model(8))._pool is not first._pool
    finally:
        set_forward_workers(None)


def test_forward_workers_use_one_thread_each() -> None:
    seen = []

    def look(x: Any) -> Any:
        seen.append(torch.get_num_threads())
        return x.repeat(1, 2, 1, 1)[:, :4]

    model = leased(make_model(8, look))
    for _ in range(4):
        model(torch.zeros(1, 3, 8, 8))
    assert seen == [1] * 4


def test_workers_are_checked() -> None:
    assert forward_workers() >= 1
    with pytest.raises(SettingsError, match="at least 1"):
        set_forward_workers(0)
