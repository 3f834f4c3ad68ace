"""Samples and scenes for training: the listing of a data set, filtered by split and split again where a recipe says."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures, single_objects
from dataset_formats.notices import in_bulk, printable, report
from dataset_formats.records import AnnotatedPicture, Layout, Listing, Sample
from edge.errors import TrainError
from trainer.data.detection_sample import DetectionSample
from trainer.data.duplicates import near_duplicate_of
from trainer.data.split import resplit, resplit_pictures
from trainer.recipe_parts import Split

log = logging.getLogger(__name__)


def read_samples(
    source: Path,
    root: Path | None = None,
    *,
    layout: Layout | None = None,
    split: Split | None = None,
    cut_to_box: bool = False,
) -> list[Sample]:
    """List the pictures of single objects of a data set; every box of a scene is one.

    Args:
        source: a data set of any layout, see dataset_formats.layouts. A CSV has the columns path, split, category (or
            coarse), item (or fine) and optionally label. In a data set without splits, every fifth picture of an item
            is `val`.
        root: folder of the paths in a CSV or COCO JSON; None: its own folder.
        layout: None: detect it.
        split: how to split the pictures; None: as the data set does.
        cut_to_box: use the boxes of a data set that has them beside pictures of single objects.

    Raises:
        DataError: the data set is missing, or a file or column is.
        TrainError: it holds no picture of an object.
    """
    listing = read_listing(source, root, layout, published=split is not None and split.how == "published")
    for line in report(listing, source):
        log.warning("%s", line)
    samples = samples_of(listing, split, cut_to_box=cut_to_box)
    if not samples:
        raise TrainError(f"{source}: holds no picture; give an index.csv, folders category/item/picture, or boxes")
    return samples


def samples_of(listing: Listing, split: Split | None = None, *, cut_to_box: bool = False) -> list[Sample]:
    """Return the pictures of single objects of a listing, split again if `split` is given."""
    samples = single_objects(listing, cut_to_box=cut_to_box)
    if split is None:
        return samples
    return resplit(samples, split, near_duplicate_of(s.path for s in samples) if split.together else None)


def choose(samples: Iterable[Sample], splits: Sequence[str], categories: Sequence[str] | None = None) -> list[Sample]:
    """Return the samples of certain splits and categories; categories None: all."""
    return [s for s in samples if s.split in splits and (categories is None or s.category in categories)]


def read_scenes(
    path: Path,
    root: Path | None = None,
    splits: Sequence[str] | None = None,
    *,
    class_agnostic: bool = True,
    least_visible: float = 0.0,
    layout: Layout | None = None,
    split: Split | None = None,
) -> tuple[list[DetectionSample], list[str]]:
    """List whole pictures with boxes.

    Args:
        path: COCO JSON, or a data set of another layout with boxes.
        root: folder of a JSON's file names; None: where the pictures are.
        splits: take only pictures of these splits, or of no split; None: all.
        class_agnostic: make every object an `object`.
        least_visible: leave out annotations with a smaller `visible_fraction`, and pictures that have no others.
        layout: None: detect it.
        split: how to split the pictures; None: as the data set does.

    Returns:
        the scenes, and the class names: `["object"]` if class-agnostic.

    Raises:
        DataError: the data set cannot be read, or has another layout.
        TrainError: it has no picture of these splits.
    """
    published = split is not None and split.how == "published"
    listing = read_listing(path, root, layout, published=published, boxed=True)
    for line in report(listing, path):
        log.warning("%s", line)
    names = ["object"] if class_agnostic else class_names(listing)
    position = {} if class_agnostic else {name: i for i, name in enumerate(names)}
    scenes, hidden = [], []
    for one in split_pictures(annotated_pictures(listing), split):
        if splits is not None and one.split and one.split not in splits:
            continue
        visible = [box for box in one.boxes if box.visible >= least_visible]
        if one.boxes and not visible:  # it shows something: no background
            hidden.append(one.path)
            continue
        boxes = np.asarray([box.box_px for box in visible], np.float32).reshape(-1, 4)
        labels = np.asarray([0 if class_agnostic else position[box.item] for box in visible], np.int64)
        scenes.append(DetectionSample(one.path, boxes, labels, one.split, one.level))
    for line in in_bulk(f"{path}: left out pictures that show only hidden objects", hidden):
        log.warning("%s", printable(line))
    if not scenes:
        there = sorted({one.split for one in annotated_pictures(listing) if one.split})
        raise TrainError(f"{path}: holds no image of the splits {splits}; there are {there}")
    return scenes, names


def split_pictures(scenes: list[AnnotatedPicture], split: Split | None) -> list[AnnotatedPicture]:
    """Return whole pictures with boxes, split again if `split` is given."""
    if split is None:
        return scenes
    return resplit_pictures(scenes, split, near_duplicate_of(s.path for s in scenes) if split.together else None)


def class_names(listing: Listing) -> list[str]:
    """Return the class names of the boxes, in the data set's own order; names that it does not list come last."""
    found = {box.item for scene in annotated_pictures(listing) for box in scene.boxes}
    return [*listing.names, *sorted(found.difference(listing.names))]
