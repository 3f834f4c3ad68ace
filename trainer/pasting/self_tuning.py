"""Self-tuning: train a detector, cut objects out of new pictures by it, paste these into scenes, train again.

Rules this module keeps (US 2018/0260664, with a guard of ours):
1. An extracted mask is used only where two mask sources agree on it and its area is plausible: `matte.disagreement`.
2. Every round starts from the cut-outs that were given and those the round before extracted; no error piles up.
3. A round's `round.json` is written last: a run started again goes on after it.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.durable import write_durably
from edge.errors import CaptureError, TrainError
from edge.imaging.image import encode_image, read_image
from edge.inference.preprocess import to_canvas
from edge.types import Box, Image
from trainer.models.networks import ModelCard, load_model
from trainer.pasting.cutouts import Cutout, read_cutouts
from trainer.pasting.matte import Mask, MaskSource, colour_model, disagreement, grabcut, window
from trainer.pasting.scenes import Studio, expand
from trainer.recipe import DetectorRecipe
from trainer.tasks.detector import find, train_detector

log = logging.getLogger(__name__)

ROUND_FILE, ROUNDS_FILE = "round.json", "rounds.json"
_GROW = 0.08  # of a detector's box, on each side
_EXTRACTED = "extracted"  # the item that cut-outs of unknown items belong to


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a self-tuning is made of."""

    recipe: DetectorRecipe  # its scenes are photos with true boxes, listed among the pasted ones
    studio: Studio  # the cut-outs to begin with
    images: tuple[Path, ...]  # new pictures, without labels
    rounds: int = 2
    scenes: int = 200  # pasted in each round
    real_times: int = 1  # how often each photo with true boxes is listed
    seed: int = 0  # of the pasted scenes; the recipe has that of the training
    student: MaskSource = grabcut  # whose masks are kept
    teacher: MaskSource = colour_model  # who must agree


def self_tune(tuning: Tuning, out: Path) -> list[dict[str, Any]]:
    """Run all rounds that are not done yet.

    Returns:
        for each round: cut-outs used, metrics of its detector, boxes found in the new pictures, masks kept, and how
        many were dropped for what; also written to `rounds.json`.

    Raises:
        TrainError: training is impossible, or the detector is to tell several classes apart.
    """
    if not tuning.recipe.scenes.class_agnostic:
        raise TrainError("self-tuning: scenes.class_agnostic is false, expected true: extracted objects have no class")
    done: list[dict[str, Any]] = []
    for number in range(tuning.rounds):
        folder = out / f"round-{number}"
        path = folder / ROUND_FILE
        if path.exists():
            done.append(json.loads(path.read_text()))
            continue
        extracted = _kept_cutouts(out / f"round-{number - 1}" / "cutouts") if number else []
        done.append(_round(tuning, number, folder, extracted))
        write_durably(path, json.dumps(done[-1], indent=1).encode())
        log.info("round %s: %s", number, done[-1])
    write_durably(out / ROUNDS_FILE, json.dumps(done, indent=1).encode())
    return done


def _kept_cutouts(folder: Path) -> list[Cutout]:
    return read_cutouts(folder).found if folder.is_dir() else []


def _round(tuning: Tuning, number: int, folder: Path, extracted: list[Cutout]) -> dict[str, Any]:
    recipe, scenes = tuning.recipe, tuning.recipe.scenes
    studio = replace(tuning.studio, cutouts=(*tuning.studio.cutouts, *extracted))
    made = expand(
        studio,
        folder / "data",
        tuning.scenes,
        tuning.seed * 1000 + number,
        real=scenes.train,
        real_root=scenes.root,
        real_times=tuning.real_times,
    )
    data = scenes.model_copy(
        update={"train": _absolute(made.scenes), "train_splits": sorted({*scenes.train_splits, "train"})}
    )
    card = train_detector(recipe.model_copy(update={"scenes": data}), folder / "detector")
    found = _extract(tuning, folder)
    return {
        "round": number,
        "cutouts": len(studio.cutouts),
        "of_which_extracted": len(extracted),
        "scenes": made.images,
        "objects": made.objects,
        "metrics": {key: value for key, value in card.metrics.items() if isinstance(value, float)},
        **found,
    }


