"""Probabilities as bytes, the form in which rasters hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import ModelError

__all__ = ["CONFIDENCE_NODATA", "dequantize_confidence", "quantize_confidence"]

CONFIDENCE_NODATA = 255
_STEPS = 254


def quantize_confidence(confidence: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities (H, W) as bytes: 0 to 254 in steps of 1/254, 255 where not ``valid``.

    Raises
    ------
    ModelError
        A valid pixel has NaN.
    """
    scaled = np.where(valid, confidence, np.float32(0))
    if np.isnan(scaled).any():
        raise ModelError("confidence is NaN at valid pixels")
    np.multiply(scaled, _STEPS, out=scaled)
    np.clip(np.rint(scaled, out=scaled), 0, _STEPS, out=scaled)  # sums of float32 may pass 1 by a few units
    quantized = scaled.astype(np.uint8)
    quantized[~valid] = CONFIDENCE_NODATA
    return quantized


def dequantize_confidence(quantized: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (H, W) from bytes, within 1/508 of what was stored; NaN where there is no data."""
    table = np.append(np.arange(CONFIDENCE_NODATA, dtype=np.float32) / _STEPS, np.nan).astype(np.float32)
    return table[quantized]
