"""The events of a track: new, update and end.

Rules:
1. A published identity is replaced only by another identity. An object that is half covered or leaves looks unknown,
   but is still what it was.
2. The end comes last, after the new event of a track that left before that was published.
3. An unknown box of a few frames is a false detection and is not published. The object in front of a kiosk is always
   published, however short.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from edge.recognition.camera_tracks import TrackState
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import DepartedObject
from edge.recognition.scheduler import EmbedPolicy
from edge.recognition.track_features import TrackFeatures
from edge.types import Counts, Decision, Event, EventType


class EventBuilder:
    """Builds the events of all cameras."""

    def __init__(self, policy: EmbedPolicy, counts: Counts, clock_ns: Callable[[], int]) -> None:
        self._policy, self._counts, self._clock_ns = policy, counts, clock_ns

    def update(
        self, track_id: int, state: TrackState, models: LoadedModels, stages_ms: dict[str, float]
    ) -> Event | None:
        """Return the new or update event of a track in this frame; None if nothing changed.

        Args:
            track_id: of the track.
            state: of the track; what is published is noted in it.
            models: the active bundle and gallery.
            stages_ms: time that each stage of this frame took.
        """
        features = state.features
        if features is None or features.decision is None or not state.zone_state.is_monitored:
            return None
        kind = _publish(features, features.decision) if self._policy.may_publish(features) else None
        if features.published is None:
            return None
        if kind is None and state.published_zones != state.zone_state.zones:
            kind = "update"
        if kind is None:
            return None
        event = _event(kind, track_id, state, features.published, models)
        latency_ms = {stage: round(ms, 3) for stage, ms in stages_ms.items()}
        latency_ms["capture_to_decision"] = round((self._clock_ns() - event.captured_ns) / 1e6, 3)
        return replace(event, latency_ms=latency_ms)

    def end(self, track_id: int, state: TrackState, models: LoadedModels, *, detected: bool) -> list[Event]:
        """Return the last events of a track that has left, its end last; a track without any is counted.

        Args:
            track_id: of the track.
            state: of the track.
            models: the active bundle and gallery.
            detected: a detector found it, and may have erred.
        """
        features, camera = state.features, state.observation.camera
        if features is None or features.decision is None:
            reason = "not_looked_at" if state.zone_state.is_monitored else "outside_zones"
            self._counts.add("tracks_unannounced", camera=camera, reason=reason)
            return []
        is_known = features.published is not None or features.decision.match is not None
        if not is_known and detected and not self._policy.may_publish(features):
            self._counts.add("tracks_unannounced", camera=camera, reason="too_brief")
            return []
        kind = _publish(features, features.decision)
        decision = features.published or features.decision
        kinds: list[EventType] = [kind, "end"] if kind else ["end"]
        # an end is published long after the last frame: it has no latency
        return [_event(kind, track_id, state, decision, models) for kind in kinds]


def historical_event(departed: DepartedObject, models: LoadedModels) -> Event:
    """Return the update event of an object that has left and now has another identity."""
    event = _event("update", departed.track_id, departed.state, departed.decision, models)
    return replace(event, historical=True)


def _publish(features: TrackFeatures, decision: Decision) -> EventType | None:
    """Note a decision as published if it differs from the published one; return the type of its event."""
    published = features.published
    if published is not None and _is_same(published, decision):
        return None
    features.published = decision
    return "new" if published is None else "update"


def _is_same(published: Decision, new: Decision) -> bool:
    """Return whether a subscriber that has the published decision does not need the new one."""
    if new.match is None:
        return published.match is not None or published.reason == new.reason
    return published.match is not None and published.match.item_id == new.match.item_id


def _event(kind: EventType, track_id: int, state: TrackState, decision: Decision, models: LoadedModels) -> Event:
    observation = state.observation
    state.published_zones = state.zone_state.zones
    return Event(
        event_id=secrets.token_hex(12),
        type=kind,
        camera=observation.camera,
        track_id=track_id,
        captured_at=observation.captured_at,
        captured_ns=observation.captured_ns,
        time_source=observation.time_source,
        pts_s=observation.pts_s,
        box_rel=observation.box_rel,
        frame_px=observation.frame_px,
        started_at=state.started_at,
        dwell_s=state.dwell_s,
        decision=decision,
        bundle=models.bundle_id,
        gallery=models.gallery_id,
        zones=state.zone_state.zones,
        crossings=state.zone_state.crossings,
    )
