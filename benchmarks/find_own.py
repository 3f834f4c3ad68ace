"""Finders trained on the user's own things beside finders trained on the built-in catalogue: short, equal trainings.

    python benchmarks/find_own.py               # three seeds, into runs/find-own; finished steps are not repeated
    python benchmarks/find_own.py --minutes 6   # starts no training after 6 minutes

The own things are the six ranks of the playing cards of folder `train` and the fruit of every second photo, cut out by
GrabCut in their true boxes. Arms: `rendered` (the built-in catalogue), `own` (the cut-outs, with every distortion),
`mixed` (half of each), `own, l2` (the pixel-wise loss of C6). The searches are in photos that no arm has seen: cards
of folder `test`, fruit of the other photos. A search is right if its best box has IoU 0.5 with an object of that name.
Needs ../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/find_own.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.find import Case, card_cases, fruit_cases, share  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA, WEIGHTS  # noqa: E402
from edge.finder.finder import Finder  # noqa: E402
from edge.inference.postprocess import iou_matrix  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402

RESULT = ROOT / "benchmarks/results/find_own.json"
SEEDS = (0, 1, 2)
ARMS: dict[str, dict[str, Any]] = {
    "rendered": {},
    "own": {"own": True},
    "mixed": {"own": True, "world.rendered": 0.5},
    "own, l2": {"own": True, "loss": "l2"},
}
CARDS = 48  # searches for cards, of those in the test photos


def main() -> None:
    """Run the missing trainings, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after this many minutes")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="run only this arm; may be repeated")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/find-own", help="folder for data and results; default: %(default)s"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    own = write_own_things(arguments.work)
    for seed in SEEDS:
        for arm in arguments.arm or ARMS:
            run = arguments.work / f"{arm.replace(', ', '-')}-{seed}"
            if (run / "found.json").exists():
                continue
            if time.monotonic() - started > 60 * arguments.minutes:
                print("time is up; run again to continue")
                return report(arguments.work)
            train(arm, seed, own, run)
            (run / "found.json").write_text(json.dumps(located(run)))
            report(arguments.work)
    return report(arguments.work)


def write_own_things(work: Path) -> Path:
    """List the training photos with their boxes in one COCO JSON, and return it."""
    work.mkdir(parents=True, exist_ok=True)
    from dataset_formats.layouts import read_listing
    from dataset_formats.listings import annotated_pictures

    folders = ((DATA / "playing_cards/train", "card", 1), (DATA / "fruit_boxes", "fruit", 2))
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    names: dict[tuple[str, str], int] = {}
    for folder, category, every in folders:
        for number, picture in enumerate(annotated_pictures(read_listing(folder, None, boxed=True))):
            if number % every:
                continue
            images.append({"id": len(images), "file_name": str(picture.path)})
            for box in picture.boxes:
                x0, y0, x1, y1 = box.box_px
                kind = names.setdefault((category, box.item), len(names) + 1)
                boxes.append({"image_id": len(images) - 1, "category_id": kind, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    kinds = [{"id": number, "name": item, "supercategory": meta} for (meta, item), number in names.items()]
    tree = {"images": images, "annotations": boxes, "categories": kinds}
    (work / "own.json").write_text(json.dumps(tree))
    return work / "own.json"


def train(arm: str, seed: int, own: Path, run: Path) -> None:
    """Train one finder."""
    from trainer.cli import main as edge_train

    settings = {"seed": seed, "world.seed": seed} | ARMS[arm]
    settings["backbone.pretrained"] = WEIGHTS
    if settings.pop("own", False):
        settings["world.cutouts"] = own
    command = ["finder", "-c", str(ROOT / "benchmarks/recipes/find_own.yaml"), "-o", str(run)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    started = time.monotonic()
    if edge_train(command) != 0:
        sys.exit(f"{arm} {seed}: training failed")
    (run / "seconds.json").write_text(json.dumps(round(time.monotonic() - started, 1)))


def cases_of() -> dict[str, list[Case]]:
    """Return the searches in photos that no arm has seen."""
    cards = card_cases()
    rng = np.random.default_rng(1)
    fruit = fruit_cases()
    photos = list({id(case.scene_rgb): None for case in fruit})
    unseen = {photo for number, photo in enumerate(photos) if number % 2}
    return {
        "cards": [cards[int(i)] for i in sorted(rng.permutation(len(cards))[:CARDS])],
        "fruit": [case for case in fruit if id(case.scene_rgb) in unseen],
    }


def located(run: Path) -> dict[str, Any]:
    """Return whether each search is right, and the share of objects of which one at random would be right."""
    from trainer.tasks.finder_torch import load_finder

    finder = load_finder(run)
    return {
        kind: {
            "right": [is_right(finder, case) for case in cases],
            "chance": float(np.mean([len(case.true_px) / (len(case.true_px) + case.others) for case in cases])),
        }
        for kind, cases in cases_of().items()
    }


def is_right(finder: Finder, case: Case) -> bool:
    """Return whether the best box of a search is right."""
    queries = [finder.make_query(*query, Timings()) for query in case.queries]
    view = finder.scene_features(case.scene_rgb, Timings())
    boxes = finder.find_boxes(view, finder.heat_map(view, queries, Timings()), queries, Timings(), min_score=0.0)
    best = np.asarray([one.box_px for one in boxes[:1]], np.float32).reshape(-1, 4)
    return bool(iou_matrix(best, case.true_px).max(initial=0.0) >= 0.5)


def report(work: Path) -> None:
    """Write the results of every arm, pooled over the seeds."""
    from benchmarks.grocery import machine

    arms: dict[str, Any] = {}
    for arm in ARMS:
        runs = [work / f"{arm.replace(', ', '-')}-{seed}" for seed in SEEDS]
        done = [run for run in runs if (run / "found.json").exists()]
        found = [json.loads((run / "found.json").read_text()) for run in done]
        if not found:
            continue
        arms[arm] = {
            kind: share(np.concatenate([one[kind]["right"] for one in found]))
            | {
                "by_seed": [round(float(np.mean(one[kind]["right"])), 4) for one in found],
                "a_random_object_would_be_right": round(found[0][kind]["chance"], 4),
            }
            for kind in found[0]
        }
        arms[arm]["seconds_of_training"] = [json.loads((run / "seconds.json").read_text()) for run in done]
    tree = {"date": date.today().isoformat(), "machine": machine(), "arms": arms}  # noqa: DTZ011
    print(json.dumps(arms, indent=1))
    write_results(RESULT, tree)


if __name__ == "__main__":
    main()
