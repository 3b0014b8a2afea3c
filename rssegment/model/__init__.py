"""Models: bundles on disk, the architectures they name, and the checks that a scene fits one."""

from rssegment.model.architectures import architecture_names, create_architecture, create_model
from rssegment.model.bundle import Bundle, Specialist, bundled_names, load_model
from rssegment.model.calibration import Calibration
from rssegment.model.cascade import Cascade, subtree
from rssegment.model.fit import Fit, SceneFacts, check_scene, match_bands
from rssegment.model.inference import LeafModel, Model
from rssegment.model.saving import save_bundle, save_calibration, save_cascade
from rssegment.model.spec import BandSpec, ModelSpec

__all__ = [
    "BandSpec",
    "Bundle",
    "Calibration",
    "Cascade",
    "Fit",
    "LeafModel",
    "Model",
    "ModelSpec",
    "SceneFacts",
    "Specialist",
    "architecture_names",
    "bundled_names",
    "check_scene",
    "create_architecture",
    "create_model",
    "load_model",
    "match_bands",
    "save_bundle",
    "save_calibration",
    "save_cascade",
    "subtree",
]
