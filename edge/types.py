"""The values that modules of the runtime share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (h, w, 3), RGB
Mask = NDArray[np.uint8]  # (h, w), 0 or 1
FloatArray = NDArray[np.float32]
# Sum of a crop's category probabilities where it is like nothing the classifier was trained on. It is below the 0.25
# that a match needs, see edge.recognition.decision.MIN_PROBABILITY.
UNFAMILIAR = 0.24
Silhouette = NDArray[
    np.uint8
]  # (512,): 64x64 bits, rows from the top, eight cells a byte, the first in the highest bit
Box = tuple[float, float, float, float]  # x0 y0 x1 y1 in pixels, x1 and y1 exclusive

EventType = Literal["new", "update", "end"]
Reason = Literal[
    "too_small",  # the object is smaller than recognition.min_object_px
    "blurred",  # reserved; no device sends it today
    "low_margin",  # two items are almost equally near
    "unknown_item",  # the nearest item of the category is too far away, or must not be named
    "unknown_category",  # no category is likely enough
    "gallery_empty",  # the gallery holds no item of the category
    "not_looked_at",  # the model of the likeliest category cannot be loaded now
]
CameraState = Literal[
    "online",  # frames arrive
    "stalled",  # connected, but no frame for stall_timeout_s
    "frozen",  # frames arrive, but the picture no longer changes
    "obstructed",  # covered, black or out of focus
    "reconnecting",  # the connection was lost; the device tries again
    "offline",  # several attempts in a row failed; the device keeps trying
    "unsupported",  # its video cannot be read here, such as interlaced video without GStreamer
    "disabled",  # switched off, by configuration or command
]
TimeSource = Literal["rtcp", "arrival", "file"]


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """The state of a camera, and the reason for it."""

    camera: str
    state: CameraState
    reason: str
    at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame of one camera."""

    camera: str
    index: int  # of the frames this camera delivered, from 0, dropped ones included
    image_rgb: Image
    captured_ns: int  # monotonic clock, for durations
    captured_at: float  # Unix seconds, for people
    time_source: TimeSource
    pts_s: float | None = None  # position inside a file or stream, seconds; None where the source has none
    # the picture halved 1, 2, ... times, for all who need it smaller: see edge.imaging.pyramid
    halves: dict[int, Image] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in one frame."""

    box_px: Box  # in the source frame
    score: float  # 0..1
    label: str  # class of the detector; "object" from a class-agnostic one


@dataclass(frozen=True, slots=True)
class Category:
    """A category and its probability."""

    name: str
    score: float  # 0..1, calibrated probability


@dataclass(frozen=True, slots=True)
class Hit:
    """A gallery item near a query."""

    item_id: str
    label: str
    # cosine similarity, -1..1; fused with the overlap of silhouettes if the category's rule says so
    score: float
    negative: bool = False  # a negative exemplar: as the nearest, it makes the object unknown
    ambiguous: bool = False  # a taught item that other items are nearly as near as: as the nearest, it is not named
    taught: bool = False  # to this kiosk; the bundle may never have seen such things


@dataclass(frozen=True, slots=True)
class Match:
    """The identity of an object."""

    item_id: str
    label: str
    score: float  # cosine similarity
    margin: float  # score minus the best score of any other item
    probability: float | None  # 0..1, of category and item together; None: the bundle is not calibrated


@dataclass(frozen=True, slots=True)
class Attribute:
    """What near items say about an object, such as its colour."""

    name: str
    value: str
    confidence: float  # 0..1, share of the votes of near items


@dataclass(frozen=True, slots=True)
class Decision:
    """The identity of an object, or the reason why it is unknown."""

    category: Category | None
    match: Match | None
    reason: Reason | None  # None exactly when match is set
    top: tuple[Hit, ...] = ()  # at most five, best first
    attributes: tuple[Attribute, ...] = ()  # by name; also of unknown objects that near items resemble


@dataclass(frozen=True, slots=True)
class Crossing:
    """An object crossed a line; left and right are as seen from the line's start looking to its end."""

    line: str
    direction: Literal["left_to_right", "right_to_left"]


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one object of one camera, as published."""

    event_id: str
    type: EventType
    camera: str
    track_id: int
    captured_at: float  # Unix seconds of the frame that caused the event
    captured_ns: int  # monotonic, of the same frame
    time_source: TimeSource
    pts_s: float | None
    box_rel: Box  # fractions of the frame, 0..1
    frame_px: tuple[int, int]  # width and height of the frame
    started_at: float  # Unix seconds of the frame in which the object was first detected
    dwell_s: float  # between the first and the newest detection of the object
    decision: Decision
    bundle: str  # bundle id
    gallery: str  # gallery generation id
    latency_ms: dict[str, float] = field(default_factory=dict)
    zones: tuple[str, ...] = ()  # in which the object has dwelt long enough
    crossings: tuple[Crossing, ...] = ()  # newest last
    historical: bool = False  # the object has left; another gallery has recognised it


class Counts(Protocol):
    """Counts events by name and labels."""

    def add(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a counter."""
        ...


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far the building of several engines on this machine is."""

    built: int
    of: int
    model: str  # file name of the one that is built
    share: float  # of that one, 0..1
    left_s: float | None  # until all are built, in seconds; None: not known yet


class Runnable(Protocol):
    """A model: one batch of one input in, all outputs out; from any thread."""

    where: str  # the model file, for error messages

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model.

        Args:
            batch: in the dtype and layout of the model's manifest entry.

        Raises:
            EngineError: the engine cannot run the batch.
        """
        ...


class Engine(Runnable, Protocol):
    """A loaded model. One whose memory is on a device, such as a GPU, also has `memory_bytes`, how much that is."""

    inputs: Sequence[Collection[str]]  # the names of each input, in the order of the model file
    outputs: Sequence[Collection[str]]  # the same for the outputs
    library: str  # the library, its version and settings: outputs may differ from one to another
