"""What a path is, and what would go wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rssegment.config import SceneOptions
from rssegment.errors import InputError, MismatchError
from rssegment.model import Bundle, bundled_names
from rssegment.model.architectures.catalogue import OWN, SMP
from rssegment.model.architectures.facts import architecture_facts
from rssegment.model.folder import is_calibration
from rssegment.run.json_file import read_json
from rssegment.run.planning import facts_of
from rssegment.scene import Scene
from rssegment.taxonomy import Taxonomy

__all__ = ["inspect"]

DEMO_MARK = ".rssegment-demo"  # the file by which the demo knows its own folders
_WEIGHTS = (".safetensors", ".pt", ".pt2", ".onnx")
_POLYGONS = (".geojson", ".geojsonl", ".shp", ".fgb", ".parquet")


def inspect(
    path: str | Path, model: str | Path | None = None, options: SceneOptions | None = None
) -> dict[str, Any]:
    """Facts of a scene, a bundle, a taxonomy, a run or an architecture, as plain values; ``kind`` says which it is.

    A bare word is the name of a bundle, taxonomy or architecture of rssegment's first, then a file or folder
    (``./demo`` is always the folder). ``options`` say how a scene is to be read. With ``model``, a scene's facts say
    whether that model would run on it: ``fits``, with ``notes`` if so and ``why`` not if not, which is no error here.

    Raises
    ------
    InputError
        It is none of these, or is damaged; or ``model`` or ``options`` are given for what isn't a scene.
    """
    options = options or SceneOptions()
    facts = _own(path)
    if facts is None:
        return _scene(str(path), model, options)
    given = [f"--{key}" for key, value in options if value is not None] + ["--model"] * (model is not None)
    if given:
        verb = "goes" if len(given) == 1 else "go"
        raise InputError(
            f"{', '.join(given)} {verb} with a scene, and {path} isn't one (kind: {facts['kind']}); "
            "give a raster, or leave the option out"
        )
    return facts


def _own(path: str | Path) -> dict[str, Any] | None:
    """Facts of what rssegment itself makes or comes with; None if only a scene is left."""
    place = Path(path)
    bare = str(path) == place.name and not place.suffix
    # as in Bundle.open and Taxonomy.load, only text can be a name of ours where such a file is
    if bare and (isinstance(path, str) or not place.exists()):
        facts = _named(place)
        if facts is not None:
            return facts
    if place.is_dir():
        return _folder(place)
    if place.suffix.lower() in (".yaml", ".yml"):
        return _taxonomy(Taxonomy.load(place))
    if place.is_file():
        return _file(place)
    if bare:
        raise InputError(
            f"there is no file or folder {str(path)!r}, and rssegment comes with no such bundle (it has: "
            f"{', '.join(bundled_names())}) or taxonomy ({', '.join(Taxonomy.available())}); "
            "for names of architectures: rssegment inspect --architectures"
        )
    return None


def _named(place: Path) -> dict[str, Any] | None:
    """A bundle of ours, a taxonomy, or an architecture; the first of these if it is the name of several."""
    name = str(place)
    if name in bundled_names():
        facts = _bundle(Bundle.open(name))
    elif name in Taxonomy.available():
        facts = _taxonomy(Taxonomy.load(name))
    elif name in OWN or name in SMP:
        facts = {"kind": "architecture"} | architecture_facts(name).describe()
    else:
        return None
    if place.exists():
        what = "folder" if place.is_dir() else "file"
        facts["notes"] = [f"this is rssegment's own {name}; for the {what} {name} write ./{name}"]
    return facts


def _folder(path: Path) -> dict[str, Any]:
    if (path / "model.json").exists():
        return _bundle(Bundle.open(path))
    if (path / "run.json").exists():
        return _run(path / "run.json")
    demo = (path / DEMO_MARK).exists()
    if demo or (path / "work" / "plan.json").exists():
        again = f"run the demo again: rssegment demo --out {path}"
        return {
            "kind": "unfinished run",
            "blocks_done": len(list((path / "work").glob("*/done/*.json"))),
            "cure": again if demo else "go on with it: the same command with --resume",
        }
    raise InputError(
        f"{path} is a folder with neither model.json (a bundle) nor run.json (a run); "
        "give a raster, a bundle, a taxonomy (.yaml) or a run's folder"
    )


def _file(path: Path) -> dict[str, Any] | None:
    """Facts of a file that stands for its folder; None if it may be a raster.

    Raises
    ------
    InputError
        It is another file of ours; says what it is.
    """
    if path.name == "model.json" or (is_calibration(path.name) and (path.parent / "model.json").exists()):
        return _bundle(Bundle.open(path.parent))
    if path.name == "run.json":
        return _run(path)
    suffix, folder = path.suffix.lower(), path.parent
    if suffix in _WEIGHTS:
        raise InputError(f"{path} holds a model's weights; inspect the bundle, which is a folder: {folder}")
    if suffix in _POLYGONS:
        run = f"; for the run that made it inspect {folder}" if (folder / "run.json").exists() else ""
        raise InputError(f"{path} holds polygons, which inspect doesn't read; any GIS opens them{run}")
    if path.name.lower().endswith(".aux.xml"):
        raise InputError(f"{path} belongs to the raster beside it; inspect {str(path)[: -len('.aux.xml')]}")
    return None


def _run(path: Path) -> dict[str, Any]:
    run = read_json(path)
    if run is None or "rssegment" not in run:
        raise InputError(
            f"{path} is damaged or wasn't written by rssegment; give the folder of a run, or run it again"
        )
    return {"kind": "run", **run}


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


def _scene(path: str, model: str | Path | None, options: SceneOptions) -> dict[str, Any]:
    if model is None and options.rescale is not None:
        raise InputError("--rescale maps a scene's values to those of a model; name the model by --model")
    scene = Scene.open(path, options)
    facts = {"kind": "scene", **scene.describe()}
    return facts if model is None else facts | _fit(scene, Bundle.open(model), options)


def _fit(scene: Scene, bundle: Bundle, options: SceneOptions) -> dict[str, Any]:
    """Whether the model would run on the scene, and what then happens to it."""
    spec = bundle.spec
    facts = {"model": spec.name, "model_ground_resolution_m": spec.ground_resolution}
    try:
        fit = bundle.fit(facts_of(scene, options))
    except MismatchError as error:
        return {**facts, "fits": False, "why": str(error)}
    notes = [*fit.notes, *_resampling(scene, spec.ground_resolution)]
    return {**facts, "fits": True, "filled_bands": list(fit.filled), "notes": notes}


def _resampling(scene: Scene, resolution: float) -> list[str]:
    """A note if the model sees the scene at another ``resolution`` (m) than its own."""
    if not scene.on_grid(resolution).resampled:
        return []
    pixels = " x ".join(dict.fromkeys(f"{metres:.3g}" for metres in scene.ground_resolution))
    return [f"the scene will be resampled from {pixels} m to {resolution:g} m for the model"]
