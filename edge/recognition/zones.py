"""Where an object is: in which zones of its camera's picture, for how long, and which lines it has crossed.

Rules:
1. An object is where the middle of its box's lower edge is: its foot. Coordinates are shares of the picture.
2. It is watched when its foot is in an include zone, or there is none, and in no exclude zone.
3. It has stayed in a zone once its foot was in it for the zone's `dwell_s` without a break.
4. Left and right of a line are those of somebody who stands at `from` and looks to `to`. A line is crossed between its
   ends, from clearly on one side to clearly on the other: an object that stands on it is not counted to and fro.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.config.schema import LineConfig, ZoneConfig
from edge.types import Box, Crossing

_CLEAR = 0.01  # distance from a line at which a side is taken, in shares of the picture
_KEPT = 8  # crossings of one object that are told, the newest

Point = tuple[float, float]


@dataclass(slots=True)
class ZoneState:
    """Where one object has been."""

    watched: bool = True
    stayed: tuple[str, ...] = ()  # zones, in the order in which it had stayed long enough
    crossings: tuple[Crossing, ...] = ()
    entered_s: dict[str, float] = field(default_factory=dict)  # zone -> since when it is inside
    sides: dict[str, tuple[float, Point]] = field(default_factory=dict)  # line -> last clear distance, and where


class Zones:
    """The zones and lines of one camera."""

    def __init__(self, zones: Mapping[str, ZoneConfig], lines: Mapping[str, LineConfig]) -> None:
        self._include = {name: zone for name, zone in zones.items() if zone.kind == "include"}
        self._exclude = [zone.polygon for zone in zones.values() if zone.kind == "exclude"]
        self._lines = dict(lines)

    def follow(self, stay: ZoneState, box_rel: Box, now_s: float) -> list[Crossing]:
        """Note where an object is now.

        Args:
            stay: where it has been; changed.
            box_rel: its box, in shares of the picture.
            now_s: when.

        Returns:
            the lines it has crossed since the last time.
        """
        foot = foot_of(box_rel)
        inside = [name for name, zone in self._include.items() if is_inside(foot, zone.polygon)]
        stay.watched = (bool(inside) or not self._include) and not any(is_inside(foot, p) for p in self._exclude)
        stay.entered_s = {name: stay.entered_s.get(name, now_s) for name in inside}
        stay.stayed += tuple(
            name
            for name, since_s in stay.entered_s.items()
            if name not in stay.stayed and now_s - since_s >= self._include[name].dwell_s
        )
        crossed = [crossing for name in self._lines if (crossing := self._cross(stay, name, foot))]
        stay.crossings = (*stay.crossings, *crossed)[-_KEPT:]
        return crossed

    def _cross(self, stay: ZoneState, name: str, foot: Point) -> Crossing | None:
        line = self._lines[name]
        distance = _distance_right(foot, line.start, line.end)
        if abs(distance) < _CLEAR:
            return None
        before = stay.sides.get(name)
        stay.sides[name] = (distance, foot)
        if before is None or (before[0] < 0) == (distance < 0):
            return None
        # between its ends: they are on different sides of the object's way
        if _distance_right(line.start, before[1], foot) * _distance_right(line.end, before[1], foot) > 0:
            return None
        return Crossing(name, "left_to_right" if distance > 0 else "right_to_left")


def foot_of(box_rel: Box) -> Point:
    """The point where an object is: the middle of the lower edge of its box, in the picture."""
    x0, _, x1, y1 = box_rel
    return (_within((x0 + x1) / 2), _within(y1))


def is_inside(point: Point, polygon: tuple[Point, ...]) -> bool:
    """Whether a point is in a polygon, by the parity of the edges to its right."""
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            inside = not inside
    return inside


def _within(share: float) -> float:
    """A coordinate that is not outside of a zone which reaches to the border of the picture."""
    return min(max(share, 1e-6), 1.0 - 1e-6)


def _distance_right(point: Point, start: Point, end: Point) -> float:
    """How far to the right of a line a point is; negative to the left. y grows downwards."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    return (dx * (point[1] - start[1]) - dy * (point[0] - start[0])) / max(length, 1e-9)
