"""What a bundle consists of, as its ``model.json`` names it: files with their checksums, and bundles inside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rssegment.errors import BundleError
from rssegment.model.json_field import Field

__all__ = [
    "Asset",
    "SpecialistEntry",
    "assets_from_item",
    "file_facts",
    "put_calibration",
    "put_card",
    "specialist_facts",
    "specialists_from_item",
]

_SHA256 = "1220"  # multihash: algorithm sha2-256, 32 bytes


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a bundle: ``href`` below its folder, ``size`` in bytes, ``sha256`` in hex."""

    href: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SpecialistEntry:
    """A member of a cascade: the ``node`` (code) below which it tells classes apart, and its bundle's folder ``href``.

    It runs where the node's probability exceeds ``threshold``; ``sha256`` (hex) is that of its ``model.json``.
    """

    node: int
    href: str
    threshold: float
    sha256: str


def put_calibration(item: dict[str, Any], asset: Asset) -> None:
    """Names the file of a calibration among an item's assets."""
    about = {
        "title": "Calibration",
        "type": "application/json",
        "roles": ["metadata", "rssegment:calibration"],
    }
    item["assets"]["calibration"] = file_facts(asset) | about


def put_card(item: dict[str, Any], name: str) -> None:
    """Names the page about a model among an item's assets. It has no checksum: people may write more into it."""
    about = {"title": "Model card", "type": "text/markdown", "roles": ["metadata"]}
    item["assets"]["card"] = {"href": f"./{name}"} | about


def file_facts(asset: Asset) -> dict[str, Any]:
    """A file as ``model.json`` has it."""
    return {"href": f"./{asset.href}", "file:size": asset.size, "file:checksum": _SHA256 + asset.sha256}


def specialist_facts(entry: SpecialistEntry) -> dict[str, Any]:
    """A member as ``model.json`` has it."""
    return {
        "node": entry.node,
        "href": f"./{entry.href}",
        "threshold": entry.threshold,
        "file:checksum": _SHA256 + entry.sha256,
    }


def assets_from_item(item: Any) -> dict[str, Asset]:
    """The files ``weights``, ``taxonomy`` and, if there is one, ``calibration``.

    Raises
    ------
    BundleError
        One is missing, or is not in the bundle's own folder, with its JSON path.
    """
    assets = Field(item, "$")["assets"]
    names = ("weights", "taxonomy", *(["calibration"] if "calibration" in assets else []))
    return {name: _asset(assets[name]) for name in names}


def specialists_from_item(item: Any) -> tuple[SpecialistEntry, ...]:
    """The members of a cascade; none if the item is of a single model.

    Raises
    ------
    BundleError
        A field is missing, of the wrong type or out of range, with its JSON path.
    """
    facts = Field(item, "$")["properties"]
    if "rssegment:specialists" not in facts:
        return ()
    entries = tuple(_specialist_entry(field) for field in facts["rssegment:specialists"].items())
    nodes = [entry.node for entry in entries]
    if twice := sorted({node for node in nodes if nodes.count(node) > 1}):
        raise BundleError(
            f"{facts['rssegment:specialists'].path} names node {twice[0]} twice; a node has one specialist"
        )
    return entries


def _specialist_entry(field: Field) -> SpecialistEntry:
    threshold = field["threshold"].as_number()
    if not 0 <= threshold <= 1:
        raise BundleError(f"{field['threshold'].path} is {threshold:g}; expected a probability from 0 to 1")
    href = field["href"]
    parts = href.as_text().removeprefix("./").rstrip("/").split("/")
    if not all(_plain(part) for part in parts):
        raise BundleError(f"{href.path} is {href.value!r}; expected a folder inside the bundle's own")
    return SpecialistEntry(field["node"].as_int(), "/".join(parts), threshold, _checksum(field))


def _asset(field: Field) -> Asset:
    href = field["href"].as_text()
    name = href.removeprefix("./")
    if not _plain(name):
        raise BundleError(
            f"{field['href'].path} is {href!r}; expected the name of a file in the bundle's own folder"
        )
    return Asset(name, field["file:size"].as_int(0), _checksum(field))


def _plain(name: str) -> bool:
    """Whether ``name`` is that of something in a folder and no way out of it."""
    return bool(name) and not set(name) & set("/\\:") and name not in (".", "..")


def _checksum(field: Field) -> str:
    checksum = field["file:checksum"].as_text()
    if not re.fullmatch(_SHA256 + "[0-9a-fA-F]{64}", checksum):
        raise BundleError(
            f"{field['file:checksum'].path} is {checksum[:80]!r}; expected 1220 and the SHA-256 in hex"
        )
    return str(checksum[4:].lower())
