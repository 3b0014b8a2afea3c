"""A training leaves the process that it runs in as it found it."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.deterministic

__all__ = ["left_alone"]


@contextmanager
def left_alone(seed: int) -> Iterator[None]:
    """Draws from ``seed`` inside, and at the end gives back torch's generators and its choice of kernels, and what an
    interrupt does; Lightning, which changes all of them, tells nothing of itself."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        for context in (_kernels(), _interrupts(), _quiet()):
            stack.enter_context(context)
        torch.manual_seed(seed)
        yield


@contextmanager
def _kernels() -> Iterator[None]:
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # nothing reads it, and it takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = fill


@contextmanager
def _interrupts() -> Iterator[None]:
    """Lightning ignores all further interrupts after the first."""
    if threading.current_thread() is not threading.main_thread():  # where nobody can set it
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet() -> Iterator[None]:
    import lightning.pytorch  # noqa: F401  # which sets levels of its own

    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
