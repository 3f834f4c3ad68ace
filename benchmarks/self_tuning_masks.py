"""Masks that self-tuning would keep: made and checked by networks, beside GrabCut with a colour model.

    python benchmarks/self_tuning_masks.py                     # into runs/self-tuning-masks; trained runs stay
    python benchmarks/self_tuning_masks.py --finder RUN        # also one localiser with this finder

Three localisers (seeds 0, 1, 2; 64 pixels, 72 steps each: small, to compare) are trained on scenes pasted from playing
cards of folder `train`; each pair of them makes and checks masks. They are judged on cards of folder `test`, of which
no cut-out was used: pasted on grocery photos, where the true mask is exact, and in the photos themselves, where the
mask's extent is compared with the true box. Boxes are moved by up to 8 % of their size, as those of a detector. Needs
../shared/data or $FINESIGHT_DATA. Writes benchmarks/results/self_tuning_masks.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.find import share  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA  # noqa: E402
from dataset_formats.decode import read_image  # noqa: E402
from dataset_formats.layouts import read_listing  # noqa: E402
from dataset_formats.listings import annotated_pictures  # noqa: E402
from edge.types import Box, Image  # noqa: E402
from trainer.pasting.background import drawn_background, photo_backgrounds  # noqa: E402
from trainer.pasting.cutouts import read_cutouts  # noqa: E402
from trainer.pasting.mask_sources import Mask, MaskSource, box_agreement, grabcut  # noqa: E402
from trainer.pasting.paste import SceneLayout  # noqa: E402
from trainer.pasting.scenes import SceneGenerator, expand  # noqa: E402
from trainer.pasting.self_tuning.agreement import colour_model, disagreement  # noqa: E402
from trainer.pasting.self_tuning.network_masks import (  # noqa: E402
    default_localiser,
    finder_masks,
    localiser_masks,
    write_masked_objects,
)
from trainer.pasting.self_tuning.rounds import grow_box  # noqa: E402
from trainer.recipe import LocaliserRecipe  # noqa: E402
from trainer.tasks.localiser import train_localiser  # noqa: E402

RESULT = ROOT / "benchmarks/results/self_tuning_masks.json"
SEEDS = (0, 1, 2)
PER_RANK, SCENES, OBJECTS, TEST_SCENES, TEST_PHOTOS = 8, 100, 192, 40, 20
LAYOUT = SceneLayout(320, 320, (1, 4), (0.25, 0.7), turn_deg=180.0)
Found = tuple[Image, Box, Mask | None]  # a picture, the true box of an object in it, and its true mask if known


def main() -> None:
    """Train the localisers that are missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finder", type=Path, help="run folder of a finder")
    parser.add_argument("--train-only", action="store_true", help="only train the localisers")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/self-tuning-masks", help="folder for data and runs")
    arguments = parser.parse_args()
    work = arguments.work
    known = read_cutouts(DATA / "playing_cards/train", per_item=PER_RANK).found
    if not (work / "train/scenes.json").exists():
        expand(SceneGenerator(tuple(known), drawn_background, LAYOUT), work / "train", SCENES, 0)
    index = write_masked_objects(work / "train/scenes.json", work / "masks", OBJECTS)
    for seed in SEEDS:
        if not (work / f"localiser-{seed}/model.json").exists():
            train_localiser(small_localiser(index, seed), work / f"localiser-{seed}")
    if arguments.train_only:
        return
    sources: dict[str, MaskSource] = {"grabcut": grabcut, "colour model": colour_model}
    networks = [f"localiser {seed}" for seed in SEEDS]
    sources |= {name: localiser_masks(work / f"localiser-{seed}") for name, seed in zip(networks, SEEDS, strict=True)}
    pairs = {
        "grabcut, colour model": [("grabcut", "colour model")],
        "grabcut, localiser": [("grabcut", name) for name in networks],
        "localiser, localiser": list(zip(networks, networks[1:] + networks[:1], strict=True)),
    }
    if arguments.finder is not None:
        from trainer.tasks.finder_torch import load_finder

        sources["finder"] = finder_masks(load_finder(arguments.finder), known)
        pairs["localiser, finder"] = [(name, "finder") for name in networks]
    objects = {"pasted": pasted_objects(), "photos": photo_objects()}
    found = {}
    for kind, some in objects.items():
        boxes, masks = masks_of(some, sources)
        found[kind] = {name: judge(some, boxes, masks, each) for name, each in pairs.items()}
    from benchmarks.grocery import machine

    tree = {"date": date.today().isoformat(), "machine": machine(), **found}  # noqa: DTZ011
    print(json.dumps(found, indent=1))
    write_results(RESULT, tree)


