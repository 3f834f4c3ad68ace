"""What is in view of each camera, by item: the retained message `<camera>/in_view`, followed from the events."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edge.messaging.payload import encode, truncate
from edge.types import Decision, Event

IN_VIEW_SCHEMA = "finesight.in_view/1"
_MAX_NAMES = 20  # of each kind; with names of _MAX_CHARACTERS the message stays below 8 KB for ASCII
_MAX_CHARACTERS = 128


class InView:
    """The objects that have a new event and no end event yet."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[int, Decision]] = {}  # by camera and track

    def update(self, event: Event) -> bool:
        """Follow an event; return whether the counts may have changed."""
        objects = self._objects.setdefault(event.camera, {})
        if event.historical:  # the object has left long ago
            return False
        if event.type == "end":
            return objects.pop(event.track_id, None) is not None
        before = objects.get(event.track_id)
        objects[event.track_id] = event.decision
        return before is None or _names(before) != _names(event.decision)

    def total(self, camera: str) -> int:
        """Return how many objects are in view of a camera."""
        return len(self._objects.get(camera, {}))

    def payload(self, camera: str) -> bytes:
        """Return the JSON of a camera's counts; docs/in_view.schema.json is its contract."""
        decisions = list(self._objects.get(camera, {}).values())
        items = Counter(truncate(one.match.label, _MAX_CHARACTERS) for one in decisions if one.match)
        categories = Counter(truncate(one.category.name, _MAX_CHARACTERS) for one in decisions if one.category)
        message: dict[str, Any] = {
            "schema": IN_VIEW_SCHEMA,
            "camera": camera,
            "total": len(decisions),
            "unknown": sum(one.match is None for one in decisions),
            "by_item": dict(items.most_common(_MAX_NAMES)),
            "by_category": dict(categories.most_common(_MAX_NAMES)),
        }
        if len(items) > _MAX_NAMES or len(categories) > _MAX_NAMES:
            message["shortened"] = True
        return encode(message)


def _names(decision: Decision) -> tuple[str | None, str | None]:
    category, match = decision.category, decision.match
    return category.name if category else None, match.label if match else None
