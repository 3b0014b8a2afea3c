"""What model hubs read of a card: the YAML before its page, in the words of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from rssegment.training.markdown import slug

if TYPE_CHECKING:
    from rssegment.training.card import ModelCard

__all__ = ["front_matter"]

# Licences by the names that the hub knows; others are "other" with a name.
_LICENSES = {
    *(
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "gpl-3.0",
        "agpl-3.0",
        "lgpl-3.0",
        "mpl-2.0",
        "isc",
    ),
    *("cc", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *(
        "cc-by-3.0",
        "cc-by-sa-3.0",
        "cc-by-2.0",
        "odc-by",
        "odbl",
        "pddl",
        "etalab-2.0",
        "openrail",
        "unlicense",
    ),
}


def front_matter(card: ModelCard) -> str:
    """YAML, without the lines of dashes around it."""
    recipe = card.recipe
    license_ = recipe.license.lower()
    known = license_ in _LICENSES
    values: dict[str, Any] = {
        "license": license_ if known else "other",
        **({} if known else {"license_name": slug(recipe.license) or "other"}),
        "library_name": "rssegment",
        "pipeline_tag": "image-segmentation",
        "tags": [
            "remote-sensing",
            "semantic-segmentation",
            "earth-observation",
            "rssegment",
            slug(card.taxonomy.name),
        ],
        "datasets": list(dict.fromkeys(filter(None, (slug(source.name) for source in card.sources)))),
        "metrics": ["mean_iou"],
    }
    if results := list(_results(card)):
        values["model-index"] = [{"name": recipe.name, "results": results}]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _results(card: ModelCard) -> Iterator[dict[str, Any]]:
    """The scores as the hub's pages show them, of regions that it was trained in."""
    own = card.of_seen(card.scores)
    if "" not in own:
        return
    metrics = [
        {"type": "mean_iou", "name": f"Mean IoU, level {level.level}", "value": round(level.mean_iou, 4)}
        for level in own[""].levels
        if math.isfinite(level.mean_iou)
    ]
    if metrics:
        yield {
            "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
            "dataset": {"type": slug(card.recipe.name), "name": "Validation ground of its own sources"},
            "metrics": metrics,
        }
