"""Bundles: a model on disk, as a folder of ``model.json``, its weights and ``taxonomy.yaml``.

A bundle may hold a calibration too, and bundles of specialists, each a folder inside its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rssegment.errors import BundleError, MismatchError
from rssegment.model.calibration import Calibration, read_calibration
from rssegment.model.cascade import Cascade, Member, check_specialist, main_tree
from rssegment.model.files import Asset, SpecialistEntry, assets_from_item, specialists_from_item
from rssegment.model.fit import Fit, SceneFacts, check_scene
from rssegment.model.folder import (
    MANIFEST,
    asset_of,
    bundled_names,
    check_file,
    locate,
    read_manifest,
)
from rssegment.model.inference import LeafModel, Model
from rssegment.model.outputs import outputs_of
from rssegment.model.spec import ModelSpec
from rssegment.model.stac_mlm import spec_from_item
from rssegment.model.weight_files import stored_dtype
from rssegment.model.weights import load_network, refuse_pickle
from rssegment.taxonomy import Taxonomy

__all__ = ["Bundle", "Specialist", "bundled_names", "load_model"]


@dataclass(frozen=True)
class Specialist:
    """A bundle inside another, that tells apart the classes below ``node`` (code).

    It runs on patches where the node's probability exceeds ``threshold``. ``href`` is its folder below the other's.
    """

    node: int
    threshold: float
    href: str
    bundle: Bundle


@dataclass(frozen=True)
class Bundle:
    """A model on disk whose description, class tree and checksums were found to be sound.

    ``spec`` is the main model's; with ``specialists``, ``taxonomy`` goes on below the classes of its channels.
    ``files`` are by what they hold: "weights", "taxonomy", "calibration".
    """

    path: Path
    spec: ModelSpec
    taxonomy: Taxonomy
    files: Mapping[str, Asset]
    parameters: int | None = None
    calibration: Calibration | None = None
    specialists: tuple[Specialist, ...] = ()

    @classmethod
    def open(cls, source: str | Path) -> Bundle:
        """The bundle in the folder ``source``, or the one of that name that comes with the package.

        Raises
        ------
        BundleError
            There is no such bundle, or a file of it is missing, changed or inconsistent.
        """
        path = locate(source)
        item = read_manifest(path)
        while True:
            try:
                return cls._described(path, item)
            except RecursionError as error:
                raise BundleError(f"bundle {path} has specialists inside specialists without end") from error
            except BundleError:
                now = read_manifest(path)
                if json.dumps(now) == json.dumps(item):
                    raise
                item = now  # it was calibrated or replaced in the meantime

    @classmethod
    def _described(cls, path: Path, item: Any) -> Bundle:
        """The bundle in the folder ``path`` with the ``model.json`` of ``item``."""
        try:
            spec, files, entries = spec_from_item(item), assets_from_item(item), specialists_from_item(item)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        for asset in files.values():
            check_file(path, asset)
        taxonomy = Taxonomy.load(path / files["taxonomy"].href)
        calibration = read_calibration(path / files["calibration"].href) if "calibration" in files else None
        specialists = _open_specialists(path, entries, spec, taxonomy)
        outputs_of(spec, main_tree(spec, taxonomy, [s.node for s in specialists]))
        if spec.artifact == "torchscript":
            refuse_pickle(path / files["weights"].href)
        parameters = item["properties"].get("mlm:total_parameters")
        return cls(path, spec, taxonomy, files, parameters, calibration, specialists)

    @property
    def weights(self) -> Path:
        return self.path / self.files["weights"].href

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the result: description, weights, class tree, calibration, specialists."""
        facts = self.spec.model_dump(
            mode="json", exclude={"title", "description", "license", "credit", "training"}
        )
        content: list[Any] = [facts, self.files["weights"].sha256, self.taxonomy.fingerprint]
        if self.calibration is not None:
            content.append(self.calibration.model_dump(mode="json", exclude={"measured"}))
        if self.specialists:
            content.append([[s.node, s.threshold, s.bundle.fingerprint] for s in self.specialists])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def fit(self, scene: SceneFacts) -> Fit:
        """The way ``scene`` fits the model: :func:`rssegment.model.check_scene`, and for specialists their bands.

        Raises
        ------
        MismatchError
            As ``check_scene``; or a specialist can't do without a band that the scene lacks and the main model can.
        """
        fit = check_scene(self.spec, scene)
        if found := self._unfed([name for name in self.spec.band_names if name not in fit.filled]):
            who, needs = found
            raise MismatchError(
                f"the scene lacks {needs}; model {self.spec.name} itself can do without, but {who} can't; use a scene "
                f"with {needs}, or a cascade without that specialist"
            )
        return fit

    def _unfed(self, given: Collection[str]) -> tuple[str, str] | None:
        """A specialist that needs more than the bands ``given`` to the main model, and what; None if there is none."""
        known = {name.casefold() for name in given}
        for specialist in self.specialists:
            inner = specialist.bundle
            if needs := [name for name in inner.spec.required if name.casefold() not in known]:
                node = "/".join(self.taxonomy.node(specialist.node).path)
                return f"{inner.spec.name}, the specialist for {node},", ", ".join(needs)
            if found := inner._unfed([name for name in inner.spec.band_names if name.casefold() in known]):
                return found
        return None

    def load(self, device: str | torch.device = "cpu", *, calibrated: bool = True) -> LeafModel:
        """The model, ready on ``device``: a :class:`Model`, or a :class:`Cascade` if there are specialists.

        ``calibrated`` applies the calibration's temperature; that of specialists is theirs and always applied.

        Raises
        ------
        BundleError
            The weights don't fit the description, or ``device`` is not there.
        """
        place = torch.device(device)
        temperature = self.calibration.temperature if self.calibration and calibrated else 1.0
        try:
            network = load_network(self.weights, self.spec, place)
        except BundleError as error:
            raise BundleError(f"bundle {self.path}: {error}") from error
        if not self.specialists:
            return Model(network, self.spec, self.taxonomy, place, temperature)
        tree = main_tree(self.spec, self.taxonomy, [s.node for s in self.specialists])
        members = [
            Member(s.node, s.bundle.load(place), s.threshold, self.spec.band_names) for s in self.specialists
        ]
        return Cascade(Model(network, self.spec, tree, place), members, self.taxonomy, temperature)

    def describe(self) -> dict[str, Any]:
        """What the bundle is, as plain values for printing and JSON."""
        spec = self.spec
        return {
            "name": spec.name,
            "path": str(self.path),
            "title": spec.title,
            "description": spec.description,
            "license": spec.license,
            "credit": spec.credit,
            "architecture": spec.architecture,
            "architecture_options": dict(spec.architecture_options),
            "artifact": spec.artifact,
            "parameters": self.parameters,
            "weights_bytes": self.files["weights"].size,
            "weights_dtype": stored_dtype(self.weights) if spec.artifact == "safetensors" else None,
            "bands": [band.model_dump() for band in spec.bands],
            "dtype": spec.dtype,
            "scaled": spec.scaled,
            "value_range": list(spec.value_range),
            "ground_resolution_m": spec.ground_resolution,
            "coarsest_scene_m": spec.ground_resolution * spec.resolution_factor,
            "patch": spec.patch,
            "overlap": spec.overlap,
            "batch": spec.batch,
            "output": spec.output,
            "channels": list(spec.channels),
            "taxonomy": self.taxonomy.name,
            "leaves": [
                {"code": leaf.code, "name": leaf.name, "path": list(leaf.path)}
                for leaf in self.taxonomy.leaves
            ],
            "calibration": self.calibration and self.calibration.model_dump(mode="json"),
            "specialists": list(_members(self)),
            "training": dict(spec.training),
            "fingerprint": self.fingerprint,
        }


