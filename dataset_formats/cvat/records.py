"""What CVAT XML says about pictures, and about the frames of a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

from dataset_formats.boxes import box_around, box_around_ellipse, box_with_area, turned
from dataset_formats.listings import drop_repeated_boxes
from dataset_formats.notices import Notices, lost_all
from dataset_formats.records import Annotation, Annotations, NamedBox
from dataset_formats.splits import split_from_name
from dataset_formats.values import finite, is_yes, number, sha256_or_empty, size_or_none, whole_number
from edge.types import Box

SCORE = "score"  # attribute of a box that a model proposed


@dataclass(slots=True)
class _Shapes:
    """The shapes of one picture or frame."""

    boxes: list[NamedBox] = field(default_factory=list)
    unread: dict[str, None] = field(default_factory=dict)  # kinds of shapes that have no box
    broken: int = 0
    split: str = ""
    is_key: bool = False  # of a frame: a person placed an object in it


class CvatReader:
    """Reads the children of the root of one file, and keeps what it left out and noticed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._images: dict[str, list[Annotation]] = defaultdict(list)
        self._names: dict[str, None] = {}
        self._notices = Notices(file)
        self._attributes: set[str] = set()
        self._frames: dict[int, _Shapes] = defaultdict(_Shapes)
        self._unseen: dict[int, int] = defaultdict(int)  # change of the number of objects without a box, by frame
        self._frame_size_px: tuple[int, int] | None = None
        self._tasks: dict[str, None] = {}  # of the tracks
        self._count = 0

    def add(self, node: ET.Element) -> None:
        """Read one child of the root."""
        if node.tag == "meta":
            labels = [one for one in node.iterfind(".//labels/label") if not (one.findtext("parent") or "").strip()]
            self._names |= dict.fromkeys(name for one in labels if (name := (one.findtext("name") or "").strip()))
            size = node.find(".//original_size")
            if size is not None:
                self._frame_size_px = size_or_none(size.findtext("width"), size.findtext("height"))
        elif node.tag == "image":
            self._add_image(node)
        elif node.tag == "track":
            self._add_track(node)
        elif node.tag != "version":
            self._notices.notice(f"<{node.tag:.40}>, not read", self.file.name)

    def finish(self) -> Annotations:
        """Return all that was read."""
        self._add_frames()
        found = Annotations(left_out=self._notices.left_out)
        for name, several in self._images.items():
            if all(one == several[0] for one in several):
                found.pictures.append(several[0])
                if len(several) > 1:
                    self._notices.notice("images that are listed again with the same shapes", name)
            else:
                self._notices.leave_out(name, f"is listed {len(several)} times with different shapes; keep one")
        found.pictures, repeated = drop_repeated_boxes(found.pictures)
        found.names = list(self._names | dict.fromkeys(box.item for one in found.pictures for box in one.boxes))
        found.noticed = [*self._notices.noticed(), *repeated]
        return found

    def _add_image(self, node: ET.Element) -> None:
        self._count += 1
        name = node.get("name", "")
        if not name.strip():
            self._notices.leave_out(f"image {self._count}", "has no name; add it")
            return
        shapes = _Shapes(split=self._split(node))
        visible = [(count, shape) for count, shape in enumerate(node, 1) if not is_yes(shape.get("outside"))]
        for count, shape in visible:
            self._add_shape(shape, shape.get("label"), f"{name}: {shape.tag:.40} {count}", shapes)
        if not visible:
            self._notices.notice("images without a shape, read as pictures without an object", name)
        size_px = size_or_none(node.get("width"), node.get("height"))
        self._keep(name, shapes, size_px, sha256_or_empty(node.get("sha256")))

    def _split(self, node: ET.Element) -> str:
        subset = node.get("subset", "").strip()
        split = split_from_name(subset)
        if subset and not split and subset.casefold() != "default":
            self._notices.notice(f"subset {subset:.40} is no split", node.get("name", "a track"))
        return split

    def _keep(self, name: str, shapes: _Shapes, size_px: tuple[int, int] | None, sha256: str = "") -> None:
        if shapes.boxes or not (shapes.broken or shapes.unread):
            one = Annotation(name, tuple(shapes.boxes), shapes.split, declared_size_px=size_px, sha256=sha256)
            self._images[name].append(one)
        elif shapes.broken:
            self._notices.leave_out(name, lost_all("shapes"))
        else:
            self._notices.leave_out(name, f"has only {', '.join(shapes.unread)}, which are not read; draw boxes")

    def _add_shape(self, shape: ET.Element, label: str | None, where: str, shapes: _Shapes) -> None:
        """Read one shape."""
        if shape.tag not in _READ:
            shapes.unread[shape.tag[:40]] = None
            self._notices.notice(f"{shape.tag:.40} shapes, not read", where)
            return
        try:
            named, notice = _named_box(shape, (label or "").strip())
        except ValueError as error:
            shapes.broken += 1
            self._notices.leave_out(where, str(error))
            return
        shapes.boxes.append(named)
        self._tell(shape, notice, where)

    def _tell(self, shape: ET.Element, notice: str, where: str) -> None:
        if notice:
            self._notices.notice(notice, where)
        if is_yes(shape.get("occluded")):
            self._notices.notice("occluded objects, read like the others", where)
        if shape.get("source", "manual") not in ("manual", "file"):
            self._notices.notice("objects that a model drew or helped to draw", where)
        for attribute in shape.iterfind("attribute"):
            if (name := attribute.get("name", "")) not in (*self._attributes, SCORE):
                self._attributes.add(name)
                self._notices.notice("attributes of objects, not read", name)

    def _add_track(self, node: ET.Element) -> None:
        """Read the shapes of one object of a video, by frame."""
        self._count += 1
        track = f"track {node.get('id', self._count)}"
        self._tasks[node.get("task_id", "")] = None
        split = self._split(node)
        seen: list[tuple[int, bool]] = []
        for shape in node:
            if shape.tag == "attribute":
                continue
            try:
                frame = whole_number(shape.get("frame"), "frame")
            except ValueError as error:
                self._notices.leave_out(track, str(error))
                continue
            is_visible = not is_yes(shape.get("outside"))
            if is_visible:
                shapes = self._frames[frame]
                shapes.split = shapes.split or split
                shapes.is_key |= is_yes(shape.get("keyframe", "1"))
                self._add_shape(shape, node.get("label"), f"frame_{frame:06d}: {track}", shapes)
            if shape.tag in _READ:
                seen.append((frame, is_visible))
        for (frame, is_visible), (following, _) in pairwise(sorted(seen)):
            if is_visible and following > frame + 1:
                self._unseen[frame + 1] += 1
                self._unseen[following] -= 1

    def _add_frames(self) -> None:
        """Keep the frames with all of their objects; between, CVAT moves boxes by itself."""
        if len(self._tasks) > 1:
            self._notices.leave_out(
                "tracks", f"belong to {len(self._tasks)} videos, whose frames share names; export each alone"
            )
            return
        unseen = 0
        changes = iter(sorted(self._unseen.items()))
        following = next(changes, None)
        for frame, shapes in sorted(self._frames.items()):
            while following and following[0] <= frame:
                unseen += following[1]
                following = next(changes, None)
            name = f"frame_{frame:06d}"
            if not shapes.is_key:
                self._notices.notice("frames without a keyframe, not read", name)
            elif unseen:
                self._notices.leave_out(name, f"{unseen} objects that are visible have no box here; export all frames")
            else:
                self._keep(name, shapes, self._frame_size_px)


