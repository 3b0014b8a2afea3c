"""Numbers of channels that are numbers of channels."""

from __future__ import annotations

__all__ = ["check_sizes"]


def check_sizes(**sizes: int) -> None:
    """Raises ValueError that names a size which is no whole number of 1 or more.

    PyTorch builds layers of 0 channels without a word, and the network then says the same of every pixel.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} is {size!r}; expected a whole number of 1 or more")
