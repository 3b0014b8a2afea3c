"""``model.json``: a model's description as a STAC item with the Machine Learning Model extension 1.4.

What MLM has no field for is under the prefix ``rssegment:``. Specification: https://github.com/stac-extensions/mlm
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from rssegment.errors import BundleError
from rssegment.model.files import Asset, SpecialistEntry, file_facts, specialist_facts
from rssegment.model.json_field import Field, single
from rssegment.model.spec import ARTIFACTS, BandSpec, ModelSpec
from rssegment.taxonomy import Taxonomy

__all__ = ["spec_from_item", "spec_to_item"]

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
EXTENSIONS = (
    MLM,
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
_ARTIFACT_TYPES = {
    "safetensors": "safetensors.torch.save_file",
    "pt2": "torch.export.save",
    "torchscript": "torch.jit.save",
    "onnx": "torch.onnx.export",
}


def spec_to_item(
    spec: ModelSpec,
    taxonomy: Taxonomy,
    files: Mapping[str, Asset],
    parameters: int | None,
    specialists: Sequence[SpecialistEntry] = (),
) -> dict[str, Any]:
    """The STAC item of a bundle whose ``files`` are ``weights`` and ``taxonomy``."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    properties = {
        "datetime": now,
        "created": now,
        "license": spec.license,
        "gsd": spec.ground_resolution,
        "mlm:name": spec.name,
        "mlm:architecture": spec.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if spec.artifact == "onnx" else "PyTorch",
        "mlm:framework_version": _torch_version(),
        "mlm:pretrained": True,
        "mlm:accelerator": None,
        "mlm:input": [_input(spec)],
        "mlm:output": [_output(spec, taxonomy)],
        **_own_properties(spec),
    }
    if specialists:
        properties["rssegment:specialists"] = [specialist_facts(entry) for entry in specialists]
    known = {"title": spec.title, "description": spec.description, "mlm:total_parameters": parameters}
    properties |= {key: value for key, value in known.items() if value}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": spec.name,
        "geometry": None,
        "properties": properties,
        "assets": _assets(spec, files),
        "links": [],
    }


def _own_properties(spec: ModelSpec) -> dict[str, Any]:
    return {
        "rssegment:artifact": spec.artifact,
        "rssegment:architecture_options": dict(spec.architecture_options),
        "rssegment:output": spec.output,
        "rssegment:channels": list(spec.channels),
        "rssegment:scaled": spec.scaled,
        "rssegment:value_range": list(spec.value_range),
        "rssegment:overlap": spec.overlap,
        "rssegment:resolution_factor": spec.resolution_factor,
        "rssegment:credit": spec.credit,
        "rssegment:training": dict(spec.training),
    }


def _band(spec: ModelSpec, band: BandSpec) -> dict[str, Any]:
    low, high = spec.value_range
    statistics = {"minimum": low, "maximum": high, "mean": band.mean, "stddev": band.std}
    # here, and not in mlm:input: a band there has no properties beside those of MLM
    own = {"rssegment:optional": True} if band.optional else {}
    return {"name": band.name, "data_type": spec.dtype, "statistics": statistics, **own}


def _input(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": "scene values",
        "bands": list(spec.band_names),
        "input": {
            "shape": [spec.batch or -1, len(spec.bands), spec.patch, spec.patch],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "z-score", "mean": b.mean, "stddev": b.std} for b in spec.bands],
        "resize_type": None,
    }


def _output(spec: ModelSpec, taxonomy: Taxonomy) -> dict[str, Any]:
    nodes = [taxonomy.node(code) for code in spec.codes]
    classes = [
        {
            "value": node.code,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", node.name) or str(node.code),
            "title": node.name,
            "description": " / ".join(node.path),
            "color_hint": "{:02X}{:02X}{:02X}".format(*node.color),
        }
        for node in nodes
    ]
    return {
        "name": spec.output,
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [spec.batch or -1, len(spec.channels), spec.patch, spec.patch],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": classes,
    }


def _assets(spec: ModelSpec, files: Mapping[str, Asset]) -> dict[str, Any]:
    weights, taxonomy = files["weights"], files["taxonomy"]
    model = {
        "title": "Weights",
        "type": ARTIFACTS[spec.artifact][1],
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": _ARTIFACT_TYPES[spec.artifact],
        "bands": [_band(spec, band) for band in spec.bands],
    }
    tree = {"title": "Class tree", "type": "application/yaml", "roles": ["metadata", "rssegment:taxonomy"]}
    return {"weights": file_facts(weights) | model, "taxonomy": file_facts(taxonomy) | tree}


def _torch_version() -> str:
    numbers = re.match(r"\d+\.\d+\.\d+", torch.__version__)
    return numbers[0] if numbers else "0.0.0"


