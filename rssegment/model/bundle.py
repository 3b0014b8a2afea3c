"""Bundles: a model on disk, as a folder of ``model.json``, its weights and ``taxonomy.yaml``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rssegment.errors import BundleError, OutputError, RssegmentError, StorageError
from rssegment.model.inference import Model, channel_order
from rssegment.model.spec import ModelSpec
from rssegment.model.stac_mlm import Asset, assets_from_item, spec_from_item, spec_to_item
from rssegment.model.weights import load_network, refuse_pickle
from rssegment.taxonomy import Taxonomy

__all__ = ["Bundle", "bundled_names", "load_model", "save_bundle"]

MANIFEST = "model.json"
TAXONOMY = "taxonomy.yaml"
_BUNDLED = Path(__file__).parents[1] / "bundles"


@dataclass(frozen=True)
class Bundle:
    """A model on disk whose description, class tree and checksums were found to be sound."""

    path: Path
    spec: ModelSpec
    taxonomy: Taxonomy
    assets: tuple[Asset, Asset]
    parameters: int | None = None

    @classmethod
    def open(cls, source: str | Path) -> Bundle:
        """The bundle in the folder ``source``, or the one of that name that comes with the package.

        Raises
        ------
        BundleError
            There is no such bundle, or a file of it is missing, changed or inconsistent.
        """
        path = _locate(source)
        item = _read_manifest(path)
        try:
            spec, files = spec_from_item(item), assets_from_item(item)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        for asset in files.values():
            _check_file(path, asset)
        taxonomy = Taxonomy.load(path / files["taxonomy"].href)
        channel_order(spec, [leaf.code for leaf in taxonomy.leaves])
        if spec.artifact == "torchscript":
            refuse_pickle(path / files["weights"].href)
        parameters = item["properties"].get("mlm:total_parameters")
        return cls(path, spec, taxonomy, (files["weights"], files["taxonomy"]), parameters)

    @property
    def weights(self) -> Path:
        return self.path / self.assets[0].href

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the result: the description, the weights and the class tree."""
        facts = self.spec.model_dump(
            mode="json", exclude={"title", "description", "license", "credit", "training"}
        )
        content = [facts, self.assets[0].sha256, self.taxonomy.fingerprint]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def load(self, device: str | torch.device = "cpu") -> Model:
        """The model, ready on ``device``.

        Raises
        ------
        BundleError
            The weights don't fit the description, or ``device`` is not there.
        """
        place = torch.device(device)
        leaves = [leaf.code for leaf in self.taxonomy.leaves]
        try:
            network = load_network(self.weights, self.spec, place)
        except BundleError as error:
            raise BundleError(f"bundle {self.path}: {error}") from error
        return Model(network, self.spec, leaves, place)

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
            "weights_bytes": self.assets[0].size,
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
            "training": dict(spec.training),
            "fingerprint": self.fingerprint,
        }


def load_model(source: str | Path, device: str | torch.device = "cpu") -> Model:
    """The model of a bundle (folder or packaged name): scene values (B, C, H, W) -> leaf probabilities (B, L, H, W).

    Raises
    ------
    BundleError
        There is no such bundle, or it is unsound.
    """
    return Bundle.open(source).load(device)


def bundled_names() -> tuple[str, ...]:
    """Names of the bundles that come with the package."""
    return tuple(sorted(p.parent.name for p in _BUNDLED.glob(f"*/{MANIFEST}")))


