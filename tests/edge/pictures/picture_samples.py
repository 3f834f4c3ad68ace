"""Frames, events and results for tests of pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge.recognition.pipeline import Result, TrackedObject
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Decision, Frame
from tests.edge.messaging.test_payload import EVENT, KNOWN

UNKNOWN = Decision(KNOWN.category, None, "unknown_item")
BOX_PX = (100.0, 60.0, 200.0, 160.0)


def frame_of(camera="door", *, captured_ns=1, width=640, height=360):
    """A grey frame whose object is a red square in BOX_PX."""
    image_rgb = np.full((height, width, 3), 90, np.uint8)
    image_rgb[60:160, 100:200] = (255, 0, 0)
    return Frame(camera, 0, image_rgb, captured_ns, 1700000000.0, "arrival")


def event_of(**changes):
    box = tuple(edge / size for edge, size in zip(BOX_PX, (640, 360, 640, 360), strict=True))
    return replace(EVENT, **{"box_rel": box, "captured_ns": 1, **changes})


def result_of(*events, decision=KNOWN):
    track = Track(7, BOX_PX, "object", 3, 0.0, 1.0)
    return Result(list(events), [TrackedObject(track, decision)], Timings(), 1)
