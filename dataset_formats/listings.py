"""Listings: what several formats do to fill one, and the objects in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from dataset_formats.notices import in_bulk, printable
from dataset_formats.records import AnnotatedPicture, Annotation, Listing, NamedBox, Sample
from dataset_formats.splits import default_split
from edge.errors import DataError

_Boxed = TypeVar("_Boxed", AnnotatedPicture, Annotation)


def add_scenes(listing: Listing, found: Iterable[tuple[str, Annotation, Path | str]]) -> None:
    """Add the pictures of annotation files; leave out those that are not here, and those that several names mean.

    Args:
        listing: to add to.
        found: for each picture, its record for messages, what the file says, and its path or why there is none.
    """
    claims: dict[Path, list[tuple[str, Annotation]]] = defaultdict(list)
    for record, one, path in found:
        if isinstance(path, str):
            listing.left_out.append(f"{record}: {path}; add the picture")
        else:
            claims[path].append((record, one))
    for path, given in claims.items():
        if len(given) == 1:
            one = given[0][1]
            listing.scenes.append(AnnotatedPicture(path, one.split, one.boxes, one.level, one.declared_size_px))
        else:
            listing.left_out += [f"{record}: {len(given)} names mean {path}; keep one" for record, _ in given]


def settle_splits(listing: Listing) -> None:
    """Give whole pictures the default splits if none has a split, and else leave out those without."""
    if any(scene.split for scene in listing.scenes):
        without = [scene.path.name for scene in listing.scenes if not scene.split]
        listing.left_out += in_bulk("pictures without a split, which others have; left out", without)
        listing.scenes = [scene for scene in listing.scenes if scene.split]
    else:
        listing.scenes = [replace(one, split=default_split(number)) for number, one in enumerate(listing.scenes)]


def finish(listing: Listing, source: Path, why_empty: str) -> Listing:
    """Return a listing whose lines can be printed, and whose pictures have each box once.

    Args:
        listing: what a reader read.
        source: the data set.
        why_empty: why there is no picture, where nothing was left out.

    Raises:
        DataError: it has no picture.
    """
    listing.scenes, repeated = drop_repeated_boxes(listing.scenes)
    listing.left_out = [printable(line) for line in listing.left_out]
    listing.noticed = [printable(line) for line in (*listing.noticed, *repeated)]
    if listing.samples or listing.scenes:
        return listing
    first = f"no picture can be used; the first: {listing.left_out[0]}" if listing.left_out else why_empty
    raise DataError(printable(f"{source}: {first}"))


def drop_repeated_boxes(pictures: Iterable[_Boxed]) -> tuple[list[_Boxed], list[str]]:
    """Keep one of the boxes of a picture that have the same sides and the same name; return what was noticed."""
    kept, repeated = [], []
    for picture in pictures:
        boxes: dict[object, NamedBox] = {}
        for box in picture.boxes:
            boxes.setdefault((box.box_px, box.item, box.category, box.item_id), box)
        if len(boxes) < len(picture.boxes):
            repeated.append(str(picture.path) if isinstance(picture, AnnotatedPicture) else picture.name)
            picture = replace(picture, boxes=tuple(boxes.values()))  # noqa: PLW2901 the same picture
        kept.append(picture)
    return kept, in_bulk("pictures that list one box twice; each was read once", repeated)


def class_names(pictures: Iterable[AnnotatedPicture | Annotation]) -> list[str]:
    """Return the class names of all boxes, sorted."""
    return sorted({box.item for picture in pictures for box in picture.boxes})


def single_objects(listing: Listing, *, cut_to_box: bool = False) -> list[Sample]:
    """Return the pictures of single objects of a listing; every box of a scene is one.

    Args:
        listing: of a data set.
        cut_to_box: use the boxes of a data set that has them beside pictures of single objects.
    """
    samples = [one if cut_to_box or one.box_px is None else replace(one, box_px=None) for one in listing.samples]
    for number, scene in enumerate(listing.scenes):
        split = scene.split or default_split(number)
        samples += [Sample(scene.path, split, box.category, box.item, box_px=box.box_px) for box in scene.boxes]
    return samples


def annotated_pictures(listing: Listing) -> list[AnnotatedPicture]:
    """Return the whole pictures with boxes of a listing; a picture of a single object has one box."""
    if listing.scenes:
        return listing.scenes
    return [
        AnnotatedPicture(s.path, s.split, (NamedBox(s.box_px, s.item, s.category),))
        for s in listing.samples
        if s.box_px is not None
    ]
