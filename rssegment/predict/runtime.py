"""Where and how forward passes run: the device, its workers, and one loaded model for each process.

Invariance rests on three rules. A batch has one size, since kernels are chosen by it. On the CPU each forward
pass uses one thread, since sums are split by the number of threads and the last bits follow; patches
run side by side instead, which is faster too. On a GPU only deterministic kernels in full float32 are used.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from rssegment.errors import BundleError, SettingsError
from rssegment.model import Bundle, LeafModel

__all__ = [
    "Leased",
    "cached_model",
    "default_batch",
    "forward_workers",
    "leased",
    "resolve_device",
    "set_forward_workers",
]

# Patches of 512 px saturate a GPU from here on; more only costs memory.
_GPU_BATCH = 8
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_lock = threading.RLock()
_thread_lock = threading.Lock()
_models: dict[tuple[str, str, str], tuple[str, LeafModel]] = {}
_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}
_workers: int | None = None


def resolve_device(name: str = "auto") -> str:
    """``auto`` as the best device there is, any other name checked: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises
    ------
    SettingsError
        There is no such device.
    """
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device is {name!r}; there are {', '.join(_devices())} and auto") from error
    place = f"cuda:{device.index or 0}" if device.type == "cuda" else device.type
    if place not in _devices():
        raise SettingsError(f"there is no device {name} here; there are {', '.join(_devices())} and auto")
    return place


def _devices() -> list[str]:
    mps = ["mps"] if torch.backends.mps.is_available() else []
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{i}" for i in range(cuda)), *mps]


def default_batch(device: str, artifact_batch: int | None = None) -> int:
    """Patches in a batch: what the artifact demands (``ModelSpec.batch``), else 1 on a CPU and 8 on a GPU.

    On a CPU larger batches are slower: their activations leave the caches.
    """
    return artifact_batch or (1 if torch.device(device).type == "cpu" else _GPU_BATCH)


def cached_model(bundle: str | Path, device: str = "cpu", fingerprint: str | None = None) -> LeafModel:
    """The model of ``bundle``, loaded once in this process for each device; loaded anew if its files change.

    Raises
    ------
    BundleError
        The bundle is missing or unsound, or is no longer the one of ``fingerprint``.
    """
    path = Path(bundle)
    manifest = path / "model.json"
    state = str(manifest.stat().st_mtime_ns) if manifest.is_file() else ""
    key = str(path.absolute()) if path.is_dir() else str(bundle)
    with _lock:
        known = _models.get((key, state, device))
        if known is None:
            _settle(device)
            opened = Bundle.open(bundle)
            known = opened.fingerprint, opened.load(device)
            for stale in [k for k in _models if (k[0], k[2]) == (key, device)]:
                del _models[stale]
            _models[key, state, device] = known
    if fingerprint not in (None, known[0]):
        raise BundleError(
            f"the model in {path} was changed since the run began; start afresh with --overwrite"
        )
    return known[1]


def _settle(device: str) -> None:
    """Deterministic float32 kernels and memory that is kept between forward passes, for this process."""
    if "MALLOC_TRIM_THRESHOLD_" in os.environ and sys.platform == "linux":
        _keep_memory()
    if torch.device(device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def _keep_memory() -> None:
    """Undoes what Dask sets for its workers: a trim threshold of 64 KiB.

    With it glibc maps and unmaps every activation of a network anew, and forward passes take three times as long.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc; others have no such thresholds
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most it takes: larger blocks are always mapped


def forward_workers() -> int:
    """Forward passes that run side by side on the CPU: the cores this process may use, unless set otherwise."""
    if _workers is not None:
        return _workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_forward_workers(count: int | None) -> None:
    """Sets :func:`forward_workers` for this process, as where several share a machine. Never changes a result."""
    global _workers  # noqa: PLW0603 (one setting of the process, as torch's own)
    if count is not None and count < 1:
        raise SettingsError(f"forward workers are {count}; there must be at least 1")
    with _lock:
        if count != _workers:
            _workers = count
            _pools.clear()  # blocks at work keep the pool they have


class Leased:
    """A model whose forward passes wait for the device: all blocks of a process share its workers.

    A GPU has one worker, so only one block's forward pass is on it while others read, decode and trace.
    """

    def __init__(self, model: LeafModel) -> None:
        self.model = model
        self.workers = forward_workers() if model.device.type == "cpu" else 1
        self._pool = _pool(str(model.device), self.workers)

    def submit(self, values: Tensor) -> Future[Tensor]:
        """Leaf probabilities of a batch, to come."""
        return self._pool.submit(self.model, values)

    def __call__(self, values: Tensor) -> Tensor:
        """Leaf probabilities of a batch."""
        return self.submit(values).result()


def leased(model: LeafModel | Leased) -> Leased:
    """``model`` behind the lease of its device."""
    return model if isinstance(model, Leased) else Leased(model)


def _pool(device: str, workers: int) -> ThreadPoolExecutor:
    key = (os.getpid(), device)  # a forked process has none of its parent's threads
    with _lock:
        if key not in _pools:
            start = _single_threaded if device == "cpu" else _nothing
            _pools[key] = ThreadPoolExecutor(
                workers, thread_name_prefix=f"forward-{device}", initializer=start
            )
        return _pools[key]


def _single_threaded() -> None:
    """Makes torch use one thread for operators called by this thread, and by no other."""
    with _thread_lock:
        # asking first settles this thread's number, which would else be overwritten at its first operator
        process_wide = torch.get_num_threads()
        torch.set_num_threads(1)
        keeper = threading.Thread(target=_restore, args=(process_wide,))
        keeper.start()
        keeper.join()


def _restore(threads: int) -> None:
    """Sets the number that new threads begin with, from a thread that does no work."""
    torch.set_num_threads(threads)


def _nothing() -> None:
    """GPU workers need no preparation."""
