"""The vocabulary of the runtime: values that more than one module speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (h, w, 3), RGB
Mask = NDArray[np.uint8]  # (h, w), 0 or 1
FloatArray = NDArray[np.float32]
Box = tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels, x1 and y1 exclusive

EventType = Literal["new", "update", "end"]
Reason = Literal[
    "too_small",  # the picture is smaller than recognition.min_object_px
    "blurred",  # reserved: nothing sends it today
    "low_margin",  # two items are nearly as close as each other
    "unknown_item",  # the nearest item of the category is too far away, or must not be named
    "unknown_category",  # no category is likely enough
    "gallery_empty",  # the gallery holds no item of the category
    "not_looked_at",  # reserved: nothing sends it today
]
CameraState = Literal[
    "online",  # frames arrive
    "stalled",  # connected, but no frame for stall_timeout_s
    "frozen",  # frames arrive, but the picture no longer changes
    "obstructed",  # covered, black or out of focus
    "reconnecting",  # the connection was lost; the device tries again
    "offline",  # several attempts in a row failed; the device keeps trying
    "disabled",  # switched off, by configuration or command
]
TimeSource = Literal["rtcp", "arrival", "file"]


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """The state of a camera, and why."""

    camera: str
    state: CameraState
    reason: str
    at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture of one camera."""

    camera: str
    index: int  # counts the frames this camera delivered, from 0, dropped ones included
    image_rgb: Image
    captured_ns: int  # monotonic clock, for durations
    captured_at: float  # Unix seconds, for people
    time_source: TimeSource
    pts_s: float | None = None  # position inside a file or stream, seconds; None where the source has none


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in one frame."""

    box_px: Box  # in the source frame
    score: float  # 0..1
    label: str  # the detector's own class; "object" from a class-agnostic one


@dataclass(frozen=True, slots=True)
class Category:
    """A meta-category and how sure the coarse classifier is of it."""

    name: str
    score: float  # 0..1, calibrated probability


@dataclass(frozen=True, slots=True)
class Hit:
    """One gallery item near a query."""

    item_id: str
    label: str
    # cosine similarity, -1..1; fused with the outlines' overlap where the category's rule says so
    score: float
    negative: bool = False  # an exemplar of what must not be named: it vetoes


@dataclass(frozen=True, slots=True)
class Match:
    """The identity that was decided on."""

    item_id: str
    label: str
    score: float  # cosine similarity
    margin: float  # score minus the best score of any other item
    probability: float  # 0..1, calibrated


@dataclass(frozen=True, slots=True)
class Decision:
    """What an object is, or why that is not known."""

    category: Category | None
    match: Match | None
    reason: Reason | None  # None exactly when match is set
    top: tuple[Hit, ...] = ()  # at most five, best first


@dataclass(frozen=True, slots=True)
class Crossing:
    """An object went across a line; sides as seen from the line's start looking to its end."""

    line: str
    direction: Literal["left_to_right", "right_to_left"]


@dataclass(frozen=True, slots=True)
class Event:
    """What a subscriber is told about one object of one camera."""

    event_id: str
    type: EventType
    camera: str
    track_id: int
    captured_at: float  # Unix seconds of the frame that caused the event
    captured_ns: int  # monotonic, of the same frame
    time_source: TimeSource
    pts_s: float | None
    box_rel: Box  # fractions of the frame, 0..1
    decision: Decision
    bundle: str  # bundle id
    gallery: str  # gallery generation id
    latency_ms: dict[str, float] = field(default_factory=dict)
    zones: tuple[str, ...] = ()  # in which the object has stayed long enough
    crossings: tuple[Crossing, ...] = ()  # newest last
    historical: bool = False  # told of an object that was seen earlier


class Counts(Protocol):
    """Where drops and sheds are counted."""

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Count something that happened."""
        ...


class Engine(Protocol):
    """A loaded model: one batch of one input in, all outputs out; from any thread."""

    where: str  # the model file, as errors name it
    library: str  # what runs it, its version and settings: where this is another, the numbers may be

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model.

        Args:
            batch: in the dtype and layout of the model's manifest entry.

        Raises:
            EngineError: the engine refused the batch.
        """
        ...
