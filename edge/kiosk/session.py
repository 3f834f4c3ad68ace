"""The state of the kiosk's page: a value that frames, button presses and time change; pure.

    waiting ──ask──► hold_still ──decision──► answer | unknown ──object gone for a while──► waiting
       └── a match, or something unknown held still ─────────┘
    any ──start──► teaching ──saved or cancelled──► waiting          any ──no frame──► no_picture ──frame──► waiting

A match is shown at once. "Unknown" is shown after a question, or when something that is not the empty counter
(`edge.kiosk.presence`) has been held still for HELD_S.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edge.types import Decision

Phase = Literal["no_picture", "waiting", "hold_still", "answer", "unknown", "teaching"]
Hint = Literal["kept_moving"]

ASK_TIMEOUT_S = 10.0  # a question is dropped if nothing holds still for this long
ANSWER_HOLD_S = 3.0  # an answer stays this long after the object left
NO_FRAME_TIMEOUT_S = 3.0  # without a frame for this long there is no picture
HELD_S = 2.0  # something unknown that is held still for this long is answered without a question


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """The result of one frame of the camera."""

    at_s: float  # monotonic
    track_id: int | None  # of the object that holds still; None: it moves
    decision: Decision | None  # None: not decided yet
    there_since_s: float | None = (
        None  # since when something that is not the empty counter is in one place; None: nothing
    )

    @property
    def is_present(self) -> bool:
        """Whether something is there that is not part of the empty counter."""
        return self.there_since_s is not None


@dataclass(frozen=True, slots=True)
class Session:
    """The state of the page."""

    phase: Phase = "no_picture"
    is_still: bool = False  # whether the object in front of the camera holds still
    decision: Decision | None = None  # of answer and unknown
    hint: Hint | None = None  # of waiting: why the last question has no answer
    track_id: int | None = None  # of the answer; a dismissed one is not shown again
    since_s: float = 0.0  # hold_still: when the question came; answer and unknown: when the object was last present
    frame_s: float = float("-inf")  # newest frame
    is_present: bool = False  # in the newest frame
    unasked: bool = False  # whether the unknown answer came without a question


def update(session: Session, frame: FrameSummary) -> Session:
    """Return the state after a frame."""
    session = _note_presence(session, frame)
    if session.phase == "teaching":
        return session
    if session.phase == "no_picture":
        session = replace(session, phase="waiting", track_id=None)
    decision, track_id = frame.decision, frame.track_id
    if decision is not None and track_id is not None:
        dismissed = session.phase == "waiting" and track_id == session.track_id
        if decision.match is not None and not dismissed:
            return _show(session, "answer", frame)
        left = session.unasked and not frame.is_present  # a small thing's track goes on without it
        same = session.phase in ("answer", "unknown") and track_id == session.track_id and not left
        held = frame.there_since_s is not None and frame.at_s - frame.there_since_s >= HELD_S
        unasked = session.phase == "waiting" and held and not dismissed
        if session.phase == "hold_still" or same or unasked:
            shown = _show(session, "unknown" if decision.match is None else "answer", frame)
            return replace(shown, unasked=unasked or (same and session.unasked))
        if left:
            return pass_time(session, frame.at_s)
    if session.phase in ("answer", "unknown") and track_id == session.track_id:
        return replace(session, since_s=frame.at_s)
    return pass_time(session, frame.at_s)


def _note_presence(session: Session, frame: FrameSummary) -> Session:
    """Return the state after what a frame shows, whatever it is."""
    if session.phase == "waiting" and frame.is_present and not session.is_present:
        session = replace(session, track_id=None)  # not what was dismissed, though the track of that may go on
    is_still = frame.track_id is not None
    return replace(session, frame_s=frame.at_s, is_still=is_still, is_present=frame.is_present)


def pass_time(session: Session, now_s: float) -> Session:
    """Return the state after time passed without an event."""
    if session.phase not in ("no_picture", "teaching") and now_s - session.frame_s > NO_FRAME_TIMEOUT_S:
        return Session(frame_s=session.frame_s)
    waited_s = now_s - session.since_s
    if session.phase == "hold_still" and waited_s > ASK_TIMEOUT_S:
        return replace(session, phase="waiting", hint="kept_moving", track_id=None)
    if session.phase in ("answer", "unknown") and waited_s > ANSWER_HOLD_S:
        return replace(session, phase="waiting", decision=None, track_id=None)
    return session


def ask(session: Session, now_s: float) -> Session:
    """Return the state after the person asks what the object is."""
    if session.phase in ("no_picture", "teaching"):
        return session
    return replace(session, phase="hold_still", decision=None, hint=None, track_id=None, since_s=now_s)


def dismiss(session: Session) -> Session:
    """Return the state after the person dismisses an answer; the object is not shown again until they ask."""
    if session.phase == "no_picture":
        return session
    return replace(session, phase="waiting", decision=None, hint=None)


def start_enrolment(session: Session) -> Session:
    """Return the state after the person starts to teach an item."""
    if session.phase == "no_picture":
        return session
    return replace(session, phase="teaching", decision=None, hint=None, track_id=None)


def end_enrolment(session: Session) -> Session:
    """Return the state after an item was taught, or teaching was cancelled; its answer is shown again."""
    return replace(session, phase="waiting", track_id=None) if session.phase == "teaching" else session


def _show(session: Session, phase: Phase, frame: FrameSummary) -> Session:
    return replace(
        session, phase=phase, decision=frame.decision, hint=None, track_id=frame.track_id, since_s=frame.at_s
    )
