"""The arguments of edge-train's commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from edge.gallery.item_vectors import FEW
from edge.options import add_find_arguments
from trainer.evaluation.options import add_evaluate
from trainer.pasting.command import add_expand
from trainer.sample import Layout

_TRAINED = {
    "detector": "train the detector",
    "classifier": "train the coarse classifier",
    "embedder": "train fine-grained embedders",
    "localiser": "train the localiser, which finds the object in a crop",
    "finder": "train the search for the object of a query picture",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Make data, train models, judge them, embed galleries"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log state changes to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_synthesize(commands)
    _add_data(commands)
    _add_label(commands)
    add_expand(commands)
    _add_training(commands)
    _add_shrink(commands)
    _add_embed(commands)
    _add_cutout(commands)
    find = commands.add_parser("find", help="find the object of a query picture in a picture or video")
    find.add_argument("--model", type=Path, required=True, help="run folder of a finder")
    add_find_arguments(find)
    add_evaluate(commands)
    return parser


def _add_synthesize(commands: Any) -> None:
    synthesize = commands.add_parser("synthesize", help="write a synthetic data set, or a stream with its truth")
    synthesize.add_argument("-o", "--out", type=Path, required=True, help="folder to write, or with --stream the .mp4")
    synthesize.add_argument("--stream", action="store_true", help="write a video and, beside it, its truth")
    synthesize.add_argument("--masks", action="store_true", help="write crops with true masks, for the localiser")
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--scenes", type=int, default=2000, help="whole pictures with boxes")
    synthesize.add_argument("--crops-per-item", type=int, default=60, help="training crops of each item")
    synthesize.add_argument("--invented", type=int, default=0, help="items of each category that no gallery has")
    synthesize.add_argument("--looks-per-item", type=int, default=6, help="catalogue pictures of each item")


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="examine a data set and write its card")
    data.add_argument("path", type=Path, help="file or folder of any layout")
    data.add_argument("--layout", choices=get_args(Layout), help="default: found out")
    data.add_argument("--root", type=Path, help="of the paths in an index or COCO JSON; default: as found")
    data.add_argument("--split", choices=["stratified", "class_disjoint", "published"], help="default: as it has them")
    data.add_argument("--val", type=float, default=0.2, help="fraction that --split holds out to validate")
    data.add_argument("--test", type=float, default=0.0, help="fraction that --split holds out to test")
    data.add_argument("--seed", type=int, default=0, help="of --split")
    data.add_argument("--together", action="store_true", help="--split keeps pictures that look the same together")
    data.add_argument("--model", type=Path, help="run folder of a classifier or embedder that looks for duplicates too")
    data.add_argument("--least", type=float, default=0.97, help="cosine from which the model takes two for the same")
    data.add_argument("-o", "--out", type=Path, help="folder for the card: JSON, Markdown and pictures of pairs")


def _add_label(commands: Any) -> None:
    label = commands.add_parser("label", help="propose boxes, take edited ones back, train on them, propose anew")
    label.add_argument("pictures", type=Path, nargs="?", help="folder; with sub-folders, each is a class")
    label.add_argument("-o", "--out", type=Path, required=True, help="label folder: labels, edits, queue, sheets")
    label.add_argument("--import", dest="edited", type=Path, help="edited boxes: COCO, VOC or Label Studio")
    label.add_argument("--train", type=Path, metavar="RECIPE", help="train a detector on what people confirmed")
    label.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
    label.add_argument("--detector", type=Path, help="run folder; its boxes lead; --train goes on from it")
    label.add_argument("--model", type=Path, help="weights or run folder that tell what a class has in common (DDT)")
    label.add_argument("--backbone", default="mobilenetv2_100", help="whose weights those are")
    label.add_argument("--input-mean", type=float, help="mean and deviation of their input; default: as published")
    label.add_argument("--batch", type=int, default=20, help="pictures to edit next, written to next.json")
    label.add_argument("--threshold", type=float, help="score that a proposal needs")
    label.add_argument("--count", type=int, help="objects in a picture, at most")
    label.add_argument("--area", type=float, nargs=2, metavar=("LEAST", "MOST"), help="of a box, share of the picture")
    label.add_argument(
        "--aspect", type=float, nargs=2, metavar=("LEAST", "MOST"), help="width of a box over its height"
    )


def _add_training(commands: Any) -> None:
    for name, what in _TRAINED.items():
        train = commands.add_parser(name, help=what)
        train.add_argument("-c", "--config", type=Path, required=True, help="recipe, YAML")
        train.add_argument("-o", "--out", type=Path, required=True, help="run folder; goes on from its checkpoint")
        train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe key")
        train.add_argument("--quick", action="store_true", help="fewer epochs, smaller training crops: to try out")
        if name == "embedder":
            train.add_argument("--base", type=Path, help="trained run, or folder of runs by category, to start from")
            train.add_argument("--categories", help="train an embedder for each of these alone; comma between several")


def _add_embed(commands: Any) -> None:
    embed = commands.add_parser("embed", help="embed catalogue pictures into the gallery of a bundle")
    embed.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    embed.add_argument("--data", type=Path, required=True, help="index.csv or folder of category/item/picture")
    embed.add_argument("--root", type=Path, help="of the paths in the index; default: its folder")
    embed.add_argument("--split", default="catalogue", help="of the pictures to embed; comma between several")
    embed.add_argument(
        "--negative", help="split of pictures of what must not be named: where one is the nearest, nothing is"
    )
    embed.add_argument("--per-item", type=int, help="use at most so many pictures of an item")
    embed.add_argument(
        "--few", type=int, default=FEW, help="an item of fewer pictures is embedded in other views, too; 0: none is"
    )
    embed.add_argument("-o", "--out", type=Path, required=True, help="folder of the gallery generation")


def _add_shrink(commands: Any) -> None:
    shrink = commands.add_parser("shrink", help="cut a smaller embedder out of a trained one")
    shrink.add_argument("run", type=Path, help="run folder of the whole embedder")
    shrink.add_argument("--heads", help="to keep, comma between several; all when absent")
    shrink.add_argument("--dim", type=int, help="of each head: one of the recipe's shorter_dims")
    shrink.add_argument("-o", "--out", type=Path, required=True, help="run folder to write")


def _add_cutout(commands: Any) -> None:
    cutout = commands.add_parser("cutout", help="cut the object out of catalogue pictures: RGBA, and on white")
    cutout.add_argument("--localiser", type=Path, required=True, help="run folder")
    cutout.add_argument("-o", "--out", type=Path, required=True, help="folder to write to")
    cutout.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="of one object each")
