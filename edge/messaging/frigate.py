"""Events in Frigate's format, for automations written for Frigate.

https://docs.frigate.video/integrations/mqtt/#frigateevents, of Frigate 0.15 and 0.16. `label` is the category;
`sub_label` the identity and its probability; boxes are pixels of the frame, as Frigate's are of its detect stream.
What finesight does not measure or store (clips, speed, plates) is present and empty.
"""

from __future__ import annotations

import json
import math
from typing import Any

from edge.types import Event

LEAF = "events"  # of the topic `<prefix>/events`
_MOST_CHARACTERS = 256  # of a text: the message holds everything twice and stays below 8 KB
_MOST_ZONES = 4  # likewise
_MOST_OBJECTS = 1000  # remembered; more than are ever in view at once

_NOT_MEASURED: dict[str, Any] = {
    "snapshot": None,
    "thumbnail": None,
    "has_clip": False,
    "has_snapshot": False,  # there is no Frigate API to fetch one from
    "active": True,
    "stationary": False,
    "motionless_count": 0,
    "position_changes": 0,
    "attributes": {},
    "current_attributes": [],
    "current_estimated_speed": 0,
    "average_estimated_speed": 0,
    "velocity_angle": 0,
    "recognized_license_plate": None,
    "recognized_license_plate_score": None,
}


class FrigateMirror:
    """Remembers the last message of every object in view."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], dict[str, Any]] = {}

    def payload(self, event: Event) -> bytes | None:
        """Return the JSON of an event; docs/frigate_event.schema.json is its contract.

        Returns:
            None for a historical event: Frigate has none after the end of an object.
        """
        if event.historical:
            return None
        key = (event.camera, event.track_id)
        before = self._last.pop(key, None)
        after = _object(event, before)
        if event.type != "end":
            self._last[key] = after
            while len(self._last) > _MOST_OBJECTS:
                del self._last[next(iter(self._last))]
        message = {"type": event.type, "before": before or _not_announced(after), "after": after}
        return json.dumps(message, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


def _not_announced(first: dict[str, Any]) -> dict[str, Any]:
    """Return the state before the first message: Frigate's object is then a false positive still."""
    return {**first, "false_positive": True, "sub_label": None, "current_zones": [], "entered_zones": []}


def _object(event: Event, before: dict[str, Any] | None) -> dict[str, Any]:
    decision = event.decision
    width_px, height_px = event.frame_px
    x0, y0, x1, y1 = (
        round(max(0.0, min(1.0, edge)) * size_px)  # in this argument order, NaN becomes 1
        for edge, size_px in zip(event.box_rel, (width_px, height_px, width_px, height_px), strict=True)
    )
    score = _finite(decision.category.score) if decision.category else 0.0
    zones = list(event.zones[:_MOST_ZONES])
    entered = before["entered_zones"] if before else []
    return {
        "id": before["id"] if before else f"{event.started_at:.6f}-{event.event_id[:6]}",
        "camera": event.camera,
        "frame_time": event.captured_at,
        "label": decision.category.name[:_MOST_CHARACTERS] if decision.category else "object",
        "sub_label": [decision.match.label[:_MOST_CHARACTERS], _probability(decision.match.probability)]
        if decision.match
        else None,
        "top_score": max(score, before["top_score"] if before else 0.0),
        "false_positive": False,
        "start_time": before["start_time"] if before else event.started_at,
        "end_time": event.captured_at if event.type == "end" else None,
        "score": score,
        "box": [x0, y0, x1, y1],
        "area": abs((x1 - x0) * (y1 - y0)),
        "ratio": round(abs(x1 - x0) / max(1, abs(y1 - y0)), 4),  # width by height
        "region": [0, 0, width_px, height_px],
        "current_zones": zones,
        "entered_zones": [*entered, *(zone for zone in zones if zone not in entered)][:_MOST_ZONES],
        **_NOT_MEASURED,
    }


def _probability(probability: float | None) -> float:
    """Return a probability as Frigate's score, which must be a number: 0 where there is none."""
    return 0.0 if probability is None else _finite(probability)


def _finite(value: float) -> float:
    return round(float(value), 4) if math.isfinite(value) else 0.0
