"""Writing bundles: new ones, calibrated ones, and cascades. Each is proved to load before it appears at its place."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rssegment.errors import BundleError, OutputError, RssegmentError, StorageError, TaxonomyError
from rssegment.model.bundle import Bundle, Specialist
from rssegment.model.calibration import Calibration
from rssegment.model.cascade import check_specialist, main_tree, run_all
from rssegment.model.files import Asset, SpecialistEntry, put_calibration, put_card
from rssegment.model.folder import (
    CARD,
    MANIFEST,
    TAXONOMY,
    asset_of,
    calibration_name,
    changed_alone,
    drop_unnamed,
    is_bundled,
    manifest_text,
    put_file,
    read_manifest,
    sha256,
    write_manifest,
    written_aside,
)
from rssegment.model.outputs import outputs_of
from rssegment.model.spec import ModelSpec
from rssegment.model.stac_mlm import spec_to_item
from rssegment.model.weight_files import count_parameters, write_weights
from rssegment.taxonomy import Taxonomy

__all__ = ["save_bundle", "save_calibration", "save_cascade"]

SPECIALISTS = "specialists"  # the folder of a cascade that holds them

_Source = Bundle | str | Path


def save_bundle(
    path: str | Path,
    weights: nn.Module | torch.export.ExportedProgram | str | Path,
    spec: ModelSpec,
    taxonomy: Taxonomy,
    *,
    half: bool = False,
    card: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle, proves that it loads and runs on one patch, and only then puts it at ``path``.

    ``weights`` are a module for safetensors, a ``ScriptModule`` for torchscript, an ``ExportedProgram`` for pt2,
    or for any kind the path of a file that holds them. ``half`` stores safetensors in half precision, in half the
    space; they are computed with in single precision as before (see ``weight_files.halved``). ``card`` is a page
    about the model (Markdown), kept beside it as README.md.

    Raises
    ------
    OutputError
        ``path`` exists already and ``overwrite`` is off, or it is no bundle.
    BundleError, ModelError
        Weights, description and class tree don't fit each other.
    """
    target = _free(path, overwrite)
    with written_aside(target, overwrite=overwrite) as folder:
        write_weights(folder / spec.weights_name, weights, spec, half=half)
        taxonomy.save(folder / TAXONOMY)
        _describe(folder, spec, taxonomy, count_parameters(weights))
        if card is not None:
            _add_card(folder, card)
        _rehearse(folder, target)
    return Bundle.open(target)


def save_calibration(source: _Source, calibration: Calibration, out: str | Path | None = None) -> Bundle:
    """Puts a calibration into the bundle ``source``, in place of one it has; or into a copy of it, the folder ``out``.

    In place, the bundle can be opened at any moment, as it was or as it will be, also if the program is killed. A copy
    has the files that ``model.json`` names, and no others. Of a ``source`` that was opened before, the calibration is
    refused if another model is at its place now.

    Raises
    ------
    OutputError
        ``out`` exists already, or there is no ``out`` and the bundle can't be written, comes with the package or is
        part of a cascade.
    BundleError
        There is no such bundle, it is unsound, or it was changed since it was opened.
    """
    bundle = _opened(source)
    target, content = calibration_target(bundle, out), calibration.dump().encode()
    if out is None:
        _calibrate(bundle, content)
        return Bundle.open(target)
    with written_aside(target) as folder:
        _copy_bundle(_unchanged(bundle), folder, without=("calibration",))
        item = read_manifest(folder)
        put_calibration(item, _asset(content))
        (folder / calibration_name(content)).write_bytes(content)
        write_manifest(folder, item)
        with _called(folder, target):
            Bundle.open(folder)
    return Bundle.open(target)


