"""The results of a Label Studio annotation as boxes: rectangles, polygons and ellipses, in per cent of the picture."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from dataset_formats.boxes import box_around, box_around_ellipse, box_of_sides
from dataset_formats.notices import printable
from dataset_formats.records import NamedBox
from dataset_formats.text_files import BAD_DATA
from dataset_formats.values import finite
from edge.types import Box

_SHAPE_OF = {f"{shape}{ending}": shape for shape in ("rectangle", "polygon", "ellipse") for ending in ("", "labels")}
_LABELLERS = ("labels", "choices")  # types that name the region of the same id, the first wins
_KEYS = {
    "rectangle": ("x", "y", "width", "height"),
    "ellipse": ("x", "y", "radiusX", "radiusY"),
    "polygon": ("points",),
}
_MOST_PX = 1e9


@dataclass(slots=True)
class Drawn:
    """What the results of one annotation say."""

    boxes: list[NamedBox] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # which result, and why
    unread: Counter[str] = field(default_factory=Counter)  # results by their type, if no box can be read from the type
    around: Counter[str] = field(default_factory=Counter)  # boxes around other shapes, by the shape
    size_px: tuple[int, int] | None = None  # width and height of the picture that was annotated


def read_results(results: list[Any], size_px: tuple[int, int] | None) -> Drawn:
    """Return the boxes of an annotation, in pixels of the size that its results state, or else of the given one."""
    drawn = Drawn()
    by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, result in enumerate(results, 1):
        if isinstance(result, dict):
            given = result.get("id")
            by_id[given if isinstance(given, str) and given else f"{number}"].append(result)
        else:
            drawn.left_out.append(f"result {number}: is a {type(result).__name__}, not a region")
    drawn.size_px = next((size for group in by_id.values() for one in group if (size := _size(one))), size_px)
    for name, group in by_id.items():
        _read_region(name, group, drawn)
    return drawn


def is_shape(result: object) -> bool:
    """Return whether a result is of a type from which a box can be read."""
    return isinstance(result, dict) and (_shape(result) is not None or _is_labelled_place(result))


def type_in_value(value: dict[str, Any]) -> str:
    """Return the type of a result that does not state it, from the keys of its value."""
    named = next((key for key in (*_SHAPE_OF, *_LABELLERS) if key in value), None)
    named = named or next((key for key in value if key.endswith("labels")), None)
    return named or next((shape for shape, keys in _KEYS.items() if all(key in value for key in keys)), "unknown")


def _type(result: dict[str, Any]) -> str:
    given = result.get("type")
    value = result.get("value")
    return given if isinstance(given, str) and given else type_in_value(value) if isinstance(value, dict) else "unknown"


def _shape(result: dict[str, Any]) -> str | None:
    return _SHAPE_OF.get(_type(result))


def _read_region(name: str, group: list[dict[str, Any]], drawn: Drawn) -> None:
    """Read the results of one id: a shape, and perhaps others that name it."""
    shapes, labels, others = _parts(group)
    if others:
        drawn.unread.update(_type(one)[:40] for one in others)
    for shape in shapes:
        try:
            box, around = _box(_shape(shape) or "rectangle", shape, drawn.size_px)
            drawn.boxes.append(NamedBox(box, _only(_own_labels(shape) or labels), score=finite(shape.get("score"))))
        except BAD_DATA as error:
            why = f"has no {error.args[0]}" if isinstance(error, KeyError) else f"{error}"
            drawn.left_out.append(f"result {name[:40]}: {why}")
            continue
        if around:
            drawn.around[around] += 1


def _parts(group: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str], list[dict[str, Any]]]:
    """Return the shapes of one id, the labels that others give to shapes without one, and the unread results."""
    if len(group) == 1:
        return (group, [], []) if is_shape(group[0]) else ([], [], group)
    bare = [one for one in group if _type(one) in _KEYS]  # of one id: the same region, repeated
    shapes = [one for one in group if _shape(one) and _type(one) not in _KEYS] or bare[:1]
    others = [one for one in group if not _shape(one)]
    if not shapes:  # labels repeat the rectangle that they name, so that they are enough
        shapes = [one for one in others if _is_labelled_place(one)][:1]
        others = [one for one in others if one not in shapes]
    if shapes and all(map(_own_labels, shapes)):
        return shapes, [], others
    kind = next((kind for kind in _LABELLERS if any(_type(one) == kind for one in others)), "")
    labels = dict.fromkeys(label for one in others if _type(one) == kind for label in _own_labels(one))
    return shapes, list(labels), [one for one in others if _type(one) != kind] if shapes else others


def _only(labels: list[str]) -> str:
    if len(labels) == 1:
        if printable(labels[0]) != labels[0]:
            raise ValueError(f"label {printable(labels[0])} is not valid text; name the class again")
        return labels[0]
    if labels:
        raise ValueError(f"has {len(labels)} labels ({', '.join(labels[:3])}); keep one")
    raise ValueError("has no label; choose one")


def _own_labels(result: dict[str, Any]) -> list[str]:
    value = result.get("value")
    if not isinstance(value, dict):
        return []
    given = value.get(_type(result), [])
    found = given if isinstance(given, list) else [given]
    texts = (f"{one}".strip() for one in found if isinstance(one, str | int | float) and not isinstance(one, bool))
    return list(dict.fromkeys(filter(None, texts)))


def _is_labelled_place(result: dict[str, Any]) -> bool:
    """Return whether a result is a label that repeats the rectangle it names."""
    value = result.get("value")
    return _type(result) == "labels" and isinstance(value, dict) and all(key in value for key in _KEYS["rectangle"])


def _size(result: dict[str, Any]) -> tuple[int, int] | None:
    try:
        width, height = (_number(result[key]) for key in ("original_width", "original_height"))
    except BAD_DATA:
        return None
    return (int(width), int(height)) if 1 <= width < _MOST_PX and 1 <= height < _MOST_PX else None


def _number(value: object) -> float:
    number = None if isinstance(value, str) else finite(value)
    if number is None:
        raise ValueError(f"{value!r:.20} is not a number; draw the region again")
    return number


def _box(kind: str, result: dict[str, Any], size_px: tuple[int, int] | None) -> tuple[Box, str]:
    """Return the box in pixels around a region, and what the region is; empty: an upright box.

    Raises:
        BAD_DATA: the region is broken.
    """
    value = result["value"]
    if not isinstance(value, dict):
        raise TypeError(f"its value is a {type(value).__name__}")
    if _number(result.get("image_rotation") or 0) % 360:
        raise ValueError("was drawn on a turned picture; turn the picture back and draw it again")
    if size_px is None:
        raise ValueError("has no original_width and original_height; export it from Label Studio again")
    missing = [key for key in _KEYS[kind] if key not in value]
    if missing:
        raise ValueError(f"has no {', '.join(missing)} ({'a brush mask' if 'rle' in value else 'broken'}); draw a box")
    box = _BOX_OF[kind](value, size_px[0] / 100, size_px[1] / 100)
    if box_of_sides(box) is None:
        raise ValueError("has no area; draw it again")
    if kind == "rectangle":
        return box, "rotated rectangle" if _rotation_deg(value) else ""
    return box, kind


def _rotation_deg(value: dict[str, Any]) -> float:
    return _number(value.get("rotation") or 0) % 360


def _rectangle(value: dict[str, Any], scale_x: float, scale_y: float) -> Box:
    """Return the box around a rectangle, which is turned around its upper left corner, clockwise."""
    x, y, width, height = (_number(value[key]) for key in _KEYS["rectangle"])
    if width <= 0 or height <= 0:
        raise ValueError("has no area; draw it again")
    angle_deg = _rotation_deg(value)
    if not angle_deg:  # as written: no rounding by sine and cosine
        return x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y
    x, y, width, height = x * scale_x, y * scale_y, width * scale_x, height * scale_y
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    corners = ((0.0, 0.0), (width, 0.0), (0.0, height), (width, height))
    xs = [x + right * cos - down * sin for right, down in corners]
    ys = [y + right * sin + down * cos for right, down in corners]
    return box_around(xs, ys)


def _ellipse(value: dict[str, Any], scale_x: float, scale_y: float) -> Box:
    x, y, radius_x, radius_y = (_number(value[key]) for key in _KEYS["ellipse"])
    return box_around_ellipse(x * scale_x, y * scale_y, radius_x * scale_x, radius_y * scale_y, _rotation_deg(value))


def _polygon(value: dict[str, Any], scale_x: float, scale_y: float) -> Box:
    points = [(_number(x) * scale_x, _number(y) * scale_y) for x, y in value["points"]]
    if len(points) < 3:
        raise ValueError(f"has {len(points)} points; draw it again")
    return box_around([x for x, _ in points], [y for _, y in points])


_BOX_OF = {"rectangle": _rectangle, "ellipse": _ellipse, "polygon": _polygon}
