"""Class codes of any whole-number type as places in a list of them: pure arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box

__all__ = ["Mask", "Values", "distinct_values", "merged", "positions_of", "possible_codes", "scan_boxes"]

Values = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

_SCANNED_AT_ONCE = 4 << 20  # px
_TABLE = 1 << 20  # codes that lie closer than this are looked up in a table


def possible_codes(dtype: str, nodata: int | None) -> tuple[int, ...]:
    """Every value that may be a class, of a type of at most 16 bits; nothing of others."""
    bounds = np.iinfo(dtype)
    if bounds.bits > 16:
        return ()
    return tuple(value for value in range(int(bounds.min), int(bounds.max) + 1) if value != nodata)


def scan_boxes(shape: tuple[int, int], block: tuple[int, int]) -> Iterator[Box]:
    """The grid in boxes of some million pixels that cut as few of the file's blocks as they can."""
    rows, cols = shape
    width = cols if block[1] >= cols else max(block[1], 2048 // block[1] * block[1])
    width = min(cols, width, _SCANNED_AT_ONCE)
    height = max(
        1, _SCANNED_AT_ONCE // width // block[0] * block[0], min(block[0], _SCANNED_AT_ONCE // width)
    )
    for row in range(0, rows, height):
        for col in range(0, cols, width):
            yield Box(row, col, height, width).clip(Box.of(shape))


def distinct_values(values: Values, missing: Mask) -> Values:
    """The values that occur, ascending. A mark in a table is many times as fast as counting or sorting."""
    if values.itemsize <= 2:
        unsigned = values.view(f"u{values.itemsize}")
        seen = np.zeros(1 << 8 * values.itemsize, np.bool_)
        seen[unsigned[~missing] if missing.any() else unsigned] = True
        return merged(np.flatnonzero(seen).astype(unsigned.dtype).view(values.dtype))
    present = values[~missing]
    low, high = int(present.min()), int(present.max())
    if high - low >= _TABLE:
        return merged(present)
    seen = np.zeros(high - low + 1, np.bool_)
    seen[(present - low).astype(np.intp)] = True
    return np.flatnonzero(seen).astype(values.dtype) + values.dtype.type(low)


def merged(*parts: Values) -> Values:
    """The values of ``parts`` of one type, ascending, each once. ``np.unique`` takes seconds for millions of them."""
    values: Values = np.sort(np.concatenate(parts, axis=None))
    new = np.ones(values.size, np.bool_)
    new[1:] = values[1:] != values[:-1]
    return values[new]


def positions_of(values: Values, codes: tuple[int, ...]) -> NDArray[np.uint16]:
    """Places of ``values`` in ``codes``, from 1; meaningless where there is no data."""
    low, high = codes[0], codes[-1]
    if low == 1 and len(codes) == high and values.dtype.kind == "u" and values.itemsize <= 2:
        return values.astype(np.uint16)  # each code is its own place
    if values.itemsize <= 2:
        table = np.zeros(1 << 8 * values.itemsize, np.uint16)
        place = np.array(codes, values.dtype).view(f"u{values.itemsize}")
        table[place] = np.arange(1, len(codes) + 1)
        return np.asarray(table[values.view(f"u{values.itemsize}")], np.uint16)
    if high - low < _TABLE:
        table = np.zeros(high - low + 1, np.uint16)
        table[np.array(codes, np.int64) - low] = np.arange(1, len(codes) + 1)
        return np.asarray(table[(np.clip(values, low, high) - low).astype(np.intp)], np.uint16)
    return (np.searchsorted(np.array(codes, values.dtype), values) + 1).astype(np.uint16)
