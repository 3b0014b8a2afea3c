"""The model card as a page of Markdown that a hub of models takes as it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rssegment.evaluation import LevelScores, Scores
from rssegment.evaluation.table import compact
from rssegment.taxonomy import Node
from rssegment.training.card_front import front_matter
from rssegment.training.markdown import (
    area,
    duration,
    line,
    nested,
    option,
    paragraph,
    score_text,
    sentence,
    shared,
    some,
    table,
)

if TYPE_CHECKING:
    from rssegment.training.card import ByRegion, ModelCard

__all__ = ["page"]

_WEAK = 0.4  # IoU below which a class is said to be weak
_SCARCE = 0.01  # share of the training ground below which a class is said to be rare
_CONFUSED = 0.1  # share of a true class that goes to one other from which it is told
_MOST = 8  # such pairs
_OPEN = 0.001  # threshold at which no pixel is left undecided


def page(card: ModelCard) -> str:
    """The whole page, ending with a newline."""
    recipe = card.recipe
    parts = [
        f"# {line(recipe.title or recipe.name)}",
        paragraph(recipe.description),
        *_use(card),
        *_limits(card),
        *_scores(card),
        *_calibration(card),
        *_data(card),
        *_training(card),
    ]
    return f"---\n{front_matter(card)}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


# What it is for, and what not


def _use(card: ModelCard) -> Iterator[str]:
    recipe, tree = card.recipe, card.taxonomy
    optional = f" ({some(recipe.optional_bands)} may be missing)" if recipe.optional_bands else ""
    yield "## Intended use"
    yield (
        f"Maps of {len(tree.leaves)} classes on {_levels(tree.depth)} ({line(tree.title) or tree.name}) from images "
        f"with the bands {some(recipe.bands)}{optional} at {recipe.resolution:g} m per pixel. Finer images are "
        "averaged to that; images with pixels more than twice as large are refused."
    )
    yield "```bash\nrssegment segment scene.tif --model PATH/TO/THIS/FOLDER --out out\n```"


def _limits(card: ModelCard) -> Iterator[str]:
    """What is known not to be known, before any score."""
    yield "## What it does not know"
    yield paragraph(card.recipe.limits)
    known = [*_gaps(card), *_weaknesses(card), *map(sentence, card.remarks)]
    yield "\n".join(f"- {text}" for text in known)


def _gaps(card: ModelCard) -> Iterator[str]:
    if regions := sorted({region for source in card.sources for region in source.seen if region}):
        yield f"It has seen {_count(len(regions), 'region')}: {some(regions)}. Elsewhere, check it on labels first."
    if card.unseen:
        yield f"Left out, to see how it does where it was not trained: {some(card.unseen)}."
    totals = _totals(card)
    whole = max(1e-9, math.fsum(train for train, _ in card.areas().values()))
    leaves = card.taxonomy.leaves
    if none := [leaf.label for leaf in leaves if not totals[leaf.code][0]]:
        yield f"No training label of: {some(none)}."
    if rare := [leaf.label for leaf in leaves if 0 < totals[leaf.code][0] < _SCARCE * whole]:
        yield f"Less than {_SCARCE:.0%} of the training ground each: {some(rare)}."
    if "" in card.scores:
        scored = {leaf.code for leaf in leaves if totals[leaf.code][1]}
        if unscored := [leaf.label for leaf in leaves if leaf.code not in scored]:
            yield f"No validation label of: {some(unscored)}."
    else:
        yield "It was never scored: no ground was kept for validation."


def _weaknesses(card: ModelCard) -> Iterator[str]:
    own = card.of_seen(card.scores)
    if "" not in own:
        return
    leaf = own[""].leaf
    true = leaf.counts.counts.sum(axis=1)
    weak = [i for i in leaf.present if true[i] and leaf.by_class["iou"][i] < _WEAK]
    if weak:
        names = [f"{leaf.classes[i].label} ({leaf.by_class['iou'][i]:.2f})" for i in weak]
        yield f"Weak, with an IoU below {_WEAK:g} on validation ground: {some(names)}."
    if pairs := _confusions(leaf):
        yield f"Taken for something else: {'; '.join(pairs)}."


def _confusions(level: LevelScores) -> list[str]:
    """True classes of which much is predicted as one other, the largest shares first."""
    counts = level.counts.counts[:, :-1]
    totals = level.counts.counts.sum(axis=1)
    found = [
        (counts[i, j] / totals[i], i, j)
        for i in level.present
        for j in level.present
        if i != j and totals[i] and counts[i, j] >= _CONFUSED * totals[i]
    ]
    found.sort(key=lambda each: (-each[0], each[1], each[2]))
    names = [line(node.label) for node in level.classes]
    return [f"{names[i]} for {names[j]} ({share:.0%})" for share, i, j in found[:_MOST]]


# How well it does


def _scores(card: ModelCard) -> Iterator[str]:
    own, without = card.of_seen(card.scores), card.of_seen(card.without)
    if own or card.elsewhere:
        yield "## Scores"
        yield (
            "Of sums over all pixels, never means over images. A class that neither labels nor map have counts in no "
            "mean; one that the map alone has counts, with an IoU of 0."
        )
    if own:
        yield "On validation ground, which was not trained on but comes from the same sources and regions."
        yield from _whole(own)
    if len(own) > 2:
        yield "### By region"
        yield _by_region({name: each for name, each in own.items() if name})
    if without:
        yield f"### Without {some(card.recipe.optional_bands) or 'optional bands'}"
        yield "The same ground and pixels, with the bands that a scene may lack left out."
        yield _by_region(without, own)
    if card.elsewhere:
        yield "### In regions it had not seen"
        yield from _elsewhere(card)


def _elsewhere(card: ModelCard) -> Iterator[str]:
    if card.left_out:
        steps = card.left_out_steps
        but = f", but for {steps} instead of {card.outcome.steps} steps" if steps else ""
        alike = f"trained in the same way on all others{but}"
        yield f"Each region scored by a model that was {alike}: what to expect elsewhere."
    else:
        yield "Regions that were left out of the training: what to expect elsewhere."
    yield _by_region(card.elsewhere)


def _whole(scores: ByRegion) -> Iterator[str]:
    """By level and by class."""
    whole = scores[""]
    yield table(
        ("Level", "Classes", "Pixels", "Mean IoU", "Mean F1", "Accuracy"),
        (
            (f"{x.level}", len(x.present), compact(x.pixels), *map(score_text, _means(x)))
            for x in whole.levels
        ),
    )
    yield "### By class"
    yield table(("Class", "Level", "Pixels", "IoU", "F1", "Precision", "Recall"), _class_rows(whole))


def _class_rows(scores: Scores) -> Iterator[Sequence[object]]:
    """Every class of every level once, in the tree's order."""
    rows: dict[int, tuple[Node, LevelScores, int]] = {}
    for level in scores.levels:
        for i in level.present:
            rows.setdefault(level.classes[i].code, (level.classes[i], level, i))
    for node in scores.taxonomy.nodes:
        if node.code in rows:
            _, level, i = rows[node.code]
            pixels = int(level.counts.counts[i].sum())
            values = (level.by_class[name][i] for name in ("iou", "f1", "precision", "recall"))
            yield (nested(node), node.level, compact(pixels), *map(score_text, values))


