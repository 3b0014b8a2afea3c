"""Models: bundles on disk, the architectures they name, and the checks that a scene fits one."""

from rssegment.model.architectures import architecture_names, create_architecture
from rssegment.model.architectures import create_architecture as create_model
from rssegment.model.bundle import Bundle, bundled_names, load_model, save_bundle
from rssegment.model.fit import Fit, SceneFacts, check_scene, match_bands
from rssegment.model.inference import Model
from rssegment.model.spec import BandSpec, ModelSpec

__all__ = [
    "BandSpec",
    "Bundle",
    "Fit",
    "Model",
    "ModelSpec",
    "SceneFacts",
    "architecture_names",
    "bundled_names",
    "check_scene",
    "create_architecture",
    "create_model",
    "load_model",
    "match_bands",
    "save_bundle",
]
