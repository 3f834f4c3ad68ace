"""Checkout evaluation on a shop's own scenes: photos with named boxes, read through the whole chain of a bundle."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures
from dataset_formats.notices import report
from dataset_formats.records import AnnotatedPicture, NamedBox
from edge.build import load_models
from edge.config.schema import EngineConfig
from edge.errors import CaptureError, TrainError
from edge.inference.postprocess import box_of
from edge.types import Image
from trainer.data.asked_splits import scenes_of_splits
from trainer.data.detection_sample import DetectionSample
from trainer.data.pictures import Pictures, clip_to_picture, skip_picture
from trainer.evaluation.reference_gallery import stored_items
from trainer.evaluation.shopping_lists import ReadScene, TrueObject, measure_lists, read_scene
from trainer.recipe_parts import LEAST_VISIBLE

log = logging.getLogger(__name__)
ALL = "all"  # every scene, whatever its level
_NAMED = 5  # names that a message lists


@dataclass(frozen=True, slots=True)
class OwnScenes:
    """Scenes whose objects are named as in the gallery."""

    pictures: list[AnnotatedPicture]
    item_of: Mapping[str, str]  # name in the data set to item of the gallery, or the name itself if it has none
    known: set[str]  # items of the gallery
    noticed: list[str]

    def shown(self, picture: AnnotatedPicture, image_rgb: Image, pictures: Pictures) -> list[TrueObject] | None:
        """Return the objects of a picture that are not mostly hidden; None if all their boxes are outside it.

        Boxes are clipped to the picture, as a detector's are; `pictures` notes which.
        """
        visible = [box for box in picture.boxes if box.visible >= LEAST_VISIBLE]
        boxes_px = np.array([box.box_px for box in visible], np.float32).reshape(-1, 4)
        sample = DetectionSample(picture.path, boxes_px, np.arange(len(visible)))
        fitted = clip_to_picture(sample, image_rgb, pictures)
        if fitted is None:
            return None
        items = [self.item_of[_name_of(visible[place])] for place in fitted.labels]
        return [TrueObject(box_of(row), item) for row, item in zip(fitted.boxes_px, items, strict=True)]


def evaluate_own_scenes(bundle: Path, gallery: Path, scenes: OwnScenes, seed: int, engine: EngineConfig) -> Any:
    """Read the shopping list of every scene, and measure the lists.

    Args:
        bundle: folder of a bundle with a detector.
        gallery: folder of its gallery generation.
        scenes: of `read_own_scenes`.
        seed: of the bootstrap intervals.
        engine: settings of the engine that runs the bundle.

    Returns:
        the measures of trainer.evaluation.shopping_lists.measure_lists, for each level of clutter that the data set
        names, and for all scenes; with the number of `unreadable` pictures, or those with all boxes outside.

    Raises:
        TrainError: the bundle has no detector, or no picture can be read.
        BundleError, GalleryError, EngineError: bundle or gallery is unusable.
    """
    models = load_models(bundle, gallery, engine)
    if models.stages.detector is None:
        raise TrainError(f"{bundle}: the bundle has no detector; pack one to read whole scenes")
    read: list[tuple[str, ReadScene]] = []
    noted = Pictures()
    for picture in scenes.pictures:
        try:
            image_rgb = read_picture(picture.path)[0]
        except CaptureError as error:
            skip_picture(noted, str(error))
            continue
        shown = scenes.shown(picture, image_rgb, noted)
        if shown is not None:
            read.append((picture.level, read_scene(models, image_rgb, shown)))
    if not read:
        raise TrainError(f"none of {len(scenes.pictures)} pictures can be read; the first: {noted.skipped[0]}")
    levels = [level for level in dict.fromkeys(level for level, _ in read) if level]
    table = {
        level: measure_lists([one for of, one in read if level in (of, ALL)], scenes.known, seed)
        for level in [*levels, ALL]
    }
    table[ALL]["unreadable"] = len(noted.skipped)
    return table


def read_own_scenes(bundle: Path, gallery: Path, data: Path, root: Path | None, asked: str | None) -> OwnScenes:
    """List scenes, and match the names of their boxes with the gallery's items and labels.

    Args:
        bundle: folder of a bundle.
        gallery: folder of its gallery generation.
        data: data set with boxes.
        root: folder that its paths are relative to.
        asked: splits, comma-separated; None: `val`, else `test`. A data set without splits is used as a whole.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it has no such split, or none of its boxes is named as an item of the gallery.
        BundleError, GalleryError: bundle or gallery is unusable.
    """
    listing = read_listing(data, root, None, boxed=True)
    for line in report(listing, data):
        log.warning("%s", line)
    pictures = scenes_of_splits(annotated_pictures(listing), asked, data)
    labels = {
        item: label
        for _, _, items in stored_items(bundle, gallery)
        for item, label in zip(items.item_ids, items.labels, strict=True)
    }
    counts = Counter(_name_of(box) for picture in pictures for box in picture.boxes)
    item_of = match_names(list(counts), labels)
    missing = [name for name in counts if item_of[name] not in labels]
    if counts and len(missing) == len(counts):
        raise TrainError(
            f"{data}: none of its boxes is named as an item of {gallery}; the boxes are named {_listed(missing)}, the "
            f"items {_listed(sorted(labels))}; name the boxes by item, or measure boxes alone with --detector"
        )
    return OwnScenes(pictures, item_of, set(labels), _noticed(counts, missing, labels))


def match_names(names: Sequence[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Match names with items: by the item itself, else by its label for people, whatever the case.

    Args:
        names: of boxes.
        labels: label of each item of the gallery.

    Returns:
        the item of each name, or the name itself if none matches.
    """
    by_name: dict[str, str] = {}
    for item in sorted(labels):
        by_name.setdefault(labels[item].casefold(), item)
    by_name |= {item.casefold(): item for item in labels}
    return {name: name if name in labels else by_name.get(name.casefold(), name) for name in names}


def _noticed(counts: Counter[str], missing: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    """Return what deserves a look: names of items that the gallery lacks, and labels that several items share."""
    noticed = []
    if missing:
        objects = sum(counts[name] for name in missing)
        noticed.append(
            f"{objects} of {counts.total()} objects are of {len(missing)} items that the gallery lacks, so that their "
            f"lists cannot be right: {_listed(missing)}"
        )
    often = Counter(label.casefold() for label in labels.values())
    ids = {item.casefold() for item in labels}
    if shared := [name for name in counts if name.casefold() not in ids and often[name.casefold()] > 1]:
        noticed.append(
            f"{len(shared)} names of boxes are the label of several items, and count as the first of these: "
            f"{_listed(shared)}; name the boxes by item"
        )
    return noticed


def _name_of(box: NamedBox) -> str:
    return box.item_id or box.item


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
