"""The command `edge-train table`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from dataset_formats.records import Layout
from edge.errors import TrainError
from trainer.tables.every_table import TABLES
from trainer.tables.fill import fill_table
from trainer.tables.table import Request


def add_table(commands: Any) -> None:
    """Add the command to the parser of `edge-train`."""
    what = "measure a table of a published source by its protocol, on your data"
    parser = commands.add_parser(
        "table",
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog="\n".join(f"{table.name}: {table.what} ({table.source}) Needs {table.data}." for table in TABLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[table.name for table in TABLES], metavar="NAME", help="table, see below")
    parser.add_argument("--data", type=Path, required=True, help="data set, in any supported layout")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write; a stopped table goes on there")
    parser.add_argument("--root", type=Path, help="folder that its paths are relative to; default: detected")
    parser.add_argument("--layout", choices=get_args(Layout), help="layout of the data set; default: detected")
    parser.add_argument("--methods", help="rows to fill, separated by commas; default: all")
    parser.add_argument("--seeds", default="0,1,2", help="random seeds, comma-separated; default: %(default)s")
    parser.add_argument(
        "--weights",
        default="package",
        help="published weights: package, hub, none or a safetensors file; default: %(default)s",
    )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="architecture; default: %(default)s")
    parser.add_argument("--pixels", type=int, help="width and height of the input; default: as published")
    parser.add_argument("--epochs", type=int, help="length of each training; default: as published")


def run_table(arguments: argparse.Namespace) -> dict[str, object]:
    """Fill the table, and return it.

    Raises:
        TrainError: an argument is invalid, or a measurement failed.
    """
    table = next(one for one in TABLES if one.name == arguments.name)
    request = Request(
        arguments.data,
        arguments.out,
        arguments.root,
        arguments.layout,
        arguments.weights,
        arguments.backbone,
        arguments.pixels,
        arguments.epochs,
    )
    for key, least in (("pixels", 32), ("epochs", 1)):
        if (value := getattr(request, key)) is not None and value < least:
            raise TrainError(f"--{key}: found {value}; expected {least} or more")
    methods = [name.strip() for name in arguments.methods.split(",")] if arguments.methods else None
    return fill_table(table, request, _seeds(arguments.seeds), methods)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise TrainError(f"--seeds: found {text!r}; expected different whole numbers from 0, such as 0,1,2")
    return seeds