def _by_region(scores: ByRegion, before: ByRegion | None = None) -> str:
    """A row for each region; with ``before``, what the mean IoU at the leaves was then."""
    depth = max((len(each.levels) for each in scores.values()), default=0)
    rows = []
    for name, each in scores.items():
        means = [score_text(level.mean_iou) for level in each.levels]
        row = [name or "all", compact(each.confusion.pixels), *means, *["–"] * (depth - len(means))]
        row.append(score_text(each.leaf.pixel_accuracy))
        if before is not None:
            row.append(score_text(before[name].leaf.mean_iou) if name in before else "–")
        rows.append(row)
    levels = [f"Mean IoU, level {k}" for k in range(1, depth + 1)]
    then = [f"Level {depth} with all bands"] if before is not None else []
    return table(("Region", "Pixels", *levels, "Accuracy", *then), rows)


def _means(level: LevelScores) -> tuple[float, ...]:
    return tuple(level.overall[name] for name in ("mean_iou", "mean_f1", "pixel_accuracy"))


def _calibration(card: ModelCard) -> Iterator[str]:
    if card.calibration is None:
        return
    measured = card.calibration.measured
    yield "## Calibration"
    checked = measured.get("blocks_checked")
    on = f"on {checked} others" if checked else "on the same blocks"
    yield (
        f"Temperature {card.calibration.temperature:.3f}, measured on {measured.get('blocks', 'unknown')} blocks of "
        f"{measured.get('spatial_block', 'ground')}; errors {on}."
    )
    errors: Mapping[str, Mapping[str, float | None]] = measured.get("calibration_error", {})
    if errors:
        rows = (
            (k, *(score_text(each.get(key)) for key in ("before", "after"))) for k, each in errors.items()
        )
        yield table(("Level", "Calibration error before", "after"), rows)
    if thresholds := card.calibration.thresholds:
        yield table(("Share of errors asked for", "Threshold"), _promises(thresholds))