def small_localiser(index: Path, seed: int) -> LocaliserRecipe:
    """Return the default recipe of a round, with a smaller canvas and fewer pictures."""
    recipe = default_localiser(index)
    canvas = recipe.input.model_copy(update={"width": 64, "height": 64})
    steps = recipe.optimiser.model_copy(update={"batch": 16, "epochs": 6, "evaluate_every": 6, "threads": 1})
    return recipe.model_copy(update={"seed": seed, "input": canvas, "optimiser": steps})


def pasted_objects() -> list[Found]:
    """Return cards of folder `test` on grocery photos, with their exact masks."""
    cards = read_cutouts(DATA / "playing_cards/test", per_item=PER_RANK).found
    backgrounds = photo_backgrounds(DATA / "grocery/val")[0]
    generator = SceneGenerator(tuple(cards), backgrounds, LAYOUT)
    scenes = [generator.scene(7, number) for number in range(TEST_SCENES)]
    return [
        (scene.image_rgb, one.box_px, one.mask)
        for scene in scenes
        for one in scene.objects
        if one.visible_fraction >= 0.6
    ]


def photo_objects() -> list[Found]:
    """Return the cards of the photos of folder `test`, with their true boxes."""
    found: list[Found] = []
    listing = read_listing(DATA / "playing_cards/test", None, boxed=True)
    for picture in list(annotated_pictures(listing))[:TEST_PHOTOS]:
        image_rgb = read_image(picture.path)
        found += [(image_rgb, box.box_px, None) for box in picture.boxes]
    return found


Masks = dict[str, list[Mask | None]]  # by source, one for each object


def masks_of(objects: list[Found], sources: dict[str, MaskSource]) -> tuple[list[Box], Masks]:
    """Return the box that each object is masked in, and the masks of every source."""
    rng = np.random.default_rng(3)
    boxes = [grow_box(moved(true_px, rng), image_rgb) for image_rgb, true_px, _ in objects]
    given = list(zip(objects, boxes, strict=True))
    return boxes, {name: [source(one[0], box_px) for one, box_px in given] for name, source in sources.items()}


def judge(objects: list[Found], boxes: list[Box], masks: Masks, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Compare the masks that each pair keeps with the truth, pooled over the pairs."""
    kept, quality, dropped = [], [], []
    for made, check in pairs:
        for number, (_, true_px, truth) in enumerate(objects):
            mask = masks[made][number]
            is_kept = disagreement(mask, masks[check][number], boxes[number]) is None
            value = 0.0 if mask is None else box_agreement(mask, true_px) if truth is None else iou(mask, truth)
            kept.append(is_kept)
            (quality if is_kept else dropped).append(value)
    return {
        "objects": len(objects),
        "kept": share(kept),
        "iou_of_kept": share(quality) if quality else None,
        "kept_with_iou_90": share(np.asarray(quality) >= 0.9) if quality else None,
        "iou_of_dropped": round(float(np.mean(dropped)), 4) if dropped else None,
    }


def moved(box_px: Box, rng: np.random.Generator) -> Box:
    """Return a box with each side moved by up to 8 % of its size."""
    x0, y0, x1, y1 = box_px
    by = rng.uniform(-0.08, 0.08, 4) * np.tile([x1 - x0, y1 - y0], 2)
    return x0 + by[0], y0 + by[1], x1 + by[2], y1 + by[3]


def iou(one: Mask, other: Mask) -> float:
    """Return the intersection over union of two masks."""
    return float((one & other).sum()) / max(1.0, float((one | other).sum()))


if __name__ == "__main__":
    main()
