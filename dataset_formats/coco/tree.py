"""The contents of one COCO JSON: pictures by name, with their boxes.

A record that cannot be right is left out by its id; a picture that loses all of its records is left out, too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_formats.coco.values import (
    ById,
    Class,
    Notes,
    box_of,
    class_of,
    fraction_of,
    identity_of,
    is_set,
    name_of,
    number_of,
    outline_of,
    shown,
)
from dataset_formats.records import ONE_CATEGORY, Annotation, Annotations, NamedBox, split_from_name
from edge.errors import DataError

_FEDERATED = ("not_exhaustive_category_ids", "neg_category_ids")  # LVIS: not every object has a box


@dataclass(slots=True, eq=False)
class _Picture:
    identity: Any
    name: str
    split: str
    level: str
    size_px: tuple[int, int] | None
    boxes: dict[Any, NamedBox] = field(default_factory=dict)
    lost: int = 0  # annotations that were left out
    is_copy: bool = False  # listed once more on purpose, `repeated`
    times: int = 1


def holds_boxes(tree: Any) -> bool:
    """Return whether a JSON value is COCO with boxes; a set without any annotation is, if it lists its classes."""
    if not isinstance(tree, dict) or not isinstance(tree.get("images"), list):
        return False
    entries = tree.get("annotations")
    if not isinstance(entries, list):
        return False
    return any(isinstance(one, dict) and "bbox" in one for one in entries) or (not entries and "categories" in tree)


def annotations_of(tree: Any, where: Path, *, outlines: bool = True) -> Annotations:
    """Return the contents of a COCO JSON.

    Args:
        tree: the JSON value.
        where: its file.
        outlines: keep `segmentation`; it takes much memory.

    Raises:
        DataError: it is not COCO.
    """
    if not isinstance(tree, dict):
        raise DataError(f"{where}: not COCO: it holds a {type(tree).__name__}, not images and annotations")
    for key in ("images", "annotations"):
        if not isinstance(tree.get(key), list):
            raise DataError(f"{where}: not COCO: it has no list `{key}`")
    if not isinstance(tree.get("categories") or [], list):
        raise DataError(f"{where}: not COCO: its `categories` are no list")
    if tree["annotations"] and not any(isinstance(one, dict) and "bbox" in one for one in tree["annotations"]):
        raise DataError(f"{where}: not COCO with boxes: no annotation has a `bbox`")
    notes = Notes(where)
    classes = _classes(tree["categories"], notes) if tree.get("categories") else None
    pictures = _pictures(tree["images"], notes)
    ids = [one.get("image_id") for one in tree["annotations"] if isinstance(one, dict)]
    if ids and all(pictures.find(identity_of(one))[0] is None for one in ids):
        raise DataError(f"{where}: not COCO: no annotation refers to a listed image; one has image_id {shown(ids[0])}")
    for number, entry in enumerate(tree["annotations"], 1):
        _add(entry, number, pictures, classes, notes, outlines=outlines)
    found = _with_answers(pictures, notes)
    names = _names(classes, found, notes)
    return Annotations(found, names, notes.left_out, notes.noticed())


def _classes(entries: list[Any], notes: Notes) -> ById[Class | str]:
    """Return the classes by category id; text instead of a class says why nothing can be of it."""
    classes: ById[Class | str] = ById()
    for number, entry in enumerate(entries, 1):
        identity = identity_of(entry.get("id")) if isinstance(entry, dict) else None
        if identity is None:
            notes.leave_out(f"category {number}", "it has no id; give it a number")
            continue
        found = class_of(entry, notes)
        known = classes.values.get(identity)
        if found is None:
            notes.leave_out(f"category {shown(identity)}", "it has no name; name it")
            classes.add(identity, f"category {shown(identity)} has no name")
        elif isinstance(known, Class) and known.name == found.name:
            notes.notice("categories are listed twice", f"category {shown(identity)}")
        elif known is not None:
            notes.leave_out(f"category {shown(identity)}", f"its id is given to several names; one is {found.name}")
            classes.add(identity, f"category {shown(identity)} has several names")
        else:
            classes.add(identity, found)
    return classes


def _names(classes: ById[Class | str] | None, pictures: list[Annotation], notes: Notes) -> list[str]:
    """Return the class names in the order of their ids, each once; a mere group of classes is none."""
    used = {box.item for picture in pictures for box in picture.boxes}
    if classes is None:
        if used:
            notes.notice(f"there are no categories; every box is an `{ONE_CATEGORY}`", "no `categories`")
        return sorted(used)
    ordered = sorted(classes.values.items(), key=lambda one: (isinstance(one[0], str), one[0]))
    listed = [one for _, one in ordered if isinstance(one, Class)]
    seen: set[str] = set()
    for one in listed:
        if one.name in seen:
            notes.notice("class names are given to several categories, which become one class", one.name)
        seen.add(one.name)
    groups = {one.category for one in listed if one.category != one.name} - used
    for name in sorted(groups & seen):
        notes.notice("categories only group others and are no class", name)
    return list(dict.fromkeys(one.name for one in listed if one.name not in groups))


def _pictures(entries: list[Any], notes: Notes) -> ById[_Picture | str]:
    """Return the pictures by image id; text instead of a picture says why it is left out."""
    claims: dict[Any, list[_Picture]] = defaultdict(list)
    for number, entry in enumerate(entries, 1):
        picture = _picture(entry)
        if isinstance(picture, str):
            notes.leave_out(f"image {number}", picture)
            continue
        claims[picture.identity].append(picture)
        for key in _FEDERATED:
            if entry.get(key):
                notes.notice(f"pictures have `{key}`: not every object has a box", shown(picture.name))
    pictures: ById[_Picture | str] = ById()
    by_name: dict[str, list[_Picture]] = defaultdict(list)
    for identity, given in claims.items():
        if len(others := {one.name for one in given}) > 1:
            why = f"{len(others)} pictures have this id: {', '.join(map(shown, sorted(others)[:3]))}"
            notes.leave_out(f"image {shown(identity)}", f"{why}; give each its own")
            pictures.add(identity, f"{len(others)} pictures have its image_id {shown(identity)}")
        else:
            by_name[given[0].name] += given
            pictures.add(identity, given[0])
    for name, given in by_name.items():
        _unite(name, given, pictures, notes)
    return pictures


def _unite(name: str, given: list[_Picture], pictures: ById[_Picture | str], notes: Notes) -> None:
    """Make one picture of several entries with the same name, unless they contradict each other."""
    if given[1:] and all(one.is_copy for one in given[1:]):
        given[0].times, given[0].is_copy = len(given), False
        return
    if len(given) == 1:
        return
    if len({one.split for one in given}) > 1 or len({one.size_px for one in given} - {None}) > 1:
        why = f"it is listed {len(given)} times, with other sizes or splits; list it once"
        notes.leave_out(f"image {shown(name)}", why)
        for one in given:
            pictures.add(one.identity, f"its picture {shown(name)} is listed with other sizes or splits")
        return
    notes.notice("pictures are listed several times; their boxes are put together", shown(name))
    for one in given:
        pictures.add(one.identity, given[0])


def _picture(entry: Any) -> _Picture | str:
    """Return the picture of an entry of `images`, or why there is none."""
    if not isinstance(entry, dict):
        return "it is no object"
    identity = identity_of(entry.get("id"))
    if identity is None:
        return "it has no id; give it a number"
    name, split = entry.get("file_name"), entry.get("split")
    if not isinstance(name, str) or not name.strip():
        return "it has no file_name; give the path of its picture"
    if not isinstance(split, str | int | None) or isinstance(split, bool):
        return "its split is no text; write train, val or test"
    written = "" if split is None else str(split).strip()
    size = tuple(number_of(entry.get(side)) or 0 for side in ("width", "height"))
    return _Picture(
        identity,
        name,
        split_from_name(written) or written,
        name_of(entry.get("level")),
        (int(size[0]), int(size[1])) if min(size) >= 1 else None,
        is_copy=is_set(entry.get("repeated")),
    )


def _add(
    entry: Any,
    number: int,
    pictures: ById[_Picture | str],
    classes: ById[Class | str] | None,
    notes: Notes,
    *,
    outlines: bool,
) -> None:
    """Add one annotation to its picture, or leave it out."""
    if not isinstance(entry, dict):
        notes.leave_out(f"annotation {number}", "it is no object")
        return
    given = identity_of(entry.get("id"))
    record = f"annotation {number if given is None else shown(given)}"
    wanted = identity_of(entry.get("image_id"))
    picture, same_type = pictures.find(wanted)
    if not isinstance(picture, _Picture):
        notes.leave_out(record, picture or f"no image has its image_id {shown(entry.get('image_id'))}")
        return
    if not same_type:
        notes.notice("image ids are text in one list and numbers in the other; they are matched", record)
    for key, what in (("iscrowd", "boxes of crowds"), ("ignore", "boxes to ignore")):
        if is_set(entry.get(key)):
            notes.crowds[what] += 1
            picture.lost += 1
            return
    box = _named_box(entry, record, picture, classes, notes)
    if isinstance(box, str):
        notes.leave_out(record, box)
        picture.lost += 1
        return
    if outlines:
        box = replace(box, outline=outline_of(entry))
    same = (box.box_px, box.item, box.category, box.item_id)
    if same in picture.boxes:
        notes.notice("annotations repeat another one of the same picture, box and class; each was read once", record)
    picture.boxes.setdefault(same, box)


def _named_box(
    entry: dict[str, Any], record: str, picture: _Picture, classes: ById[Class | str] | None, notes: Notes
) -> NamedBox | str:
    """Return the box of an annotation, or why it is left out."""
    kind: Class | str | None = Class(ONE_CATEGORY, ONE_CATEGORY)
    if classes is not None:
        kind, same_type = classes.find(identity_of(entry.get("category_id")))
        if not same_type:
            notes.notice("category ids are text in one list and numbers in the other; they are matched", record)
    if not isinstance(kind, Class):
        return kind or f"no category has its category_id {shown(entry.get('category_id'))}"
    box_px = box_of(entry, picture.size_px, record, notes)
    if isinstance(box_px, str):
        return box_px
    visible = fraction_of(entry, record, notes)
    return NamedBox(
        box_px, kind.name, kind.category, visible, number_of(entry.get("score")), item_id=name_of(entry.get("item_id"))
    )


def _with_answers(pictures: ById[_Picture | str], notes: Notes) -> list[Annotation]:
    """Return the pictures, without those that lost all of their annotations."""
    found = []
    for picture in dict.fromkeys(one for one in pictures.values.values() if isinstance(one, _Picture)):
        if picture.is_copy:
            continue
        if picture.lost and not picture.boxes:
            why = f"all of its {picture.lost} annotations were left out, so its objects are unknown"
            notes.leave_out(f"image {shown(picture.name)}", why)
            continue
        boxes = tuple(picture.boxes.values())
        found.append(Annotation(picture.name, boxes, picture.split, picture.level, picture.size_px, picture.times))
    notes.left_out += [f"{notes.where}: left out {count} {what}" for what, count in notes.crowds.items()]
    return found
