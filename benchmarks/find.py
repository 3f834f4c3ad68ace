"""Finders on objects that were not in training: train on synthetic scenes, search for held-out objects.

    python benchmarks/find.py                       # three seeds, into runs/find; finished steps are not repeated
    python benchmarks/find.py --only train --seed 0
    python benchmarks/find.py --only held_out_items --seed 0
    python benchmarks/find.py --bundle demo/bundle  # evaluate the finder of a bundle, into results/find_demo.json

Each seed holds out every fifth item and a whole category. Neither is in any scene or query of training and validation.
Needs the weights of ../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/find.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.playing_cards import true_cards  # noqa: E402
from edge.bundle.bundle import read_bundle  # noqa: E402
from edge.errors import CaptureError  # noqa: E402
from edge.finder.finder import Finder, open_finder  # noqa: E402
from edge.finder.query import lay_out_query, object_mask  # noqa: E402
from edge.imaging.image import read_image, resize  # noqa: E402
from edge.inference.engine import open_engine  # noqa: E402
from edge.inference.postprocess import iou_matrix  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import Box, FloatArray, Image, Mask  # noqa: E402
from trainer.metrics import Boxes, bootstrap, match_boxes  # noqa: E402

DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
LEAST_VISIBLE = 0.35
CATEGORIES = ("carton", "can", "jar")  # held-out category of each seed
SCENES = 80  # number of scenes of each kind
KINDS = ("held_out_items", "held_out_category", "real_fruit", "real_cards")
QUERY_PICTURES = 3
WORLD_SEED = 910_000  # seed of the test scenes; 900_000 was used while the second pass was developed


def main() -> None:
    """Train and evaluate each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seed",
        type=int,
        action="append",
        choices=range(len(CATEGORIES)),
        help="seed to run; may be repeated; default: all",
    )
    parser.add_argument(
        "--only", choices=["train", *KINDS], help="run only this step, then report the available results"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/find", help="folder for data and results; default: %(default)s"
    )
    parser.add_argument("--bundle", type=Path, help="evaluate this bundle's finder instead; it is trained on all items")
    arguments = parser.parse_args()
    if arguments.bundle:
        report_bundle(arguments.bundle)
        return
    for seed in arguments.seed or range(len(CATEGORIES)):
        run = arguments.work / f"seed-{seed}"
        if not (run / "model.json").exists():
            train(seed, run)
        for kind in KINDS:
            path = run / f"{kind}.json"
            if arguments.only in (None, kind) and not path.exists():
                finder, difference = on_device(run)
                found = evaluate(finder, cases_of(kind, seed)) | {"largest_difference_from_trainer": difference}
                path.write_text(json.dumps(found))
    report(arguments.work)


def held_out(seed: int) -> tuple[list[str], str]:
    """Return the items and the category that a seed holds out."""
    from trainer.synthetic.items import catalogue

    category = CATEGORIES[seed]
    return [
        item.item_id for number, item in enumerate(catalogue()) if number % 5 == seed and item.category != category
    ], category


def train(seed: int, run: Path) -> None:
    """Train one finder; resume an interrupted training."""
    items, category = held_out(seed)
    settings = {
        "seed": seed,
        "world.seed": seed,
        "world.held_out": json.dumps([category, *items]),
        "backbone.pretrained": DATA / "weights/mobilenetv2_100_in1k.safetensors",
    }
    command = [sys.executable, "-m", "trainer.cli", "finder", "-c", ROOT / "benchmarks/recipes/find.yaml", "-o", run]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One search and its ground truth."""

    scene_rgb: Image
    queries: list[tuple[Image, Mask]]  # pictures of the object; a search by one picture uses the first
    true_px: FloatArray  # (n, 4), boxes of the object; empty if it is absent
    others: int  # number of other objects in the scene
    has_lookalike: bool = False  # one of them differs from the object in a detail only


def cases_of(kind: str, seed: int) -> list[Case]:
    """Return the searches of one kind."""
    items, category = held_out(seed)
    if kind == "held_out_items":
        return synthetic_cases(items, seed, SCENES)
    if kind == "held_out_category":
        return synthetic_cases([category], seed, SCENES)
    return fruit_cases() if kind == "real_fruit" else card_cases()


def on_device(run: Path) -> tuple[Finder, float]:
    """Return the exported finder, and the largest difference of its maps from the trainer's over ten scenes."""
    from quantize.export import export_fp32
    from quantize.network_spec import conversion_path
    from trainer.data.augment import canvases_to_input
    from trainer.models.networks import load_model
    from trainer.tasks.finder_torch import load_finder

    onnx = run / "finder.fp32.onnx"
    export_fp32(run, onnx)
    model = load_finder(run).model
    finder = Finder(model, open_engine(onnx), open_engine(conversion_path(onnx)))
    network, card = load_model(run)
    differences = []
    for case in synthetic_cases(["bottle"], 77, 10):
        query_rgb, cells = lay_out_query(*case.queries[0], model.shape, card.preprocess)
        x = [canvases_to_input(one[None], card.preprocess) for one in (case.scene_rgb, query_rgb)]
        with torch.no_grad():
            wanted = network(*x, torch.from_numpy(cells[None]))[0].numpy()
        view, query = finder.scene_features(case.scene_rgb, Timings()), finder.make_query(*case.queries[0], Timings())
        differences.append(float(np.abs(finder.heat_map(view, [query], Timings()) - wanted).max()))
    return finder, max(differences)


