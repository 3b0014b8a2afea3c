"""A loaded model: scene values in, leaf probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rssegment.errors import MismatchError, ModelError
from rssegment.model.hierarchy import main_output
from rssegment.model.outputs import as_tree, outputs_of, tempered
from rssegment.model.spec import ModelSpec
from rssegment.taxonomy import Taxonomy

__all__ = ["LeafModel", "Model", "Values"]

Values = Tensor | np.ndarray[Any, Any]


class LeafModel(Protocol):
    """What a bundle is loaded as: callable on scene values (B, C, H, W) -> leaf probabilities (B, L, H, W) float32.

    Values are in the band order of ``spec``, in the scene's own units; channel ``i`` of the result is the leaf with the
    code ``leaves[i]``. ``fill`` (C,) has the band values to put where a scene has no data. Probabilities are
    ``softmax(leaf_logits(values) / temperature)``. NaN in an optional band means that the scene lacks it: every model
    then sees its own mean. A patch's result does not depend on the others in its batch. May be called by several
    threads.
    """

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def leaves(self) -> tuple[int, ...]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def temperature(self) -> float: ...
    @property
    def fill(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    def leaf_logits(self, values: Values) -> Tensor: ...
    def __call__(self, values: Values) -> Tensor: ...


class Model:
    """A network as a :class:`LeafModel`; ``network`` takes normalised values and gives the bundle's output channels.

    Values are float32 as the scene has them; normalisation by the bundle's constants happens here, never by what
    a patch happens to hold. ``classes`` are the class tree, or the codes of leaves that are in none.

    Raises
    ------
    BundleError
        The output channels of ``spec`` don't stand for these classes.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        spec: ModelSpec,
        classes: Taxonomy | Sequence[int],
        device: str | torch.device = "cpu",
        temperature: float = 1.0,
    ) -> None:
        tree = as_tree(classes)
        self.spec = spec
        self.leaves: tuple[int, ...] = tuple(tree.leaf_codes.tolist())
        self.device = torch.device(device)
        self.temperature = temperature
        self._network = network
        self._outputs = outputs_of(spec, tree, self.device)
        self._mean, self._std = self._constants()

    @property
    def fill(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Band values (C,) to put where a scene has no data: they are 0 after normalisation."""
        return self.spec.means

    def __call__(self, values: Values) -> Tensor:
        """Leaf probabilities (B, L, H, W) float32 of scene values (B, C, H, W), on the model's device.

        Raises
        ------
        MismatchError
            ``values`` have another number of bands.
        ModelError
            The network raised, ran out of memory, or gave NaN or a wrong shape.
        """
        with torch.inference_mode():
            output = self._forward(values)
            if self.temperature == 1:
                result = self._outputs.probabilities(output)
            else:
                result = tempered(self._outputs.logits(output), self.temperature)
            if not bool(result.sum().isfinite()):  # of numbers from 0 to 1: one NaN or infinity shows in it
                raise self._not_finite()
        return result

    def leaf_logits(self, values: Values) -> Tensor:
        """Leaf logits (B, L, H, W) float32, before the temperature; raises as a call does.

        Of probabilities they are the logarithms. They come from torch's inference mode: clone them for autograd.
        """
        with torch.inference_mode():
            logits = self._outputs.logits(self._forward(values))
            # a leaf may be ruled out by -inf, but not all leaves of a pixel
            if not bool(logits.amax(1).isfinite().all()):
                raise self._not_finite()
        return logits

    def _forward(self, values: Values) -> Tensor:
        """Output channels (B, K, H, W) float32."""
        values = torch.as_tensor(values)
        if values.ndim != 4 or values.shape[1] != len(self.spec.bands):
            wanted = f"(B, {len(self.spec.bands)}, H, W)"
            raise MismatchError(
                f"model {self.spec.name} wants values of shape {wanted}; got {tuple(values.shape)}"
            )
        x = values.to(self.device, torch.float32).sub(self._mean).div_(self._std)
        for band in (x[:, k] for k, each in enumerate(self.spec.bands) if each.optional):
            band.masked_fill_(band.isnan(), 0.0)
        # oneDNN picks other kernels for another memory format, so it is fixed here and not left to the caller
        return self._checked(self._run(x.contiguous(memory_format=torch.channels_last)), values)

    def _not_finite(self) -> ModelError:
        return ModelError(
            f"model {self.spec.name} gave NaN or infinite scores; "
            "check its weights, and that the scene's values are in the range it was trained on"
        )

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
        """The main output, of the expected shape."""
        found = main_output(output, f"model {self.spec.name}")
        expected = (values.shape[0], len(self.spec.channels), *values.shape[2:])
        if tuple(found.shape) != expected:
            raise ModelError(
                f"model {self.spec.name} gave an output of shape {tuple(found.shape)}; expected {expected}"
            )
        return found.to(self.device, torch.float32)
