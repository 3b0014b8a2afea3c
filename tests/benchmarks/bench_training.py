"""Does reading keep up? Steps on windows from scenes against the same steps on tensors that are there already.

    python -m tests.benchmarks.bench_training DATA [--recipe landcover] [--device cuda] [--rounds 5] [--steps 20]

DATA is the folder that the recipe's paths start from. Both take turns, a round of steps each, so that what else the
machine does meets both alike. What the loader has read ahead meanwhile is taken from it before a round on scenes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from rssegment.predict.runtime import resolve_device
from rssegment.taxonomy import Taxonomy
from rssegment.training.batch import Batch
from rssegment.training.building import begin
from rssegment.training.data import TrainingData
from rssegment.training.fitting import half_precision
from rssegment.training.module import Segmenter
from rssegment.training.order import StepOrder
from rssegment.training.recipe import Recipe
from rssegment.training.sources import open_sources


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps on scenes against steps on tensors.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="landcover")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--batch", type=int, help="instead of the recipe's")
    args = parser.parse_args()
    recipe = Recipe.load(args.recipe)
    if args.batch:
        sample = recipe.sample.model_copy(update={"batch": args.batch})
        recipe = recipe.model_copy(update={"sample": sample})
    recipe = recipe.model_copy(update={"validate_every": args.rounds * (args.steps + 64)})
    taxonomy = Taxonomy.load(recipe.taxonomy)
    with tempfile.TemporaryDirectory() as work:
        scenes = open_sources(recipe, args.data, taxonomy=taxonomy)
        data = TrainingData.open(recipe, taxonomy, scenes, Path(work))
        device = torch.device(resolve_device(args.device))
        network = begin(recipe, taxonomy, (args.data,)).network
        module = Segmenter(network.to(memory_format=torch.channels_last), data).to(device)
        compare(module, data, device, args.rounds, args.steps)


def compare(module: Segmenter, data: TrainingData, device: torch.device, rounds: int, steps: int) -> None:
    """Prints the seconds per step of either kind in each round, and the median ratio."""
    batches = data.training_batches(StepOrder(data.recipe), device.type == "cuda")
    loader, ahead = iter(batches), batches.num_workers * (batches.prefetch_factor or 0)
    one = Batch(*(part.to(device) for part in next(loader)))
    step = stepper(module, device)
    for number in range(6):  # what is compiled, chosen or allocated at first
        step(one, number)
    ratios, rates = [], []
    pixels = data.recipe.sample.batch * data.recipe.sample.patch**2
    for _ in range(rounds):
        kept = timed(step, [one] * steps, device)
        for _ in range(ahead):
            next(loader)
        read = timed(step, (next(loader) for _ in range(steps)), device)
        ratios.append(read / kept)
        rates.append(pixels * steps / read / 1e6)
        print(f"tensors {kept / steps:.3f} s/step  scenes {read / steps:.3f} s/step  ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}, {statistics.median(rates):.2f} Mpx/s from scenes")


def stepper(module: Segmenter, device: torch.device) -> Callable[[Batch, int], None]:
    """One training step, as the trainer takes it."""
    optimizer = module.configure_optimizers()["optimizer"]
    half = half_precision(module.recipe, device.type)

    def step(batch: Batch, number: int) -> None:
        batch = module.augment(module.prepare(batch), 0, number)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = module.loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), module.recipe.optimizer.clip)
        optimizer.step()

    return step


def timed(
    step: Callable[[Batch, int], None], batches: Iterator[Batch] | list[Batch], device: torch.device
) -> float:
    """Seconds for all of ``batches``."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    for number, batch in enumerate(batches):
        step(Batch(*(part.to(device, non_blocking=True) for part in batch)), number)
    wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
