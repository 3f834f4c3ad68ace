"""The data card of a training run, made from the pictures that are already in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_formats.layouts import find_layout
from dataset_formats.records import Layout, Sample
from edge.durable import write_durably
from edge.manifest.model import Preprocess
from edge.types import Image
from trainer.data.crops import Crops
from trainer.data.data_card import CARD_FILE, Findings, Row, make_card, to_json
from trainer.data.duplicates import perceptual_hash
from trainer.data.pictures import Pictures
from trainer.disk_errors import report_disk_errors
from trainer.distributed import is_rank0
from trainer.recipe_parts import CropData, SceneData

log = logging.getLogger(__name__)


def write_crops_card(out: Path, crops: Crops, source: CropData) -> None:
    """Write data_card.json of a training on single objects; it compares the crops that training uses."""
    rows = _rows(crops.train, crops.images)
    rows += _rows(crops.val, [_content(c, crops.spec) for c in crops.val_canvases])
    rows += _rows(crops.gallery, [_content(c, crops.spec) for c in crops.gallery_canvases])
    found = Findings(
        source.index.name, _layout(source.index, source.layout), unreadable=crops.skipped, boxes_outside=crops.clipped
    )
    found.true_boxes = bool(crops.summary(source)["true_boxes"])
    _write(out, rows, found)


def write_scenes_card(out: Path, train: Pictures, val: Pictures, names: Sequence[str], source: SceneData) -> None:
    """Write data_card.json of a training on whole pictures with boxes."""
    found = Findings(source.train.name, _layout(source.train, source.layout, boxed=True), true_boxes=True)
    found.unreadable = train.skipped + val.skipped
    found.boxes_outside = train.clipped + val.clipped
    rows = [
        Row(scene.path, split, tuple(("object", names[label]) for label in scene.labels), perceptual_hash(image))
        for split, pictures in (("train", train), ("val", val))
        for scene, image in zip(pictures.samples, pictures.images, strict=True)
    ]
    _write(out, rows, found)


def _layout(path: Path, given: Layout | None, *, boxed: bool = False) -> Layout:
    return given or find_layout(path, boxed=boxed)


def _rows(samples: Sequence[Sample], images: Sequence[Image]) -> list[Row]:
    return [
        Row(sample.path, sample.split, ((sample.category, sample.item),), perceptual_hash(image))
        for sample, image in zip(samples, images, strict=True)
    ]


def _content(canvas: NDArray[np.uint8], spec: Preprocess) -> Image:
    """Return a canvas without its letterbox border, which makes all narrow objects look alike."""
    drawn = (canvas != spec.fill).any(axis=2)
    if not drawn.any():
        return canvas
    return canvas[: np.flatnonzero(drawn.any(axis=1))[-1] + 1, : np.flatnonzero(drawn.any(axis=0))[-1] + 1]


def _write(out: Path, rows: list[Row], found: Findings) -> None:
    if not is_rank0():
        return
    card = make_card(rows, found)
    for split, count in card["duplicates"]["leaks"].items():
        log.warning(
            "%s: %d pairs of near duplicates between the splits %s, see %s", found.source, count, split, out / CARD_FILE
        )
    for names in card["alike_names"]:
        log.warning("%s: %s may be one class", found.source, ", ".join(names))
    for item, categories in card["shared_names"].items():
        log.warning(
            "%s: %s is an item of %s; an embedder of all of them treats it as one item",
            found.source,
            item,
            ", ".join(categories),
        )
    with report_disk_errors(f"{out}: cannot write the data card"):
        out.mkdir(parents=True, exist_ok=True)
        write_durably(out / CARD_FILE, to_json(card))
