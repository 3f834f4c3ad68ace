"""Data sets: which pictures there are, and their pixels, decoded once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, TrainError
from edge.image import crop, resize, trim
from edge.manifest import Preprocess
from edge.preprocess import to_canvas
from edge.types import Image
from trainer.box_fit import fit_boxes
from trainer.layout import read_listing
from trainer.picture import read_picture
from trainer.recipe import Split
from trainer.sample import Boxed, Layout, Listing, NamedBox, Sample, Scene, held_out
from trainer.split import resplit, resplit_scenes

__all__ = [
    "Pictures",
    "Sample",
    "Scene",
    "boxed_of",
    "choose",
    "class_names",
    "load_canvases",
    "load_pictures",
    "pair_batches",
    "plain_batches",
    "read_samples",
    "read_scenes",
    "require_each",
    "samples_of",
]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pictures:
    """Decoded pictures beside their samples."""

    samples: list[Any] = field(default_factory=list)  # Sample or Scene, only those that could be read
    images: list[Image] = field(default_factory=list)  # RGB, shrunk to what training needs
    scales: list[float] = field(default_factory=list)  # by which each was shrunk
    skipped: list[str] = field(default_factory=list)  # why each of the others could not be read
    refitted: list[str] = field(default_factory=list)  # boxes that were clipped to their picture, or left out


def read_samples(
    source: Path,
    root: Path | None = None,
    *,
    layout: Layout | None = None,
    split: Split | None = None,
    cut_to_box: bool = False,
) -> list[Sample]:
    """List the pictures of single objects of a data set; of scenes, every box is one.

    Args:
        source: of any layout, see trainer.layout; a CSV has columns path, split, category (or coarse), item (or fine),
            optionally label. Of a data set without splits, every fifth picture of an item is `val`.
        root: that the paths of a CSV or COCO JSON are relative to; None: its folder.
        layout: None: found out.
        split: None: as the data set has it.
        cut_to_box: use the boxes of a data set that has them beside pictures of single objects.

    Raises:
        TrainError: missing, without a needed file or column, or empty.
    """
    listing = read_listing(source, root, layout, published=split is not None and split.how == "published")
    _tell(listing)
    samples = samples_of(listing, split, cut_to_box=cut_to_box)
    if not samples:
        raise TrainError(f"{source}: found no picture, expected an index.csv, category/item/picture or boxes")
    return samples


def samples_of(listing: Listing, split: Split | None = None, *, cut_to_box: bool = False) -> list[Sample]:
    """The pictures of single objects that a data set lists, divided anew where that is asked for."""
    samples = [sample if cut_to_box else replace(sample, box_px=None) for sample in listing.samples]
    for number, scene in enumerate(listing.scenes):
        told = scene.split or held_out(number)
        samples += [Sample(scene.path, told, box.category, box.item, box_px=box.box_px) for box in scene.boxes]
    return resplit(samples, split) if split is not None else samples


def _tell(listing: Listing) -> None:
    for note in listing.notes:
        log.warning("%s", note)


def choose(samples: Iterable[Sample], splits: Sequence[str], categories: Sequence[str] | None = None) -> list[Sample]:
    """Those of certain splits and categories."""
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
) -> tuple[list[Scene], list[str]]:
    """List whole pictures with boxes.

    Args:
        path: COCO JSON, or a data set of another layout with boxes.
        root: of a JSON's file names; None: where the pictures are found.
        splits: only pictures of these, or that belong to no split; None: all.
        class_agnostic: everything is an `object`.
        least_visible: annotations whose `visible_fraction` is less are left out.
        layout: None: found out.
        split: None: as the data set has it.

    Returns:
        the scenes, and the class names: `["object"]` when class-agnostic.

    Raises:
        TrainError: unreadable, not of its layout, or nothing of these splits.
    """
    published = split is not None and split.how == "published"
    listing = read_listing(path, root, layout, published=published, boxed=True)
    _tell(listing)
    names = ["object"] if class_agnostic else class_names(listing)
    position = {name: 0 if class_agnostic else i for i, name in enumerate(class_names(listing))}
    boxed = boxed_of(listing)
    if split is not None:
        boxed = resplit_scenes(boxed, split)
    scenes = []
    for one in boxed:
        if splits is not None and one.split and one.split not in splits:
            continue
        seen = [box for box in one.boxes if box.visible >= least_visible]
        boxes = np.asarray([box.box_px for box in seen], np.float32).reshape(-1, 4)
        labels = np.asarray([position.get(box.item, 0) for box in seen], np.int64)
        scenes.append(Scene(one.path, boxes, labels, one.split, one.level))
    if not scenes:
        raise TrainError(f"{path}: found no image of the splits {splits}, expected at least one")
    return scenes, names


def boxed_of(listing: Listing) -> list[Boxed]:
    """The whole pictures with boxes that a data set lists; those of single objects have one box."""
    if listing.scenes:
        return listing.scenes
    return [
        Boxed(s.path, s.split, (NamedBox(s.box_px, s.item, s.category),))
        for s in listing.samples
        if s.box_px is not None
    ]


def class_names(listing: Listing) -> list[str]:
    """The names of the boxes, in the data set's own order."""
    return listing.names or sorted({sample.item for sample in listing.samples})


