"""What decisions cost beside the forward pass that they follow, on one thread."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray

from rssegment.decode import Backoff, Cost, Leaf, Level, decide, marginals, quantize_confidence
from rssegment.decode.conformal import scores
from rssegment.taxonomy import Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import Entry
from tests.benchmarks.timing import in_turns, show

__all__ = ["Sizes", "balanced", "main", "smooth"]

Floats = NDArray[np.float32]
DEPTH = 4
PROMISED = ("leaf", "level 2", "back-off 0.7", "cost, tree distance", "sums of all nodes")
LIMIT = 0.05


@dataclass(frozen=True)
class Sizes:
    """What is measured: the patch's side in px, its bands, numbers of leaves, and how often."""

    patch: int = 512
    bands: int = 4
    leaves: tuple[int, ...] = (10, 100)
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(128, repeats=3)


def balanced(leaves: int, depth: int = DEPTH) -> Taxonomy:
    """A tree of ``depth`` levels, or fewer if there are few leaves, whose nodes have about as many children each."""
    entries: list[Entry] = []

    def grow(parent: int | None, count: int, level: int) -> None:
        groups = count if level == depth else min(count, max(2, round(count ** (1 / (depth + 1 - level)))))
        for k in range(groups):
            share = count // groups + (k < count % groups)
            code = len(entries) + 1
            entries.append(Entry(code, f"c{code}", (0, 0, 0), parent=parent))
            if share > 1:
                grow(code, share, level + 1)

    grow(None, leaves, 1)
    return Taxonomy("balanced", arrange(entries, "balanced"))


def smooth(leaves: int, side: int, seed: int = 0) -> Floats:
    """Probabilities (L, side, side) that change as those of a map do, over some pixels; sure in most places."""
    noise = torch.randn(1, leaves, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    logits = torch.nn.functional.interpolate(noise, (side, side), mode="bilinear")[0]
    result: Floats = (6 * logits).softmax(0).numpy()
    return result


def rough(leaves: int, side: int, seed: int = 0) -> Floats:
    """Probabilities (L, side, side) of which no pixel's tell of the next: the worst for shortcuts."""
    noise = torch.randn(leaves, side, side, generator=torch.Generator().manual_seed(seed))
    result: Floats = (2 * noise).softmax(0).numpy()
    return result


def works(tree: Taxonomy, probabilities: Floats) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    levels = tuple(range(1, tree.depth + 1))
    matrix = np.random.default_rng(0).random((len(tree.leaves), len(tree.leaves)))
    rules = {
        "leaf": Leaf(),
        "level 2": Level(2),
        "back-off 0.7": Backoff(0.7),
        "cost, tree distance": Cost(),
        "cost, own matrix": Cost(matrix),
    }
    confidence, valid = probabilities[0].copy(), np.ones(probabilities.shape[1:], bool)
    out = np.empty((len(tree.nodes), *valid.shape), np.float32)
    truth = np.full(valid.shape, tree.leaves[0].code, np.uint16)
    return {name: partial(decide, probabilities, tree, rule) for name, rule in rules.items()} | {
        "sums of all nodes": partial(marginals, probabilities, tree, out),
        "sums, to new memory": partial(marginals, probabilities, tree),
        "back-off 0.7, all levels": partial(decide, probabilities, tree, Backoff(0.7), None, levels),
        "scores of calibration": partial(scores, probabilities, tree, truth),
        "one raster to bytes": partial(quantize_confidence, confidence, valid),
    }


def forward(leaves: int, sizes: Sizes) -> Callable[[], object]:
    """The forward pass of a U-Net on a ResNet-18, untrained: its speed is the same."""
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=sizes.bands, classes=leaves).eval()
    patch = torch.rand(1, sizes.bands, sizes.patch, sizes.patch)

    def run() -> object:
        with torch.inference_mode():
            return network(patch)

    return run


def measure(sizes: Sizes) -> None:
    """Prints a table for each number of leaves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for leaves in sizes.leaves:
            _measure(leaves, sizes)
    finally:
        torch.set_num_threads(threads)


def _measure(leaves: int, sizes: Sizes) -> None:
    tree = balanced(leaves)
    inputs = {"smooth": smooth(leaves, sizes.patch), "rough": rough(leaves, sizes.patch)}
    timed: dict[str, Callable[[], object]] = {"forward": forward(leaves, sizes)}
    for kind, probabilities in inputs.items():
        timed |= {f"{kind}: {name}": work for name, work in works(tree, probabilities).items()}
    for work in timed.values():
        work()  # kernels loaded, buffers grown
    seconds = in_turns(timed, sizes.repeats)
    whole = seconds["forward"]
    rows: list[list[object]] = []
    for name in works(tree, inputs["smooth"]):
        shares = [seconds[f"{kind}: {name}"] / whole for kind in inputs]
        verdict = "" if name not in PROMISED else "yes" if max(shares) < LIMIT else "NO"
        cells = [cell for kind in inputs for cell in _cells(seconds[f"{kind}: {name}"], whole)]
        rows.append([name, *cells, verdict])
    title = (
        f"{leaves} leaves, {len(tree.nodes)} nodes, {tree.depth} levels, {sizes.patch}² px: CPU milliseconds and share "
        f"of the forward pass of a ResNet-18 U-Net ({whole * 1e3:.0f} ms), one thread, median of {sizes.repeats}"
    )
    head = ["decision", "smooth ms", "share", "rough ms", "share", f"below {LIMIT:.0%}"]
    show(title, head, rows)


def _cells(seconds: float, whole: float) -> tuple[str, str]:
    return f"{seconds * 1e3:.1f}", f"{seconds / whole:.2%}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(prog="bench_decisions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds together")
    parser.add_argument("--repeats", type=int, help="how often each is done")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    measure(replace(sizes, repeats=options.repeats) if options.repeats else sizes)


if __name__ == "__main__":
    main()