def spec_from_item(item: Any) -> ModelSpec:
    """The model's description from the JSON of ``model.json``.

    Raises
    ------
    BundleError
        A field is missing, of the wrong type or out of range, with its JSON path.
    """
    root = Field(item, "$")
    extensions = root["stac_extensions"].items(str)
    if not any("/mlm/v1." in uri.value for uri in extensions):
        raise BundleError(f"$.stac_extensions lacks the Machine Learning Model extension; expected {MLM}")
    facts, source = root["properties"], single(root["properties"]["mlm:input"])
    result = single(facts["mlm:output"])
    shape = [n.as_int() for n in source["input"]["shape"].items()]
    channels = [c.value if c.value is None else c.as_int() for c in facts["rssegment:channels"].items()]
    _check_shapes(source, shape, result, channels)
    return ModelSpec(
        name=facts["mlm:name"].as_text(),
        bands=_bands(source, root["assets"]["weights"]["bands"]),
        channels=tuple(channels),
        ground_resolution=facts["gsd"].as_number(),
        artifact=facts["rssegment:artifact"].as_text(),
        architecture=facts["mlm:architecture"].as_text(),
        architecture_options=facts["rssegment:architecture_options"].as_mapping({}),
        dtype=_common_dtype(root["assets"]["weights"]["bands"]),
        scaled=facts["rssegment:scaled"].as_flag(),
        value_range=_pair(facts["rssegment:value_range"]),
        resolution_factor=facts["rssegment:resolution_factor"].as_number(2.0),
        patch=shape[2],
        overlap=facts["rssegment:overlap"].as_int(),
        batch=shape[0] if shape[0] > 0 else None,
        output=facts["rssegment:output"].as_text(),
        title=facts["title"].as_text(""),
        description=facts["description"].as_text(""),
        license=facts["license"].as_text("other"),
        credit=facts["rssegment:credit"].as_text(""),
        training=facts["rssegment:training"].as_mapping({}),
    )


def _bands(source: Field, described: Field) -> tuple[BandSpec, ...]:
    names = [band.as_text() for band in source["bands"].items()]
    scaling = source["value_scaling"].items()
    if len(scaling) == 1:
        scaling = scaling * len(names)
    if len(scaling) != len(names):
        raise BundleError(
            f"{source['value_scaling'].path} has {len(scaling)} entries for {len(names)} bands; expected one for each"
        )
    optional = _optional(described, names)
    return tuple(
        _scaled_band(name, entry).model_copy(update={"optional": name in optional})
        for name, entry in zip(names, scaling, strict=True)
    )


def _optional(described: Field, names: list[str]) -> set[str]:
    """Those of the bands ``names`` that the weights' band objects call optional."""
    marked = [band for band in described.items() if "rssegment:optional" in band]
    optional = {
        band["name"].as_text(): band["name"] for band in marked if band["rssegment:optional"].as_flag()
    }
    for name in set(optional) - set(names):
        raise BundleError(f"{optional[name].path} is {name!r}; the model's bands are {', '.join(names)}")
    return set(optional)


def _scaled_band(name: str, entry: Field) -> BandSpec:
    kind = entry["type"].as_text()
    if kind == "z-score":
        return BandSpec(name=name, mean=entry["mean"].as_number(), std=entry["stddev"].as_number())
    if kind == "min-max":
        low, high = entry["minimum"].as_number(), entry["maximum"].as_number()
        return BandSpec(name=name, mean=low, std=high - low)
    if kind in ("offset", "scale"):
        value = entry["value"].as_number()
        return BandSpec(name=name, mean=value) if kind == "offset" else BandSpec(name=name, std=value)
    raise BundleError(f"{entry['type'].path} is {kind!r}; there are z-score, min-max, offset and scale")


def _pair(field: Field) -> tuple[float, float]:
    numbers = [item.as_number() for item in field.items()]
    if len(numbers) != 2:
        raise BundleError(
            f"{field.path} has {len(numbers)} numbers; expected the lowest and the highest value"
        )
    return numbers[0], numbers[1]


def _common_dtype(bands: Field) -> str:
    types = {band["data_type"].as_text() for band in bands.items()}
    if len(types) != 1:
        raise BundleError(
            f"{bands.path} has the data types {', '.join(sorted(types)) or 'none'}; expected one for all bands"
        )
    return str(types.pop())


def _check_shapes(source: Field, shape: list[int], result: Field, channels: list[int | None]) -> None:
    order = [d.as_text() for d in source["input"]["dim_order"].items()]
    bands = len(source["bands"].items())
    path = source["input"]["shape"].path
    if order != ["batch", "bands", "height", "width"]:
        raise BundleError(
            f"{source['input']['dim_order'].path} is {order}; expected batch, bands, height, width"
        )
    if len(shape) != 4 or shape[1] != bands or shape[2] != shape[3] or shape[2] < 1 or shape[0] in (0, -2):
        raise BundleError(
            f"{path} is {shape}; expected [batch or -1, {bands}, patch, patch] for the {bands} bands"
        )
    output = [n.as_int() for n in result["result"]["shape"].items()]
    if len(output) != 4 or output[1] != len(channels):
        raise BundleError(
            f"{result['result']['shape'].path} is {output}; rssegment:channels has {len(channels)} entries"
        )