def load_pictures(
    samples: Sequence[Any], longest_px: int | None, trimmed: Sequence[str] = (), margin: float = 0.0
) -> Pictures:
    """Decode pictures once.

    One that cannot be read is named in the log, skipped and counted.

    Args:
        samples: Sample or Scene.
        longest_px: larger ones are shrunk until the longer side is this; None: none are.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.
        margin: for `trim`.

    Raises:
        TrainError: none could be read.
    """
    pictures = Pictures()
    read: dict[Path, Image] = {}  # the latest picture: the crops of one scene follow each other
    for sample in samples:
        try:
            if sample.path not in read:
                read = {sample.path: read_picture(sample.path)[0]}
        except CaptureError as error:
            _skip(pictures, str(error))
            continue
        fitted = _fit(sample, read[sample.path], pictures)
        if fitted is None:
            continue
        image = _object(fitted, read[sample.path], trimmed, margin)
        shrink = 1.0 if longest_px is None else min(1.0, longest_px / max(image.shape[:2]))
        if shrink < 1.0:
            width, height = (max(1, round(size * shrink)) for size in (image.shape[1], image.shape[0]))
            image = resize(image, width, height, "area")
        pictures.samples.append(fitted)
        pictures.images.append(image)
        pictures.scales.append(shrink)
    if samples and not pictures.samples:
        raise TrainError(f"none of {len(samples)} pictures could be read, the first: {pictures.skipped[0]}")
    return pictures


def _object(sample: Any, image: Image, trimmed: Sequence[str], margin: float) -> Image:
    """What is learned from of a picture."""
    if isinstance(sample, Scene):
        return image
    if sample.box_px is not None:
        return np.ascontiguousarray(crop(image, sample.box_px, margin))
    return trim(image, margin) if sample.split in trimmed else image


def _skip(pictures: Pictures, why: str) -> None:
    log.warning("skipped %s", why)
    pictures.skipped.append(why)


def _fit(sample: Any, image: Image, pictures: Pictures) -> Any:
    """The sample with its boxes within the picture; None where its only box is not."""
    height, width = image.shape[:2]
    if isinstance(sample, Scene):
        fitted = fit_boxes(sample.boxes_px, width, height)
        for what, found in ("clipped", fitted.outside), ("left out", fitted.empty):
            if found.any():
                text = f"{sample.path}: {what} {found.sum()} boxes outside its {width}x{height} pixels or without size"
                log.warning("%s", text)
                pictures.refitted.append(text)
        kept = ~fitted.empty
        return replace(sample, boxes_px=fitted.boxes_px[kept], labels=sample.labels[kept])
    if sample.box_px is None:
        return sample
    fitted = fit_boxes(np.asarray(sample.box_px), width, height)
    if fitted.empty[0]:
        _skip(pictures, f"{sample.path}: found box {sample.box_px}, expected some of it within {width}x{height} pixels")
        return None
    if fitted.outside[0]:
        pictures.refitted.append(f"{sample.path}: clipped box {sample.box_px} to its {width}x{height} pixels")
    return replace(sample, box_px=tuple(fitted.boxes_px[0].tolist()))


def load_canvases(
    samples: Sequence[Any], spec: Preprocess, trimmed: Sequence[str] = ()
) -> tuple[list[Any], NDArray[np.uint8], list[str]]:
    """Decode pictures into exactly what the device would feed the network.

    Args:
        samples: Sample or Scene.
        spec: of the network's input.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.

    Returns:
        the samples that could be read, their (n, h, w, 3) canvases, and why each other one could not.
    """
    pictures = load_pictures(samples, None, trimmed, spec.crop_margin)
    canvases = [to_canvas(spec, image)[0] for image in pictures.images]
    stacked = np.stack(canvases) if canvases else np.zeros((0, spec.height, spec.width, 3), np.uint8)
    return pictures.samples, stacked, pictures.skipped


def require_each(samples: Sequence[Sample], expected: Iterable[str], key: str, least: int, where: str) -> None:
    """Check that each category or item has pictures enough.

    Args:
        samples: as loaded.
        expected: names that must be there.
        key: `category` or `item`.
        least: pictures of each.
        where: named in the error.

    Raises:
        TrainError: names those with too few.
    """
    counts = Counter(getattr(sample, key) for sample in samples)
    if few := [f"{name} ({counts[name]})" for name in expected if counts[name] < least]:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        why = ", for pairs are learned from" if least > 1 else ""
        raise TrainError(
            f"{where}: found too few pictures of {', '.join(few[:5])}{more}, expected at least {least} each{why}"
        )


def plain_batches(count: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Cut a shuffle of all indices into batches; the rest that fills none is left for another epoch."""
    order = rng.permutation(count)
    size = min(size, count)
    return [order[start : start + size] for start in range(0, count - size + 1, size)]


def pair_batches(
    labels: NDArray[np.int64],
    classes: int,
    images: int,
    batches: int,
    rng: np.random.Generator,
    nearest: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Draw batches of `classes` sub-categories with `images` pictures each.

    Args:
        labels: (n,) sub-category of each picture, 0 and up.
        classes: of a batch; fewer when there are fewer.
        images: of each, without repetition as long as there are enough.
        batches: how many.
        rng: of the draw.
        nearest: (classes, classes) for each sub-category the others, most similar first: half of each batch is then
            the neighbourhood of one, so that the negatives are hard ones.
    """
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    drawn = []
    for _ in range(batches):
        order = rng.permutation(len(members))
        if nearest is not None and classes < len(members):
            near = np.concatenate([order[:1], nearest[order[0]][: classes // 2]])
            order = np.concatenate([near, order[~np.isin(order, near)]])
        rows = [rng.choice(members[label], images, replace=len(members[label]) < images) for label in order[:classes]]
        drawn.append(np.concatenate(rows))
    return drawn
