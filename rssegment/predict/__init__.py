"""Prediction: patches of a scene through a model, blended without seams."""

from rssegment.predict.resample import model_core, resample_strips
from rssegment.predict.runtime import (
    Leased,
    cached_model,
    default_batch,
    forward_workers,
    leased,
    resolve_device,
    set_forward_workers,
)
from rssegment.predict.strips import Strip, predict_strips
from rssegment.predict.window import Window, axis_patches, axis_weights

__all__ = [
    "Leased",
    "Strip",
    "Window",
    "axis_patches",
    "axis_weights",
    "cached_model",
    "default_batch",
    "forward_workers",
    "leased",
    "model_core",
    "predict_strips",
    "resample_strips",
    "resolve_device",
    "set_forward_workers",
]
