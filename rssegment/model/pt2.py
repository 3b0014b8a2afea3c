"""``torch.export`` archives (.pt2), loaded without the ways in which one can run code of its maker.

``torch.export.load`` unpickles example inputs and some constants, evaluates shape expressions with sympy,
compiles guards from text, resolves any name under ``torch``, and starts compiled libraries found in the archive.
So it is only ever given a copy that is rebuilt here from the parts a network needs: its graph, restricted to
operators on tensors and plain names, and raw tensors. Everything else is left out or refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rssegment.errors import BundleError

__all__ = ["load_exported"]

_GRAPH = "models/model.json"
_EXAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_TENSOR_FILE = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file|save|load)\w+\.\w+|_operator\.\w+|math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+"
)
_OPERATOR_NAMES = {
    *(
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "pow",
        "getitem",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and_",
        "or_",
    )
}
_PLAIN = re.compile(r"[\w.:+\- ]*")  # names end up in generated source code
_EXPRESSION = re.compile(
    r"(?:(?:Symbol|Integer|Add|Mul|Pow|Max|Min|Mod|FloorDiv|CleanDiv|CeilDiv|PythonMod)\(|'[su]\d+'|\)|, |-?\d+"
    r"|(?:positive|integer|nonnegative|evaluate)=(?:True|False))*"
)
_SPEC_TYPES = {"builtins.tuple", "builtins.list", "builtins.dict", None}
_QUOTED = {"as_string", "in_spec", "out_spec"}  # texts that are only ever used as values
_NEWER = "save it again with torch.export.save of torch 2.9 or newer, or convert it to safetensors"


def load_exported(path: Path, device: torch.device) -> Callable[[Tensor], Any]:
    """The exported program in ``path`` as a callable on ``device``.

    Raises
    ------
    BundleError
        The file is damaged, of an old layout, or holds what could run code of its maker.
    """
    archive = _rebuilt(path)
    try:
        program = torch.export.load(archive)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module: Callable[[Tensor], Any] = program.module(check_guards=False)
    except Exception as error:
        raise BundleError(
            f"{path} can't be loaded as an exported program: {str(error)[:300]}; {_NEWER}"
        ) from error
    return module


def _rebuilt(path: Path) -> io.BytesIO:
    """A copy of the archive with nothing but the graph and raw tensors."""
    parts = _parts(path)
    if _GRAPH not in parts or not set(_CONFIGS) <= set(parts):
        raise BundleError(
            f"{path} has no {_GRAPH}: it was made by another version of torch, or is no .pt2; {_NEWER}"
        )
    for name in _CONFIGS:
        _check_config(path, _json(path, name, parts[name]))
    parts[_GRAPH] = json.dumps(_safe_graph(path, _json(path, _GRAPH, parts[_GRAPH]))).encode()
    parts[_EXAMPLES] = b""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(f"model/{name}", content)
    out.seek(0)
    return out


def _parts(path: Path) -> dict[str, bytes]:
    """The files of the archive that are needed, by their name below its top folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            inner = {name.partition("/")[2]: name for name in archive.namelist()}
            wanted = (
                name for name in inner if name in (_GRAPH, *_CONFIGS, *_MARKS) or _TENSOR_FILE.fullmatch(name)
            )
            return {name: archive.read(inner[name]) for name in wanted}
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise BundleError(
            f"{path} is no readable .pt2 archive: {error}; copy or export it again, or use safetensors"
        ) from error


def _json(path: Path, name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise BundleError(f"{path}: {name} is no valid JSON: {error}") from error


def _check_config(path: Path, config: Any) -> None:
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise BundleError(f"{path}: the list of tensors is damaged; {_NEWER}")
    for name, entry in entries.items():
        raw = isinstance(entry, dict) and entry.get("use_pickle") is False
        if not raw or not re.fullmatch(r"(weight|tensor)_\d+", str(entry.get("path_name"))):
            raise BundleError(
                f"{path}: tensor {name} is stored as a pickle, which is never opened here; "
                "keep only plain tensors, or use safetensors"
            )


def _safe_graph(path: Path, graph: Any) -> Any:
    """The program without the parts that are evaluated as code; raises BundleError for what can't be left out."""
    try:
        graph["guards_code"] = []
        nodes = graph["graph_module"]["graph"]["nodes"]
        calls = graph["graph_module"]["module_call_graph"]
        for node in nodes:
            node["metadata"] = {}
            _check_operator(path, node["target"])
        graph["graph_module"]["module_call_graph"] = [
            _safe_call(path, call) for call in calls if call["fqn"] == ""
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: the program has an unknown layout ({error!r}); {_NEWER}") from error
    for key, text in _strings(graph):
        pattern = _EXPRESSION if key == "expr_str" else _PLAIN
        if key not in _QUOTED and not pattern.fullmatch(text):
            raise BundleError(
                f"{path}: {key} {text[:80]!r} is no plain name or shape, and could run code; {_NEWER}"
            )
    return graph


def _check_operator(path: Path, target: str) -> None:
    allowed = _OPERATOR.fullmatch(target)
    if not allowed or (target.startswith("_operator.") and target.split(".")[1] not in _OPERATOR_NAMES):
        raise BundleError(
            f"{path}: the program calls {target!r}; only operators on tensors (torch.ops.aten) are allowed; "
            "export the network in eval mode and outside of torch.no_grad()"
        )


def _safe_call(path: Path, call: dict[str, Any]) -> dict[str, Any]:
    """The program's own signature, whose tree specs name only plain containers."""
    signature = call["signature"]
    for key in ("in_spec", "out_spec"):
        for node in _tree_nodes(json.loads(signature[key])[1]):
            if node["type"] not in _SPEC_TYPES:
                raise BundleError(
                    f"{path}: the program takes or gives a {node['type']}; "
                    "only tensors, tuples, lists and dicts are allowed"
                )
    return call


def _tree_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["children_spec"]:
        yield from _tree_nodes(child)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a JSON value with the key it is under, and every key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "key", name
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
