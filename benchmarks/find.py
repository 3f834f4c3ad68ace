"""Locate objects that were never trained: train finders on synthetic scenes, search for what they have not seen.

    python benchmarks/find.py                       # three seeds, into runs/find; finished steps are not repeated
    python benchmarks/find.py --only train --seed 0

Each seed holds out every fifth item, and a whole category; neither is in any scene or query of training and validation.
Needs the weights of ../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/find.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
CATEGORIES = ("carton", "can", "jar")  # held out whole, by seed
SCENES = 100  # of each kind
LOOKS = 3
WORLD_SEED = 900_000  # of what is measured on


def main() -> None:
    """Train and score each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", choices=range(len(CATEGORIES)))
    parser.add_argument("--only", choices=["train", "score"])
    parser.add_argument("--work", type=Path, default=ROOT / "runs/find")
    arguments = parser.parse_args()
    seeds = arguments.seed or list(range(len(CATEGORIES)))
    for seed in seeds:
        if arguments.only != "score":
            train(seed, arguments.work)
    if arguments.only != "train":
        for seed in seeds:
            path = arguments.work / f"seed-{seed}.json"
            path.write_text(json.dumps(score(seed, arguments.work), indent=1))
        report(arguments.work)


def held_out(seed: int) -> tuple[list[str], str]:
    """The items and the category that a seed leaves out."""
    from trainer.synthetic.items import catalogue

    category = CATEGORIES[seed]
    return [
        item.item_id for number, item in enumerate(catalogue()) if number % 5 == seed and item.category != category
    ], category


def train(seed: int, work: Path) -> None:
    """One finder; goes on where it was stopped."""
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    items, category = held_out(seed)
    settings = {
        "seed": seed,
        "world.seed": seed,
        "world.held_out": json.dumps([category, *items]),
        "backbone.pretrained": data / "weights/mobilenetv2_100_in1k.safetensors",
    }
    command = [sys.executable, "-m", "trainer.cli", "finder", "-c", ROOT / "benchmarks/recipes/find.yaml"]
    command += ["-o", work / f"seed-{seed}"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    if not (work / f"seed-{seed}/model.json").exists():
        print("$", *command, flush=True)
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
