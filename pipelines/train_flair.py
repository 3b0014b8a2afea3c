"""Train a land-cover model on FLAIR aerial tiles for some minutes on a CPU: a start, not a finished model.

    python pipelines/train_flair.py data/flair_d034 land_rgb --bands rgb --minutes 10

The folder holds `*_train.tif` (R, G, B, NIR, uint8, 0.2 m) with `*_train_labels.tif`, and `*_val.tif` likewise.
Imagery and labels: IGN - FLAIR #1 (Garioud et al. 2022, arXiv 2211.12979), Licence Ouverte 2.0.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.enums import Resampling
from safetensors.torch import load_file
from torch.nn import functional as F

from rssegment.model import BandSpec, Bundle, ModelSpec, save_bundle
from rssegment.model.architectures.enet import ENet
from rssegment.taxonomy import Taxonomy

BANDS = {"rgb": ("red", "green", "blue"), "rgbn": ("red", "green", "blue", "nir")}
TREE = Taxonomy.load("flair")
LEAVES = tuple(TREE.leaf_codes.tolist())  # in the order of the output channels
IGNORED, SAME = (14, 15, 16, 17, 19), {18: 1}  # codes that hardly occur; a greenhouse counts as a building
SHRINK, PATCH, BATCH, PEAK = 2, 256, 4, 4e-3  # 0.2 m -> 0.4 m; px; patches; highest learning rate

Tile = tuple[np.ndarray, np.ndarray]  # bands (C, H, W) uint8, channel numbers (H, W) int64, -1 to ignore


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on FLAIR tiles.")
    parser.add_argument("data", type=Path, help="folder of *_train.tif, *_train_labels.tif, *_val.tif …")
    parser.add_argument("out", type=Path, help="folder of the new bundle")
    parser.add_argument("--bands", choices=BANDS, default="rgb")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--start", default="demo", help="bundle of an ENet whose weights to start from")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = BANDS[args.bands]
    tiles = [read(path, len(names)) for path in sorted(args.data.glob("*_train.tif"))]
    if not tiles:
        parser.error(f"no *_train.tif in {args.data}")
    pixels = np.concatenate([bands[:, ::7, ::7].reshape(len(names), -1) for bands, _ in tiles], axis=1)
    mean, std = pixels.mean(1), pixels.std(1)
    net = train(begin(args.start, len(names)), tiles, mean, std, args.minutes * 60)
    unseen = [read(path, len(names)) for path in sorted(args.data.glob("*_val.tif"))]
    scores = validate(net, unseen, mean, std)
    spec = ModelSpec(
        name=f"flair-{args.bands}",
        title=f"FLAIR land cover, {args.bands}, trained for {args.minutes:g} minutes",
        architecture="enet",
        bands=tuple(
            BandSpec(name=n, mean=round(float(m), 2), std=round(float(s), 2))
            for n, m, s in zip(names, mean, std, strict=True)
        ),
        channels=LEAVES,
        ground_resolution=0.2 * SHRINK,
        patch=512,
        overlap=128,
        license="etalab-2.0",
        credit="IGN - FLAIR #1, Licence Ouverte 2.0, modified",
        training={"data": "FLAIR #1, Hérault", "minutes": args.minutes, **scores},
    )
    save_bundle(args.out, net, spec, TREE)


def read(path: Path, bands: int) -> Tile:
    """Bands averaged to 0.4 m, and the commonest label of each of those pixels."""
    with rasterio.open(path) as image, rasterio.open(path.with_name(path.stem + "_labels.tif")) as labels:
        shape = image.height // SHRINK, image.width // SHRINK
        pixels = image.read(range(1, bands + 1), out_shape=(bands, *shape), resampling=Resampling.average)
        codes = labels.read(1, out_shape=shape, resampling=Resampling.mode)
    channels = np.full(256, -1, np.int64)
    for code in LEAVES:
        if code not in IGNORED:
            channels[code] = LEAVES.index(SAME.get(code, code))
    return pixels, channels[codes]


def begin(bundle: str, bands: int) -> ENet:
    """A new ENet with every weight of ``bundle`` that fits: edges and textures need not be learned again."""
    torch.manual_seed(0)
    net = ENet(bands, len(LEAVES), drop=0.02)
    own, other = net.state_dict(), load_file(Bundle.open(bundle).weights)
    net.load_state_dict(own | {k: v for k, v in other.items() if k in own and own[k].shape == v.shape})
    return net.to(memory_format=torch.channels_last)


def train(net: ENet, tiles: list[Tile], mean: np.ndarray, std: np.ndarray, seconds: float) -> ENet:
    """Cross-entropy and AdamW; the learning rate rises for a tenth of the time and falls as a cosine."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK, weight_decay=1e-2)
    area = np.array([labels.size for _, labels in tiles])
    start, step, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - start) / seconds) < 1:
        rate = min(done / 0.1, 0.5 + 0.5 * np.cos(np.pi * max(0.0, done - 0.1) / 0.9)) * PEAK
        optimizer.param_groups[0]["lr"] = max(rate, 1e-6)
        images, labels = zip(
            *(sample(*tiles[k], rng) for k in rng.choice(len(tiles), BATCH, p=area / area.sum())), strict=True
        )
        logits = net(normalise(np.stack(images), mean, std))  # (B, classes, PATCH, PATCH)
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack(labels)), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, losses = step + 1, [*losses[-99:], loss.item()]
        if step % 100 == 0:
            print(f"step {step:5d}  loss {np.mean(losses):.3f}  {done:4.0%} of the time", flush=True)
    return net.eval()


