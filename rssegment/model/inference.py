"""A loaded model: scene values in, leaf probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rssegment.errors import BundleError, MismatchError, ModelError
from rssegment.model.spec import ModelSpec

__all__ = ["Model"]

# Sums of a pixel's outputs may be this far from 1 where a bundle declares probabilities.
_SUM_TOLERANCE = 1e-2


class Model:
    """Callable on scene values (B, C, H, W), in the bundle's band order -> leaf probabilities (B, L, H, W).

    Values are float32 as the scene has them; normalisation by the bundle's constants happens here, never by what
    a patch happens to hold. Channel ``i`` of the result is the taxonomy's ``i``-th leaf.
    May be called by several threads.
    ``network`` takes normalised values and gives the bundle's output channels.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        spec: ModelSpec,
        leaves: Sequence[int],
        device: str | torch.device = "cpu",
    ) -> None:
        self.spec = spec
        self.leaves = tuple(int(code) for code in leaves)
        self.device = torch.device(device)
        self._network = network
        self._order = torch.tensor(channel_order(spec, self.leaves), device=self.device)
        self._selects = self._order.tolist() != list(range(len(spec.channels)))
        self._mean, self._std = self._constants()

    @property
    def fill(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Band values (C,) to put where a scene has no data: they are 0 after normalisation."""
        return self.spec.means

    def __call__(self, values: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Leaf probabilities (B, L, H, W) float32 of scene values (B, C, H, W), on the model's device.

        Raises
        ------
        MismatchError
            ``values`` have another number of bands.
        ModelError
            The network raised, ran out of memory, or gave NaN or a wrong shape.
        """
        values = torch.as_tensor(values)
        if values.ndim != 4 or values.shape[1] != len(self.spec.bands):
            wanted = f"(B, {len(self.spec.bands)}, H, W)"
            raise MismatchError(
                f"model {self.spec.name} wants values of shape {wanted}; got {tuple(values.shape)}"
            )
        with torch.inference_mode():
            x = values.to(self.device, torch.float32).sub(self._mean).div_(self._std)
            # oneDNN picks other kernels for another memory format, so it is fixed here and not left to the caller
            output = self._run(x.contiguous(memory_format=torch.channels_last))
            result = self._probabilities(self._checked(output, values))
            if not bool(result.sum().isfinite()):  # of numbers from 0 to 1: one NaN or infinity shows in it
                raise ModelError(
                    f"model {self.spec.name} gave NaN or infinite scores; "
                    "check its weights, and that the scene's values are in the range it was trained on"
                )
        return result

    def _constants(self) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1)
        mean = torch.tensor([band.mean for band in self.spec.bands], device=self.device)
        std = torch.tensor([band.std for band in self.spec.bands], device=self.device)
        return mean.view(shape), std.view(shape)

    def _run(self, x: Tensor) -> Any:
        try:
            return self._network(x)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"model {self.spec.name} ran out of memory on {self.device} "
                f"with a batch of {tuple(x.shape)}; use a smaller --batch"
            ) from error
        except Exception as error:
            raise ModelError(
                f"model {self.spec.name} failed on a batch of shape {tuple(x.shape)}: {type(error).__name__}: {error}"
            ) from error

    def _checked(self, output: Any, values: Tensor) -> Tensor:
        """The output as a tensor of the expected shape; a mapping's ``out`` or ``logits``, a sequence's first."""
        if isinstance(output, dict):
            output = output.get("out", output.get("logits", output))
        elif isinstance(output, tuple | list) and output:
            output = output[0]
        expected = (values.shape[0], len(self.spec.channels), *values.shape[2:])
        if not isinstance(output, Tensor):
            raise ModelError(
                f"model {self.spec.name} gave a {type(output).__name__}; expected a tensor {expected}"
            )
        if tuple(output.shape) != expected:
            raise ModelError(
                f"model {self.spec.name} gave an output of shape {tuple(output.shape)}; expected {expected}"
            )
        return output.to(self.device, torch.float32)

    def _probabilities(self, output: Tensor) -> Tensor:
        leaves = output.index_select(1, self._order) if self._selects else output  # (B, L, H, W)
        leaves = leaves.contiguous()
        if self.spec.output == "logits":
            return leaves.softmax(1)
        self._check_sums(output)
        return self._shares(leaves)

    def _check_sums(self, output: Tensor) -> None:
        sums = output.sum(1)
        worst = float((sums - 1).abs().max())
        if float(output.min()) < -_SUM_TOLERANCE or worst > _SUM_TOLERANCE:
            raise ModelError(
                f"model {self.spec.name} is declared to give probabilities, and the lowest is "
                f"{float(output.min()):g} and their sums reach {float(sums.min()):g} to {float(sums.max()):g}; "
                "set the bundle's output to 'logits' if there is no softmax at its end"
            )

    def _shares(self, leaves: Tensor) -> Tensor:
        """Probabilities divided by their sum, as some channels may be dropped; equal shares where all are 0."""
        leaves = leaves.clamp_min(0)
        sums = leaves.sum(1, keepdim=True)
        return torch.where(
            sums > 0, leaves / sums.clamp_min(torch.finfo(torch.float32).tiny), 1 / leaves.shape[1]
        )


def channel_order(spec: ModelSpec, leaves: Sequence[int]) -> list[int]:
    """For each leaf the output channel that stands for it.

    Raises
    ------
    BundleError
        The leaves are not those that the channels stand for.
    """
    place = {code: channel for channel, code in enumerate(spec.channels) if code is not None}
    if set(place) == set(leaves):
        return [place[code] for code in leaves]
    lacking = sorted(set(leaves) - set(place))
    foreign = sorted(set(place) - set(leaves))
    parts = [f"{len(place)} output channels stand for leaves and the taxonomy has {len(leaves)} leaves"]
    parts += [f"no channel stands for leaf {', '.join(map(str, lacking))}"] if lacking else []
    parts += [f"channel code {', '.join(map(str, foreign))} is no leaf of the taxonomy"] if foreign else []
    raise BundleError(f"model {spec.name}: {'; '.join(parts)}")
