"""What does a class tree bring? Flat and hierarchical heads, and labels of mixed depth, on FLAIR aerial tiles.

    python pipelines/compare_hierarchy.py data/flair_d034 compare/ --seeds 0 1 2 --workers 2

Arms, all with the same network, steps and data order in each seed, and the same function to begin with:
flat_all   one logit per leaf, parents by summation; all labels are leaves
tree_all   one score per node (parameter-sharing softmax); all labels are leaves
tree_mixed … half of the blocks are labelled with the leaves' parents only
flat_half  flat; the half of the blocks that has leaf labels alone, seen twice as often
flat_mixed flat; labels as in tree_mixed

Finished runs are kept in `runs.jsonl` and not done again; `table.md` is made of all that are there. One thread per
run, so the same seed gives the same weights on the same machine. The folder holds `*_train.tif` (R, G, B, NIR, uint8,
0.2 m) with `*_train_labels.tif`, and `*_val.tif` likewise. Imagery and labels: IGN - FLAIR #1 (Garioud et al. 2022,
arXiv 2211.12979), Licence Ouverte 2.0.
"""

import argparse
import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise, product
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.enums import Resampling
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.decode import Backoff, Level, decide
from rssegment.evaluation import Confusion, LabelPairs, Reliability, Scores
from rssegment.model import Hierarchical, HierarchicalLoss
from rssegment.taxonomy import Taxonomy

FLAIR = Taxonomy.load("flair")
ABSENT, SAME = (14, 15, 16, 17, 18, 19), {18: 1}  # codes that hardly occur; a greenhouse counts as a building
TREE = replace(FLAIR, name="flair-13", nodes=tuple(n for n in FLAIR.nodes if n.code not in ABSENT))
ARMS = ("flat_all", "tree_all", "tree_mixed", "flat_half", "flat_mixed")
PAIRS = (
    ("tree_all", "flat_all"),
    ("tree_mixed", "flat_mixed"),
    ("tree_mixed", "flat_half"),
    ("flat_mixed", "flat_half"),
    ("tree_mixed", "tree_all"),
)
SHRINK, PEAK, TAUS = 2, 1e-2, np.linspace(0, 1, 41)  # 0.2 m -> 0.4 m; learning rate; thresholds
WIDTHS = (16, 32, 64, 96)  # channels of the network at 1/2, 1/4, 1/8 and 1/16

LEGEND = """`nll` is the mean of −log P(true leaf). `distance` is the mean number of edges from the most probable leaf
to the true one, `mistake_distance` that of mistakes alone. `miou_k`, `accuracy_k` and `ece_k` are of the most probable
class of level k, the last being the calibration error of its probability (20 bins). `curve_area` is the area under
correctness over specificity of back-off; `correct_70` and `specificity_70` are its point at τ = 0.7. Less is better of
`nll`, distances and `ece`."""


@dataclass(frozen=True)
class Plan:
    """What all runs share: data, steps, patches per step, and sides in px of patches and of blocks of one depth."""

    data: str
    steps: int
    batch: int
    patch: int
    block: int


@dataclass(frozen=True)
class Tile:
    """Bands (4, H, W) uint8, codes (H, W) of leaves or 0."""

    bands: np.ndarray
    codes: np.ndarray


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare heads and label depths on FLAIR tiles.")
    parser.add_argument("data", type=Path, help="folder of *_train.tif, *_train_labels.tif, *_val.tif …")
    parser.add_argument("out", type=Path, help="folder of runs.jsonl and table.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    for name, default in (("steps", 600), ("batch", 4), ("patch", 192), ("block", 512), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--table-only", action="store_true", help="table of the finished runs")
    args = parser.parse_args(arguments)
    plan = Plan(args.data.name, args.steps, args.batch, args.patch, args.block)
    args.out.mkdir(parents=True, exist_ok=True)
    done = {(run["arm"], run["seed"]) for run in finished(args.out, plan)}
    todo = [(arm, seed) for seed in args.seeds for arm in args.arms if (arm, seed) not in done]
    for run in () if args.table_only else results(args.data, plan, todo, args.workers):
        with (args.out / "runs.jsonl").open("a") as file:
            file.write(json.dumps(run) + "\n")
        write_table(args.out, plan)
    write_table(args.out, plan)


