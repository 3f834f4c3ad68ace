"""What a kiosk shows the person before it: a value that frames, touches and time change; pure.

    waiting ──asked──► hold_still ──decided──► answer | unknown ──left for a while──► waiting
       └─────────── recognised without being asked ───────────┘
    any ──teach──► teaching ──saved or cancelled──► waiting          any ──no frame──► no_picture ──frame──► waiting

A match is shown as soon as it is seen. That nothing is known is only told when somebody asked: an empty counter is
nothing known, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edge.types import Decision

Phase = Literal["no_picture", "waiting", "hold_still", "answer", "unknown", "teaching"]
Hint = Literal["kept_moving"]

ASK_PATIENCE_S = 10.0  # a question nobody holds still for is given up
LINGER_S = 3.0  # an answer stays this long after the thing left
BLIND_S = 3.0  # without a frame this long there is no picture


@dataclass(frozen=True, slots=True)
class FrameSummary:
    """What one frame of the camera showed."""

    at_s: float  # monotonic
    track_id: int | None  # of the thing that holds still; None: it moves
    decision: Decision | None  # what it is; None: not decided yet


@dataclass(frozen=True, slots=True)
class Session:
    """The state of the page."""

    phase: Phase = "no_picture"
    is_still: bool = False  # what is before the camera holds still
    decision: Decision | None = None  # of answer and unknown
    hint: Hint | None = None  # of waiting: why the last question has no answer
    track_id: int | None = None  # that the answer speaks of; a dismissed one is not shown again
    since_s: float = 0.0  # of hold_still: when it was asked; of answer and unknown: when the thing was last there
    frame_s: float = float("-inf")  # newest frame


def see(session: Session, seen: FrameSummary) -> Session:
    """The state after a frame."""
    session = replace(session, frame_s=seen.at_s, is_still=seen.track_id is not None)
    if session.phase == "teaching":
        return session
    if session.phase == "no_picture":
        session = replace(session, phase="waiting", track_id=None)
    decision, track_id = seen.decision, seen.track_id
    if decision is not None and track_id is not None:
        dismissed = session.phase == "waiting" and track_id == session.track_id
        if decision.match is not None and not dismissed:
            return _tell(session, "answer", seen)
        same = session.phase in ("answer", "unknown") and track_id == session.track_id
        if session.phase == "hold_still" or same:
            return _tell(session, "unknown" if decision.match is None else "answer", seen)
    if session.phase in ("answer", "unknown") and track_id == session.track_id:
        return replace(session, since_s=seen.at_s)
    return pass_time(session, seen.at_s)


def pass_time(session: Session, now_s: float) -> Session:
    """The state when nothing happens."""
    if session.phase not in ("no_picture", "teaching") and now_s - session.frame_s > BLIND_S:
        return Session(frame_s=session.frame_s)
    waited_s = now_s - session.since_s
    if session.phase == "hold_still" and waited_s > ASK_PATIENCE_S:
        return replace(session, phase="waiting", hint="kept_moving", track_id=None)
    if session.phase in ("answer", "unknown") and waited_s > LINGER_S:
        return replace(session, phase="waiting", decision=None, track_id=None)
    return session


def ask(session: Session, now_s: float) -> Session:
    """Somebody asks what this is."""
    if session.phase in ("no_picture", "teaching"):
        return session
    return replace(session, phase="hold_still", decision=None, hint=None, track_id=None, since_s=now_s)


def dismiss(session: Session) -> Session:
    """Somebody has read the answer: the thing that is there is not told again until it is asked for."""
    if session.phase == "no_picture":
        return session
    return replace(session, phase="waiting", decision=None, hint=None)


def teach(session: Session) -> Session:
    """Somebody wants to teach what is there."""
    if session.phase == "no_picture":
        return session
    return replace(session, phase="teaching", decision=None, hint=None, track_id=None)


def taught(session: Session) -> Session:
    """It was taught, or given up: what is there is told again."""
    return replace(session, phase="waiting", track_id=None) if session.phase == "teaching" else session


def _tell(session: Session, phase: Phase, seen: FrameSummary) -> Session:
    return replace(session, phase=phase, decision=seen.decision, hint=None, track_id=seen.track_id, since_s=seen.at_s)