def _absolute(scenes: Path) -> Path:
    """The JSON with whole paths: a recipe's one root is that of its own photos."""
    tree = json.loads(scenes.read_text())
    for image in tree["images"]:
        image["file_name"] = str((scenes.parent / image["file_name"]).resolve())
    path = scenes.with_name("scenes-absolute.json")
    path.write_text(json.dumps(tree))
    return path


def _extract(tuning: Tuning, folder: Path) -> dict[str, Any]:
    """Cut objects out of the new pictures into `cutouts/`."""
    module, card = load_model(folder / "detector")
    category = min(one.category for one in tuning.studio.cutouts)
    unread: list[str] = []
    target = folder / "cutouts" / category / _EXTRACTED
    counts = extract(detected(module, card, tuning.images, unread), target, tuning.student, tuning.teacher)
    kept = counts.pop("kept", 0)
    return {
        "images": len(tuning.images) - len(unread),
        "skipped": unread,
        "boxes": kept + counts.total(),
        "kept": kept,
        "dropped": dict(sorted(counts.items())),
    }


def extract(
    found: Iterable[tuple[Image, Box]], target: Path, student: MaskSource = grabcut, teacher: MaskSource = colour_model
) -> Counter[str]:
    """Cut out what was found, where two mask sources agree: each as a picture with its mask beside it.

    Args:
        found: pictures and a box in each.
        target: folder to write to.
        student: whose masks are kept.
        teacher: who must agree.

    Returns:
        how many were `kept`, and how many dropped for each reason.
    """
    counts: Counter[str] = Counter()
    for place, (image_rgb, tight_px) in enumerate(found):
        box_px = grown(tight_px, image_rgb)
        mask = student(image_rgb, box_px)
        reason = disagreement(mask, teacher(image_rgb, box_px), box_px)
        counts[reason or "kept"] += 1
        if mask is not None and reason is None:
            _save(target / f"{place:06d}", image_rgb, mask, box_px)
    return counts


def grown(box_px: Box, image_rgb: Image) -> Box:
    """A little larger: what a detector's box cuts off would be taken for ground."""
    x0, y0, x1, y1 = box_px
    grow_x, grow_y = _GROW * (x1 - x0), _GROW * (y1 - y0)
    high, wide = image_rgb.shape[:2]
    return max(0.0, x0 - grow_x), max(0.0, y0 - grow_y), min(float(wide), x1 + grow_x), min(float(high), y1 + grow_y)


def detected(module: Any, card: ModelCard, images: tuple[Path, ...], unread: list[str]) -> Iterator[tuple[Image, Box]]:
    """Each object that is found in the pictures, above the detector's own threshold."""
    for path in images:
        try:
            image_rgb = read_image(path)
        except CaptureError as error:
            log.warning("skipped %s", error)
            unread.append(str(error))
            continue
        canvas, placed = to_canvas(card.preprocess, image_rgb)
        found = find(module, [canvas], card)[0]
        for box in found.boxes_px[found.scores >= card.score_threshold].tolist():
            yield image_rgb, placed.to_source(tuple(box))


def _save(stem: Path, image_rgb: Image, mask: Mask, box_px: Box) -> None:
    rows, columns = window(box_px, image_rgb.shape)
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".png").write_bytes(encode_image(np.ascontiguousarray(image_rgb[rows, columns]), ".png"))
    white = np.repeat(mask[rows, columns].astype(np.uint8)[..., None] * 255, 3, axis=2)
    stem.with_suffix(".mask.png").write_bytes(encode_image(white, ".png"))
