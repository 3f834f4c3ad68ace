"""Checkout evaluation on a shop's own scenes: photos with named boxes, read through the whole chain of a bundle."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures
from dataset_formats.notices import report
from dataset_formats.records import AnnotatedPicture, NamedBox
from edge.build import load_models
from edge.bundle.bundle import read_bundle
from edge.config.schema import EngineConfig
from edge.errors import CaptureError, TrainError
from edge.gallery.generation import read_gallery
from edge.gallery.store import read_category
from trainer.data.asked_splits import asked_splits
from trainer.evaluation.shopping_lists import ReadScene, TrueObject, measure_lists, read_scene
from trainer.recipe import LEAST_VISIBLE

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

    def shown(self, picture: AnnotatedPicture) -> list[TrueObject]:
        """Return the objects of a picture that are not mostly hidden."""
        visible = [box for box in picture.boxes if box.visible >= LEAST_VISIBLE]
        return [TrueObject(box.box_px, self.item_of[_name_of(box)]) for box in visible]


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
        names, and for all scenes; with the number of `unreadable` pictures.

    Raises:
        TrainError: the bundle has no detector, or no picture can be read.
        BundleError, GalleryError, EngineError: bundle or gallery is unusable.
    """
    models = load_models(bundle, gallery, engine)
    if models.stages.detector is None:
        raise TrainError(f"{bundle}: the bundle has no detector; pack one to read whole scenes")
    read: list[tuple[str, ReadScene]] = []
    unreadable = []
    for picture in scenes.pictures:
        try:
            image_rgb = read_picture(picture.path)[0]
        except CaptureError as error:
            log.warning("skipped %s", error)
            unreadable.append(str(error))
            continue
        read.append((picture.level, read_scene(models, image_rgb, scenes.shown(picture))))
    if not read:
        raise TrainError(f"none of {len(scenes.pictures)} pictures can be read; the first: {unreadable[0]}")
    levels = [level for level in dict.fromkeys(level for level, _ in read) if level]
    table = {
        level: measure_lists([one for of, one in read if level in (of, ALL)], scenes.known, seed)
        for level in [*levels, ALL]
    }
    table[ALL]["unreadable"] = len(unreadable)
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
    pictures = _of_splits(annotated_pictures(listing), data, asked)
    labels = _gallery_labels(bundle, gallery)
    counts = Counter(_name_of(box) for picture in pictures for box in picture.boxes)
    item_of = match_names(list(counts), labels)
    missing = [name for name in counts if item_of[name] not in labels]
    if counts and len(missing) == len(counts):
        raise TrainError(
            f"{data}: none of its boxes is named as an item of {gallery}; the boxes are named {_listed(missing)}, the "
            f"items {_listed(sorted(labels))}; name the boxes by item, or measure boxes alone with --detector"
        )
    noticed = []
    if missing:
        objects = sum(counts[name] for name in missing)
        noticed.append(
            f"{objects} of {counts.total()} objects are of {len(missing)} items that the gallery lacks, so that their "
            f"lists cannot be right: {_listed(missing)}"
        )
    return OwnScenes(pictures, item_of, set(labels), noticed)


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


def _name_of(box: NamedBox) -> str:
    return box.item_id or box.item


def _of_splits(pictures: list[AnnotatedPicture], data: Path, asked: str | None) -> list[AnnotatedPicture]:
    present = [picture.split for picture in pictures if picture.split]
    if not present:
        return pictures
    asked = asked or next((split for split in ("val", "test") if split in present), present[0])
    splits = asked_splits(asked, present, data, "--query")
    return [picture for picture in pictures if not picture.split or picture.split in splits]


def _gallery_labels(bundle: Path, gallery: Path) -> dict[str, str]:
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery, verify=False)
    found: dict[str, str] = {}
    for model in manifest.embedders:
        for category in model.categories:
            if category in generation.categories:
                items = read_category(generation.path(category), model.space_id, model.dim)
                found |= dict(zip(items.item_ids, items.labels, strict=True))
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
