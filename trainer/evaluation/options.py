"""The options of `edge-train evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_evaluate(commands: Any) -> None:
    """Describe the command."""
    evaluate = commands.add_parser("evaluate", help="examine trained models, or a bundle, on held-out pictures")
    evaluate.add_argument("--classifier", type=Path, help="run folder")
    evaluate.add_argument("--embedder", type=Path, action="append", default=[], help="run folder; may be repeated")
    evaluate.add_argument("--bundle", type=Path, help="bundle folder, instead of runs: every form of it is a column")
    evaluate.add_argument("--bundle-gallery", type=Path, help="its gallery; default: the pictures of --gallery")
    evaluate.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=WHERE",
        help="another column: a bundle, a run, a folder of runs, or BACKBONE@WEIGHTS[@PIXELS] for an untuned trunk",
    )
    evaluate.add_argument("--data", type=Path, help="index.csv or folder of category/item/picture")
    evaluate.add_argument("--root", type=Path, help="of the paths in the index or scenes; default: their folder")
    evaluate.add_argument("--detector", type=Path, help="run folder")
    evaluate.add_argument("--scenes", type=Path, help="COCO JSON, for the detector")
    evaluate.add_argument("--query", default="val", help="split of the pictures to recognise")
    evaluate.add_argument("--gallery", default="catalogue", help="splits of the pictures to recognise them by")
    evaluate.add_argument("--plain", default="catalogue", help="splits that show one object on a plain ground")
    evaluate.add_argument("--left-out", type=float, default=0.2, help="share of the items that the gallery lacks")
    evaluate.add_argument(
        "--checkout", type=int, default=0, metavar="SCENES", help="render so many scenes of each level"
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of what is left out, of the intervals and the scenes")
    evaluate.add_argument("-o", "--out", type=Path, help="write the report here: .json, with .md and .html beside it")