def results(folder: Path, plan: Plan, todo: list[tuple[str, int]], workers: int) -> Iterator[dict]:
    """Runs as they are done, in processes of their own if several may run at a time."""
    if workers <= 1:
        yield from (one_run(folder, plan, *pair) for pair in todo)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for job in as_completed([pool.submit(one_run, folder, plan, *pair) for pair in todo]):
                yield job.result()
        finally:  # whatever ends this, a signal too, ends the runs
            for process in active_children():
                process.terminate()


def write_table(out: Path, plan: Plan) -> None:
    (out / "table.md").write_text(table(finished(out, plan), plan), encoding="utf-8")


def finished(out: Path, plan: Plan) -> list[dict]:
    """The runs of this plan that are in the folder."""
    path = out / "runs.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    runs = [json.loads(line) for line in lines if line.endswith("}")]
    own = [run for run in runs if run["plan"] == asdict(plan)]
    return sorted(own, key=lambda run: (run["seed"], ARMS.index(run["arm"])))


# Data


@cache
def tiles(folder: Path, part: str) -> tuple[Tile, ...]:
    """Bands averaged to 0.4 m, and the commonest label of each of those pixels."""
    table, found = np.zeros(256, np.int64), []
    for code in FLAIR.leaf_codes.tolist():
        table[code] = SAME.get(code, 0 if code in ABSENT else code)
    for path in sorted(folder.glob(f"*_{part}.tif")):
        beside = path.with_name(path.stem + "_labels.tif")
        with rasterio.open(path) as image, rasterio.open(beside) as labels:
            shape = image.height // SHRINK, image.width // SHRINK
            bands = image.read(range(1, 5), out_shape=(4, *shape), resampling=Resampling.average)
            found.append(Tile(bands, table[labels.read(1, out_shape=shape, resampling=Resampling.mode)]))
    if not found:
        raise SystemExit(f"no *_{part}.tif in {folder}")
    return tuple(found)