def save_bundle(
    path: str | Path,
    weights: nn.Module | torch.export.ExportedProgram | str | Path,
    spec: ModelSpec,
    taxonomy: Taxonomy,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle, proves that it loads and runs on one patch, and only then puts it at ``path``.

    ``weights`` are a module for safetensors, a ``ScriptModule`` for torchscript, an ``ExportedProgram`` for pt2,
    or for any kind the path of a file that holds them.

    Raises
    ------
    OutputError
        ``path`` exists already and ``overwrite`` is off.
    BundleError, ModelError
        Weights, description and class tree don't fit each other.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another folder or pass overwrite=True")
    with _written_aside(target) as folder:
        _write_weights(folder / spec.weights_name, weights, spec)
        taxonomy.save(folder / TAXONOMY)
        files = {"weights": _asset(folder / spec.weights_name), "taxonomy": _asset(folder / TAXONOMY)}
        item = spec_to_item(spec, taxonomy, files, _count(weights))
        text = json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        _rehearse(folder, target)
    return Bundle.open(target)


def _rehearse(folder: Path, target: Path) -> None:
    """Loads the new bundle and runs one batch of mean values through it."""
    try:
        model = Bundle.open(folder).load()
        spec = model.spec
        blank = torch.from_numpy(model.fill).view(1, -1, 1, 1)
        model(blank.expand(spec.batch or 1, -1, spec.patch, spec.patch))
    except RssegmentError as error:
        raise type(error)(str(error).replace(str(folder), str(target))) from error


def _write_weights(path: Path, weights: object, spec: ModelSpec) -> None:
    if isinstance(weights, str | Path):
        shutil.copyfile(weights, path)
    elif spec.artifact == "torchscript" and isinstance(weights, torch.jit.ScriptModule):
        torch.jit.save(weights, str(path))
    elif spec.artifact == "pt2" and isinstance(weights, torch.export.ExportedProgram):
        torch.export.save(weights, path)
    elif (
        spec.artifact == "safetensors"
        and isinstance(weights, nn.Module)
        and not isinstance(weights, torch.jit.ScriptModule)
    ):
        from safetensors.torch import save_file

        save_file({k: v.detach().cpu().contiguous().clone() for k, v in weights.state_dict().items()}, path)
    else:
        wanted = {
            "torchscript": "a torch.jit.ScriptModule",
            "pt2": "an ExportedProgram",
            "safetensors": "a module",
        }
        raise BundleError(
            f"a {type(weights).__name__} can't be saved as {spec.artifact}; "
            f"give {wanted.get(spec.artifact, 'its file')}"
            + ("" if spec.artifact == "onnx" else " or its file")
        )


def _count(weights: object) -> int | None:
    """Number of parameters, where ``weights`` is something that has them."""
    if isinstance(weights, torch.export.ExportedProgram | nn.Module):
        return sum(p.numel() for p in weights.parameters())
    if Path(str(weights)).suffix == ".safetensors":
        from rssegment.model.weights import read_tensors

        return sum(
            t.numel() for name, t in read_tensors(Path(str(weights))).items() if "running_" not in name
        )
    return None


@contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place if all goes well, and is removed if not."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"can't write the bundle {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    try:
        yield folder
        # whoever may read the folder may read what is in it: safetensors makes its file private
        for item in folder.iterdir():
            item.chmod(0o666 & ~_umask())
        folder.chmod(0o777 & ~_umask())
        _swap(folder, target)
    except OSError as error:
        raise StorageError(f"the bundle {target} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, target: Path) -> None:
    """Puts ``folder`` at ``target``; what was there before is moved away first and then removed."""
    if not target.exists():
        folder.rename(target)
        return
    former = folder.with_name(folder.name + ".former")
    target.rename(former)
    try:
        folder.rename(target)
    except OSError:
        former.rename(target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _asset(path: Path) -> Asset:
    return Asset(path.name, path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locate(source: str | Path) -> Path:
    """The folder meant: a bare word is a name of ours first, then a folder (``./demo`` is always the folder)."""
    path = Path(source)
    bare = source == path.name
    if bare and (_BUNDLED / path / MANIFEST).is_file():
        return _BUNDLED / path
    if path.is_dir():
        return path
    names = ", ".join(bundled_names()) or "none"
    if path.is_file():
        raise BundleError(
            f"{path} is a file; a model is a bundle: a folder with {MANIFEST}, weights and {TAXONOMY} (see save_bundle)"
        )
    raise BundleError(
        f"no model bundle at {source}; give a folder, or one of those that come with rssegment: {names}"
    )


def _read_manifest(path: Path) -> Any:
    manifest = path / MANIFEST
    try:
        item = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} has no {MANIFEST}, so it is no model bundle; make one with save_bundle"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{manifest} can't be read: {error}") from error
    if not isinstance(item, dict):
        raise BundleError(f"{manifest} holds a {type(item).__name__}; expected a STAC item")
    return item


def _check_file(folder: Path, asset: Asset) -> None:
    path = folder / asset.href
    if not path.is_file():
        raise BundleError(f"bundle {folder} lacks its file {asset.href}; copy the whole folder again")
    try:
        found = _sha256(path)
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    if found != asset.sha256:
        raise BundleError(
            f"{path} was changed or damaged: its SHA-256 is {found[:12]}…, and {MANIFEST} says {asset.sha256[:12]}…; "
            "copy it again, or make the bundle anew with save_bundle"
        )
