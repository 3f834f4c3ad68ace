"""The command-line arguments of `edge-train`. Imports no training library, so that `--help` is fast."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from dataset_formats.records import Layout
from edge.options import add_find_arguments
from learn.options import add_crops, add_learn
from trainer.catalogue.command import add_embed, add_seal
from trainer.inbox.command import add_inbox
from trainer.models.free_methods import FreeMethod
from trainer.pasting.command import add_expand
from trainer.pasting.self_tuning.command import add_self_tune
from trainer.tables.command import add_table

_TRAINED = {
    "detector": "train a detector, which finds objects in a frame",
    "classifier": "train a classifier, which names the category of an object",
    "embedder": "train embedders, which tell the items of a category apart",
    "localiser": "train a localiser, which finds the pixels of the object in a crop",
    "finder": "train a finder, which locates the object of a query picture in a scene",
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="edge-train", description="Prepare data, train models, evaluate them, and embed galleries."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="write progress messages to stderr")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_learn(commands)
    add_crops(commands)
    _add_synthesize(commands)
    _add_data(commands)
    _add_label(commands)
    add_inbox(commands)
    add_expand(commands)
    add_self_tune(commands)
    _add_training(commands)
    _add_shrink(commands)
    add_embed(commands)
    add_seal(commands)
    _add_cutout(commands)
    find = _add_command(commands, "find", "find the object of a query picture in a picture or video")
    find.add_argument("--model", type=Path, required=True, help="run folder of the finder")
    add_find_arguments(find)
    _add_evaluate(commands)
    add_table(commands)
    return parser


def _add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return parser


def _add_synthesize(commands: Any) -> None:
    synthesize = _add_command(commands, "synthesize", "render a synthetic data set, or a video with its ground truth")
    synthesize.add_argument(
        "-o", "--out", type=Path, required=True, help="folder to write; with --stream, the .mp4 file"
    )
    synthesize.add_argument("--stream", action="store_true", help="render a video, with its ground truth beside it")
    synthesize.add_argument("--masks", action="store_true", help="render crops with true masks, to train a localiser")
    synthesize.add_argument(
        "--vehicles",
        type=int,
        metavar="N",
        help="render N vehicles that four cameras see, with make, model and colour, in the form of VeRi-776",
    )
    synthesize.add_argument("--seed", type=int, default=0, help="random seed; default: %(default)s")
    synthesize.add_argument(
        "--scenes", type=int, default=2000, help="number of scenes with boxes; default: %(default)s"
    )
    synthesize.add_argument(
        "--crops-per-item",
        type=int,
        default=60,
        help="training crops of each item, or vehicle and camera; default: %(default)s",
    )
    synthesize.add_argument(
        "--invented",
        type=int,
        default=0,
        help="invented items to add to each category, which no gallery holds; default: %(default)s",
    )
    synthesize.add_argument(
        "--categories",
        help="render crops and catalogue pictures of these categories only, comma-separated; default: all",
    )
    synthesize.add_argument(
        "--looks-per-item", type=int, default=6, help="catalogue pictures of each item; default: %(default)s"
    )


def _add_data(commands: Any) -> None:
    data = _add_command(commands, "data", "check a data set and write its data card")
    data.add_argument("path", type=Path, help="file or folder of the data set, in any supported layout")
    data.add_argument("--layout", choices=get_args(Layout), help="layout of the data set; default: detected")
    data.add_argument(
        "--root", type=Path, help="folder that paths in an index or COCO JSON are relative to; default: detected"
    )
    data.add_argument(
        "--split",
        choices=["stratified", "class_disjoint", "published"],
        help="split the data set in this way; default: keep its own splits",
    )
    data.add_argument(
        "--val", type=float, default=0.2, help="fraction that --split holds out for validation; default: %(default)s"
    )
    data.add_argument(
        "--test", type=float, default=0.0, help="fraction that --split holds out for testing; default: %(default)s"
    )
    data.add_argument("--seed", type=int, default=0, help="random seed of --split; default: %(default)s")
    data.add_argument(
        "--together", action="store_true", help="let --split keep pictures that look the same in one split"
    )
    data.add_argument("--model", type=Path, help="run folder of a classifier or embedder to find more duplicates with")
    data.add_argument(
        "--least", type=float, default=0.97, help="cosine from which --model reports a duplicate; default: %(default)s"
    )
    data.add_argument(
        "-o", "--out", type=Path, help="folder for the data card: JSON, Markdown and pictures of duplicates"
    )


def _add_label(commands: Any) -> None:
    label = _add_command(commands, "label", "propose boxes, import your corrections, train on them, and propose again")
    label.add_argument("pictures", type=Path, nargs="?", help="folder of pictures; each sub-folder, if any, is a class")
    label.add_argument(
        "-o", "--out", type=Path, required=True, help="label folder: labels, corrections, queue, contact sheets"
    )
    label.add_argument(
        "--import", dest="edited", type=Path, help="corrected boxes to import: COCO, VOC, CVAT or Label Studio"
    )
    label.add_argument(
        "--export",
        choices=["coco", "voc", "yolo", "cvat", "label-studio"],
        help="write all boxes, proposed and confirmed, to --to in this format",
    )
    label.add_argument("--to", type=Path, help="file that --export writes; for voc and yolo, a folder")
    label.add_argument(
        "--train", type=Path, metavar="RECIPE", help="train a detector by this recipe on the confirmed boxes"
    )
    label.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe; may be repeated"
    )
    label.add_argument(
        "--detector", type=Path, help="run folder of a detector whose boxes come first; --train starts from it"
    )
    label.add_argument(
        "--model", type=Path, help="weights or run folder to locate the common object of each class with (DDT)"
    )
    label.add_argument(
        "--backbone", default="mobilenetv2_100", help="architecture of the weights in --model; default: %(default)s"
    )
    label.add_argument(
        "--descriptors",
        choices=["unit", "raw"],
        default="unit",
        help="descriptors of --model: scaled to unit length, or raw, as DDT was published; default: %(default)s",
    )
    label.add_argument(
        "--input-mean", type=float, help="mean and standard deviation of the input of --model; default: as published"
    )
    label.add_argument(
        "--batch",
        type=int,
        default=20,
        help="number of pictures to correct next, written to next.json; default: %(default)s",
    )
    label.add_argument("--threshold", type=float, help="lowest score of a proposal")
    label.add_argument("--count", type=int, help="largest number of objects in one picture")
    label.add_argument(
        "--area",
        type=float,
        nargs=2,
        metavar=("LEAST", "MOST"),
        help="allowed area of a box, as a share of the picture",
    )
    label.add_argument(
        "--aspect", type=float, nargs=2, metavar=("LEAST", "MOST"), help="allowed width of a box divided by its height"
    )


def _add_training(commands: Any) -> None:
    for name, what in _TRAINED.items():
        train = _add_command(commands, name, what)
        train.add_argument("-c", "--config", type=Path, required=True, help="recipe, a YAML file")
        train.add_argument(
            "-o", "--out", type=Path, required=True, help="run folder; resumes from its checkpoint if there is one"
        )
        train.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a key of the recipe; may be repeated",
        )
        train.add_argument(
            "--quick", action="store_true", help="train for fewer epochs on smaller crops, for a first try"
        )
        if name == "embedder":
            train.add_argument("--base", type=Path, help="run folder, or folder of runs by category, to start from")
            train.add_argument("--categories", help="train one embedder for each of these categories, comma-separated")
            train.add_argument(
                "--free", choices=get_args(FreeMethod), help="do not train: aggregate the published maps in this way"
            )
            train.add_argument(
                "--dim", type=int, help="with --free: compress the vector to this length, whitened; default: keep all"
            )


def _add_shrink(commands: Any) -> None:
    shrink = _add_command(commands, "shrink", "make a smaller embedder from a trained one")
    shrink.add_argument("run", type=Path, help="run folder of the trained embedder")
    shrink.add_argument("--heads", help="heads to keep, comma-separated; default: all")
    shrink.add_argument(
        "--dim", type=int, help="vector length of each head: one of the recipe's shorter_dims; default: unchanged"
    )
    shrink.add_argument("-o", "--out", type=Path, required=True, help="run folder to write")


def _add_cutout(commands: Any) -> None:
    cutout = _add_command(commands, "cutout", "cut the object out of catalogue pictures, as RGBA and on white")
    cutout.add_argument("--localiser", type=Path, required=True, help="run folder of the localiser")
    cutout.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    cutout.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="pictures of one object each")


def _add_evaluate(commands: Any) -> None:
    evaluate = _add_command(commands, "evaluate", "evaluate trained models, or a bundle, on held-out pictures")
    evaluate.add_argument("--classifier", type=Path, help="run folder of the classifier")
    evaluate.add_argument(
        "--embedder", type=Path, action="append", default=[], help="run folder of an embedder; may be repeated"
    )
    evaluate.add_argument("--bundle", type=Path, help="bundle folder; each of its precisions is one column")
    evaluate.add_argument(
        "--bundle-gallery", type=Path, help="gallery of the bundle; default: embed the pictures of --gallery"
    )
    evaluate.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help="another column: a bundle, a run, a folder of runs, or BACKBONE@WEIGHTS[@PIXELS] for an untuned trunk",
    )
    evaluate.add_argument("--data", type=Path, help="data set of any layout, such as an index.csv")
    evaluate.add_argument(
        "--root", type=Path, help="folder that paths in the index or scenes are relative to; default: their own folder"
    )
    evaluate.add_argument("--detector", type=Path, help="run folder of the detector; needs --scenes")
    evaluate.add_argument(
        "--scenes",
        type=Path,
        help="data set with boxes: to evaluate --detector on, or, without it, to read the shopping lists of with "
        "--bundle and --bundle-gallery; its boxes are then named by item",
    )
    evaluate.add_argument(
        "--query", help="splits of the pictures to recognise, comma-separated; default: val, else test"
    )
    evaluate.add_argument(
        "--gallery",
        help="splits of the gallery pictures, comma-separated; default: catalogue, else train, else the queries "
        "themselves; a query's own picture is never an answer",
    )
    evaluate.add_argument(
        "--plain",
        default="catalogue",
        help="splits whose pictures show one object on a plain background, comma-separated; default: %(default)s",
    )
    evaluate.add_argument(
        "--left-out",
        type=float,
        default=0.2,
        help="share of the items to leave out of the gallery; default: %(default)s",
    )
    evaluate.add_argument(
        "--checkout",
        type=int,
        default=0,
        metavar="SCENES",
        help="also render this many scenes of each level and read their shopping lists; default: none",
    )
    evaluate.add_argument(
        "--seed", type=int, default=0, help="random seed of left-out items, intervals and scenes; default: %(default)s"
    )
    evaluate.add_argument("-o", "--out", type=Path, help="report file to write: .json, with .md and .html beside it")
