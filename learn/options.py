"""The arguments of `edge-train learn` and `edge-train crops`. Imports no training library, so that `--help` is fast."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_learn(commands: Any) -> None:
    """Add the command that makes a recogniser."""
    text = "make a recogniser from photos or from scenes with boxes, in a folder that `edge run` starts"
    learn: argparse.ArgumentParser = commands.add_parser(
        "learn", help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    learn.add_argument(
        "photos",
        type=Path,
        nargs="?",
        help="folder item/photo.jpg or category/item/photo.jpg, CSV, or another layout; or give --from-scenes",
    )
    learn.add_argument(
        "--from-scenes",
        type=Path,
        metavar="SCENES",
        help="data set of whole pictures with boxes: train a detector on it until it converges, cut the objects out by "
        "that detector, and learn from these",
    )
    learn.add_argument(
        "--names",
        type=Path,
        help="with --from-scenes: CSV with name, category, item, label: what the names of the boxes mean; default: the "
        "names are items",
    )
    _add_learn_options(learn)


def _add_learn_options(learn: argparse.ArgumentParser) -> None:
    learn.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    learn.add_argument(
        "--minutes", type=float, default=60.0, help="time allowed on this machine, for everything; default: %(default)g"
    )
    learn.add_argument(
        "--weights",
        help="published weights to start from: package, hub, hub:NAME, or a safetensors file; default: package",
    )
    learn.add_argument("--root", type=Path, help="folder of the paths in a CSV or COCO JSON; default: its own folder")
    learn.add_argument("--name", help="name of the recogniser; default: that of the folder")
    learn.add_argument(
        "--sequence", type=int, default=1, help="least sequence number of the bundle; default: %(default)s"
    )
    learn.add_argument("--labels", type=Path, help="CSV with category, item, label: names for people; default: none")
    learn.add_argument(
        "--camera",
        default="v4l2:///dev/video0",
        help="source of the camera in the written configurations; default: %(default)s",
    )
    learn.add_argument(
        "--detector",
        type=Path,
        help="detector for the camera: a run folder, or an ONNX file such as YOLOX; with --from-scenes, instead of "
        "training one; default: none",
    )
    learn.add_argument("--detector-spec", help="see edge-quantize pack; default: detected")
    learn.add_argument("--keep-labels", help="labels of the detector to use, comma-separated; default: all")


def add_crops(commands: Any) -> None:
    """Add the command that cuts objects out of scenes."""
    text = "cut the objects out of scenes by a detector, named by the true boxes, with an index"
    crops: argparse.ArgumentParser = commands.add_parser(
        "crops", help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    crops.add_argument(
        "--detector",
        type=Path,
        required=True,
        help="run folder of edge-train detector, bundle folder, or ONNX file such as YOLOX",
    )
    crops.add_argument("--scenes", type=Path, required=True, help="data set of whole pictures with boxes, any layout")
    crops.add_argument("--root", type=Path, help="folder of the file names in a COCO JSON; default: detected")
    crops.add_argument(
        "--names",
        type=Path,
        help="CSV with name, category, item, label: what the names of the boxes mean; default: the names are items",
    )
    crops.add_argument(
        "-o", "--out", type=Path, required=True, help="folder to create: crops/, index.csv, boxes.csv and crops.json"
    )
    crops.add_argument("--detector-spec", help="spec of an ONNX file, see edge-quantize pack; default: detected")
    crops.add_argument("--keep-labels", help="labels of an ONNX file to use, comma-separated; default: all")
    crops.add_argument("--threshold", type=float, help="lowest score of an object; default: that of the detector")
    crops.add_argument(
        "--iou", type=float, default=0.5, help="overlap from which a box shows the true object; default: %(default)g"
    )
    crops.add_argument(
        "--margin", type=float, default=0.1, help="margin of a crop, as a share of its box; default: %(default)g"
    )
    crops.add_argument(
        "--add-missed",
        metavar="SPLITS",
        help="comma-separated splits in which true boxes that the detector missed are cut out, too; default: none",
    )
