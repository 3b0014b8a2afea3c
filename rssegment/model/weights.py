"""Weight files into networks, without ever unpickling anything."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rssegment.errors import BundleError
from rssegment.model.architectures import create_architecture
from rssegment.model.pt2 import load_exported
from rssegment.model.spec import ModelSpec

__all__ = ["load_network", "read_tensors"]

Network = Callable[[Tensor], Any]


def load_network(path: Path, spec: ModelSpec, device: torch.device) -> Network:
    """The network in the file ``path``, of the kind that ``spec`` says, ready for inference on ``device``.

    Raises
    ------
    BundleError
        The file is damaged, is a pickle, or doesn't hold what ``spec`` says.
    """
    return _LOADERS[spec.artifact](path, spec, device)


def _load_safetensors(path: Path, spec: ModelSpec, device: torch.device) -> Network:
    module = create_architecture(
        spec.architecture, len(spec.bands), len(spec.channels), **spec.architecture_options
    )
    tensors = read_tensors(path)
    faults = _differences(module.state_dict(), tensors)
    if faults:
        raise BundleError(f"{path.name} doesn't fit the architecture {spec.architecture}: {faults}")
    module.load_state_dict(tensors)  # in single precision, whatever they are stored in
    return module.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"{path} is no readable safetensors file: {error}; copy it again, or convert the weights again"
        ) from error
    return tensors


def _load_torchscript(path: Path, _: ModelSpec, device: torch.device) -> Network:
    refuse_pickle(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that TorchScript has had its day
            module: nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise BundleError(f"{path} can't be loaded as TorchScript: {_first_line(error)}") from error
    module.eval()

    def run(x: Tensor) -> Any:
        # the profiling executor rewrites the graph after its first runs, which changes the last bits
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return module(x)

    return run


def refuse_pickle(path: Path) -> None:
    """Raises BundleError unless ``path`` is a TorchScript archive; any other ``.pt`` is a pickle."""
    names = set(zipfile.ZipFile(path).namelist()) if zipfile.is_zipfile(path) else set()
    inner = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return
    raise BundleError(
        f"{path} is a pickle and not TorchScript; unpickling runs code of whoever made it, so it is never done here; "
        "convert it to safetensors where you trust it: rssegment.save_bundle(folder, module, spec, taxonomy)"
    )


def _load_onnx(path: Path, _: ModelSpec, device: torch.device) -> Network:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BundleError(
            "an ONNX model needs onnxruntime; install it with: pip install 'rssegment[onnx]'"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # patches run side by side instead (see rssegment.predict.runtime)
    options.log_severity_level = 3
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise BundleError(f"onnxruntime here has no {provider}; use --device cpu, or install onnxruntime-gpu")
    placed = [(provider, {"device_id": device.index or 0})] if device.type == "cuda" else [provider]
    try:
        session = ort.InferenceSession(str(path), options, providers=placed)
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        raise BundleError(f"{path} can't be loaded as ONNX: {_first_line(error)}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BundleError(
            f"{path} has the inputs {', '.join(i.name for i in inputs)}; expected one, of shape (B, C, H, W)"
        )
    name, output = inputs[0].name, session.get_outputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run([output], {name: x.contiguous().cpu().numpy()})[0])

    return run


def _load_pt2(path: Path, _: ModelSpec, device: torch.device) -> Network:
    return load_exported(path, device)


_LOADERS: dict[str, Callable[[Path, ModelSpec, torch.device], Network]] = {
    "safetensors": _load_safetensors,
    "torchscript": _load_torchscript,
    "onnx": _load_onnx,
    "pt2": _load_pt2,
}


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What differs between two sets of tensors in a few words; empty if nothing does."""
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    parts = {
        "lacks ": [name for name in wanted if name not in found],
        "has unknown ": [name for name in found if name not in wanted],
        "": shapes,
    }
    return "; ".join(f"{label}{_some(items)}" for label, items in parts.items() if items)


def _some(items: list[str], limit: int = 3) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