def load_model(source: str | Path, device: str | torch.device = "cpu") -> LeafModel:
    """The model of a bundle (folder or packaged name): scene values (B, C, H, W) -> leaf probabilities (B, L, H, W).

    Raises
    ------
    BundleError
        There is no such bundle, or it is unsound.
    """
    return Bundle.open(source).load(device)


def _open_specialists(
    path: Path, entries: tuple[SpecialistEntry, ...], spec: ModelSpec, taxonomy: Taxonomy
) -> tuple[Specialist, ...]:
    """The bundles inside a bundle's folder, in the order of their nodes in the tree."""
    found = []
    for entry in entries:
        folder = path / entry.href
        if not folder.is_dir():
            raise BundleError(
                f"bundle {path} lacks its folder {entry.href}, the specialist for node {entry.node}; "
                "copy the whole folder again"
            )
        _check_manifest(folder, entry)
        bundle = Bundle.open(folder)
        try:
            check_specialist(spec, taxonomy, entry.node, bundle.spec, bundle.taxonomy)
            _check_fed(spec, bundle)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        found.append(Specialist(entry.node, entry.threshold, entry.href, bundle))
    rows = {node.code: row for row, node in enumerate(taxonomy.nodes)}
    return tuple(sorted(found, key=lambda specialist: rows[specialist.node]))


def _check_fed(main: ModelSpec, bundle: Bundle) -> None:
    """Refuses a specialist whose own specialists need a band that the ``main`` model never reads."""
    read = {name.casefold() for name in main.band_names}
    if found := bundle._unfed([name for name in bundle.spec.band_names if name.casefold() in read]):
        who, needs = found
        raise BundleError(
            f"{who} of {bundle.spec.name} needs {needs}, and the main model {main.name} reads only "
            f"{', '.join(main.band_names)}; leave that specialist out, or use a main model with more bands"
        )


def _check_manifest(folder: Path, entry: SpecialistEntry) -> None:
    manifest = folder / MANIFEST
    if manifest.is_file() and asset_of(manifest).sha256 != entry.sha256:
        raise BundleError(
            f"{manifest} was changed or damaged since the cascade was made; copy the whole folder again, "
            "or make the cascade anew with save_cascade"
        )


def _members(bundle: Bundle, path: tuple[str, ...] = (), folder: str = "") -> Iterator[dict[str, Any]]:
    """What a cascade's specialists are, those of specialists after them; ``class`` is a path in the whole tree."""
    for specialist in bundle.specialists:
        inner, node = specialist.bundle, bundle.taxonomy.node(specialist.node)
        place = (*path, *node.path)
        yield {
            "node": node.code,
            "class": "/".join(place),
            "model": inner.spec.name,
            "threshold": specialist.threshold,
            "bands": list(inner.spec.band_names),
            "temperature": inner.calibration.temperature if inner.calibration else 1.0,
            "architecture": inner.spec.architecture,
            "parameters": inner.parameters,
            "href": folder + specialist.href,
        }
        yield from _members(inner, place, f"{folder}{specialist.href}/")
