"""The command `edge-train expand`, and the scene arguments that it shares with `edge-train self-tune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge.errors import TrainError


def add_expand(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the arguments of the command."""
    paste = commands.add_parser("expand", help="paste cut-outs onto backgrounds: scenes with boxes, masks and crops")
    paste.add_argument(
        "cutouts", type=Path, help="COCO JSON, index.csv, or folder of pictures; masks in or beside them"
    )
    paste.add_argument("--real", type=Path, help="COCO JSON of photos to list among the scenes")
    paste.add_argument("--workers", type=int, default=1, help="number of processes; default: %(default)s")
    paste.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    add_scene_arguments(paste)


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe the scenes."""
    parser.add_argument(
        "--root",
        type=Path,
        help="folder that paths in a JSON or CSV of cut-outs are relative to; default: its own folder",
    )
    parser.add_argument("--split", help="use only cut-outs of these splits, separated by commas")
    parser.add_argument("--per-item", type=int, help="largest number of cut-outs to use for each item")
    parser.add_argument("--scenes", type=int, default=500, help="number of scenes; default: %(default)s")
    parser.add_argument(
        "--backgrounds", default="plain", help="folder of photos, or plain for drawn backgrounds; default: plain"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the scenes; default: %(default)s")
    parser.add_argument(
        "--checkout",
        choices=["easy", "medium", "hard"],
        help="lay products on a counter, as crowded as this level of RPC",
    )
    parser.add_argument(
        "--size", default="480x360", metavar="WxH", help="size of a scene in pixels; default: %(default)s"
    )
    parser.add_argument(
        "--objects", default="1-5", metavar="LOW-HIGH", help="number of objects in a scene; default: %(default)s"
    )
    parser.add_argument(
        "--share",
        default="0.2-0.65",
        metavar="LOW-HIGH",
        help="longer side of an object, as a fraction of the frame; default: %(default)s",
    )
    parser.add_argument(
        "--turn",
        type=float,
        default=25.0,
        metavar="DEGREES",
        help="largest rotation to either side; default: %(default)s",
    )
    parser.add_argument("--without", default="", metavar="NAMES", help="distortions to leave out, separated by commas")
    parser.add_argument(
        "--real-times", type=int, default=1, help="how often to list each labelled training photo; default: %(default)s"
    )


def run_expand(args: argparse.Namespace) -> dict[str, object]:
    """Cut objects out, paste them into scenes, and write the scenes."""
    from trainer.pasting.scenes import expand

    generator, skipped = scene_generator_of(args)
    done = expand(
        generator, args.out, args.scenes, args.seed, real=args.real, real_times=args.real_times, workers=args.workers
    )
    return {
        "scenes": str(done.scenes),
        "index": str(done.index),
        "images": done.images,
        "objects": done.objects,
        "crops": done.crops,
        "cutouts": len(generator.cutouts),
        "skipped": len(skipped),
        "skipped_first": skipped[:5],
    }


def scene_generator_of(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """Return the generator of the scenes, and why some pictures are not used."""
    from trainer.pasting.background import Background, drawn_background, drawn_counter, photo_backgrounds
    from trainer.pasting.cutouts import read_cutouts
    from trainer.pasting.distort import DistortionProbabilities
    from trainer.pasting.paste import SceneLayout
    from trainer.pasting.scenes import SceneGenerator

    splits = args.split.split(",") if args.split else None
    taken = read_cutouts(args.cutouts, args.root, splits, per_item=args.per_item)
    background: Background = drawn_counter if args.checkout else drawn_background
    skipped: list[str] = []
    if args.backgrounds != "plain":
        background, skipped = photo_backgrounds(Path(args.backgrounds))
    width, height = _numbers(args.size, "x", "--size")
    fewest, most = _numbers(args.objects, "-", "--objects")
    layout = SceneLayout(
        int(width), int(height), (int(fewest), int(most)), _numbers(args.share, "-", "--share"), args.turn
    )
    probabilities = DistortionProbabilities().without([name for name in args.without.split(",") if name])
    return SceneGenerator(tuple(taken.found), background, layout, probabilities, args.checkout), taken.skipped + skipped


def _numbers(text: str, between: str, option: str) -> tuple[float, float]:
    parts = text.split(between)
    try:
        low, high = (float(part) for part in parts)
    except ValueError as error:
        raise TrainError(f"{option} {text}: give two numbers with {between!r} between them") from error
    if low <= 0 or high <= 0 or (between == "-" and low > high):
        raise TrainError(f"{option} {text}: give two numbers above 0, the smaller one first")
    return low, high
