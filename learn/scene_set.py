"""The scenes to learn from: whole pictures with boxes, read once, turned upright, shrunk, named and split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dataset_formats.boxes import clip_boxes
from dataset_formats.coco.reader import write_coco
from dataset_formats.csv_table import read_table
from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.listings import annotated_pictures
from dataset_formats.notices import printable
from dataset_formats.records import ONE_CATEGORY, AnnotatedPicture, Annotation, Listing, NamedBox
from edge.durable import write_durably
from edge.errors import CaptureError, DataError, TrainError
from edge.imaging.image import encode_image, shrink
from learn.photos import copy_path
from trainer.data.duplicates import near_duplicate_of
from trainer.data.split import resplit_pictures
from trainer.recipe_parts import Split

LONGEST_PX = 1280  # of the copies: crops are cut out of them
SCENES_FILE = "scenes.json"
HELD_OUT = 0.2  # share of the pictures, where the data set holds none out
_QUALITY = 92
_LISTED = 8  # names that a message lists
FEWEST = 4  # pictures: three to learn from, and one to see when the detector has converged

# named: categories and items; one_level: one name for each box; unnamed: all boxes have the same name
Naming = Literal["named", "one_level", "unnamed"]


@dataclass(frozen=True, slots=True)
class BoxName:
    """What the name of a box means."""

    category: str
    item: str
    label: str = ""  # for people


@dataclass(frozen=True, slots=True)
class SceneSet:
    """The pictures that can be used: `train` and `val`."""

    file: Path  # COCO JSON of the copies
    pictures: list[AnnotatedPicture]  # copies, with boxes named by category and item
    naming: Naming
    labels: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by category and item, for people
    sources: Mapping[str, Path] = field(default_factory=dict)  # by file name of a copy: the picture
    left_out: tuple[str, ...] = ()  # which picture cannot be used, and why
    untouched: int = 0  # pictures of the split `test`
    noticed: tuple[str, ...] = ()  # what deserves a look

    @property
    def boxes(self) -> list[NamedBox]:
        """Return all boxes."""
        return [box for picture in self.pictures for box in picture.boxes]


def read_names(path: Path) -> dict[str, BoxName]:
    """Read what the names of boxes mean: a CSV with columns name, category, item and optionally label.

    Raises:
        DataError: the file cannot be read, lacks a column or a value, or gives a name two meanings.
    """
    table = read_table(path)
    table.require("name", "category", "item")
    if table.left_out:
        raise DataError(table.left_out[0])
    names: dict[str, BoxName] = {}
    for line, row in table.rows:
        name, meant = row["name"], BoxName(row["category"], row["item"], row.get("label", ""))
        if not (name and meant.category and meant.item):
            raise DataError(f"{path}: line {line}: a value is missing; give name, category and item")
        if names.setdefault(name, meant) != meant:
            raise DataError(f"{path}: line {line}: {name!r} has another meaning in an earlier line; remove one of them")
    return names


def names_that_miss(listing: Listing, names: Mapping[str, BoxName], file: Path) -> list[str]:
    """Say which names are on no box, and which boxes have no row.

    Args:
        listing: of the data set.
        names: what the names of its boxes mean.
        file: where that is written.

    Raises:
        TrainError: no name is on a box.
    """
    on_boxes = {(box.item_id or box.item, box.item) for one in annotated_pictures(listing) for box in one.boxes}
    known = {name for pair in on_boxes for name in pair}
    if not known.intersection(names):
        raise TrainError(f"{file}: none of its names is on a box; the boxes are named {_listed(known)}")
    absent = [name for name in names if name not in known]
    left = [finer for finer, name in on_boxes if finer not in names and name not in names]
    return [
        f"{file}: {what}: {_listed(of)}"
        for what, of in (("names that are on no box", absent), ("boxes without a row keep their names", left))
        if of
    ]


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return printable(", ".join(ordered[:_LISTED]) + more)


def named_pictures(listing: Listing, names: Mapping[str, BoxName]) -> list[AnnotatedPicture]:
    """Return whole pictures whose boxes carry category and item.

    A box with an item id finer than its class (COCO's `item_id`) has the class as category. `names` overrides both.
    """

    def named(box: NamedBox) -> NamedBox:
        finer = box.item_id or box.item
        if (meant := names.get(finer) or names.get(box.item)) is not None:
            return replace(box, category=meant.category, item=meant.item, item_id="")
        return replace(box, category=box.item, item=box.item_id, item_id="") if box.item_id else box

    return [replace(one, boxes=tuple(map(named, one.boxes))) for one in annotated_pictures(listing)]


def naming_of(pictures: Iterable[AnnotatedPicture]) -> Naming:
    """Return how much the names of the boxes say."""
    kinds = {(box.category, box.item) for picture in pictures for box in picture.boxes}
    if len(kinds) < 2:
        return "unnamed"
    return "one_level" if {category for category, _ in kinds} == {ONE_CATEGORY} else "named"


def read_scenes(
    source: Path,
    root: Path | None,
    folder: Path,
    progress: Callable[[Sequence[AnnotatedPicture], str], Iterable[AnnotatedPicture]],
    names: Path | None = None,
) -> SceneSet:
    """Read a data set with boxes, copy its pictures, and write their boxes as one COCO JSON.

    Pictures of split `test` are not touched. A data set without both `train` and `val` is split, so that pictures that
    look the same stay together. A copy that exists is not made again.

    Args:
        source: data set of any layout with boxes.
        root: folder of the file names in a COCO JSON; None: where the pictures are.
        folder: of the copies.
        progress: wraps the list of pictures, with a description.
        names: see `read_names`; None: the names are those of the data set.

    Raises:
        DataError: the data set cannot be read, or has no boxes.
        TrainError: too few of its pictures can be used, or no name is on a box.
    """
    listing = read_listing(source, root, boxed=True)
    meant = {} if names is None else read_names(names)
    noticed = () if names is None else tuple(names_that_miss(listing, meant, names))
    listed = named_pictures(listing, meant)
    kept = [one for one in listed if one.split != "test"]
    folder.mkdir(parents=True, exist_ok=True)
    left_out, sources = list(listing.left_out), {}
    made: dict[Path, AnnotatedPicture] = {}  # the same picture may be listed twice
    for one in progress(kept, "reading scenes"):
        try:
            copy = _copy(one, folder)
        except CaptureError as error:
            left_out.append(printable(str(error)))
            continue
        made[copy.path], sources[copy.path.name] = copy, one.path
    copies = list(made.values())
    if len(copies) < FEWEST:
        first = f"; the first that is left out: {left_out[0]}" if left_out else ""
        first += f"; {len(listed) - len(kept)} of the split test are not touched" if len(kept) < len(listed) else ""
        raise TrainError(f"{source}: {len(copies)} pictures can be used; {FEWEST} are needed{first}")
    copies = _split(copies)
    file = folder / SCENES_FILE
    write_coco([Annotation(p.path.name, p.boxes, p.split, p.level, p.declared_size_px) for p in copies], [], file)
    labels = {(one.category, one.item): one.label for one in meant.values() if one.label}
    return SceneSet(file, copies, naming_of(copies), labels, sources, tuple(left_out), len(listed) - len(kept), noticed)


def _split(pictures: list[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Return pictures of `train` and `val`."""
    if {"train", "val"} <= {one.split for one in pictures}:
        return [one for one in pictures if one.split in ("train", "val")]
    pooled = [replace(one, split="train") for one in pictures]
    return resplit_pictures(pooled, Split(how="stratified", val=HELD_OUT), near_duplicate_of(p.path for p in pooled))


def _copy(picture: AnnotatedPicture, folder: Path) -> AnnotatedPicture:
    """Return a picture whose path is that of its copy, and whose boxes lie in the copy; make the copy if need be.

    Raises:
        CaptureError: the picture cannot be read.
    """
    path = copy_path(picture.path, folder)
    image_rgb = read_picture(picture.path)[0]
    height, width = image_rgb.shape[:2]
    small = shrink(image_rgb, LONGEST_PX)
    if not path.is_file():
        write_durably(path, encode_image(small, ".jpg", _QUALITY))
    factor_x, factor_y = small.shape[1] / width, small.shape[0] / height
    boxes = []
    for box in picture.boxes:
        fitted = clip_boxes(np.asarray([box.box_px], np.float32), width, height)
        if not fitted.empty[0]:
            x0, y0, x1, y1 = fitted.boxes_px[0].tolist()
            inside = (x0 * factor_x, y0 * factor_y, x1 * factor_x, y1 * factor_y)
            boxes.append(replace(box, box_px=inside, outline=None))
    return replace(picture, path=path, boxes=tuple(boxes), declared_size_px=(small.shape[1], small.shape[0]))