def _named_box(shape: ET.Element, label: str) -> tuple[NamedBox, str]:
    """Return the box of a shape, and what deserves a look.

    Raises:
        ValueError: a value is missing or broken, or it has no area.
    """
    if not label:
        raise ValueError("has no label; add it")
    read, notice = _READ[shape.tag]
    box = read(shape)
    rotation_deg = number(shape.get("rotation") or "0", "rotation")
    if shape.tag == "box" and rotation_deg:
        box, notice = turned(box, rotation_deg), "rotated boxes, read as the box around them"
    written = (one.text for one in shape.iterfind("attribute") if one.get("name") == SCORE)
    return NamedBox(box, label, score=finite(shape.get(SCORE) or next(written, None))), notice


def _values(shape: ET.Element, names: str) -> Iterator[float]:
    return (number(shape.get(name), name) for name in names.split())


def _upright(shape: ET.Element) -> Box:
    x0, y0, x1, y1 = _values(shape, "xtl ytl xbr ybr")
    return box_with_area(x0, y0, x1, y1)


def _polygon(shape: ET.Element) -> Box:
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    if any(len(point) != 2 for point in points):
        raise ValueError(f"points are {shape.get('points', '')[:40]!r}, not x,y;x,y; draw it again")
    return box_around([number(x, "x") for x, _ in points], [number(y, "y") for _, y in points])


def _ellipse(shape: ET.Element) -> Box:
    x, y, across, down = _values(shape, "cx cy rx ry")
    return box_around_ellipse(x, y, across, down, number(shape.get("rotation") or "0", "rotation"))


def _mask(shape: ET.Element) -> Box:
    x, y, width, height = _values(shape, "left top width height")
    return box_with_area(x, y, x + width, y + height)


_AROUND = ", read as the box around them"
_READ: dict[str, tuple[Callable[[ET.Element], Box], str]] = {
    "box": (_upright, ""),
    "polygon": (_polygon, f"polygons{_AROUND}"),
    "ellipse": (_ellipse, f"ellipses{_AROUND}"),
    "mask": (_mask, f"masks{_AROUND}"),
}
