"""Tagged regions as fractions of the picture: the JSON that Custom Vision exports."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from dataset_formats.decode import upright_size
from dataset_formats.listings import class_names, finish, settle_splits
from dataset_formats.notices import Notices, lost_all
from dataset_formats.picture_names import PictureFinder
from dataset_formats.records import AnnotatedPicture, Listing, NamedBox
from dataset_formats.text_files import BAD_DATA, as_text, read_json, require_file
from dataset_formats.values import finite
from edge.errors import CaptureError, DataError

_TAGS_FILE = "boxes.json"
_SIDES = ("left", "top", "width", "height")
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
    notices = Notices(file)
    finder = PictureFinder([file.parent], file.parent)
    found: dict[Path, list[tuple[NamedBox, ...]]] = defaultdict(list)
    for number, entry in enumerate(entries, 1):
        where = f"file {number}"
        try:
            picture = finder.find(as_text(entry["filename"]))
            if not isinstance(picture, Path):
                notices.leave_out(f"{where}: {entry['filename']}", f"{picture}; add the picture")
                continue
            boxes = _boxes(entry["tags"], upright_size(picture), f"{where}: {picture.name}", notices)
        except CaptureError as error:
            notices.left_out.append(str(error))
        except BAD_DATA as error:
            notices.leave_out(where, f"expected a filename and tags: {type(error).__name__} {error}")
        else:
            if boxes is not None:
                found[picture].append(boxes)
    scenes = _scenes(found, notices)
    listing = Listing("tags", [], scenes, class_names(scenes), notices.left_out, notices.noticed())
    settle_splits(listing)
    return finish(listing, file, "lists no picture; add some")


def _scenes(found: dict[Path, list[tuple[NamedBox, ...]]], notices: Notices) -> list[AnnotatedPicture]:
    """Return the pictures; one that is listed twice needs the same boxes each time."""
    scenes = []
    for picture, lists in found.items():
        if any(set(boxes) != set(lists[0]) for boxes in lists):
            notices.leave_out(picture.name, f"is listed {len(lists)} times with other tags; keep one")
            continue
        scenes.append(AnnotatedPicture(picture, "", lists[0]))
        if len(lists) > 1:
            notices.notice("pictures listed several times with the same tags", picture.name)
    return scenes


def _boxes(tags: list[Any], size_px: tuple[int, int], where: str, notices: Notices) -> tuple[NamedBox, ...] | None:
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
            if not isinstance(tag["tag"], str):
                notices.notice("tags that are numbers; they were read as text", boxes[-1].item)
        except BAD_DATA as error:
            why = f"has no {error}" if isinstance(error, KeyError) else error
            notices.leave_out(f"{where}: tag {number}", f"{why}; draw it again")
    if tags and not boxes:
        notices.leave_out(where, lost_all("tags"))
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
    sides = [finite(tag[side]) for side in _SIDES]
    left, top, width, height = (math.inf if side is None else side for side in sides)
    if max(map(abs, (left, top, width, height))) > _FARTHEST:
        given = ", ".join(f"{tag[side]!s:.20}" for side in _SIDES)
        raise ValueError(f"{', '.join(_SIDES)} are {given}, which are no fractions")
    if min(width, height) <= 0 or max(left, top) >= 1 or min(left + width, top + height) <= 0:
        raise ValueError("its region is empty or outside the picture")
    box = (left * size_px[0], top * size_px[1], (left + width) * size_px[0], (top + height) * size_px[1])
    return NamedBox(box, str(name).strip())