@cache
def statistics(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (4, 1, 1) of the training bands."""
    values = np.concatenate([t.bands[:, ::7, ::7].reshape(4, -1) for t in tiles(folder, "train")], axis=1)
    return values.mean(1)[:, None, None], values.std(1)[:, None, None]


def blocks(folder: Path, plan: Plan, arm: str, seed: int) -> list[Tile]:
    """The training tiles in blocks; of mixed labels each tile's half, drawn by the seed, has parents for leaves."""
    rng = np.random.default_rng([seed, 1])
    parent = np.arange(256)
    for leaf in TREE.leaves:
        parent[leaf.code] = leaf.parent or leaf.code
    found = []
    for tile in tiles(folder, "train"):
        counts = [max(1, round(n / plan.block)) for n in tile.codes.shape]
        rows, cols = (
            np.linspace(0, n, m + 1).astype(int) for n, m in zip(tile.codes.shape, counts, strict=True)
        )
        spots = [*np.ndindex(*counts)]
        coarse = set(rng.permutation(len(spots))[: len(spots) // 2].tolist())
        for place, (r, c) in enumerate(spots):
            part = np.s_[..., rows[r] : rows[r + 1], cols[c] : cols[c + 1]]
            block = Tile(tile.bands[part], tile.codes[part])
            if place not in coarse or arm.endswith("_all"):
                found.append(block)
            elif arm.endswith("_mixed"):
                found.append(Tile(block.bands, parent[block.codes]))
    return found


def sample(block: Tile, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A patch in one of eight poses under another light."""
    row, col = (rng.integers(0, n - side + 1) for n in block.codes.shape)
    turns, mirror = rng.integers(4), (1, -1)[rng.integers(2)]
    image = np.rot90(block.bands[:, row : row + side, col : col + side], turns, (1, 2))[..., ::mirror]
    codes = np.rot90(block.codes[row : row + side, col : col + side], turns)[:, ::mirror]
    light = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, (4, 1, 1))
    return np.clip(image * light + rng.uniform(-12, 12), 0, 255), codes


def normalise(images: np.ndarray, folder: Path) -> torch.Tensor:
    mean, std = statistics(folder)
    scaled = torch.from_numpy(((images - mean) / std).astype(np.float32))
    return scaled.contiguous(memory_format=torch.channels_last)


# One run


class UNet(nn.Module):
    """A narrow U-Net of 0.3 M parameters, which learns something in minutes on one core."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        steps = list(pairwise(WIDTHS))
        self.stem = nn.Sequential(layer(bands, WIDTHS[0], 4, 2), layer(WIDTHS[0], WIDTHS[0]))
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), layer(a, b), layer(b, b)) for a, b in steps)
        self.up = nn.ModuleList(layer(a + b, a) for a, b in reversed(steps))
        self.head = nn.ConvTranspose2d(WIDTHS[0], channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.stem(x)]  # (B, 16, H/2, W/2)
        for stage in self.down:
            kept.append(stage(kept[-1]))
        x = kept.pop()  # (B, 96, H/16, W/16)
        for stage in self.up:
            same = kept.pop()
            x = stage(torch.cat([same, F.interpolate(x, size=same.shape[-2:])], 1))
        return self.head(x)


def layer(narrow: int, wide: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(narrow, wide, side, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.ReLU())


def one_run(folder: Path, plan: Plan, arm: str, seed: int) -> dict:
    torch.set_num_threads(1)
    start = time.monotonic()
    model, loss = train(folder, plan, arm, seed)
    state = b"".join(value.contiguous().numpy().tobytes() for value in model.state_dict().values())
    found, curve = validate(model, folder)
    record = {"arm": arm, "seed": seed, "plan": asdict(plan), "weights": hashlib.sha256(state).hexdigest()}
    record |= {"loss": loss, "scores": found, "curve": curve, "seconds": round(time.monotonic() - start)}
    print(arm, seed, {key: round(value, 4) for key, value in found.items()}, flush=True)
    return record


def begin(arm: str, seed: int) -> Hierarchical:
    """The same weights in all arms of a seed: a leaf's channel is the same, inner nodes' scores start at 0."""
    torch.manual_seed(seed)
    network = UNet(4, len(TREE.nodes))
    leaves, head = TREE.arrays.leaves.tolist(), network.head
    if arm.startswith("flat"):
        network.head = nn.ConvTranspose2d(head.in_channels, len(leaves), 2, stride=2)
        network.head.load_state_dict({"weight": head.weight[:, leaves], "bias": head.bias[leaves]})
    else:
        inner = [row for row in range(len(TREE.nodes)) if row not in leaves]
        with torch.no_grad():
            head.weight[:, inner] = 0
            head.bias[inner] = 0
    kind = "flat" if arm.startswith("flat") else "hierarchical"
    return Hierarchical(network.to(memory_format=torch.channels_last), TREE, kind)


def train(folder: Path, plan: Plan, arm: str, seed: int) -> tuple[Hierarchical, float]:
    """AdamW and one cycle of the learning rate; the mean loss of the last hundred steps."""
    model, criterion, rng = begin(arm, seed), HierarchicalLoss(TREE), np.random.default_rng(seed)
    pool = blocks(folder, plan, arm, seed)
    area = np.array([block.codes.size for block in pool])
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=plan.steps, pct_start=0.1)
    losses = []
    for _ in range(plan.steps):
        chosen = rng.choice(len(pool), plan.batch, p=area / area.sum())
        images, codes = zip(*(sample(pool[k], plan.patch, rng) for k in chosen), strict=True)
        loss = criterion(model(normalise(np.stack(images), folder)), torch.from_numpy(np.stack(codes)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.eval(), float(np.mean(losses[-100:]))


# Scores


def validate(model: Hierarchical, folder: Path) -> tuple[dict[str, float], list[list[float]]]:
    """Scores over all validation tiles, patch by patch without overlap, and the curve of back-off.

    At each level the most probable of its classes is decided. The curve has τ, the part of pixels whose decided node
    is the true leaf or above it, and the mean of the decided level over that of the decided path's end.
    """
    counts = {k: (Confusion.empty(TREE), Reliability.empty()) for k in range(1, TREE.depth + 1)}
    pixels, nll, steps, channel = 0, 0.0, np.zeros((2, len(TAUS))), np.zeros(256, np.intp)
    channel[TREE.leaf_codes] = np.arange(len(TREE.leaves))
    for truth, logs in predictions(model, folder):
        nll -= logs[channel[truth], np.arange(truth.size)].sum(dtype=np.float64)
        shares = np.exp(logs)[:, None]  # (L, 1, P)
        for k, (confusion, reliability) in counts.items():
            codes, confidence, *_ = decide(shares, TREE, Level(k))
            pairs = LabelPairs(codes[0], truth, TREE)
            sure = Reliability.of_labels(pairs, confidence[0], k)
            counts[k] = confusion + Confusion.of_pairs(pairs), reliability + sure
        pixels += truth.size
        steps += backoff(shares, truth)
    leaf = Scores.of(counts[TREE.depth][0])
    accuracy, distance = leaf.leaf.pixel_accuracy, leaf.hierarchy["hierarchical_distance"]
    found = {"pixel_accuracy": accuracy, "nll": nll / pixels, "distance": distance}
    found["mistake_distance"] = distance / max(1 / pixels, 1 - accuracy)
    for k, (confusion, reliability) in counts.items():
        level = Scores.of(confusion).levels[k - 1]
        found |= {
            f"miou_{k}": level.mean_iou,
            f"accuracy_{k}": level.pixel_accuracy,
            f"ece_{k}": reliability.ece,
        }
    correct, specific = steps / pixels
    order = np.argsort(specific, kind="stable")
    xs, ys = np.append(0, specific[order]), np.append(1, correct[order])
    at = TAUS.searchsorted(0.7)
    found |= {"curve_area": np.trapezoid(ys, xs) + (1 - xs[-1]) * ys[-1]}
    found |= {"correct_70": correct[at], "specificity_70": specific[at]}
    return {key: float(v) for key, v in found.items()}, np.column_stack([TAUS, correct, specific]).tolist()


def predictions(model: Hierarchical, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Codes of the true leaves (P,) and log-probabilities of all leaves (L, P) of labelled pixels, patch by patch."""
    for tile in tiles(folder, "val"):
        for row, col in product(*(range(0, n, 512) for n in tile.codes.shape)):
            part = np.s_[..., row : row + 512, col : col + 512]
            with torch.inference_mode():
                logs = model(normalise(tile.bands[part][None], folder)).log_softmax(1)[0]
            known = tile.codes[part] > 0
            yield tile.codes[part][known], logs.numpy()[:, known]


def backoff(shares: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(2, T) sums over pixels (L, 1, P), (P,) for each τ: right decisions, and specificity."""
    tree, row = TREE.arrays, np.full(256, len(TREE.nodes))  # undecided: the root
    row[tree.codes] = np.arange(len(tree.codes))
    levels, sums = np.append(tree.levels, 0), np.zeros((2, len(TAUS)))
    paths = [row[decide(shares, TREE, Backoff(tau)).codes[0]] for tau in TAUS]  # τ = 0 goes down to a leaf
    for t, decided in enumerate(paths):
        sums[:, t] = tree.ancestry[row[truth], decided].sum(), (levels[decided] / levels[paths[0]]).sum()
    return sums


# Report


def table(runs: list[dict], plan: Plan) -> str:
    """Markdown: means and deviations of each arm over its seeds, and differences between arms, seed by seed."""
    arms = {arm: {run["seed"]: run["scores"] for run in runs if run["arm"] == arm} for arm in ARMS}
    common = ", ".join(f"{key} {value}" for key, value in asdict(plan).items())
    seeds = sorted({run["seed"] for run in runs})
    means = [f"Validation, mean ± standard deviation over seeds {seeds}:\n\n{heading(ARMS)}"]
    gaps = [f"Differences, seed by seed:\n\n{heading(f'{a} − {b}' for a, b in PAIRS)}"]
    for name in runs[0]["scores"] if runs else ():
        each = {arm: {seed: found[name] for seed, found in by_seed.items()} for arm, by_seed in arms.items()}
        means.append(row(name, (summary([*each[arm].values()]) for arm in ARMS)))
        pairs = ([each[a][s] - each[b][s] for s in seeds if s in each[a] and s in each[b]] for a, b in PAIRS)
        listed = (f"{summary(both, '+')} ({', '.join(f'{gap:+.3f}' for gap in both)})" for both in pairs)
        gaps.append(row(name, listed))
    text = ["# Flat and hierarchical heads", f"{len(runs)} runs. {common}", LEGEND]
    return "\n\n".join([*text, "\n".join(means), "\n".join(gaps)]) + "\n"


def row(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def heading(columns: Iterable[str]) -> str:
    columns = [*columns]
    return row("score", columns) + "\n|" + "---|" * (len(columns) + 1)


def summary(values: list[float], sign: str = "") -> str:
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.4f}{spread}"


if __name__ == "__main__":
    main()
