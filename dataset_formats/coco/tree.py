"""The contents of one COCO JSON: pictures by name, with their boxes.

A record that cannot be right is left out by its id; a picture that loses all of its records is left out, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset_formats.coco.values import (
    ById,
    Class,
    box_of,
    class_of,
    fraction_of,
    identity_of,
    is_set,
    name_of,
    outline_of,
    shown,
)
from dataset_formats.notices import Notices, lost_all
from dataset_formats.records import ONE_CATEGORY, Annotation, Annotations, NamedBox
from dataset_formats.splits import split_from_name
from dataset_formats.values import finite, sha256_or_empty
from edge.errors import DataError

_FEDERATED = ("not_exhaustive_category_ids", "neg_category_ids")  # LVIS: not every object has a box


@dataclass(slots=True, eq=False)
class _Picture:
    identity: Any
    name: str
    split: str
    level: str
    size_px: tuple[int, int] | None
    sha256: str
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
    return any(map(_has_place, entries)) or (not entries and "categories" in tree)


def _has_place(entry: Any) -> bool:
    return isinstance(entry, dict) and ("bbox" in entry or bool(entry.get("segmentation")))


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
    if tree["annotations"] and not any(map(_has_place, tree["annotations"])):
        raise DataError(f"{where}: not COCO with boxes: no annotation has a `bbox`")
    notes = Notices(where)
    classes = _classes(tree["categories"], notes) if tree.get("categories") else None
    pictures = _pictures(tree["images"], notes)
    ids = [one.get("image_id") for one in tree["annotations"] if isinstance(one, dict)]
    if ids and all(pictures.find(identity_of(one))[0] is None for one in ids):
        first = f"; the first record left out: {notes.left_out[0]}" if notes.left_out else ""
        why = f"no annotation refers to a listed image; one has image_id {shown(ids[0])}{first}"
        raise DataError(f"{where}: not COCO: {why}")
    boxes = _Boxes(pictures, classes, notes, outlines)
    for number, entry in enumerate(tree["annotations"], 1):
        boxes.add(entry, number)
    found = boxes.with_answers()
    names = _names(classes, found, notes)
    return Annotations(found, names, notes.left_out, notes.noticed())


def _classes(entries: list[Any], notes: Notices) -> ById[Class | str]:
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
            notes.notice("categories listed twice", f"category {shown(identity)}")
        elif known is not None:
            notes.leave_out(f"category {shown(identity)}", f"its id is given to several names; one is {found.name}")
            classes.add(identity, f"category {shown(identity)} has several names")
        else:
            classes.add(identity, found)
    return classes


def _names(classes: ById[Class | str] | None, pictures: list[Annotation], notes: Notices) -> list[str]:
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
            notes.notice("class names of several categories, read as one class", one.name)
        seen.add(one.name)
    groups = {one.category for one in listed if one.category != one.name} - used
    for name in sorted(groups & seen):
        notes.notice("categories that only group others, read as no class", name)
    return list(dict.fromkeys(one.name for one in listed if one.name not in groups))


def _pictures(entries: list[Any], notes: Notices) -> ById[_Picture | str]:
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
                notes.notice(f"pictures with `{key}`, in which not every object has a box", shown(picture.name))
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


def _unite(name: str, given: list[_Picture], pictures: ById[_Picture | str], notes: Notices) -> None:
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
    notes.notice("pictures listed several times; their boxes were put together", shown(name))
    for one in given:
        pictures.add(one.identity, given[0])


def _picture(entry: Any) -> _Picture | str:
    """Return the picture of an entry of `images`, or why there is none."""
    if not isinstance(entry, dict):
        return "it is no object"
    identity = identity_of(entry.get("id"))
    if identity is None:
        return "it has no id; give it a number"
    name, split = entry.get("file_name") or entry.get("coco_url"), entry.get("split")  # LVIS has no file_name
    if not isinstance(name, str) or not name.strip():
        return "it has no file_name; give the path of its picture"
    if not isinstance(split, str | int | None) or isinstance(split, bool):
        return "its split is no text; write train, val or test"
    written = "" if split is None else str(split).strip()
    size = tuple(finite(entry.get(side)) or 0 for side in ("width", "height"))
    return _Picture(
        identity,
        name,
        split_from_name(written) or written,
        name_of(entry.get("level")),
        (int(size[0]), int(size[1])) if min(size) >= 1 else None,
        sha256_or_empty(entry.get("sha256")),
        is_copy=is_set(entry.get("repeated")),
    )


@dataclass(slots=True)
class _Boxes:
    """Puts the annotations of a file into its pictures."""

    pictures: ById[_Picture | str]
    classes: ById[Class | str] | None
    notes: Notices
    outlines: bool
    crowds: Counter[str] = field(default_factory=Counter)  # regions that are no boxes of objects, by kind

    def add(self, entry: Any, number: int) -> None:
        """Add one annotation to its picture, or leave it out."""
        if not isinstance(entry, dict):
            self.notes.leave_out(f"annotation {number}", "it is no object")
            return
        given = identity_of(entry.get("id"))
        record = f"annotation {number if given is None else shown(given)}"
        wanted = identity_of(entry.get("image_id"))
        picture, same_type = self.pictures.find(wanted)
        if not isinstance(picture, _Picture):
            self.notes.leave_out(record, picture or f"no image has its image_id {shown(entry.get('image_id'))}")
            return
        if not same_type:
            self.notes.notice("image ids are text in one list and numbers in the other; matched", record)
        for key, what in (("iscrowd", "boxes of crowds"), ("ignore", "boxes to ignore")):
            if is_set(entry.get(key)):
                self.crowds[what] += 1
                picture.lost += 1
                return
        box = self._named_box(entry, record, picture)
        if isinstance(box, str):
            self.notes.leave_out(record, box)
            picture.lost += 1
            return
        if self.outlines:
            box = replace(box, outline=outline_of(entry))
        same = (box.box_px, box.item, box.category, box.item_id)
        if same in picture.boxes:
            self.notes.notice("annotations that repeat another of the same picture, box and class; read once", record)
        picture.boxes.setdefault(same, box)

    def _named_box(self, entry: dict[str, Any], record: str, picture: _Picture) -> NamedBox | str:
        """Return the box of an annotation, or why it is left out."""
        kind: Class | str | None = Class(ONE_CATEGORY, ONE_CATEGORY)
        if self.classes is not None:
            kind, same_type = self.classes.find(identity_of(entry.get("category_id")))
            if not same_type:
                self.notes.notice("category ids are text in one list and numbers in the other; matched", record)
        if not isinstance(kind, Class):
            return kind or f"no category has its category_id {shown(entry.get('category_id'))}"
        box_px = box_of(entry, picture.size_px, record, self.notes)
        if isinstance(box_px, str):
            return box_px
        visible, score = fraction_of(entry, record, self.notes), finite(entry.get("score"))
        if score is not None and score < 1:
            self.notes.notice("boxes with a score, as a model proposes them", record)
        return NamedBox(box_px, kind.name, kind.category, visible, score, item_id=name_of(entry.get("item_id")))

    def with_answers(self) -> list[Annotation]:
        """Return the pictures, without those that lost all of their annotations."""
        found = []
        for picture in dict.fromkeys(one for one in self.pictures.values.values() if isinstance(one, _Picture)):
            if picture.is_copy:
                continue
            if picture.lost and not picture.boxes:
                self.notes.leave_out(f"image {shown(picture.name)}", lost_all("annotations"))
                continue
            boxes = tuple(picture.boxes.values())
            about = (picture.split, picture.level, picture.size_px, picture.times, picture.sha256)
            found.append(Annotation(picture.name, boxes, *about))
        for what, count in self.crowds.items():
            self.notes.leave_out(what, f"{count}, which are no single objects")
        return found
