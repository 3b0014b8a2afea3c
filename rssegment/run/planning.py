"""The plan of a run: everything that is decided before the first pixel is read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from rssegment.config import SceneOptions, Settings
from rssegment.decode import Backoff, Rule
from rssegment.grid import BlockGrid, Box, PatchLattice
from rssegment.model import Bundle, ModelSpec, SceneFacts
from rssegment.predict import default_batch, model_core, resolve_device
from rssegment.run.decisions import calibration_notes, legend_of, levels_of, raster_kinds, rule_facts, rule_of
from rssegment.run.polygon_plan import check_polygons, traces_of
from rssegment.run.resources import Cluster, Demand, Resources, choose
from rssegment.run.traces import Traces
from rssegment.scene import Pixels, Scene
from rssegment.taxonomy import Taxonomy
from rssegment.write.rasters import RasterKind
from rssegment.write.vectors import FORMATS

__all__ = ["Plan", "facts_of", "make_plan"]

POLYGONS = (
    "connectivity",
    "min_area",
    "fill_holes",
    "simplify",
    "method",
    "smooth",
    "levels",
    "square",
    "square_limit",
)


@dataclass(frozen=True)
class Plan:
    """What a run will do. A value: it is made once, printed, fingerprinted and sent to every worker.

    ``scene`` has the model's bands in the model's order, without the optional ones that are ``filled``, on the output
    grid.
    """

    scene: Scene
    bundle: Path
    bundle_id: str
    spec: ModelSpec
    taxonomy: Taxonomy
    settings: Settings
    out: Path
    rule: Rule
    batch: int
    device: str
    resources: Resources
    notes: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """The folder of block parts, removed when the run is complete."""
        return self.out / "work"

    @property
    def products(self) -> dict[str, Path]:
        """The files that the run ends with, by what they hold."""
        regions = {name: f"regions{FORMATS[name].suffixes[0]}" for name in self.settings.formats}
        others = {"taxonomy": "taxonomy.yaml", "missing": "missing.geojson", "run": "run.json"}
        names = {name: f"{name}.tif" for name in self.rasters} | others | regions
        return {key: self.out / name for key, name in names.items()}

    @cached_property
    def legend(self) -> Taxonomy:
        """The classes of the map, where some pixels may be undecided."""
        return legend_of(self.taxonomy, self.rule)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels that get rasters of their own."""
        return levels_of(self.settings, self.taxonomy)

    @cached_property
    def rasters(self) -> dict[str, RasterKind]:
        """What each raster that the run ends with holds, by name."""
        return raster_kinds(self.legend, self.levels, self.settings.margin)

    @property
    def geobox(self) -> GeoBox:
        """The output grid."""
        return self.scene.geobox

    @cached_property
    def model_scene(self) -> Scene:
        """The scene at the model's ground resolution."""
        return self.scene.on_grid(self.spec.ground_resolution)

    @property
    def factor(self) -> tuple[float, float]:
        """Size of a model pixel in output pixels, (down, across)."""
        inverse = ~self.geobox.affine * self.model_scene.geobox.affine
        return float(inverse.e), float(inverse.a)

    @property
    def resamples(self) -> bool:
        """Whether the model's grid differs from the output's."""
        return bool(self.model_scene.geobox != self.geobox)

    @cached_property
    def blocks(self) -> BlockGrid:
        return BlockGrid(_shape(self.geobox), self.resources.block)

    @cached_property
    def traces(self) -> Traces:
        """The pieces that the blocks leave: those to be cleaned, where cleaning is asked for."""
        return traces_of(
            self.parts, self.blocks, self.geobox, self.legend, self.settings, raw=self.settings.cleans
        )

    @property
    def parts(self) -> Path:
        """The folder of the block parts of this very plan."""
        return self.work / f"{self.fingerprint[:16]}-{self.resources.block}"

    @cached_property
    def lattice(self) -> PatchLattice:
        """The patches, on the model's grid."""
        overlap = self.spec.overlap if self.settings.overlap is None else self.settings.overlap
        return PatchLattice(_shape(self.model_scene.geobox), self.spec.patch, overlap)

    def read(self, box: Box) -> Pixels:
        """The pixels of ``box`` (model px) in the model's bands and range of values; NaN in ``filled`` bands."""
        pixels = self.model_scene.read(box)
        values = pixels.values
        if self.settings.scene.rescale is not None:
            (low, high), (bottom, top) = self.settings.scene.rescale, self.spec.value_range
            gain = (top - bottom) / (high - low)
            values = ((values - np.float32(low)) * np.float32(gain) + np.float32(bottom)).clip(bottom, top)
        if self.filled:
            there = [k for k, name in enumerate(self.spec.band_names) if name not in self.filled]
            whole = np.full((len(self.spec.bands), *box.shape), np.nan, np.float32)
            whole[there] = values
            values = whole
        return Pixels(values, pixels.valid)

    def model_box(self, core: Box) -> Box:
        """The pixels of the model's grid that ``core`` (output px) needs."""
        return model_core(core, self.factor, self.lattice.shape) if self.resamples else core

    @cached_property
    def patches(self) -> tuple[int, int]:
        """Forward passes in all, and the fewest possible: the rest is what neighbouring blocks do twice."""
        rows, cols = self.blocks.grid_shape
        boxes = (self.model_box(self.blocks[i, 0].core) for i in range(rows))
        down = sum(len(self.lattice.axis_touching(0, box.row, box.stop_row)) for box in boxes)
        boxes = (self.model_box(self.blocks[0, j].core) for j in range(cols))
        across = sum(len(self.lattice.axis_touching(1, box.col, box.stop_col)) for box in boxes)
        return down * across, math.prod(self.lattice.lattice_shape)

    @cached_property
    def scene_id(self) -> str:
        """Fingerprint of the scene as it was when this was first asked for."""
        return self.scene.fingerprint()

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the result: the same for the same scene, model and settings, whatever runs it."""
        settings = self.settings.model_dump(
            include={"overlap", "window", "batch", "grid", "scene", "margin", "level_rasters", *POLYGONS},
            mode="json",
        )
        facts = {
            "versions": {name: version(name) for name in ("rssegment", "torch", "rasterio")},
            "device": self.device.partition(":")[0],
            "scene": self.scene_id,
            "model": self.bundle_id,
            "taxonomy": self.taxonomy.fingerprint,
            "settings": settings,
            "rule": rule_facts(self.rule),
            "batch": self.batch,
            "filled": self.filled,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """The plan as plain values, for JSON and for printing."""
        passes, fewest = self.patches
        down, across = self.scene.ground_resolution
        options = self.settings.scene.model_dump(mode="json", exclude_defaults=True)
        return {
            "scene": self.scene.name,
            "files": [source.path for source in self.scene.sources],
            "scene_options": options,
            "shape": list(self.geobox.shape),
            "megapixels": round(math.prod(self.geobox.shape) / 1e6, 3),
            "crs": str(self.geobox.crs),
            "ground_resolution_m": [round(down, 4), round(across, 4)],
            "bands": [band.name for band in self.scene.bands],
            "filled_bands": list(self.filled),
            "model": self.spec.name,
            "bundle": str(self.bundle),
            "model_ground_resolution_m": self.spec.ground_resolution,
            "classes": len(self.taxonomy.leaves),
            "resampled": self.resamples,
            "block": self.resources.block,
            "blocks": len(self.blocks),
            "patch": self.lattice.patch,
            "overlap": self.lattice.overlap,
            "window": self.settings.window,
            "decide": str(self.settings.decide),
            "rule": rule_facts(self.rule),
            "forward_passes": passes,
            "computed_twice": round(passes / fewest - 1, 4),
            "device": self.device,
            "batch": self.batch,
            "workers": self.resources.workers,
            "in_flight": self.settings.in_flight,
            "memory_per_worker_bytes": self.resources.bytes_per_worker,
            "memory_bytes": self.resources.bytes_per_worker * max(1, self.resources.workers),
            "memory_limit_bytes": self.resources.memory,
            "out": str(self.out),
            "polygons": self.settings.model_dump(mode="json", include=set(POLYGONS), exclude_defaults=True),
            "outputs": [path.name for key, path in self.products.items() if key != "missing"],
            "fingerprint": self.fingerprint,
            "fingerprints": {
                "scene": self.scene_id,
                "model": self.bundle_id,
                "taxonomy": self.taxonomy.fingerprint,
            },
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        d = self.describe()
        gb = 1e9
        lines = {
            "scene": f"{d['scene']}  {d['shape'][0]} x {d['shape'][1]} px ({d['megapixels']:g} Mpx), {d['crs']}, "
            f"{d['ground_resolution_m'][0]:g} m",
            "bands": ", ".join(
                [
                    *d["bands"],
                    *(f"{name} (its mean)" for name in d["filled_bands"]),
                    *(f"{k} {v}" for k, v in d["scene_options"].items() if k != "bands"),
                ]
            ),
            "model": f"{d['model']}  {d['classes']} classes at {d['model_ground_resolution_m']:g} m"
            + ("; the scene is resampled to it" if d["resampled"] else ""),
            "blocks": f"{d['blocks']} of {d['block']} px",
            "classes": f"by {d['decide']}"
            + (f", down to P >= {self.rule.tau:g}" if isinstance(self.rule, Backoff) else ""),
            "patches": f"{d['forward_passes']} of {d['patch']} px, {d['overlap']} px shared ({d['window']}); "
            f"{d['computed_twice']:.0%} computed twice at block edges",
            "runs on": f"{d['device']}, batches of {d['batch']}, "
            + (f"{d['workers']} worker processes" if d["workers"] else "this process"),
            "memory": f"{d['memory_bytes'] / gb:.1f} GB of {d['memory_limit_bytes'] / gb:.1f} GB",
            "polygons": ", ".join(f"{key} {_told(value)}" for key, value in d["polygons"].items())
            or "as the pixels are",
            "outputs": f"{d['out']}: {', '.join(d['outputs'])}",
        }
        text = [f"{key:>8}  {value}" for key, value in lines.items()]
        return "\n".join([*text, *(f"{'note':>8}  {note}" for note in self.notes)])


def make_plan(
    scene: Scene, bundle: Bundle, settings: Settings, out: Path, cluster: Cluster | None = None
) -> Plan:
    """Checks that ``scene`` and ``bundle`` fit and decides what ``settings`` leave open.

    ``cluster`` is the one that will do the work, if it is not this machine's.

    Raises
    ------
    MismatchError
        The model can't be used on this scene.
    PlanError
        One block needs more memory than there is.
    """
    spec = bundle.spec
    fit = bundle.fit(facts_of(scene, settings.scene))
    scene = scene.select(fit.present)
    if settings.grid == "model":
        scene = scene.on_grid(spec.ground_resolution)
    device = resolve_device(settings.device)
    batch = settings.batch or default_batch(device, spec.batch)
    down, across = (spec.ground_resolution / metres for metres in scene.ground_resolution)
    threads = cluster.threads if cluster else 0
    rule = rule_of(settings.decide, bundle)
    rasters = raster_kinds(
        legend_of(bundle.taxonomy, rule), levels_of(settings, bundle.taxonomy), settings.margin
    )
    demand = Demand(
        spec=spec,
        leaves=len(bundle.taxonomy.leaves),
        rasters=len(rasters),
        batch=batch,
        factor=(down, across),
        in_flight=settings.in_flight,
        on_cpu=device == "cpu",
        threads=threads,
    )
    resources = choose(settings, demand, _shape(scene.geobox), device, cluster)
    overlap = spec.overlap if settings.overlap is None else settings.overlap
    plan = Plan(
        scene=scene,
        bundle=bundle.path.absolute(),
        bundle_id=bundle.fingerprint,
        spec=spec,
        taxonomy=bundle.taxonomy,
        settings=settings,
        out=out.absolute(),
        rule=rule,
        batch=batch,
        device=device,
        resources=resources,
        notes=(*scene.warnings, *fit.notes, *calibration_notes(bundle, settings.window, overlap, fit.filled)),
        filled=fit.filled,
    )
    _ = plan.lattice, plan.blocks  # what they refuse is refused here, not in every block
    check_polygons(plan.geobox, plan.legend, settings)
    return plan


def facts_of(scene: Scene, options: SceneOptions) -> SceneFacts:
    """What :meth:`rssegment.model.Bundle.fit` asks of a scene."""
    return SceneFacts(
        band_names=tuple(band.name for band in scene.bands),
        dtype=scene.dtype,
        scaled=scene.scaled,
        ground_resolution=scene.ground_resolution,
        chosen=options.bands is not None,
        rescaled=options.rescale is not None,
        doubtful=scene.doubtful,
    )


def _told(value: Any) -> str:
    """A setting as a user would write it."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], float):
        return f"{value[0]:g} {value[1]}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _shape(geobox: GeoBox) -> tuple[int, int]:
    rows, cols = geobox.shape
    return int(rows), int(cols)
