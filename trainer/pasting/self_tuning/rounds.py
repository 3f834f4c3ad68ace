"""The rounds of self-tuning: train a detector, cut objects out of new pictures with it, paste them, train again.

Rules this module keeps (US 2018/0260664, with the agreement guard added):
1. An extracted mask is used only if two mask sources agree on it and its area is plausible, see `agreement`. The
   sources are GrabCut and a colour model, or networks that the round trains, see `network_masks`.
2. Every round starts from the given cut-outs and those of the previous round, so errors do not accumulate.
3. A round's `round.json` is written last; a restarted run continues after it.
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

from dataset_formats.decode import read_image
from edge.durable import write_durably
from edge.errors import CaptureError, TrainError
from edge.imaging.image import encode_image
from edge.inference.preprocess import to_canvas
from edge.types import Box, Image
from trainer.models.networks import ModelCard, load_model
from trainer.pasting.cutouts import Cutout, read_cutouts
from trainer.pasting.mask_sources import Mask, MaskSource, context_window, grabcut
from trainer.pasting.scenes import SceneGenerator, expand
from trainer.pasting.self_tuning.agreement import colour_model, disagreement
from trainer.pasting.self_tuning.network_masks import network_masks
from trainer.recipe import DetectorRecipe, LocaliserRecipe
from trainer.tasks.detector import detect, train_detector

log = logging.getLogger(__name__)

ROUND_FILE, ROUNDS_FILE = "round.json", "rounds.json"
_GROW = 0.08  # how much a detector's box grows on each side
_EXTRACTED = "extracted"  # item of the extracted cut-outs, whose real item is unknown


@dataclass(frozen=True, slots=True)
class SelfTuning:
    """The settings of a self-tuning run."""

    recipe: DetectorRecipe  # its scenes are photos with true boxes, listed among the pasted ones
    generator: SceneGenerator  # holds the first cut-outs
    images: tuple[Path, ...]  # new pictures, without labels
    rounds: int = 2
    scenes: int = 200  # pasted in each round
    real_times: int = 1  # how often each photo with true boxes is listed
    seed: int = 0  # seed of the pasted scenes; the recipe holds that of the training
    student: MaskSource = grabcut  # its masks are kept
    teacher: MaskSource = colour_model  # must agree with the student
    by_networks: bool = False  # instead of these two, networks that each round trains, see `network_masks`
    localiser: LocaliserRecipe | None = None  # of these networks; None: the default
    finder: Path | None = None  # run folder of a finder that checks the masks, instead of a second localiser


def self_tune(tuning: SelfTuning, out: Path) -> list[dict[str, Any]]:
    """Run all rounds that are not done yet.

    Returns:
        for each round: cut-outs used, metrics of its detector, boxes found in the new pictures, masks kept, and the
        number of masks dropped for each reason; also written to `rounds.json`.

    Raises:
        TrainError: training failed, or the recipe's detector has several classes.
    """
    if not tuning.recipe.scenes.class_agnostic:
        raise TrainError("self-tuning: set scenes.class_agnostic to true; extracted objects have no class")
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


def _round(tuning: SelfTuning, number: int, folder: Path, extracted: list[Cutout]) -> dict[str, Any]:
    recipe, scenes = tuning.recipe, tuning.recipe.scenes
    generator = replace(tuning.generator, cutouts=(*tuning.generator.cutouts, *extracted))
    made = expand(
        generator,
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
    if tuning.by_networks:
        sources = network_masks(made.scenes, folder, tuning.localiser, tuning.finder, generator.cutouts)
        tuning = replace(tuning, student=sources[0], teacher=sources[1])
    found = _extract(tuning, folder)
    return {
        "round": number,
        "cutouts": len(generator.cutouts),
        "of_which_extracted": len(extracted),
        "scenes": made.images,
        "objects": made.objects,
        "metrics": {key: value for key, value in card.metrics.items() if isinstance(value, float)},
        **found,
    }


def _absolute(scenes: Path) -> Path:
    """Write a copy of the JSON with absolute paths, because the recipe's root is that of its own photos."""
    tree = json.loads(scenes.read_text())
    for image in tree["images"]:
        image["file_name"] = str((scenes.parent / image["file_name"]).resolve())
    path = scenes.with_name("scenes-absolute.json")
    path.write_text(json.dumps(tree))
    return path


def _extract(tuning: SelfTuning, folder: Path) -> dict[str, Any]:
    """Cut objects out of the new pictures into `cutouts/`."""
    module, card = load_model(folder / "detector")
    category = min(one.category for one in tuning.generator.cutouts)
    unread: list[str] = []
    target = folder / "cutouts" / category / _EXTRACTED
    counts = extract(detected_objects(module, card, tuning.images, unread), target, tuning.student, tuning.teacher)
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
    """Write each found object as a picture with its mask beside it, if two mask sources agree.

    Args:
        found: pictures and a box in each.
        target: folder to write to.
        student: its masks are kept.
        teacher: must agree with the student.

    Returns:
        how many masks were `kept`, and how many were dropped for each reason.
    """
    counts: Counter[str] = Counter()
    for place, (image_rgb, tight_px) in enumerate(found):
        box_px = grow_box(tight_px, image_rgb)
        mask = student(image_rgb, box_px)
        reason = disagreement(mask, teacher(image_rgb, box_px), box_px)
        counts[reason or "kept"] += 1
        if mask is not None and reason is None:
            _save(target / f"{place:06d}", image_rgb, mask, box_px)
    return counts


def grow_box(box_px: Box, image_rgb: Image) -> Box:
    """Grow a box a little: what a detector's box cuts off would count as background."""
    x0, y0, x1, y1 = box_px
    grow_x, grow_y = _GROW * (x1 - x0), _GROW * (y1 - y0)
    high, wide = image_rgb.shape[:2]
    return max(0.0, x0 - grow_x), max(0.0, y0 - grow_y), min(float(wide), x1 + grow_x), min(float(high), y1 + grow_y)


def detected_objects(
    module: Any, card: ModelCard, images: tuple[Path, ...], unread: list[str]
) -> Iterator[tuple[Image, Box]]:
    """Yield each object that the detector finds in the pictures, above its own threshold."""
    for path in images:
        try:
            image_rgb = read_image(path)
        except CaptureError as error:
            log.warning("skipped %s", error)
            unread.append(str(error))
            continue
        canvas, placed = to_canvas(card.preprocess, image_rgb)
        found = detect(module, [canvas], card)[0]
        for box in found.boxes_px[found.scores >= card.score_threshold].tolist():
            yield image_rgb, placed.to_source(tuple(box))


def _save(stem: Path, image_rgb: Image, mask: Mask, box_px: Box) -> None:
    rows, columns = context_window(box_px, image_rgb.shape)
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".png").write_bytes(encode_image(np.ascontiguousarray(image_rgb[rows, columns]), ".png"))
    white = np.repeat(mask[rows, columns].astype(np.uint8)[..., None] * 255, 3, axis=2)
    stem.with_suffix(".mask.png").write_bytes(encode_image(white, ".png"))
