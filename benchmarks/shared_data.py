"""Where the shared photos and weights are, and indexes of the grocery photos."""

from __future__ import annotations

import csv
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

DATA = Path(os.environ.get("FINESIGHT_DATA", Path(__file__).parent / "../../shared/data")).resolve()
BACKBONE = "mobilenetv2_100"
WEIGHTS = DATA / f"weights/{BACKBONE}_in1k.safetensors"
TRUNK = ("--backbone", BACKBONE, "--weights", str(WEIGHTS))  # of `edge-train table`


def require(*paths: Path) -> None:
    """Stop with a message if one of these files or folders is missing."""
    for path in paths:
        if not path.exists():
            sys.exit(f"{path} is missing; set FINESIGHT_DATA to the folder of the shared data")


def groceries() -> list[dict[str, str]]:
    """Read the index of the grocery photos: path, split, family, coarse, fine."""
    require(DATA / "grocery/index.csv")
    with (DATA / "grocery/index.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def groceries_by_item() -> dict[str, list[dict[str, str]]]:
    """Return the rows of the splits `train` and `val`, by item, items by name."""
    by_item: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in groceries():
        if row["split"] in {"train", "val"}:
            by_item[row["fine"]].append(row)
    return dict(sorted(by_item.items()))


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table, such as an index, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
