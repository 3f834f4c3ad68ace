"""Compute in which zones of a camera's frame an object is, for how long, and which lines it has crossed.

Rules:
1. An object stands at its foot point: the middle of its box's lower edge. Coordinates are fractions of the frame.
2. It is monitored if its foot point is in an include zone, or there is none, and in no exclude zone.
3. It has dwelt in a zone once its foot point was inside for the zone's `dwell_s` without a break.
4. Left and right of a line are as seen from `from` looking to `to`. A crossing lies between the line's ends and goes
   from clearly on one side to clearly on the other: an object that stands on the line is not counted back and forth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.config.schema import LineConfig, ZoneConfig
from edge.types import Box, Crossing

_MIN_DISTANCE = 0.01  # from a line, at which an object is clearly on one side, in fractions of the frame
_MAX_CROSSINGS = 8  # of one object that an event carries, the newest

Point = tuple[float, float]


@dataclass(slots=True)
class ZoneState:
    """The zones and lines of one object so far."""

    is_monitored: bool = True
    zones: tuple[str, ...] = ()  # in which it has dwelt, in that order
    crossings: tuple[Crossing, ...] = ()
    entered_s: dict[str, float] = field(default_factory=dict)  # zone -> since when it is inside
    sides: dict[str, tuple[float, Point]] = field(default_factory=dict)  # line -> last clear distance, and where


class Zones:
    """The zones and lines of one camera."""

    def __init__(self, zones: Mapping[str, ZoneConfig], lines: Mapping[str, LineConfig]) -> None:
        self._include = {name: zone for name, zone in zones.items() if zone.kind == "include"}
        self._exclude = [zone.polygon for zone in zones.values() if zone.kind == "exclude"]
        self._lines = dict(lines)

    def update(self, state: ZoneState, box_rel: Box, now_s: float) -> list[Crossing]:
        """Update the state of an object from its newest box.

        Args:
            state: of the object; changed.
            box_rel: its box, in fractions of the frame.
            now_s: time of the frame.

        Returns:
            the lines it has crossed since the last update.
        """
        foot = foot_of(box_rel)
        inside = [name for name, zone in self._include.items() if is_inside(foot, zone.polygon)]
        state.is_monitored = (bool(inside) or not self._include) and not any(is_inside(foot, p) for p in self._exclude)
        state.entered_s = {name: state.entered_s.get(name, now_s) for name in inside}
        state.zones += tuple(
            name
            for name, since_s in state.entered_s.items()
            if name not in state.zones and now_s - since_s >= self._include[name].dwell_s
        )
        crossed = [crossing for name in self._lines if (crossing := self._cross(state, name, foot))]
        state.crossings = (*state.crossings, *crossed)[-_MAX_CROSSINGS:]
        return crossed

    def _cross(self, state: ZoneState, name: str, foot: Point) -> Crossing | None:
        line = self._lines[name]
        distance = _distance_right(foot, line.start, line.end)
        if abs(distance) < _MIN_DISTANCE:
            return None
        before = state.sides.get(name)
        state.sides[name] = (distance, foot)
        if before is None or (before[0] < 0) == (distance < 0):
            return None
        # between the line's ends: these are on different sides of the object's path
        if _distance_right(line.start, before[1], foot) * _distance_right(line.end, before[1], foot) > 0:
            return None
        return Crossing(name, "left_to_right" if distance > 0 else "right_to_left")


def foot_of(box_rel: Box) -> Point:
    """Return the foot point of a box: the middle of its lower edge, inside the frame."""
    x0, _, x1, y1 = box_rel
    return (_within((x0 + x1) / 2), _within(y1))


def is_inside(point: Point, polygon: tuple[Point, ...]) -> bool:
    """Return whether a point is in a polygon, by the parity of the edges to its right."""
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            inside = not inside
    return inside


def _within(fraction: float) -> float:
    """Return a coordinate just inside the frame, so that a zone up to the border contains it."""
    return min(max(fraction, 1e-6), 1.0 - 1e-6)


def _distance_right(point: Point, start: Point, end: Point) -> float:
    """Return how far a point is to the right of a line; negative to the left. y grows downwards."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    return (dx * (point[1] - start[1]) - dy * (point[0] - start[0])) / max(length, 1e-9)
