"""The subcommands `edge-train expand` and `edge-train self-tune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.errors import TrainError


def add_expand(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the arguments of both."""
    paste = commands.add_parser("expand", help="paste cut-outs onto backgrounds: scenes with boxes, masks and crops")
    paste.add_argument(
        "cutouts", type=Path, help="COCO JSON, index.csv, or folder of pictures; masks in or beside them"
    )
    paste.add_argument("--real", type=Path, help="COCO JSON of photos to list among the scenes")
    paste.add_argument("--workers", type=int, default=1, help="processes")
    tune = commands.add_parser("self-tune", help="train, cut objects out of new pictures, paste them, train again")
    tune.add_argument(
        "-c", "--config", type=Path, required=True, help="recipe of a detector, YAML; its scenes are used"
    )
    tune.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    tune.add_argument("--cutouts", type=Path, required=True, help="to begin with, as of expand")
    tune.add_argument("--images", type=Path, required=True, help="folder of new pictures, without labels")
    tune.add_argument("--rounds", type=int, default=2)
    for parser in (paste, tune):
        parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
        _add_studio(parser)


def _add_studio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, help="of the paths in a JSON or CSV of cut-outs; default: its folder")
    parser.add_argument("--split", help="take cut-outs from these splits alone; comma between several")
    parser.add_argument("--per-item", type=int, help="use at most so many cut-outs of an item")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--backgrounds", default="plain", help="folder of photos, or plain: drawn ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkout", choices=["easy", "medium", "hard"], help="products on a counter, as in RPC")
    parser.add_argument("--size", default="480x360", metavar="WxH", help="of a scene, pixels")
    parser.add_argument("--objects", default="1-5", metavar="LOW-HIGH", help="of a scene")
    parser.add_argument("--share", default="0.2-0.65", metavar="LOW-HIGH", help="an object's longer side, of the frame")
    parser.add_argument("--turn", type=float, default=25.0, metavar="DEGREES", help="largest turn to either side")
    parser.add_argument("--without", default="", metavar="NAMES", help="distortions that never happen; comma between")
    parser.add_argument("--real-times", type=int, default=1, help="how often each labelled training photo is listed")


def run_expand(args: argparse.Namespace) -> dict[str, object]:
    """Cut out, paste, write."""
    from trainer.pasting.scenes import expand

    studio, skipped = _studio(args)
    done = expand(
        studio, args.out, args.scenes, args.seed, real=args.real, real_times=args.real_times, workers=args.workers
    )
    return {
        "scenes": str(done.scenes),
        "index": str(done.index),
        "images": done.images,
        "objects": done.objects,
        "crops": done.crops,
        "cutouts": len(studio.cutouts),
        "skipped": len(skipped),
        "skipped_first": skipped[:5],
    }


def run_self_tune(args: argparse.Namespace) -> dict[str, object]:
    """Rounds of training and extraction."""
    from edge.imaging.image import IMAGE_SUFFIXES
    from trainer.loop.training_loop import keep_freed_memory
    from trainer.pasting.self_tuning import Tuning, self_tune
    from trainer.recipe import DetectorRecipe, load_recipe

    keep_freed_memory()
    recipe = load_recipe(args.config, args.set)
    if not isinstance(recipe, DetectorRecipe):
        raise TrainError(f"{args.config}: kind is {recipe.kind!r}, expected 'detector'")
    images = tuple(sorted(path for path in args.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES))
    if not images:
        raise TrainError(f"{args.images}: found no picture, expected new ones to learn from")
    studio, skipped = _studio(args)
    tuning = Tuning(recipe, studio, images, args.rounds, args.scenes, args.real_times, seed=args.seed)
    return {"out": str(args.out), "rounds": self_tune(tuning, args.out), "skipped": len(skipped)}


def _studio(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The studio that scenes are made in, and why some pictures are not used."""
    from trainer.pasting.cutouts import read_cutouts
    from trainer.pasting.distort import Chances
    from trainer.pasting.ground import Ground, drawn_counter, drawn_ground, photo_ground
    from trainer.pasting.paste import Layout
    from trainer.pasting.scenes import Studio

    splits = args.split.split(",") if args.split else None
    taken = read_cutouts(args.cutouts, args.root, splits, per_item=args.per_item)
    ground: Ground = drawn_counter if args.checkout else drawn_ground
    skipped: list[str] = []
    if args.backgrounds != "plain":
        ground, skipped = photo_ground(Path(args.backgrounds))
    width, height = _numbers(args.size, "x", "--size")
    fewest, most = _numbers(args.objects, "-", "--objects")
    layout = Layout(int(width), int(height), (int(fewest), int(most)), _numbers(args.share, "-", "--share"), args.turn)
    chances = Chances().without([name for name in args.without.split(",") if name])
    return Studio(tuple(taken.found), ground, layout, chances, args.checkout), taken.skipped + skipped


def _numbers(text: str, between: str, option: str) -> tuple[float, float]:
    parts = text.split(between)
    try:
        low, high = (float(part) for part in parts)
    except ValueError as error:
        raise TrainError(f"{option} {text}: expected two numbers with {between!r} between them") from error
    if low <= 0 or high <= 0 or (between == "-" and low > high):
        raise TrainError(f"{option} {text}: expected two numbers above 0, the first not the larger")
    return low, high
