"""The command `edge-train self-tune`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.errors import TrainError
from trainer.pasting.command import add_scene_arguments, scene_generator_of


def add_self_tune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the arguments of the command."""
    tune = commands.add_parser("self-tune", help="train, cut objects out of new pictures, paste them, train again")
    tune.add_argument(
        "-c", "--config", type=Path, required=True, help="recipe of a detector, a YAML file; its own scenes are added"
    )
    tune.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe; may be repeated"
    )
    tune.add_argument("--cutouts", type=Path, required=True, help="cut-outs of the first round, as for expand")
    tune.add_argument("--images", type=Path, required=True, help="folder of new pictures, without labels")
    tune.add_argument("--rounds", type=int, default=2, help="rounds of training and extraction; default: %(default)s")
    tune.add_argument(
        "--masks",
        choices=["grabcut", "networks"],
        default="grabcut",
        help="what makes and checks the masks: GrabCut and a colour model, or two localisers that each round trains on "
        "its pasted scenes; default: %(default)s",
    )
    tune.add_argument("--localiser", type=Path, help="recipe of these localisers; its data is replaced")
    tune.add_argument("--finder", type=Path, help="run folder of a finder that checks the masks of one localiser")
    tune.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    add_scene_arguments(tune)


def run_self_tune(args: argparse.Namespace) -> dict[str, object]:
    """Run the rounds of training and extraction."""
    from dataset_formats.decode import PICTURE_SUFFIXES
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.pasting.self_tuning.rounds import SelfTuning, self_tune
    from trainer.recipe import DetectorRecipe, LocaliserRecipe, load_recipe

    keep_freed_memory()
    recipe = load_recipe(args.config, args.set)
    if not isinstance(recipe, DetectorRecipe):
        raise TrainError(f"{args.config}: kind is {recipe.kind!r}, expected 'detector'")
    images = tuple(sorted(path for path in args.images.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES))
    if not images:
        raise TrainError(f"{args.images}: holds no picture; give a folder of new pictures")
    generator, skipped = scene_generator_of(args)
    by_networks = args.masks == "networks"
    if not by_networks and (args.localiser or args.finder):
        raise TrainError("--localiser and --finder make masks by networks; give --masks networks as well")
    localiser = None if args.localiser is None else load_recipe(args.localiser)
    if localiser is not None and not isinstance(localiser, LocaliserRecipe):
        raise TrainError(f"{args.localiser}: kind is {localiser.kind!r}, expected 'localiser'")
    tuning = SelfTuning(
        recipe, generator, images, args.rounds, args.scenes, args.real_times, args.seed,
        by_networks=by_networks, localiser=localiser, finder=args.finder,
    )  # fmt: skip
    return {"out": str(args.out), "rounds": self_tune(tuning, args.out), "skipped": len(skipped)}