def sample(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Tile:
    """A patch in one of eight poses under another light; half of them around a pixel of a random class."""
    corner = rng.integers(0, np.array(labels.shape) - PATCH + 1)
    spots = np.stack([rng.integers(0, n, 20_000) for n in labels.shape])  # rows, cols
    hits = np.flatnonzero(labels[*spots] == rng.choice(len(LEAVES)))
    if len(hits) and rng.uniform() < 0.5:
        corner = np.clip(spots[:, hits[0]] - PATCH // 2, 0, np.array(labels.shape) - PATCH)
    part = np.s_[..., corner[0] : corner[0] + PATCH, corner[1] : corner[1] + PATCH]
    turns, mirror = rng.integers(4), (1, -1)[rng.integers(2)]
    image = np.rot90(image[part], turns, (1, 2))[..., ::mirror]
    labels = np.rot90(labels[part], turns)[:, ::mirror]
    light = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, (len(image), 1, 1))
    return np.clip(image * light + rng.uniform(-12, 12), 0, 255).astype(np.float32), labels


def normalise(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> torch.Tensor:
    scaled = (images - mean[:, None, None]) / std[:, None, None]
    return torch.from_numpy(scaled.astype(np.float32)).contiguous(memory_format=torch.channels_last)


def validate(net: ENet, tiles: list[Tile], mean: np.ndarray, std: np.ndarray) -> dict[str, float]:
    """Pixel accuracy and mean IoU over the classes that occur, tile by tile without overlap."""
    size, counts = len(LEAVES), np.zeros((len(LEAVES), len(LEAVES)), np.int64)  # truth by prediction
    for image, labels in tiles:
        for row in range(0, labels.shape[0], 512):
            for col in range(0, labels.shape[1], 512):
                part = np.s_[..., row : row + 512, col : col + 512]
                with torch.inference_mode():
                    predicted = net(normalise(image[part][None], mean, std))[0].argmax(0).numpy()
                truth = labels[part]
                pairs = truth[truth >= 0] * size + predicted[truth >= 0]
                counts += np.bincount(pairs, minlength=size * size).reshape(size, size)
    hits, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
    present = counts.sum(1) > 0
    iou = hits[present] / union[present]
    print("IoU:", {LEAVES[k]: round(float(v), 3) for k, v in zip(np.flatnonzero(present), iou, strict=True)})
    scores = {
        "pixel_accuracy": round(float(hits.sum() / counts.sum()), 4),
        "mean_iou": round(float(iou.mean()), 4),
    }
    print(scores)
    return scores


if __name__ == "__main__":
    main()
