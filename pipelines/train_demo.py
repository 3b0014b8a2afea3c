"""Train the model of `rssegment demo` on synthetic landscapes: minutes on one CPU core.

    python pipelines/train_demo.py my_bundle --steps 3000

Landscapes are drawn from seeds of a million and more; the demo shows other seeds, which no training sees.
The same arguments give the same weights on the same machine. Copy this page to train on something else.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from rssegment.demo.landscape import BANDS, Landscape, make_landscape
from rssegment.model import BandSpec, ModelSpec, save_bundle
from rssegment.model.architectures.enet import ENet
from rssegment.taxonomy import Taxonomy

LEAVES = (1, 2, 3, 4, 5, 6, 7, 8)  # codes of the demo taxonomy, in the order of the output channels
MEAN, STD = (110.0, 117.0, 82.0, 134.0), (46.0, 34.0, 29.0, 36.0)  # of the training landscapes, by band
FIRST_SEED = 1_000_000
SIDE, PATCH, BATCH = 1536, 256, 4  # px, px, patches


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("out", type=Path, help="folder of the new bundle")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--landscapes", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = train(draw(args.landscapes), args.steps)
    save(net, args.out, args.steps, args.landscapes)


def draw(count: int) -> list[Landscape]:
    """Training landscapes, every third with an edge to no data."""
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    return [make_landscape((SIDE, SIDE), seed, wedge=seed % 3 == 0) for seed in seeds]


def train(pool: list[Landscape], steps: int) -> ENet:
    """Cross-entropy, AdamW, one cycle of the learning rate."""
    torch.manual_seed(0)
    rng = np.random.Generator(np.random.PCG64(0))
    net = ENet(len(BANDS), len(LEAVES), drop=0.01).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.1)
    start, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        images, truth = zip(*(sample(pool, rng) for _ in range(BATCH)), strict=True)
        logits = net(normalise(np.stack(images)))  # (B, classes, PATCH, PATCH)
        target = torch.from_numpy(np.stack(truth).astype(np.int64)) - 1  # channel numbers; no data is -1
        loss = F.cross_entropy(logits, target, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            elapsed = time.monotonic() - start
            print(f"step {step:5d}  loss {np.mean(losses[-100:]):.3f}  {elapsed:5.0f} s", flush=True)
    return net.eval()


def sample(pool: list[Landscape], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A patch in one of eight poses; half of them around a pixel of a random class, so that rare ones are seen."""
    landscape = pool[rng.integers(len(pool))]
    row, col = rng.integers(0, SIDE - PATCH + 1, 2)
    if rng.uniform() < 0.5:
        rows = rng.integers(0, SIDE, 20_000)
        cols = rng.integers(0, SIDE, 20_000)
        hits = np.flatnonzero(landscape.truth[rows, cols] == rng.choice(LEAVES))
        if len(hits):
            row, col = (int(np.clip(at[hits[0]] - PATCH // 2, 0, SIDE - PATCH)) for at in (rows, cols))
    image = landscape.bands[:, row : row + PATCH, col : col + PATCH]
    truth = landscape.truth[row : row + PATCH, col : col + PATCH]
    turns, mirrored = rng.integers(4), rng.integers(2)
    image, truth = np.rot90(image, turns, (1, 2)), np.rot90(truth, turns)
    return (image[:, :, ::-1], truth[:, ::-1]) if mirrored else (image, truth)


def normalise(images: np.ndarray) -> torch.Tensor:
    """(B, C, H, W) uint8 -> float of about mean 0 and deviation 1."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    scaled = (torch.from_numpy(np.ascontiguousarray(images)).float() - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


def save(net: ENet, out: Path, steps: int, landscapes: int) -> None:
    spec = ModelSpec(
        name="demo",
        title="Demo landscape",
        description="Tells the classes of rssegment's synthetic landscape. It knows nothing of real imagery.",
        architecture="enet",
        bands=tuple(BandSpec(name=n, mean=m, std=s) for n, m, s in zip(BANDS, MEAN, STD, strict=True)),
        channels=LEAVES,
        ground_resolution=0.5,
        patch=512,
        overlap=128,
        license="Apache-2.0",
        credit="rssegment",
        training={
            "data": f"{landscapes} synthetic landscapes, seeds from {FIRST_SEED}",
            "steps": steps,
            "batch": BATCH,
        },
    )
    save_bundle(out, net, spec, Taxonomy.load("demo"))


if __name__ == "__main__":
    main()
