"""What one XML file of Pascal VOC says about its picture."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from dataset_formats.boxes import box_around, box_around_rotated, box_with_area, turned
from dataset_formats.notices import Notices, lost_all, printable
from dataset_formats.records import Annotation, NamedBox
from dataset_formats.values import is_yes, number, sha256_or_empty, size_or_none
from dataset_formats.xml_files import read_children
from edge.errors import DataError
from edge.types import Box

_FLAGS = ("difficult", "truncated", "occluded")  # of objects that are read all the same
_ROTATED = "rotated boxes, read as the box around them"
_CORNER = re.compile(r"([xy])\d+")


@dataclass(slots=True)
class VocReader:
    """Reads XML files, and keeps what it left out and noticed."""

    refused: list[str] = field(default_factory=list)  # the files that are not VOC; `notices` has left them out, too
    notices: Notices = field(default_factory=Notices)

    def read(self, file: Path, inner: str) -> Annotation | None:
        """Return what a file says about its picture; None if it is not VOC, or lost all of its objects.

        Args:
            file: the XML.
            inner: the picture's name where the file states none.
        """
        one = _Contents(file, Notices(file))
        try:
            for node in read_children(file, "annotation"):
                one.add(node)
        except DataError as error:
            self.refused.append(printable(error))
            self.notices.left_out.append(self.refused[-1])
            return None
        self.notices.left_out += one.notices.left_out
        for what, example in one.noticed:
            self.notices.notice(what, example)
        if one.answers and not one.boxes:
            self.notices.leave_out(f"{file}", lost_all("objects"))
            return None
        return Annotation(one.name or inner, tuple(one.boxes), declared_size_px=one.size_px, sha256=one.sha256)


@dataclass(slots=True)
class _Contents:
    """The children of one root, as far as they were read."""

    file: Path
    notices: Notices
    name: str = ""
    size_px: tuple[int, int] | None = None
    sha256: str = ""
    boxes: list[NamedBox] = field(default_factory=list)
    objects: int = 0  # in the file
    answers: int = 0  # of them, those that should have a box
    noticed: list[tuple[str, str]] = field(default_factory=list)  # what, and which object

    def add(self, node: ET.Element) -> None:
        """Read one child of the root."""
        if node.tag == "filename":
            self.name = (node.text or "").strip()
        elif node.tag == "size":
            self.size_px = size_or_none(node.findtext("width"), node.findtext("height"))
        elif node.tag == "sha256":
            self.sha256 = sha256_or_empty(node.text)
        elif node.tag == "object":
            self.objects += 1
            self._add_object(node)
        elif node.find(".//object") is not None:
            self.answers += 1
            self.notices.leave_out(f"<{node.tag:.40}>", "holds objects; make them children of <annotation>")

    def _add_object(self, node: ET.Element) -> None:
        name = (node.findtext("name") or "").strip()
        where = f"{self.file.name} object {self.objects}"
        if is_yes(node.findtext("deleted")):  # LabelMe keeps what a person deleted
            self.noticed.append(("deleted objects, not read", where))
            return
        self.answers += 1
        try:
            box, notice = _box(node, name)
            score = node.findtext("confidence")
            self.boxes.append(NamedBox(box, name, score=None if score is None else number(score, "confidence")))
        except ValueError as error:
            shown = f"object {self.objects}" + (f" ({name:.40})" if name else "")
            self.notices.leave_out(shown, str(error))
            return
        flags = [f"{flag} objects, read like the others" for flag in _FLAGS if is_yes(node.findtext(flag))]
        scored = "" if score is None else "boxes with a score, as a model proposes them"
        self.noticed += [(what, where) for what in (notice, scored, *flags) if what]


def _box(node: ET.Element, name: str) -> tuple[Box, str]:
    """Return the box of an object, and what deserves a look.

    Raises:
        ValueError: it has no name, or no box, several or a broken one.
    """
    if not name:
        raise ValueError("has no name; add it")
    for tag, notice in (
        ("bndbox", ""),
        ("robndbox", _ROTATED),
        ("polygon", "outlines without a box, read as the box around them"),
    ):
        found = node.findall(tag)
        if len(found) > 1:
            raise ValueError(f"has {len(found)} {tag}; keep one")
        if found:
            box = _READ[tag](found[0])
            angle_deg = _angle_deg(node) if tag == "bndbox" else 0.0
            return (turned(box, angle_deg), _ROTATED) if angle_deg % 360 else (box, notice)
    raise ValueError("has no bndbox; draw it again")


def _angle_deg(node: ET.Element) -> float:
    """Return the angle that CVAT writes beside the box that it turns."""
    attributes = {one.findtext("name"): one.findtext("value") for one in node.iterfind("attributes/attribute")}
    return number(attributes.get("rotation") or "0", "rotation")


def _upright(node: ET.Element) -> Box:
    x0, y0, x1, y1 = (number(node.findtext(side), side) for side in ("xmin", "ymin", "xmax", "ymax"))
    return box_with_area(x0, y0, x1, y1)


def _rotated(node: ET.Element) -> Box:
    x, y, width, height, angle_rad = (number(node.findtext(side), side) for side in ("cx", "cy", "w", "h", "angle"))
    return box_around_rotated(x, y, width, height, angle_rad)


def _outlined(node: ET.Element) -> Box:
    """Return the box around `<pt><x/><y/></pt>` (LabelMe) or `<x1/><y1/><x2/>…` (Roboflow)."""
    pairs = [(side.tag, side) for point in node if point.tag in ("pt", "point") for side in point]
    pairs += [(found.group(1), side) for side in node if (found := _CORNER.fullmatch(side.tag))]
    across, down = ([number(side.text, axis) for tag, side in pairs if tag == axis] for axis in "xy")
    return box_around(across, down)


_READ = {"bndbox": _upright, "robndbox": _rotated, "polygon": _outlined}
