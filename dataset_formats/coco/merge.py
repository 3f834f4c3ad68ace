"""Several COCO files of one data set: which of them describe the same pictures, and what holds then.

1. A file whose pictures and boxes are in other files as well is left out.
2. COCO names its files TASK_SET.json. Beside `instances_SET.json`, the objects, another task of the same pictures
   (stuff, parts) is left out.
3. A picture that several other files describe gets the boxes of all of them, each once.
4. Files of different splits stay apart: a picture in both is a leak, and named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_formats.notices import in_bulk
from dataset_formats.records import AnnotatedPicture, Annotations, Listing, NamedBox

_OBJECTS = "instances"  # COCO's task of boxes around objects


@dataclass(slots=True, eq=False)
class Part:
    """One file of a data set, with its pictures found."""

    file: Path
    read: Annotations
    pictures: dict[Path, AnnotatedPicture] = field(default_factory=dict)
    times: dict[Path, int] = field(default_factory=dict)  # how often a picture is listed on purpose, if not once
    of_several_splits: bool = False  # its name says so: `trainval`


def merge_parts(parts: Sequence[Part], listing: Listing) -> None:
    """Add the contents of several files to a listing."""
    if len(parts) > 1:
        parts = _without_other_tasks(_without_repeats(parts, listing), listing)
    for part in parts:
        listing.left_out += part.read.left_out
        listing.noticed += part.read.noticed
    listing.names += dict.fromkeys(name for part in parts for name in part.read.names)
    _unite(parts, listing)


def _without_repeats(parts: Sequence[Part], listing: Listing) -> list[Part]:
    """Return the files without those that say nothing new; the largest go first, so that the splits of it stay."""
    holders: dict[Path, list[Part]] = defaultdict(list)
    for part in parts:
        for path in part.pictures:
            holders[path].append(part)
    dropped: list[Part] = []
    for part in sorted(sorted(parts, key=lambda one: one.file, reverse=True), key=_size_and_splits):
        others: dict[str, None] = {}
        for path, picture in part.pictures.items():
            alike = [one for one in holders[path] if one is not part and _same_split(part, picture, one.pictures[path])]
            alike = [one for one in alike if _boxes(picture) <= _boxes(one.pictures[path])][:1] or alike
            if not alike or not _boxes(picture) <= {key for one in alike for key in _boxes(one.pictures[path])}:
                break
            others |= dict.fromkeys(one.file.name for one in alike)
        else:
            if not part.pictures:
                continue
            dropped.append(part)
            for path in part.pictures:
                holders[path] = [one for one in holders[path] if one is not part]
            why = f"its pictures and boxes are in {', '.join(list(others)[:3])} as well"
            listing.left_out.append(f"{part.file}: {why}")
    return [part for part in parts if part not in dropped]


def _size_and_splits(part: Part) -> tuple[int, bool]:
    return -sum(len(one.boxes) for one in part.pictures.values()), any(one.split for one in part.pictures.values())


def _same_split(part: Part, picture: AnnotatedPicture, other: AnnotatedPicture) -> bool:
    return part.of_several_splits or picture.split in ("", other.split)


def _boxes(picture: AnnotatedPicture) -> set[Any]:
    return {(box.box_px, box.item, box.category) for box in picture.boxes}


def _without_other_tasks(parts: Sequence[Part], listing: Listing) -> list[Part]:
    objects = {set_of: part for part in parts for task, set_of in [_task_and_set(part)] if task == _OBJECTS}
    kept = []
    for part in parts:
        task, set_of = _task_and_set(part)
        main = objects.get(set_of)
        if main is None or task == _OBJECTS or main.pictures.keys().isdisjoint(part.pictures):
            kept.append(part)
        else:
            why = f"it is another task for pictures of {main.file.name}; to read it, give this file"
            listing.left_out.append(f"{part.file}: {why}")
    return kept


def _task_and_set(part: Part) -> tuple[str, tuple[Path, str]]:
    task, _, name = part.file.stem.rpartition("_")
    return task, (part.file.parent, name)


def _unite(parts: Sequence[Part], listing: Listing) -> None:
    """Add the pictures of all files, each once for each split."""
    places: dict[Path, list[int]] = defaultdict(list)
    several: dict[Path, None] = {}
    leaks: dict[Path, None] = {}
    for picture in _pictures(parts):
        for place in places[picture.path]:
            known = listing.scenes[place]
            if known.split == picture.split or not (known.split and picture.split):
                listing.scenes[place] = both(known, picture)
                several[picture.path] = None
                break
        else:
            if places[picture.path]:
                leaks[picture.path] = None
            places[picture.path].append(len(listing.scenes))
            listing.scenes.append(picture)
    times = {path: count for part in parts for path, count in part.times.items()}
    listing.scenes = [scene for scene in listing.scenes for _ in range(times.get(scene.path, 1))]
    listing.noticed += in_bulk("pictures that several files describe; they have the boxes of all", several)
    listing.noticed += in_bulk("pictures in several splits; results on them look too good", leaks)


def _pictures(parts: Sequence[Part]) -> Iterator[AnnotatedPicture]:
    for part in parts:
        yield from part.pictures.values()


def both(first: AnnotatedPicture, second: AnnotatedPicture) -> AnnotatedPicture:
    """Return a picture with the boxes of two descriptions of it, each once."""
    boxes: dict[Any, NamedBox] = {}
    for box in (*first.boxes, *second.boxes):
        boxes.setdefault((box.box_px, box.item, box.category), box)
    return replace(
        first,
        split=first.split or second.split,
        boxes=tuple(boxes.values()),
        level=first.level or second.level,
        declared_size_px=first.declared_size_px or second.declared_size_px,
    )
