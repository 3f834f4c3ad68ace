"""The arguments that `edge find` and `edge-train find` share."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_find_arguments(parser: argparse.ArgumentParser) -> None:
    """Queries, the scene, and where the pictures go."""
    parser.add_argument(
        "query",
        nargs="+",
        help="picture of the object, on plain ground or filling it; or PICTURE@x0,y0,x1,y1 or PICTURE@MASK.png",
    )
    parser.add_argument("scene", type=Path, help="picture or video to find it in")
    parser.add_argument("-o", "--out", type=Path, default=Path("found"), help="folder for the pictures; default: found")
