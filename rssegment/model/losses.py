"""Training losses over a class tree, for labels at any level.

A pixel may be labelled with a leaf or with an inner node ("vegetation, whatever kind"): the label says that one of the
leaves under it is true. So reference data of different depth train one model together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rssegment.errors import InputError
from rssegment.model.hierarchy import at_least_float32, node_sums
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["HierarchicalLoss", "LossKind"]

LossKind = Literal["softmax", "margin"]

_CODES = 65536
_DICE_SMOOTHING = 1.0  # px added above and below, so that a class of few pixels doesn't jump


class HierarchicalLoss(nn.Module):
    """Leaf logits (B, L, H, W) and labels (B, H, W), node codes of any level or 0 to ignore -> a scalar.

    The label term is the weighted mean over labelled pixels of, by ``kind``:

    * "softmax": -log P(y), P(y) the sum of the probabilities p_l of the leaves under the label y. For leaf labels it is
      cross-entropy.
    * "margin": -log sum_{l under y} exp(θ_l) + log sum_l exp(θ_l + τ C(y, l)), the soft-max-margin of Gimpel and Smith
      2010 on a tree (Valmadre 2022), with θ the logits, τ the ``margin``, and C(y, l) 0 for leaves under the label,
      else the number of edges between y and l divided by the largest such number in the tree. That is
      -log P(y) + log sum_l p_l exp(τ C(y, l)): mistakes cost the more the further off they are.

    ``class_weights`` are by code, name or path. A class without one has the nearest ancestor's, else the mean of its
    leaves', else 1. ``label_smoothing`` ε takes (1 - ε) of the label's term and ε of the weighted mean over all leaves,
    as ``torch.nn.functional.cross_entropy`` does, which this equals for leaf labels.

    ``dice`` and ``lovasz`` are the factors with which two further terms are added, means over the nodes, leaves and
    parents, that occur in the batch: 1 - (2 sum p t + 1) / (sum p + sum t + 1) over all pixels of the batch, and the
    Lovász extension of 1 - IoU (Berman et al. 2018). A node is scored on the pixels whose label decides it: those
    labelled above a node leave it open.

    Works in float32 at least, under autocast too. A batch without labels has loss 0, with gradients of 0.

    Raises
    ------
    InputError
        A setting is out of range; on a call: shapes don't fit, or labels are no codes of the taxonomy.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        kind: LossKind = "softmax",
        *,
        margin: float | None = None,
        class_weights: Mapping[int | str, float] | None = None,
        label_smoothing: float = 0.0,
        dice: float = 0.0,
        lovasz: float = 0.0,
    ) -> None:
        super().__init__()
        _check_settings(kind, margin, label_smoothing, dice, lovasz)
        self.taxonomy = taxonomy
        self.kind: LossKind = kind
        self.margin = 1.0 if margin is None else float(margin)
        self.label_smoothing, self.dice, self.lovasz = float(label_smoothing), float(dice), float(lovasz)
        self._fill_tables(class_weights or {})

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        parts = self.parts(logits, labels)
        total = parts["label"]
        for name, factor in (("dice", self.dice), ("lovasz", self.lovasz)):
            if name in parts:
                total = total + factor * parts[name]
        return total

    def parts(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms before their factors: "label", and "dice" and "lovasz" where they count."""
        self._check_shapes(logits, labels)
        rows = self._rows(labels)
        logs = at_least_float32(logits).contiguous().log_softmax(1)
        parts = {"label": self._label_term(logs, rows)}
        if self.dice or self.lovasz:
            shares = logs.exp()
            if self.dice:
                parts["dice"] = self._dice_term(shares, rows)
            if self.lovasz:
                parts["lovasz"] = self._lovasz_term(shares, rows)
        return parts

    # Tables by row: a node's place in pre-order, N for pixels without label

    _row_of: Tensor
    _channel: Tensor
    _inner: Tensor
    _leaves: Tensor
    _true: Tensor
    _decided: Tensor
    _weight: Tensor
    _leaf_weight: Tensor
    _cost: Tensor

    def _fill_tables(self, class_weights: Mapping[int | str, float]) -> None:
        arrays = self.taxonomy.arrays
        count = len(arrays.codes)
        row_of = np.full(
            _CODES + 2, count + 1, np.int64
        )  # by code + 1; both ends and unknown codes are refused
        row_of[1] = count
        row_of[arrays.codes.astype(np.int64) + 1] = np.arange(count)
        channel = np.zeros(count + 1, np.int64)
        channel[arrays.leaves] = np.arange(len(arrays.leaves))
        inner = np.ones(count + 1, bool)
        inner[arrays.leaves] = inner[count] = False
        above = arrays.ancestry[:, :count].copy()  # row: label, column: is that node it or above it?
        open_ = arrays.ancestry.T[:, :count].copy()  # …, is that node below it?
        open_[np.arange(count), np.arange(count)] = False
        open_[count] = True
        weight = node_weights(self.taxonomy, class_weights)
        tables = {
            "row_of": row_of,
            "channel": channel,
            "inner": inner,
            "leaves": np.vstack([arrays.membership, np.ones_like(arrays.membership[:1])]),
            "true": above,
            "decided": ~open_,
            "weight": np.append(weight, 0.0).astype(np.float32),
            "leaf_weight": weight[arrays.leaves].astype(np.float32),
            "cost": np.vstack([tree_costs(self.taxonomy), np.zeros((1, len(arrays.leaves)), np.float32)]),
        }
        for name, table in tables.items():
            self.register_buffer(f"_{name}", torch.from_numpy(table.copy()), persistent=False)

    def _check_shapes(self, logits: Tensor, labels: Tensor) -> None:
        leaves = len(self._leaf_weight)
        if logits.ndim != 4 or logits.shape[1] != leaves:
            raise InputError(
                f"the logits are {tuple(logits.shape)}; expected (B, {leaves}, H, W), one per leaf"
            )
        expected = (logits.shape[0], *logits.shape[2:])
        if labels.shape != expected:
            raise InputError(
                f"the labels are {tuple(labels.shape)}; expected {tuple(expected)} as the logits"
            )
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InputError(f"the labels are of type {labels.dtype}; expected whole numbers, class codes")

    def _rows(self, labels: Tensor) -> Tensor:
        codes = labels.long()
        rows = self._row_of[codes.clamp(-1, _CODES) + 1]
        unknown = rows > len(self._inner) - 1
        if bool(unknown.any()):
            values, times = torch.unique(codes[unknown], return_counts=True)
            shown = ", ".join(
                f"{v} ({n} px)" for v, n in zip(values[:5].tolist(), times.tolist(), strict=False)
            )
            more = f" and {len(values) - 5} more" if len(values) > 5 else ""
            raise InputError(
                f"the labels have values that are no codes of taxonomy {self.taxonomy.name!r}: {shown}{more}; "
                "give the pixels to ignore label 0, and others a code of the taxonomy"
            )
        return rows

    # Terms

    def _label_term(self, logs: Tensor, rows: Tensor) -> Tensor:
        weight = self._weight.to(logs.dtype)[rows]
        loss = -self._log_probability(logs, rows)  # (B, H, W)
        if self.kind == "margin":
            cost = self.margin * self._cost.to(logs.dtype)[rows].movedim(-1, 1)
            loss = loss + (logs + cost).logsumexp(1)
        loss = weight * loss
        if self.label_smoothing:
            even = -(logs * self._leaf_weight.to(logs.dtype).view(1, -1, 1, 1)).mean(1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        unlabelled = rows == len(self._inner) - 1
        total = weight.sum()
        return loss.masked_fill(unlabelled, 0).sum() / torch.where(total > 0, total, 1)

    def _log_probability(self, logs: Tensor, rows: Tensor) -> Tensor:
        """(B, H, W): log P of each pixel's label; anything where there is none."""
        found = logs.gather(1, self._channel[rows].unsqueeze(1)).squeeze(1)
        coarse = self._inner[rows]
        if not bool(coarse.any()):
            return found
        below = self._leaves[rows[coarse]]  # (P, L)
        return found.masked_scatter(coarse, log_sums(logs.movedim(1, -1)[coarse], below))

    def _dice_term(self, shares: Tensor, rows: Tensor) -> Tensor:
        labels = _present(rows, len(self._inner) - 1)  # (Y,)
        pixels = (rows.flatten(1).unsqueeze(1) == labels.view(1, -1, 1)).to(shares.dtype)  # (B, Y, H W)
        true, decided = (table[labels].to(shares.dtype) for table in (self._true, self._decided))  # (Y, N)
        with torch.autocast(shares.device.type, enabled=False):
            # Dice is made of sums of p, so p may be added up by label first: no (B, N, H, W) is needed
            leaf_mass = (pixels @ shares.flatten(2).mT).sum(0)  # (Y, L)
            mass = leaf_mass @ self._leaves[:-1].to(shares.dtype).mT  # (Y, N)
        size = (true * pixels.sum((0, 2)).unsqueeze(1)).sum(0)  # (N,) px
        both, either = (true * mass).sum(0), (decided * mass).sum(0) + size
        loss = 1 - (2 * both + _DICE_SMOOTHING) / (either + _DICE_SMOOTHING)
        occurs = size > 0
        return loss.masked_fill(~occurs, 0).sum() / occurs.sum().clamp_min(1)

    def _lovasz_term(self, shares: Tensor, rows: Tensor) -> Tensor:
        labels = _present(rows, len(self._inner) - 1)
        nodes = self._true[labels].any(0).nonzero().flatten().tolist()
        sums = node_sums(shares.unbind(1), self.taxonomy)  # N of (B, H, W)
        total = shares.new_zeros(()) + 0 * shares.sum()
        for node in nodes:
            decided = self._decided[:, node][rows]
            truth = self._true[:, node][rows[decided]]
            total = total + lovasz_binary(sums[node][decided], truth)
        return total / max(1, len(nodes))


def log_sums(logs: Tensor, chosen: Tensor) -> Tensor:
    """(P,): logsumexp of the chosen ones of each row of (P, L); at least one is."""
    return logs.masked_fill(~chosen, -math.inf).logsumexp(1)


def lovasz_binary(shares: Tensor, truth: Tensor) -> Tensor:
    """Lovász extension of 1 - IoU of one class: probabilities (M,) and truth (M,) bool, true somewhere.

    Errors |t - p| in falling order, each times what its pixel, once wrong, adds to 1 - IoU (Berman et al. 2018,
    algorithm 1). With G true pixels, f true ones and b others so far, that is 1 / (G + b) for a true pixel and
    (G - f) / ((G + b) (G + b - 1)) for another: no difference of nearly equal numbers, however many pixels.
    """
    errors, order = (truth.to(shares.dtype) - shares).abs().sort(descending=True, stable=True)
    truth = truth[order]
    others = (~truth).cumsum(0).to(shares.dtype)  # counts: exact to 16 M px in float32
    found, size = truth.cumsum(0).to(shares.dtype), truth.sum().to(shares.dtype)
    union = size + others
    added = torch.where(truth, 1 / union, (size - found) / (union * (union - 1).clamp_min(1)))
    return (errors * added).sum()


def tree_costs(taxonomy: Taxonomy) -> NDArray[np.float32]:
    """C (N, L): edges between a node and a leaf over the largest such number in the tree, 0 for leaves under it."""
    arrays = taxonomy.arrays
    edges = np.where(arrays.membership, 0, arrays.distances[:-1][:, arrays.leaves])
    return np.asarray(edges / max(1, edges.max()), np.float32)


def node_weights(taxonomy: Taxonomy, given: Mapping[int | str, float]) -> NDArray[np.float64]:
    """(N,): each node's weight, its own or the nearest ancestor's, else the mean of its leaves', else 1.

    Raises
    ------
    InputError
        A weight is no number of 0 or more, names no class, or names one twice.
    """
    own: dict[int, float] = {}
    for key, value in given.items():
        code = taxonomy.node(key).code
        if code in own:
            raise InputError(f"class_weights: {taxonomy.node(key).name!r} has two weights")
        if not 0 <= value < math.inf:
            raise InputError(f"class_weights: {key!r} has the weight {value}; expected a number, 0 or more")
        own[code] = float(value)

    def inherited(node: Node) -> float | None:
        path = (node, *reversed(taxonomy.ancestors(node)))
        return next((own[place.code] for place in path if place.code in own), None)

    weights = [inherited(node) for node in taxonomy.nodes]
    leaves = np.array(
        [1.0 if weights[row] is None else weights[row] for row in taxonomy.arrays.leaves], float
    )
    means = (leaves[below].mean() for below in taxonomy.membership)
    return np.array([mean if w is None else w for w, mean in zip(weights, means, strict=True)])


def _present(rows: Tensor, ignored: int) -> Tensor:
    values: Tensor = torch.unique(rows)
    return values[values != ignored]


def _check_settings(
    kind: str, margin: float | None, label_smoothing: float, dice: float, lovasz: float
) -> None:
    if kind not in get_args(LossKind):
        raise InputError(f"there is no loss {kind!r}; expected one of {', '.join(get_args(LossKind))}")
    if margin is not None and kind != "margin":
        raise InputError(f"margin = {margin} has no meaning for the loss {kind!r}; use kind='margin'")
    if label_smoothing and kind == "margin":
        raise InputError("label_smoothing and the loss 'margin' exclude each other; use one of them")
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing = {label_smoothing}; expected a number from 0 to below 1")
    for name, value in (("margin", margin or 0.0), ("dice", dice), ("lovasz", lovasz)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} = {value}; expected a number, 0 or more")
