"""Tagged regions as fractions of the picture: the JSON that Custom Vision exports."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from dataset_formats.decode import upright_size
from dataset_formats.picture_names import PictureFinder
from dataset_formats.records import (
    AnnotatedPicture,
    Listing,
    NamedBox,
    default_split,
    drop_repeated_boxes,
    in_bulk,
    printable,
)
from dataset_formats.text_files import BAD_DATA, as_text, read_json, require_file
from edge.errors import CaptureError, DataError

_TAGS_FILE = "boxes.json"
_FARTHEST = 2.0  # a fraction beyond it is a pixel


def looks_like_tags(path: Path) -> bool:
    """Return whether a JSON file, or `boxes.json` of a folder, lists files with tags."""
    try:
        tree = read_json(path / _TAGS_FILE if path.is_dir() else path)
    except DataError:
        return False
    entries = tree.get("files") if isinstance(tree, dict) else None
    return isinstance(entries, list) and any(isinstance(one, dict) and "tags" in one for one in entries)


def read_tags(path: Path) -> Listing:
    """Read `boxes.json`: files with a filename and tags, each with tag, left, top, width, height as fractions.

    A picture without tags shows no object. A picture whose tags are missing or were all left out is left out itself.

    Raises:
        DataError: the file cannot be read, has another form, or no picture could be read.
    """
    file = require_file(path / _TAGS_FILE if path.is_dir() else path, "the boxes of the pictures beside it")
    tree = read_json(file)
    entries = tree.get("files") if isinstance(tree, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{file}: has no list `files` of pictures with tags; give Custom Vision's export")
    listing = Listing("tags")
    finder = PictureFinder([file.parent], file.parent)
    numeric: Counter[str] = Counter()
    found: dict[Path, list[tuple[NamedBox, ...]]] = defaultdict(list)
    for number, entry in enumerate(entries, 1):
        where = f"{file}: file {number}"
        try:
            picture = finder.find(as_text(entry["filename"]))
            if not isinstance(picture, Path):
                listing.left_out.append(f"{where}: {entry['filename']}: {picture}; add the picture")
                continue
            boxes = _boxes(entry["tags"], upright_size(picture), f"{where}: {picture.name}", listing, numeric)
        except CaptureError as error:
            listing.left_out.append(str(error))
        except BAD_DATA as error:
            listing.left_out.append(f"{where}: expected a filename and tags: {type(error).__name__} {error}")
        else:
            if boxes is not None:
                found[picture].append(boxes)
    _add(found, file, listing)
    listing.names = sorted({box.item for scene in listing.scenes for box in scene.boxes})
    listing.noticed += in_bulk(f"{file}: tags that are numbers; they were read as text", list(numeric))
    listing.left_out = [printable(text) for text in listing.left_out]
    listing.noticed = [printable(text) for text in listing.noticed]
    if not listing.scenes:
        raise DataError(f"{file}: no picture was read: {'; '.join(listing.left_out[:3]) or 'it lists none'}")
    return listing


def _add(found: dict[Path, list[tuple[NamedBox, ...]]], file: Path, listing: Listing) -> None:
    """Add the pictures; one that is listed twice needs the same boxes each time."""
    scenes: list[AnnotatedPicture] = []
    for picture, lists in found.items():
        if any(set(boxes) != set(lists[0]) for boxes in lists):
            listing.left_out.append(f"{file}: {picture.name}: is listed {len(lists)} times with other tags; keep one")
        else:
            scenes.append(AnnotatedPicture(picture, default_split(len(scenes)), lists[0]))
    twice = [scene.path.name for scene in scenes if len(found[scene.path]) > 1]
    listing.noticed += in_bulk(f"{file}: pictures listed several times with the same tags", twice)
    listing.scenes, repeated = drop_repeated_boxes(scenes)
    listing.noticed += repeated


def _boxes(
    tags: list[Any], size_px: tuple[int, int], where: str, listing: Listing, numeric: Counter[str]
) -> tuple[NamedBox, ...] | None:
    """Return the boxes of one picture; None if all of its tags were left out.

    Raises:
        TypeError: tags is not a list.
    """
    if not isinstance(tags, list):
        raise TypeError(f"tags is {tags!r:.40}")
    boxes = []
    for number, tag in enumerate(tags, 1):
        try:
            boxes.append(_region(tag, size_px))
            numeric.update([boxes[-1].item] if not isinstance(tag["tag"], str) else [])
        except BAD_DATA as error:
            why = f"has no {error}" if isinstance(error, KeyError) else error
            listing.left_out.append(f"{where}: tag {number}: {why}; draw it again")
    if tags and not boxes:
        listing.left_out.append(f"{where}: all of its tags were left out, and so was the picture; correct them")
        return None
    return tuple(boxes)


def _region(tag: dict[str, Any], size_px: tuple[int, int]) -> NamedBox:
    """Return the box of one tag.

    Raises:
        ValueError, TypeError, LookupError: it has none; says why.
    """
    name = tag["tag"]
    if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
        raise ValueError(f"{name!r:.40} is not a name")
    if any(tag.get(key) for key in ("angle", "rotation")):
        raise ValueError("it is rotated, and only upright boxes are read")
    left, top, width, height = (float(tag[side]) for side in ("left", "top", "width", "height"))
    if not all(math.isfinite(one) and abs(one) <= _FARTHEST for one in (left, top, width, height)):
        raise ValueError(
            f"left, top, width, height are {left:g}, {top:g}, {width:g}, {height:g}, which are no fractions"
        )
    if min(width, height) <= 0 or max(left, top) >= 1 or min(left + width, top + height) <= 0:
        raise ValueError("its region is empty or outside the picture")
    box = (left * size_px[0], top * size_px[1], (left + width) * size_px[0], (top + height) * size_px[1])
    return NamedBox(box, str(name).strip())
