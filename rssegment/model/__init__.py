"""Models: bundles on disk, the architectures they name, and the checks that a scene fits one.

Names are imported when first used: what a model expects can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rssegment.lazily import lazily

if TYPE_CHECKING:
    from rssegment.model.architectures import architecture_names, create_architecture, create_model
    from rssegment.model.architectures.facts import ArchitectureFacts, architecture_facts
    from rssegment.model.bundle import Bundle, Specialist, bundled_names, load_model
    from rssegment.model.calibration import Calibration
    from rssegment.model.cascade import Cascade, subtree
    from rssegment.model.fit import Fit, SceneFacts, check_scene, match_bands
    from rssegment.model.hierarchy import Hierarchical, head_codes, node_log_probabilities
    from rssegment.model.inference import LeafModel, Model
    from rssegment.model.losses import HierarchicalLoss
    from rssegment.model.pretrained import LoadedEncoder, load_encoder
    from rssegment.model.saving import save_bundle, save_calibration, save_cascade
    from rssegment.model.spec import BandSpec, ModelSpec

__all__ = [
    "ArchitectureFacts",
    "BandSpec",
    "Bundle",
    "Calibration",
    "Cascade",
    "Fit",
    "Hierarchical",
    "HierarchicalLoss",
    "LeafModel",
    "LoadedEncoder",
    "Model",
    "ModelSpec",
    "SceneFacts",
    "Specialist",
    "architecture_facts",
    "architecture_names",
    "bundled_names",
    "check_scene",
    "create_architecture",
    "create_model",
    "head_codes",
    "load_encoder",
    "load_model",
    "match_bands",
    "node_log_probabilities",
    "save_bundle",
    "save_calibration",
    "save_cascade",
    "subtree",
]

__getattr__ = lazily(
    __name__,
    {
        "architectures": "architecture_names create_architecture create_model",
        "architectures.facts": "ArchitectureFacts architecture_facts",
        "bundle": "Bundle Specialist bundled_names load_model",
        "calibration": "Calibration",
        "cascade": "Cascade subtree",
        "fit": "Fit SceneFacts check_scene match_bands",
        "hierarchy": "Hierarchical head_codes node_log_probabilities",
        "inference": "LeafModel Model",
        "losses": "HierarchicalLoss",
        "pretrained": "LoadedEncoder load_encoder",
        "saving": "save_bundle save_calibration save_cascade",
        "spec": "BandSpec ModelSpec",
    },
)
