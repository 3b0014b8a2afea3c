"""What a path is, and what would go wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rssegment.config import SceneOptions
from rssegment.errors import InputError, MismatchError
from rssegment.model import Bundle, check_scene
from rssegment.run.planning import facts_of
from rssegment.run.store import read_json
from rssegment.scene import Scene
from rssegment.taxonomy import Taxonomy

__all__ = ["inspect"]


def inspect(path: str | Path, model: str | Path | None = None) -> dict[str, Any]:
    """Facts of a scene, a bundle, a taxonomy or a run, as plain values; ``kind`` says which it is.

    ``path`` may also be the name of a bundle or taxonomy that rssegment comes with. With ``model``, a scene's facts say
    whether that model would run on it.

    Raises
    ------
    InputError
        It is none of these, or is damaged.
    """
    place = Path(path)
    if place.is_dir():
        return _folder(place)
    if place.suffix.lower() in (".yaml", ".yml"):
        return _taxonomy(Taxonomy.load(place))
    if not place.exists() and place.name == str(path) and not place.suffix:
        return _named(str(path))
    return _scene(str(path), model)


def _folder(path: Path) -> dict[str, Any]:
    if (path / "model.json").exists():
        return _bundle(Bundle.open(path))
    run = read_json(path / "run.json")
    if run is not None:
        return {"kind": "run", **run}
    if (path / "work" / "plan.json").exists():
        done = len(list((path / "work" / "done").glob("*.json")))
        return {
            "kind": "unfinished run",
            "blocks_done": done,
            "cure": "go on with it: the same command with --resume",
        }
    raise InputError(
        f"{path} is a folder with neither model.json (a bundle) nor run.json (a run); "
        "give a raster, a bundle, a taxonomy (.yaml) or a run's folder"
    )


def _named(name: str) -> dict[str, Any]:
    """A bundle of ours, or a taxonomy; the bundle if it is the name of both."""
    found: dict[str, Any] = {}
    refusals = []
    for look in (lambda: _bundle(Bundle.open(name)), lambda: _taxonomy(Taxonomy.load(name))):
        try:
            facts = look()
        except InputError as error:
            refusals.append(str(error))
        else:
            found = found or facts
    if not found:
        raise InputError(
            f"there is no file {name!r}; as a model's name: {refusals[0]}; as a taxonomy's: {refusals[1]}"
        )
    return found


def _bundle(bundle: Bundle) -> dict[str, Any]:
    return {"kind": "bundle", **bundle.describe()}


def _taxonomy(taxonomy: Taxonomy) -> dict[str, Any]:
    nodes = [{"code": node.code, "path": "/".join(node.path), "color": node.hex} for node in taxonomy.nodes]
    levels = taxonomy.depth
    return {
        "kind": "taxonomy",
        "name": taxonomy.name,
        "levels": levels,
        "leaves": len(taxonomy.leaves),
        "nodes": nodes,
    }


def _scene(path: str, model: str | Path | None) -> dict[str, Any]:
    scene = Scene.open(path, SceneOptions())
    facts = {"kind": "scene", **scene.describe()}
    if model is not None:
        bundle = Bundle.open(model)
        try:
            fit = check_scene(bundle.spec, facts_of(scene, SceneOptions()))
        except MismatchError as error:
            return {**facts, "model": bundle.spec.name, "fits": False, "why": str(error)}
        return {**facts, "model": bundle.spec.name, "fits": True, "notes": list(fit.notes)}
    return facts
