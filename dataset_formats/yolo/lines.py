"""The lines of YOLO's text files: boxes, outlines and keypoints, with or without a confidence and a track id.

Nothing in a file says which of these a line is. Its count of numbers does, where only one form has that count; else all
lines of the data set decide together. What they leave open is left out and named.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from dataset_formats.boxes import box_around
from edge.types import Box

FEW = 0.1  # share of lines that may contradict the form of all others
_FARTHEST = 2.0  # a fraction beyond it is a pixel; boxes that reach a little outside the picture are common
_TURN_DEG = 360
_NUMBERS = re.compile(r"[-+.0-9eE\s]+", re.ASCII)
_COMMAS = re.compile(r"[-+.,0-9eE\s]+", re.ASCII)
_LINE_ENDS = re.compile(r"\r\n|\n|\r")  # str.splitlines knows more, which would shift the numbers of lines
_EXPECTED = "expected 5: class x y width height"
KINDS = {  # what a line is, if it is not a plain box
    "score": "lines that end in a confidence; the boxes are predictions",
    "track": "lines that end in a track id; it was not used",
    "either": "lines that end in 0 or 1, a confidence or a track id; it was not used",
    "corners": "lines with four corners; the upright box around them was read",
    "outline": "lines with an outline; the upright box around it was read",
    "keypoints": "lines with keypoints; only their box was read",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is made of numbers and has a class with a name."""

    number: int  # from 1
    class_id: int
    values: array[float]  # after the class; at least 4