def _promises(thresholds: Mapping[str, float]) -> Iterator[Sequence[object]]:
    """The least share of errors that is promised, then whole twentieths, up to where nothing is left open."""
    for number, (share, tau) in enumerate(thresholds.items()):
        if number == 0 or round(100 * float(share)) % 5 == 0:
            yield f"{float(share):.0%}", f"{tau:.3f}"
            if tau <= _OPEN:
                return


# What it was made of


def _data(card: ModelCard) -> Iterator[str]:
    yield "## Data"
    yield table(
        ("Source", "Scenes", "Training", "Validation", "Licence", "Credit"),
        (
            (
                s["name"],
                s["scenes"],
                area(s["train_m2"]),
                area(s["validation_m2"]),
                s["license"] or "–",
                s["credit"] or "–",
            )
            for s in card.facts()["sources"]
        ),
    )
    yield from _split(card)
    if areas := _totals(card):
        whole = [max(1e-9, math.fsum(each[role] for each in card.areas().values())) for role in (0, 1)]
        rows = (
            (nested(node), *(shared(areas[node.code][role], whole[role]) for role in (0, 1)))
            for node in card.taxonomy.nodes
            if any(areas[node.code])
        )
        yield "Labelled ground by class, with all below it:"
        yield table(("Class", "Training", "Validation"), rows)


def _split(card: ModelCard) -> Iterator[str]:
    """How validation ground was chosen, of sources that were split."""
    split, recipe = card.recipe.split, card.recipe
    names = {source.name for source in recipe.sources if source.role == "split"}
    sources = [source for source in card.sources if source.name in names]
    if not sources:
        return
    held, trained = (
        math.fsum(math.fsum(getattr(source, role).values()) for source in sources)
        for role in ("validation", "train")
    )
    yield (
        f"Validation ground is {held / max(1e-9, held + trained):.0%} of what was split "
        f"({split.validation:.0%} were asked for), in whole blocks of {split.block:g} m with {split.gap:g} m around "
        "them that is used for neither."
    )
    if unplaced := [source.name for source in sources if not source.placed]:
        yield (
            f"Where the pictures of {some(unplaced)} lie is not known: those that are kept back may show what lies "
            "beside, or in, those that are trained on."
        )


def _totals(card: ModelCard) -> dict[int, tuple[float, float]]:
    """Ground (m²) labelled as a node or anything below it: (training, validation)."""
    own = card.areas()
    return {
        node.code: (
            math.fsum(own[n.code][0] for n in card.taxonomy.nodes if n.code in own and _within(n, node)),
            math.fsum(own[n.code][1] for n in card.taxonomy.nodes if n.code in own and _within(n, node)),
        )
        for node in card.taxonomy.nodes
    }


def _within(node: Node, other: Node) -> bool:
    return node.path[: other.level] == other.path


def _training(card: ModelCard) -> Iterator[str]:
    recipe, outcome = card.recipe, card.outcome
    model, optimizer, sample = recipe.model, recipe.optimizer, recipe.sample
    kept = "" if outcome.kept == outcome.steps else f", those of step {outcome.kept:,} kept"
    batch = f"{sample.batch} x {sample.patch} px" + (
        f", {optimizer.accumulate} to a step" if optimizer.accumulate > 1 else ""
    )
    average = f"moving average of weights ({optimizer.average:g})" if optimizer.average else "no averaging"
    changes = [f"{name} {option(value)}" for name, value in recipe.augment if value]
    rows = (
        ("Architecture", outcome.network),
        ("Head", model.head),
        ("Parameters", f"{outcome.parameters:,}"),
        ("Begun from", outcome.origin),
        ("Steps", f"{outcome.steps:,}{kept}"),
        ("Batch", batch),
        ("Optimizer", f"AdamW, rate {optimizer.rate:g}, weight decay {optimizer.weight_decay:g}, {average}"),
        ("Augmentation", ", ".join(changes) or "none"),
        ("Seed", recipe.seed),
        ("Weights", "half precision" if recipe.half else "single precision"),
        ("Ran on", f"{outcome.hardware}, {duration(outcome.seconds)}"),
        ("Versions", ", ".join(f"{name} {each}" for name, each in outcome.versions.items())),
    )
    yield "## Training"
    yield table(("Setting", "Value"), rows)
    if given := recipe.credits(outcome.credit):
        yield "## Credit"
        yield "\n".join(f"- {line(text)}" for text in given)


def _levels(depth: int) -> str:
    return "one level" if depth == 1 else f"{depth} levels"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
