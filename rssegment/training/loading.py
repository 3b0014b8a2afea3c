"""Batches of windows from processes of their own, in order, the same for any number of them.

Processes come from a server that was started fresh, not forked from here: what GDAL's and torch's threads hold at
that moment would never be let go in a fork. They don't run the user's script again, so it needs no ``__main__`` guard.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rssegment.errors import InputError, RssegmentError, RunError
from rssegment.run.cores import cores
from rssegment.training.batch import Batch
from rssegment.training.cache import PixelCache
from rssegment.training.ground import LabelledScene
from rssegment.training.memory import is_allocation, told_of_batch, told_of_validation
from rssegment.training.recipe import Recipe
from rssegment.training.sampling import Sampler
from rssegment.training.windows import ValidationBatch, ValidationWindows, Windows

__all__ = ["default_workers", "validation_loader", "windows_loader"]

_PREFETCH = 3  # batches that each worker has ready


class _Packed(NamedTuple):
    """A batch as one piece of ``memory``: every tensor that goes to another process costs a connection.

    ``parts``: type, first byte and shape of each tensor; ``regions`` of a ValidationBatch.
    """

    memory: Tensor
    parts: tuple[Any, ...]
    regions: tuple[str, ...] | None

    @classmethod
    def of(cls, batch: Batch | ValidationBatch) -> _Packed:
        tensors, regions = [*batch], None
        if isinstance(batch, ValidationBatch):
            tensors, regions = [*batch.batch, batch.scored], batch.regions
        memory = torch.empty(0, dtype=torch.uint8).set_(tensors[0].untyped_storage())
        parts = [
            (each.dtype, each.storage_offset() * each.itemsize, each.nbytes, tuple(each.shape))
            for each in tensors
        ]
        return cls(memory, tuple(parts), regions)

    def batch(self) -> Batch | ValidationBatch:
        tensors = [
            self.memory[start : start + size].view(kind).view(shape)
            for kind, start, size, shape in self.parts
        ]
        if self.regions is None:
            return Batch(*tensors)
        return ValidationBatch(Batch(*tensors[:4]), tensors[4], self.regions)


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker: a plain message, not a traceback of another process."""

    error: Exception


class _Safe(torch.utils.data.Dataset[Any]):
    """A dataset whose errors are values, so that they arrive as they were raised; ``too_large`` if memory is short."""

    def __init__(self, windows: Windows | ValidationWindows, too_large: InputError) -> None:
        self.windows, self.too_large = windows, too_large

    def __getitems__(self, indices: Sequence[int]) -> _Packed | _Failure:
        try:
            return _Packed.of(self.windows.__getitems__(indices))
        except RssegmentError as error:
            return _Failure(type(error)(str(error)))
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_allocation(error):
                raise
            return _Failure(self.too_large)


class _Loader(DataLoader[Any]):
    """A DataLoader that raises errors of rssegment, whatever happens in its workers."""

    def __iter__(self) -> Any:
        with _without_main():
            batches = super().__iter__()
        return self._checked(batches)

    def _checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (MemoryError, RuntimeError, OSError) as error:
                if is_allocation(error):
                    raise cast(_Safe, self.dataset).too_large from error
                if (
                    not isinstance(error, RuntimeError)
                    or "worker" not in str(error)
                    or isinstance(error, RssegmentError)
                ):
                    raise
                raise RunError(_of_lost_worker(error)) from error
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch.batch()


def windows_loader(
    scenes: Sequence[LabelledScene],
    sampler: Sampler,
    recipe: Recipe,
    indices: Sequence[int],
    *,
    cache: PixelCache,
    workers: int | None = None,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Batches of ``recipe.sample.batch`` windows, those of ``indices`` in order; a range may be as long as you like.

    Law: the same batches for any number of ``workers`` (None: as the recipe says, or as cores allow).

    Iterating raises
    ----------------
    InputError
        A batch doesn't fit into memory.
    ReadError
        Pixels can't be read; names the scene and the place.
    RunError
        A worker was killed.
    """
    windows = Windows(scenes, sampler, cache)
    number = recipe.sample.workers if workers is None else workers
    safe = _Safe(windows, told_of_batch(recipe))
    return _loader(safe, indices, recipe.sample.batch, (number, pin_memory))


def validation_loader(
    windows: ValidationWindows, batch: int, *, workers: int | None = None, pin_memory: bool = False
) -> DataLoader[ValidationBatch]:
    """All validation windows in order, ``batch`` at a time. Raises as :func:`windows_loader`."""
    safe = _Safe(windows, told_of_validation(windows.patch, batch))
    return _loader(safe, range(len(windows)), batch, (workers, pin_memory))


def default_workers() -> int:
    """Processes that read: one for a few cores, up to eight for many."""
    return max(1, min(8, cores() // 2))


def _loader(
    windows: _Safe, indices: Sequence[int], batch: int, how: tuple[int | None, bool]
) -> DataLoader[Any]:
    workers = default_workers() if how[0] is None else how[0]
    more: dict[str, Any] = {}
    if workers:
        more = {
            "prefetch_factor": _PREFETCH,
            "persistent_workers": True,
            "multiprocessing_context": _context(),
            "worker_init_fn": _begin,
        }
    return _Loader(
        cast(Any, windows),
        batch_sampler=cast(Any, _Chunks(indices, batch)),
        num_workers=workers,
        pin_memory=how[1],
        collate_fn=cast(Any, _as_is),
        generator=torch.Generator(),  # torch's own stays as it is: dropout draws from it
        **more,
    )


class _Chunks:
    """``sampler``'s indices in groups of ``size``, the last one smaller. Lightning tells the sampler of epochs."""

    def __init__(self, sampler: Sequence[int], size: int) -> None:
        self.sampler, self.size = sampler, size

    def __len__(self) -> int:
        return (len(self.sampler) + self.size - 1) // self.size

    def __iter__(self) -> Iterator[Sequence[int]]:
        return (self.sampler[start : start + self.size] for start in range(0, len(self.sampler), self.size))


def _as_is(batch: _Packed | _Failure) -> _Packed | _Failure:
    return batch


def _context() -> Any:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["rssegment.training.loading"])  # imported once for all workers
    return context


def _begin(_worker: int) -> None:
    """In a worker, before it reads: one thread, and an interrupt is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["GDAL_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Ends this process when the main one is gone, however it went; the server that forked us doesn't notice that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keeps processes that are started meanwhile from running the user's script again."""
    main, missing = sys.modules["__main__"], object()
    saved = {name: getattr(main, name, missing) for name in ("__spec__", "__file__")}
    try:
        main.__spec__ = None
        with suppress(AttributeError):
            del main.__file__
        yield
    finally:
        for name, value in saved.items():
            if value is not missing:
                setattr(main, name, value)


def _of_lost_worker(error: RuntimeError) -> str:
    said = str(error).splitlines()[0]
    return (
        f"a process that reads windows is gone ({said}); often memory ran out, or /dev/shm is too small: "
        "set sample.workers or sample.batch lower in the recipe (workers: 0 reads in the main process)"
    )