def synthetic_cases(wanted: list[str], seed: int, count: int) -> list[Case]:
    """Render scenes with one of the wanted items among all others; every fourth searches for an absent one."""
    from trainer.synthetic.items import catalogue
    from trainer.synthetic.scene import box_of
    from trainer.tasks.finder_scenes import render_cutouts, render_scenes, split_items

    _, chosen = split_items(wanted)
    known = {item.item_id: item for item in catalogue()}
    cutouts = render_cutouts(chosen, QUERY_PICTURES, WORLD_SEED + seed)
    rng = np.random.default_rng(seed)
    cases = []
    for number, scene in enumerate(render_scenes(chosen, catalogue(), count, (320, 192), WORLD_SEED + seed)):
        absent = sorted(set(cutouts) - set(scene.items))
        there = [item for item in scene.searchable_items if item in cutouts]
        pool = absent if number % 4 == 3 and absent else there
        item = pool[int(rng.integers(len(pool)))]
        owners = [] if pool is absent else scene.owners(item, LEAST_VISIBLE)
        boxes = [box_of(scene.owner == owner) for owner in owners]
        family = [known[other].palette for other in scene.items if other != item]
        queries = [(np.ascontiguousarray(q[..., :3]), (q[..., 3] >= 128).astype(np.uint8)) for q in cutouts[item]]
        others = sum(other != item for other in scene.items)
        true_px = np.asarray(boxes, np.float32).reshape(-1, 4)
        cases.append(Case(scene.image_rgb, queries, true_px, others, known[item].palette in family))
    return cases


def fruit_cases() -> list[Case]:
    """Return a search for each kind of fruit in each photo, by pictures from other photos."""
    folder = DATA / "fruit_boxes"
    photos: list[tuple[Image, list[tuple[str, Box]]]] = []
    for entry in json.loads((folder / "boxes.json").read_text())["files"]:
        picture = read_image(folder / entry["filename"])
        high, wide = picture.shape[:2]
        boxes = [
            (
                t["tag"],
                (t["left"] * wide, t["top"] * high, (t["left"] + t["width"]) * wide, (t["top"] + t["height"]) * high),
            )
            for t in entry["tags"]
        ]
        photos.append((picture, boxes))
    return named_cases(photos, photos)


def card_cases() -> list[Case]:
    """Return a search for each rank in each test photo of playing cards, by cards of train photos."""
    return named_cases(card_photos("test"), card_photos("train"))


def card_photos(split: str) -> list[tuple[Image, list[tuple[str, Box]]]]:
    """Return photos with the ranks and boxes of their cards."""
    photos = []
    for xml in sorted((DATA / "playing_cards" / split).glob("*.xml")):
        photo, boxes = true_cards(xml)
        try:
            picture = read_image(photo)
        except CaptureError as error:
            print(f"skipped {error}")
            continue
        shrink = min(1.0, 960 / max(picture.shape[:2]))
        size = (round(picture.shape[1] * shrink), round(picture.shape[0] * shrink))
        scaled = [(name, tuple(v * shrink for v in box)) for name, box in boxes]
        photos.append((resize(picture, *size, "area"), scaled))
    return photos


def named_cases(
    scenes: list[tuple[Image, list[tuple[str, Box]]]], sources: list[tuple[Image, list[tuple[str, Box]]]]
) -> list[Case]:
    """Return a case for each name in each scene, with queries from other photos."""
    rng = np.random.default_rng(0)
    cases = []
    for picture, boxes in scenes:
        for name in sorted({name for name, _ in boxes}):
            pool = [(p, box) for p, rows in sources if p is not picture for other, box in rows if other == name]
            drawn = [pool[int(i)] for i in rng.permutation(len(pool))[:QUERY_PICTURES]]
            queries = [(p, object_mask(p, box)) for p, box in drawn]
            true_px = np.asarray([box for other, box in boxes if other == name], np.float32)
            cases.append(Case(picture, queries, true_px, len(boxes) - len(true_px)))
    return cases


