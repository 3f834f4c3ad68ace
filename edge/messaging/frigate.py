"""Events in Frigate's format, for automations written for Frigate.

https://docs.frigate.video/integrations/mqtt/#frigateevents. Fields that finesight does not have (pictures, clips,
regions) are present and empty. `label` is the category; `sub_label` the identity and its probability.
"""

from __future__ import annotations

import json
import math
from typing import Any

from edge.types import Event

TOPIC = "frigate/events"
_MOST_CHARACTERS = 256  # of a text: the message holds everything twice and stays below 8 KB
_MOST_OBJECTS = 1000  # remembered; more than are ever in view at once


class FrigateMirror:
    """Remembers the last message of every object in view."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], dict[str, Any]] = {}

    def payload(self, event: Event) -> bytes:
        """Return the JSON of an event; docs/frigate_event.schema.json is its contract."""
        key = (event.camera, event.track_id)
        before = self._last.pop(key, None)
        after = _object(event, before)
        if event.type != "end":
            self._last[key] = after
            while len(self._last) > _MOST_OBJECTS:
                del self._last[next(iter(self._last))]
        message = {"type": event.type, "before": before or after, "after": after}
        return json.dumps(message, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="replace")


def _object(event: Event, before: dict[str, Any] | None) -> dict[str, Any]:
    decision = event.decision
    box = [round(max(0.0, min(1.0, edge)), 4) for edge in event.box_rel]  # in this argument order, NaN becomes 1
    score = _finite(decision.category.score) if decision.category else 0.0
    width, height = box[2] - box[0], box[3] - box[1]
    started = before["start_time"] if before else event.captured_at
    return {
        "id": before["id"] if before else f"{event.captured_at:.6f}-{event.event_id[:6]}",
        "camera": event.camera,
        "frame_time": event.captured_at,
        "snapshot": None,
        "label": decision.category.name[:_MOST_CHARACTERS] if decision.category else "object",
        "sub_label": [decision.match.label[:_MOST_CHARACTERS], _finite(decision.match.probability)]
        if decision.match
        else None,
        "top_score": max(score, before["top_score"] if before else 0.0),
        "false_positive": False,
        "start_time": started,
        "end_time": event.captured_at if event.type == "end" else None,
        "score": score,
        "box": box,  # fractions of the frame; Frigate gives pixels of its detect stream
        "area": round(width * height, 6),
        "ratio": round(width / height, 4) if height > 0 else 0.0,
        "region": [0.0, 0.0, 1.0, 1.0],
        "active": event.type != "end",
        "stationary": False,
        "motionless_count": 0,
        "position_changes": 0,
        "current_zones": [],
        "entered_zones": [],
        "attributes": {},
        "has_clip": False,
        "has_snapshot": False,
    }


def _finite(value: float) -> float:
    return round(float(value), 4) if math.isfinite(value) else 0.0