def save_cascade(
    path: str | Path,
    main: _Source,
    specialists: Mapping[int | str, _Source | tuple[_Source, float]],
    taxonomy: Taxonomy,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Writes a bundle of a main model and specialists, proves that all run on one patch, and puts it at ``path``.

    ``specialists`` are, by the node (code, name or path) that they refine, a bundle for the classes below it and the
    probability of the node above which it runs in a patch; 0, which a bundle alone means, is exact. ``taxonomy`` is
    the whole tree. Specialists that ``main`` has already are kept. Its calibration is not, since it was measured on
    other probabilities: calibrate the cascade. A specialist's own goes with it.

    Raises
    ------
    OutputError
        ``path`` exists already and ``overwrite`` is off, or it is no bundle.
    BundleError, ModelError
        Models and tree don't fit each other.
    """
    target = _free(path, overwrite)
    main = _opened(main)
    members = [*main.specialists, *(_member(taxonomy, *pair) for pair in specialists.items())]
    _check_members(main, members, taxonomy)
    with written_aside(target, overwrite=overwrite) as folder:
        shutil.copyfile(main.weights, folder / main.spec.weights_name)
        taxonomy.save(folder / TAXONOMY)
        entries = [_add_specialist(folder, member, taxonomy) for member in members]
        _describe(folder, main.spec, taxonomy, main.parameters, entries)
        _rehearse(folder, target)
    return Bundle.open(target)


def _free(path: str | Path, overwrite: bool) -> Path:
    target = Path(path)
    if target.exists():
        if not overwrite:
            raise OutputError(f"{target} exists already; choose another folder or pass overwrite=True")
        if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST).exists()):
            raise OutputError(f"{target} is no model bundle, so it is not replaced; choose another folder")
    return target


def _describe(
    folder: Path,
    spec: ModelSpec,
    taxonomy: Taxonomy,
    parameters: int | None,
    specialists: Sequence[SpecialistEntry] = (),
) -> None:
    """Writes the ``model.json`` of a folder that has its other files."""
    files = {"weights": asset_of(folder / spec.weights_name), "taxonomy": asset_of(folder / TAXONOMY)}
    write_manifest(folder, spec_to_item(spec, taxonomy, files, parameters, specialists))


def _add_card(folder: Path, card: str) -> None:
    (folder / CARD).write_text(card, encoding="utf-8")
    item = read_manifest(folder)
    put_card(item, CARD)
    write_manifest(folder, item)


def _rehearse(folder: Path, target: Path) -> None:
    """Loads the new bundle and runs one batch of mean values through each of its models."""
    with _called(folder, target):
        model = Bundle.open(folder).load()
        patch = model.spec.patch
        run_all(model, torch.from_numpy(model.fill).view(1, -1, 1, 1).expand(1, -1, patch, patch))


@contextmanager
def _called(folder: Path, target: Path) -> Iterator[None]:
    """Errors in ``folder`` speak of ``target``, where it will be."""
    try:
        yield
    except RssegmentError as error:
        raise type(error)(str(error).replace(str(folder), str(target))) from error


def calibration_target(bundle: Bundle, out: str | Path | None) -> Path:
    """The folder that :func:`save_calibration` would write; raises what it would, where that may not be."""
    place = bundle.path.resolve()
    if out is None:
        _refuse_in_place(place)
    target = place if out is None else _free(out, overwrite=False)
    if place in target.resolve().parents:
        raise OutputError(f"{target} is inside the bundle {place} itself; choose another folder")
    return target


def _refuse_in_place(place: Path) -> None:
    if is_bundled(place):
        raise OutputError(
            f"{place} belongs to the installation of rssegment and is not changed; name a folder for a copy (out)"
        )
    if place.parent.name == SPECIALISTS and (place.parents[1] / MANIFEST).exists():
        raise OutputError(
            f"{place} is part of the cascade {place.parents[1]} and is not changed there; name a folder for a copy "
            "(out) and make the cascade anew with it, or calibrate the cascade as a whole"
        )
    if not os.access(place, os.W_OK):
        raise OutputError(f"{place} may not be written to; name a folder for a copy (out)")


def _calibrate(bundle: Bundle, content: bytes) -> None:
    """Puts the text of a calibration into a bundle itself. ``model.json`` is replaced last, and decides."""
    place, asset = bundle.path.resolve(), _asset(content)
    with changed_alone(place) as alone:
        before = _unchanged(bundle)
        names = {asset.href} | {each.href for kind, each in before.files.items() if kind == "calibration"}
        item = read_manifest(place)
        put_calibration(item, asset)
        try:
            put_file(place / asset.href, content)
            put_file(place / MANIFEST, manifest_text(item).encode())
        except OSError as error:
            raise StorageError(
                f"the calibration could not be put into {place}, which is as it was: {error.strerror or error}"
            ) from error
        finally:
            drop_unnamed(place, names, alone)


def _asset(content: bytes) -> Asset:
    return Asset(calibration_name(content), len(content), hashlib.sha256(content).hexdigest())


def _unchanged(bundle: Bundle) -> Bundle:
    """The bundle as it is on disk now; refused if its model is another one than that of ``bundle``."""
    now = Bundle.open(bundle.path.resolve())
    if replace(now, calibration=None).fingerprint != replace(bundle, calibration=None).fingerprint:
        raise BundleError(
            f"{bundle.path} holds another model than when it was opened, which this calibration is not for; "
            "calibrate it again"
        )
    return now


def _opened(bundle: _Source) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)


def _member(taxonomy: Taxonomy, key: int | str, value: _Source | tuple[_Source, float]) -> Specialist:
    source, threshold = value if isinstance(value, tuple) else (value, 0.0)
    try:
        node = taxonomy.node(key)
    except TaxonomyError as error:
        raise BundleError(
            f"a specialist is for a class that is not in the cascade's tree: {error}"
        ) from error
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not 0 <= threshold <= 1:
        raise BundleError(
            f"the threshold of the specialist for {'/'.join(node.path)} is {threshold!r}; "
            "expected a probability from 0 to 1"
        )
    return Specialist(node.code, float(threshold), "", _opened(source))


def _check_members(main: Bundle, members: Sequence[Specialist], taxonomy: Taxonomy) -> None:
    """Refuses what doesn't fit, before anything is written."""
    nodes = [member.node for member in members]
    if not members:
        raise BundleError("a cascade has at least one specialist; for a single model use save_bundle")
    if twice := {node for node in nodes if nodes.count(node) > 1}:
        raise BundleError(
            f"there are two specialists for node {min(twice)}; a node has one: leave one out, "
            "or make the cascade anew from a main model without it"
        )
    known = {node.code: node for node in taxonomy.nodes}
    for own in map(main.taxonomy.node, main.spec.codes):
        whole = known.get(own.code, own)
        if whole.name != own.name or (main.spec.output == "scores" and whole.parent != own.parent):
            raise BundleError(
                f"code {own.code} is {'/'.join(own.path)} to the main model {main.spec.name} and "
                f"{'/'.join(whole.path)} in the cascade's taxonomy {taxonomy.name}; a code means one class in both"
            )
    for member in members:
        check_specialist(main.spec, taxonomy, member.node, member.bundle.spec, member.bundle.taxonomy)
    outputs_of(main.spec, main_tree(main.spec, taxonomy, nodes))


def _add_specialist(folder: Path, member: Specialist, taxonomy: Taxonomy) -> SpecialistEntry:
    """Copies a specialist into a cascade's folder."""
    name = re.sub(r"[^0-9A-Za-z_-]+", "-", taxonomy.node(member.node).name).strip("-").lower()
    href = f"{SPECIALISTS}/{name or member.node}"
    if (folder / href).exists():  # also where upper and lower case are the same to the file system
        href += f"-{member.node}"
    _copy_bundle(member.bundle, folder / href)
    return SpecialistEntry(member.node, href, member.threshold, sha256(folder / href / MANIFEST))


def _copy_bundle(bundle: Bundle, target: Path, without: Sequence[str] = ()) -> None:
    """Copies what ``model.json`` names, but for files of the kinds ``without``; nothing else that is in the folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, *(asset.href for kind, asset in bundle.files.items() if kind not in without)):
        shutil.copyfile(bundle.path / name, target / name)
    card = bundle.path / CARD
    if "card" in read_manifest(bundle.path)["assets"] and card.is_file() and not card.is_symlink():
        shutil.copyfile(card, target / CARD)
    for specialist in bundle.specialists:
        _copy_bundle(specialist.bundle, target / specialist.href)
