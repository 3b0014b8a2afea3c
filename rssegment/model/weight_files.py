"""Weights to files, and what files of weights hold."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from rssegment.errors import BundleError
from rssegment.model.spec import ModelSpec
from rssegment.model.weights import read_tensors

__all__ = ["count_parameters", "halved", "stored_dtype", "write_weights"]

LOSS = 2.0**-10  # of a tensor's norm; rounding to half precision alone loses at most half of that


def write_weights(path: Path, weights: object, spec: ModelSpec, *, half: bool = False) -> None:
    """Writes what :func:`save_bundle` takes as ``weights`` to the file ``path``, of the kind that ``spec`` says.

    Raises
    ------
    BundleError
        ``weights`` are of another kind, or ``half`` is asked for where a file has its own precision.
    """
    if half and spec.artifact != "safetensors":
        raise BundleError(
            f"half precision is for safetensors, not for {spec.artifact}, whose file has a precision of its own; "
            "leave out half=True"
        )
    if isinstance(weights, str | Path):
        if half:
            _save(halved(read_tensors(Path(weights))), path)
        else:
            shutil.copyfile(weights, path)
    elif spec.artifact == "torchscript" and isinstance(weights, torch.jit.ScriptModule):
        torch.jit.save(weights, str(path))
    elif spec.artifact == "pt2" and isinstance(weights, torch.export.ExportedProgram):
        torch.export.save(weights, path)
    elif spec.artifact == "safetensors" and _is_plain(weights):
        tensors = {k: v.detach().cpu() for k, v in weights.state_dict().items()}
        _save(halved(tensors) if half else tensors, path)
    else:
        raise BundleError(_unfit(weights, spec))


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` with those of floats in half precision that lose no more by it than rounding.

    Left as they are: vectors (biases, statistics of batch normalisation, whose small variances would underflow; they
    are a thousandth of a network's size), and tensors of which 2^-10 or more of the norm would overflow or vanish.
    """
    return {name: value.half() if _bears_half(value) else value for name, value in tensors.items()}


def _bears_half(value: Tensor) -> bool:
    if value.dtype not in (torch.float32, torch.float64) or value.ndim < 2:
        return False
    exact = value.double()
    return bool((exact.half().double() - exact).norm() <= LOSS * exact.norm())


def stored_dtype(path: Path) -> str:
    """In which type most numbers of a safetensors file are, as ``float16``; from its header alone.

    Raises
    ------
    BundleError
        The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    numbers: Counter[str] = Counter()
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                part = file.get_slice(name)
                numbers[part.get_dtype()] += max(1, torch.Size(part.get_shape()).numel())
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path} is no readable safetensors file: {error}; copy it again") from error
    if not numbers:
        return "none"
    most = numbers.most_common(1)[0][0]
    return {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}.get(most, most.lower())


def count_parameters(weights: object) -> int | None:
    """Number of parameters, where ``weights`` is something that has them."""
    if isinstance(weights, torch.export.ExportedProgram | nn.Module):
        return sum(p.numel() for p in weights.parameters())
    if Path(str(weights)).suffix == ".safetensors":
        return sum(
            t.numel() for name, t in read_tensors(Path(str(weights))).items() if "running_" not in name
        )
    return None


def _is_plain(weights: object) -> TypeGuard[nn.Module]:
    return isinstance(weights, nn.Module) and not isinstance(weights, torch.jit.ScriptModule)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def _unfit(weights: object, spec: ModelSpec) -> str:
    wanted = {
        "torchscript": "a torch.jit.ScriptModule",
        "pt2": "an ExportedProgram",
        "safetensors": "a module",
    }
    return (
        f"a {type(weights).__name__} can't be saved as {spec.artifact}; "
        f"give {wanted.get(spec.artifact, 'its file')}" + ("" if spec.artifact == "onnx" else " or its file")
    )