@dataclass(frozen=True, slots=True)
class Found:
    """The box of one line."""

    box: Box  # x0 y0 x1 y1 as fractions of the picture
    score: float | None
    kinds: tuple[str, ...]  # what is unusual about the line: keys of KINDS


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, stripped, blank ones included."""
    return [line.strip() for line in _LINE_ENDS.split(text)]


def parse_lines(text: str, known: Collection[int]) -> tuple[list[Line], list[str], set[int]]:
    """Return the lines of a file, what is wrong with each other one, and all class ids, unknown ones included."""
    lines, problems, used = [], [], set()
    for number, one in enumerate(split_lines(text), 1):
        if not one:
            continue
        try:
            class_id, values = _parse(one)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        used.add(class_id)
        if class_id in known:
            lines.append(Line(number, class_id, values))
        else:
            first = one.split()[0][:20]
            problems.append(f"line {number}: class {first} has no name; names go from {min(known)} to {max(known)}")
    return lines, problems, used


def _parse(line: str) -> tuple[int, array[float]]:
    """Return class id and numbers of a line.

    Raises:
        ValueError: it is no such line.
    """
    words = line.split()
    if not _NUMBERS.fullmatch(line):
        raise ValueError(_no_numbers(line, words))
    try:
        first, *values = map(float, words)
    except ValueError:
        raise ValueError(f"{line[:60]!r} is not a line of numbers; {_EXPECTED}") from None
    if len(values) < 4:
        raise ValueError(f"found {len(words)} numbers, {_EXPECTED}")
    if not first.is_integer():
        raise ValueError(f"class {words[0][:20]} is not a whole number; {_EXPECTED}")
    return int(first), array("d", values)


def _no_numbers(line: str, words: Sequence[str]) -> str:
    if _COMMAS.fullmatch(line):
        return f"{line[:60]!r} has commas; write decimal points, and blanks between numbers"
    if len(words) in (9, 10) and _NUMBERS.fullmatch(" ".join(words[:8])):
        return "four corners and a name, as DOTA writes them; convert the set to class ids and fractions"
    return f"{line[:60]!r} is not a line of numbers; {_EXPECTED}"


@dataclass(slots=True)
class Forms:
    """What all lines of a data set say about the form of a single one: add every file, then read the lines."""

    keypoint_numbers: int = 0  # of a line, as the data set declares them
    _sixth: Counter[str] = field(default_factory=Counter, init=False)  # kinds of last numbers of lines of 5 values
    _ids: set[float] = field(default_factory=set, init=False)  # whole sixth numbers
    _ids_repeat: bool = field(default=False, init=False)  # within one file: then they are no track ids
    _ends: Counter[str] = field(default_factory=Counter, init=False)  # the same of lines of 6, 8, 10 ... values
    _long: Counter[int] = field(default_factory=Counter, init=False)  # lines of at least 7 values by their number
    _visibilities: bool = field(default=True, init=False)  # every third number of those is 0, 1 or 2
    _two: bool = field(default=False, init=False)  # one of them is 2, which is no fraction

    def add(self, lines: Sequence[Line]) -> None:
        """Add the lines of one file."""
        ids = []
        for line in lines:
            values = line.values
            if len(values) == 4:
                continue
            if len(values) == 5:
                self._sixth[_kind_of_end(values[-1])] += 1
                if values[-1].is_integer():
                    ids.append(values[-1])
            elif len(values) % 2 == 0:
                self._ends[_kind_of_end(values[-1])] += 0 <= values[-2] <= 1
            if len(values) >= 7:
                self._long[len(values)] += 1
                seen = values[6::3]
                self._visibilities &= (len(values) - 4) % 3 == 0 and all(one in (0, 1, 2) for one in seen)
                self._two |= 2 in seen[:-1]
        self._ids.update(ids)
        self._ids_repeat |= len(set(ids)) < len(ids)

    def read(self, line: Line) -> Found:
        """Return the box of a line.

        Raises:
            ValueError: the line has no box that one can be sure of; says why.
        """
        values = line.values
        count = len(values)
        if self.keypoint_numbers and count > 5:
            extra = count - 4 - self.keypoint_numbers
            if extra not in (0, 1, 2):
                expected = 5 + self.keypoint_numbers
                raise ValueError(f"found {count + 1} numbers, expected {expected} by kpt_shape")
            score, kinds = _marks(values[count - extra :])
            return _box(values, score, (*kinds, "keypoints"))
        if count == 4:
            return _box(values)
        if count == 5:
            return self._box_and_one(values)
        if count >= 7 and len(self._long) == 1 and self._visibilities:
            if not self._two:
                raise ValueError("may be an outline, or a box with keypoints; declare kpt_shape in data.yaml")
            return _box(values, None, ("keypoints",))
        if count % 2:
            return _outline(values[:-1], *_marks(values[-1:]))
        return self._even(values)

    def _box_and_one(self, values: array[float]) -> Found:
        """Read a box with one more number: a confidence, a track id or an angle."""
        ends, last = self._sixth, values[-1]
        outside = ends["id"] + ends["other"]
        if not outside:
            return _box(values, last, ("score",)) if ends["fraction"] else _box(values, None, ("either",))
        most = max(self._ids, default=0)
        dense = most > _TURN_DEG or 2 * len(self._ids) > most  # angles in degrees are neither
        if not ends["fraction"] and not ends["other"] and not self._ids_repeat and dense:
            return _box(values, None, ("track",))
        if outside <= FEW * ends.total() and _kind_of_end(last) not in ("id", "other"):
            return _box(values, last, ("score",))
        raise ValueError(
            f"the sixth number, {last:g}, may be an angle; give upright boxes of 5 numbers, or four corners"
        )

    def _even(self, values: array[float]) -> Found:
        """Read 6, 8, 10 ... numbers: an outline; or a box or an outline, a confidence and a track id."""
        ends, end = self._ends, _kind_of_end(values[-1])
        if ends["id"] > ends["fraction"]:
            if end in ("fraction", "other") or not 0 <= values[-2] <= 1:
                raise ValueError("does not end in a confidence and a track id, as other lines of the data set do")
            score, kinds = _marks(values[-2:])
            return _box(values, score, kinds) if len(values) == 6 else _outline(values[:-2], score, kinds)
        if end == "either" and len(values) == 6 and not ends["fraction"] and all(count % 2 for count in self._long):
            raise ValueError("may be three corners, or a box, a confidence and a track id; give 5 numbers")
        return _outline(values)


def _kind_of_end(value: float) -> str:
    if value in (0, 1):
        return "either"
    if 0 < value < 1:
        return "fraction"
    return "id" if value.is_integer() and value > 1 else "other"


def _marks(extra: Sequence[float]) -> tuple[float | None, tuple[str, ...]]:
    """Return score and kinds for the numbers after an outline or keypoints, which are no angles."""
    if len(extra) == 2:
        return extra[0], ("score", "track")
    if not extra:
        return None, ()
    kind = _kind_of_end(extra[0])
    if kind == "other":
        raise ValueError(f"the last number, {extra[0]:g}, is neither a confidence nor a track id")
    return (extra[0], ("score",)) if kind == "fraction" else (None, ("track" if kind == "id" else "either",))


def _box(values: Sequence[float], score: float | None = None, kinds: tuple[str, ...] = ()) -> Found:
    x, y, width, height = values[:4]
    _require_fractions(values[:4])
    if min(width, height) <= 0:
        raise ValueError(f"width and height are {width:g} and {height:g}; draw the box again")
    return _inside((x - width / 2, y - height / 2, x + width / 2, y + height / 2), score, kinds)


def _outline(values: Sequence[float], score: float | None = None, kinds: tuple[str, ...] = ()) -> Found:
    _require_fractions(values)
    return _inside(box_around(values[::2], values[1::2]), score, (*kinds, "corners" if len(values) == 8 else "outline"))


def _require_fractions(values: Sequence[float]) -> None:
    farthest = max(values, key=abs)
    if not abs(farthest) <= _FARTHEST:
        raise ValueError(f"{farthest:g} is not a fraction of the picture; divide pixels by its width and height")


def _inside(box: Box, score: float | None, kinds: tuple[str, ...]) -> Found:
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"the confidence {score:g} is not within 0 and 1")
    if min(box[2], box[3]) <= 0 or max(box[0], box[1]) >= 1:
        raise ValueError("the box lies outside the picture")
    return Found(box, score, kinds)
