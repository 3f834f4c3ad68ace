"""What is told of a track: its news, its changes and its end, each as an event.

Rules:
1. Doubt does not take an identity back: an object that is half covered or leaves looks like nothing known, and is what
   it was. Only another identity replaces one.
2. The end comes last, after the news of a track that left before it was announced.
3. A box of a few frames that was taken for nothing known is a flicker of the detector, and not told. What a kiosk was
   shown is answered, however short.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from edge.recognition.loaded_models import LoadedModels
from edge.recognition.reidentify import DepartedObject
from edge.recognition.scene import TrackState
from edge.recognition.track_evidence import EmbedPolicy, TrackFeatures
from edge.types import Counts, Decision, Event, EventType


class EventBuilder:
    """Makes the events of all cameras."""

    def __init__(self, policy: EmbedPolicy, counts: Counts, clock_ns: Callable[[], int]) -> None:
        self._policy, self._counts, self._clock_ns = policy, counts, clock_ns

    def update(self, track_id: int, record: TrackState, models: LoadedModels, stages_ms: dict[str, float]) -> Event | None:
        """The event that this frame's decision on a track is worth, if any."""
        evidence = record.evidence
        if evidence is None or evidence.decision is None or not record.stay.watched:
            return None
        kind = _change(evidence, evidence.decision) if self._policy.may_announce(evidence) else None
        if evidence.announced is None:
            return None
        if kind is None and record.told_zones != record.stay.stayed:
            kind = "update"
        if kind is None:
            return None
        event = _event(kind, track_id, record, evidence.announced, models)
        latency_ms = {stage: round(ms, 3) for stage, ms in stages_ms.items()}
        latency_ms["capture_to_decision"] = round((self._clock_ns() - event.captured_ns) / 1e6, 3)
        return replace(event, latency_ms=latency_ms)

    def end(self, track_id: int, record: TrackState, models: LoadedModels, *, boxed: bool) -> list[Event]:
        """The events of a track that has left, its end last; none of one that is passed over, which is counted.

        Args:
            track_id: of the track.
            record: what is known of it.
            models: the active bundle and gallery.
            boxed: a detector found it, and may have erred.
        """
        evidence, camera = record.evidence, record.moment.camera
        if evidence is None or evidence.decision is None:
            reason = "not_looked_at" if record.stay.watched else "outside_zones"
            self._counts.add("tracks_unannounced", camera=camera, reason=reason)
            return []
        told = evidence.announced is not None or evidence.decision.match is not None
        if not told and boxed and not self._policy.may_announce(evidence):
            self._counts.add("tracks_unannounced", camera=camera, reason="too_brief")
            return []
        kind = _change(evidence, evidence.decision)
        known = evidence.announced or evidence.decision
        kinds: list[EventType] = [kind, "end"] if kind else ["end"]
        # told long after the last frame: no latency to speak of
        return [_event(kind, track_id, record, known, models) for kind in kinds]


def historical_event(memory: DepartedObject, models: LoadedModels) -> Event:
    """The event of an object that has left and is now told to be something else."""
    event = _event("update", memory.track_id, memory.record, memory.told, models)
    return replace(event, historical=True)


def _change(evidence: TrackFeatures, decision: Decision) -> EventType | None:
    """Take a decision as what is told, where it differs; what kind of event that is."""
    told = evidence.announced
    if told is not None and _same_answer(told, decision):
        return None
    evidence.announced = decision
    return "new" if told is None else "update"


def _same_answer(told: Decision, new: Decision) -> bool:
    """Whether a subscriber who was told the one need not hear the other."""
    if new.match is None:
        return told.match is not None or told.reason == new.reason
    return told.match is not None and told.match.item_id == new.match.item_id


def _event(kind: EventType, track_id: int, record: TrackState, decision: Decision, models: LoadedModels) -> Event:
    moment = record.moment
    record.told_zones = record.stay.stayed
    return Event(
        event_id=secrets.token_hex(12),
        type=kind,
        camera=moment.camera,
        track_id=track_id,
        captured_at=moment.captured_at,
        captured_ns=moment.captured_ns,
        time_source=moment.time_source,
        pts_s=moment.pts_s,
        box_rel=moment.box_rel,
        decision=decision,
        bundle=models.bundle_id,
        gallery=models.gallery_id,
        zones=record.stay.stayed,
        crossings=record.stay.crossings,
    )