def evaluate(finder: Finder, cases: list[Case]) -> dict[str, Any]:
    """Return the share of searches whose best box matches at IoU 0.5, and the false finds of absent objects."""
    model = finder.model
    rows: dict[str, list[float]] = {"one": [], "several": [], "chance": [], "iou": []}
    lookalikes, false_finds, found, truths, spent = [], [], [], [], []
    for case in cases:
        timings = Timings()
        queries = [finder.make_query(*query, Timings()) for query in case.queries]
        view = finder.scene_features(case.scene_rgb, timings)
        searches = {"one": (queries[:1], timings), "several": (queries, Timings())}
        heats = {key: finder.heat_map(view, *how) for key, how in searches.items()}
        all_boxes = {key: finder.find_boxes(view, heats[key], *how, min_score=0.0) for key, how in searches.items()}
        spent.append(timings.stages_ms)
        if not len(case.true_px):
            false_finds.append(float(any(b.score >= model.score_threshold for b in all_boxes["several"])))
            continue
        for key, boxes in all_boxes.items():
            overlap = iou_matrix(np.asarray([b.box_px for b in boxes[:1]], np.float32).reshape(-1, 4), case.true_px)
            best = float(overlap.max(initial=0.0))
            rows[key].append(float(best >= 0.5))
        rows["iou"].append(best)
        rows["chance"].append(len(case.true_px) / (len(case.true_px) + case.others))
        lookalikes.append(case.has_lookalike)
        kept = np.asarray([b.box_px for b in boxes if b.score >= model.score_threshold], np.float32).reshape(-1, 4)
        found.append(Boxes(kept, np.asarray([b.score for b in boxes if b.score >= model.score_threshold], np.float32)))
        truths.append(case.true_px)
    several, with_lookalike = np.asarray(rows["several"]), np.asarray(lookalikes, bool)
    _, matched = match_boxes(found, truths, 0.5)
    return {
        "searches": len(several),
        "located": share(several),
        "located_by_one_picture": share(rows["one"]),
        "located_with_a_look_alike_in_the_scene": share(several[with_lookalike]) if with_lookalike.any() else None,
        "located_without": share(several[~with_lookalike]) if with_lookalike.any() else None,
        "a_random_object_would_be_right": round(float(np.mean(rows["chance"])), 4),
        "median_iou": round(float(np.median(rows["iou"])), 4),
        "instances": sum(len(one) for one in truths),
        "instances_found_at_the_threshold": round(float(matched.sum() / max(1, sum(len(one) for one in truths))), 4),
        "boxes_at_the_threshold_that_are_right": round(float(matched.mean()), 4) if len(matched) else None,
        "searches_for_what_is_not_there": len(false_finds),
        "of_these_with_a_box": share(false_finds) if false_finds else None,
        "ms_by_one_picture": {
            key: round(float(np.median([row.get(key, 0.0) for row in spent])), 2)
            for key in ("preprocess", "represent", "correlate", "convert", "look_again")
        },
        "outcomes": [int(value) for value in several],
    }


def report_bundle(folder: Path) -> None:
    """Evaluate a bundle's finder on scenes that it was not trained on, of items that it knows, and on photos."""
    from benchmarks.grocery import machine
    from benchmarks.results_file import write_results
    from trainer.synthetic.items import catalogue

    bundle = read_bundle(folder)
    if bundle.manifest.finder is None:
        sys.exit(f"{folder}: the bundle has no finder")
    finder = open_finder(bundle.folder, bundle.manifest.finder)
    known = [item.item_id for number, item in enumerate(catalogue()) if number % 5]  # the others are only around them
    cases = {"known_items": synthetic_cases(known, 3, SCENES), "real_fruit": fruit_cases(), "real_cards": card_cases()}
    found = {kind: evaluate(finder, one) for kind, one in cases.items()}
    for one in found.values():
        del one["outcomes"]
    tree = {"date": date.today().isoformat(), "machine": machine(), "bundle": bundle.manifest.bundle_id, **found}  # noqa: DTZ011
    print(json.dumps(tree, indent=1))
    write_results(ROOT / "benchmarks/results/find_demo.json", tree)


def share(outcomes: Any) -> dict[str, Any]:
    """Return a mean with n and its 95 % bootstrap interval over searches."""
    values = np.asarray(outcomes, np.float64)
    low, high = bootstrap(values)
    return {"share": round(float(values.mean()), 4), "n": len(values), "interval": [round(low, 4), round(high, 4)]}


def report(work: Path) -> None:
    """Write the results of every evaluated seed, and of all searches pooled."""
    from benchmarks.grocery import machine

    runs = sorted(path.parent for path in work.glob("seed-*/model.json"))
    found = {
        run: {k: json.loads((run / f"{k}.json").read_text()) for k in KINDS if (run / f"{k}.json").exists()}
        for run in runs
    }
    pooled = {}
    for kind in KINDS:
        outcomes = [one[kind].pop("outcomes") for one in found.values() if kind in one]
        if outcomes:
            pooled[kind] = share(np.concatenate(outcomes))
    tree = {
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
        "located_at_iou_50_by_three_pictures": pooled,
        "seeds": [
            {"seed": run.name, "held_out": held_out(int(run.name[-1])), "training": training(run), **one}
            for run, one in found.items()
        ],
    }
    print(json.dumps(pooled, indent=1))
    (ROOT / "benchmarks/results/find.json").write_text(json.dumps(tree, indent=1) + "\n")


def training(run: Path) -> dict[str, Any]:
    """Return how a finder was trained, and its metrics on validation scenes."""
    card = json.loads((run / "model.json").read_text())
    keys = ("epochs", "batch", "lr", "precision")
    return {
        "scenes": card["data"]["train"],
        **{k: card["recipe"]["optimiser"][k] for k in keys},
        "val": card["metrics"],
    }


if __name__ == "__main__":
    main()
