"""From a network's output channels to leaves, one channel for a leaf or several, or one for each node of the tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rssegment.errors import BundleError, ModelError
from rssegment.model.hierarchy import PathSums
from rssegment.model.spec import ModelSpec
from rssegment.taxonomy import Taxonomy

__all__ = ["Outputs", "as_tree", "log_shares", "outputs_of", "tempered"]

# Sums of a pixel's outputs may be this far from 1 where a bundle declares probabilities.
_SUM_TOLERANCE = 1e-2
_TINY = torch.finfo(torch.float32).tiny


def outputs_of(spec: ModelSpec, tree: Taxonomy, device: torch.device | str = "cpu") -> Outputs:
    """How the output channels of ``spec`` become the leaves of ``tree``.

    Raises
    ------
    BundleError
        The channels don't stand for the tree's leaves, or, of scores, for its nodes.
    """
    return _KINDS[spec.output](spec, tree, torch.device(device))


def as_tree(classes: Taxonomy | Sequence[int]) -> Taxonomy:
    """``classes`` as a tree: leaf codes alone are one without levels."""
    if isinstance(classes, Taxonomy):
        return classes
    return Taxonomy.flat("leaves", {int(code): (str(code), (0, 0, 0)) for code in classes})


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """``softmax(logits / temperature)`` over channels, also where the quotient itself would overflow."""
    return logits.sub(logits.amax(1, keepdim=True)).div_(temperature).softmax(1)


def log_shares(shares: Tensor) -> Tensor:
    """Finite logits of probabilities: their logarithm, at least that of the smallest normal float32 (-87.3)."""
    return shares.clamp_min(_TINY).log_()


class Outputs:
    """Leaf logits and probabilities (B, L, H, W) of output channels (B, K, H, W), all float32.

    Of channels that share a leaf, probabilities add up. Channels that stand for nothing are dropped before the
    softmax. This class is for logits.
    """

    def __init__(self, spec: ModelSpec, tree: Taxonomy, device: torch.device) -> None:
        self._name = spec.name
        self._gather = _Gather(spec, _channel_groups(spec, self._codes(tree), tree), device)

    def _codes(self, tree: Taxonomy) -> list[int]:
        """Codes of the nodes that channels stand for, in the order in which they are wanted."""
        return [leaf.code for leaf in tree.leaves]

    def logits(self, output: Tensor) -> Tensor:
        """Leaf logits; their softmax is :meth:`probabilities`."""
        return self._gather(output, lambda several: several.logsumexp(1))

    def probabilities(self, output: Tensor) -> Tensor:
        """Leaf probabilities."""
        return self.logits(output).softmax(1)


class _Probabilities(Outputs):
    """Channels that are probabilities already: those of leaves are divided by their sum."""

    def logits(self, output: Tensor) -> Tensor:
        return log_shares(self.probabilities(output))

    def probabilities(self, output: Tensor) -> Tensor:
        leaves = self._gather(output, lambda several: several.clamp_min(0).sum(1))
        self._check_sums(output)
        return _shared(leaves)

    def _check_sums(self, output: Tensor) -> None:
        sums = output.sum(1)
        worst = float((sums - 1).abs().max())
        if float(output.min()) < -_SUM_TOLERANCE or worst > _SUM_TOLERANCE:
            raise ModelError(
                f"model {self._name} is declared to give probabilities, and the lowest is "
                f"{float(output.min()):g} and their sums reach {float(sums.min()):g} to {float(sums.max()):g}; "
                "set the bundle's output to 'logits' if there is no softmax at its end"
            )


class _Scores(Outputs):
    """One channel for each node: a leaf's logit is the sum of the scores on its path."""

    def __init__(self, spec: ModelSpec, tree: Taxonomy, device: torch.device) -> None:
        super().__init__(spec, tree, device)
        self._sums = PathSums.of(tree)

    def _codes(self, tree: Taxonomy) -> list[int]:
        return [node.code for node in tree.nodes]

    def logits(self, output: Tensor) -> Tensor:
        leaves: Tensor = self._sums(super().logits(output))
        return leaves


_KINDS: dict[str, type[Outputs]] = {
    "logits": Outputs,
    "probabilities": _Probabilities,
    "scores": _Scores,
}


def _shared(leaves: Tensor) -> Tensor:
    """Probabilities divided by their sum, as some channels may be dropped; equal shares where all are 0."""
    leaves = leaves.clamp_min(0)
    sums = leaves.sum(1, keepdim=True)
    return torch.where(sums > 0, leaves / sums.clamp_min(_TINY), 1 / leaves.shape[1])


class _Gather:
    """Picks channels in the order wanted; those of one group are merged to one."""

    def __init__(self, spec: ModelSpec, groups: Sequence[Sequence[int]], device: torch.device) -> None:
        self._groups = [torch.tensor(group, device=device) for group in groups]
        self._single = all(len(group) == 1 for group in self._groups)
        self._order = torch.cat(self._groups)
        self._selects = self._order.tolist() != list(range(len(spec.channels)))

    def __call__(self, output: Tensor, merge: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, K, H, W) -> (B, groups, H, W), contiguous; ``merge`` takes (B, several, H, W) to (B, H, W)."""
        if self._single:
            return (output.index_select(1, self._order) if self._selects else output).contiguous()
        parts = (output.index_select(1, group) for group in self._groups)
        return torch.stack([part[:, 0] if part.shape[1] == 1 else merge(part) for part in parts], 1)


def _channel_groups(spec: ModelSpec, codes: Sequence[int], tree: Taxonomy) -> list[list[int]]:
    """For each code the output channels that stand for it.

    Raises
    ------
    BundleError
        The codes are not those that the channels stand for.
    """
    places: dict[int, list[int]] = {}
    for channel, code in enumerate(spec.channels):
        if code is not None:
            places.setdefault(code, []).append(channel)
    if set(places) == set(codes):
        return [places[code] for code in codes]
    kind, kinds = ("node", "nodes") if spec.output == "scores" else ("leaf", "leaves")
    lacking = sorted(set(codes) - set(places))
    foreign = sorted(set(places) - set(codes))
    parts = [f"output channels stand for {len(places)} {kinds} and the taxonomy has {len(codes)} {kinds}"]
    parts += [f"no channel stands for {kind} {_some(lacking)}"] if lacking else []
    parts += [f"channel code {_some(foreign)} is no {kind} of the taxonomy"] if foreign else []
    inner = [code for code in foreign if code in {node.parent for node in tree.nodes}]
    parts += [
        f"{_some(inner)} has classes below it, which a specialist can tell apart (save_cascade)"
    ] * bool(inner)
    raise BundleError(f"model {spec.name}: {'; '.join(parts)}")


def _some(codes: list[int], limit: int = 12) -> str:
    more = f" and {len(codes) - limit} more" if len(codes) > limit else ""
    return ", ".join(map(str, codes[:limit])) + more
