"""Confidence as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.decode import dequantize_confidence, quantize_confidence
from rssegment.errors import ModelError


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1 + 2**-19, width=32, allow_subnormal=False)),
    hnp.arrays(bool, (3, 4)),
)
def test_confidence_as_bytes(confidence: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    quantized = quantize_confidence(confidence, valid)
    assert quantized.dtype == np.uint8
    np.testing.assert_array_equal(quantized == 255, ~valid)
    back = dequantize_confidence(quantized)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(back), ~valid)
    assert (np.abs(back - confidence)[valid] <= 1 / 508 + 1e-5).all()
    np.testing.assert_array_equal(quantize_confidence(np.nan_to_num(back), valid), quantized)


def test_confidence_keeps_its_ends() -> None:
    values = np.array([[0.0, 1.0, 0.5, 1.0000002, np.nan]], np.float32)
    valid = np.array([[True, True, True, True, False]])
    assert quantize_confidence(values, valid).tolist() == [[0, 254, 127, 254, 255]]
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    restored = dequantize_confidence(every)
    np.testing.assert_array_equal(quantize_confidence(restored, every != 255), every)


def test_confidence_nan_at_a_valid_pixel() -> None:
    with pytest.raises(ModelError, match="NaN"):
        quantize_confidence(np.array([[np.nan]], np.float32), np.array([[True]]))
