"""A running kiosk: follows the recognition of one camera, keeps the live picture, and enrols new items.

The frame path only stores its newest frame here. The kiosk's own thread does the rest, at the rate the page needs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Protocol

import numpy as np

from edge.errors import TaughtItemsError
from edge.imaging import image
from edge.imaging.pyramid import pyramid_of
from edge.kiosk import session as kiosk_session
from edge.kiosk.enrolment import (
    EnrolmentWarning,
    PictureMeasure,
    enrolment_warnings,
    judge_picture,
    mean_vector,
    measure_picture,
)
from edge.kiosk.presence import PresenceDetector
from edge.kiosk.session import FrameSummary, Session
from edge.kiosk.taught_store import TaughtItem, TaughtStore
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Result
from edge.recognition.recognise_image import extract_features, recognise_image
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Frame, Image

log = logging.getLogger(__name__)

_LIVE_INTERVAL_S = 0.08
_LIVE_WIDTH_PX = 960
_LIVE_QUALITY = 80
_PICTURE_QUALITY = 95
_WATCH_TIMEOUT_S = 3.0  # live pictures are encoded only if somebody asked for one within this time
_TICK_S = 0.25
_FAILURE_PAUSE_S = 1.0


class Device(Protocol):
    """The parts of the running device that a kiosk uses."""

    counters: Counters
    observers: list[Callable[[Frame, Result], None]]

    @property
    def models(self) -> LoadedModels:
        """The active bundle and gallery."""

    def refresh_overlay(self) -> None:
        """Add newly taught items to the active models."""


@dataclass(frozen=True, slots=True)
class EnrolmentProgress:
    """The progress of taking pictures of a new item."""

    pictures: int = 0
    wanted: int = 0
    verdict: str = "moving"  # on the newest picture, see edge.kiosk.enrolment.judge_picture


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The result of teaching an item."""

    item: TaughtItem
    recognised: int  # how many of its pictures are recognised now; for a negative item, how many have no match
    warnings: list[EnrolmentWarning]  # what makes it harder to recognise


class Kiosk:
    """The kiosk of one camera: `with Kiosk(...) as kiosk`."""

    def __init__(
        self, device: Device, store: TaughtStore, camera: str, wanted_pictures: int, min_object_px: int
    ) -> None:
        self.store = store
        self._device = device
        self._camera = camera
        self._wanted = wanted_pictures
        self.min_object_px = min_object_px
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._stop = threading.Event()
        self._newest: tuple[Frame, FrameSummary] | None = None
        self._session = Session()
        self._presence = PresenceDetector()
        self._version = 0
        self._live: tuple[int, bytes] = (0, b"")
        self._watched_s = float("-inf")
        self._progress = EnrolmentProgress()
        self._taken: list[tuple[PictureMeasure, bytes]] = []
        self._sharpest = 0.0
        self._thread = SupervisedThread("kiosk", self._run, device.counters)

    def __enter__(self) -> Kiosk:  # noqa: PYI034  Self is not in Python 3.10
        self._device.observers.append(self.observe)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._device.observers.remove(self.observe)
        self._stop.set()
        self._arrived.set()
        self._thread.stop()

    @property
    def models(self) -> LoadedModels:
        """The active bundle and gallery, with the taught items."""
        return self._device.models

    def observe(self, frame: Frame, result: Result) -> None:
        """Store a recognised frame; the frame path calls this, and it returns at once."""
        if frame.camera != self._camera:
            return
        summary = FrameSummary(time.monotonic(), None, None)
        for tracked in result.objects[:1]:
            summary = FrameSummary(summary.at_s, tracked.track.track_id, tracked.decision)
        self._newest = (frame, summary)
        self._arrived.set()

    def state(self) -> tuple[int, Session, EnrolmentProgress]:
        """Return the state of the page, with a number that grows when it changes."""
        with self._lock:
            return self._version, self._session, self._progress

    def live_picture(self) -> tuple[int, bytes]:
        """Return the newest live picture as JPEG, with a number that grows; calling this keeps it up to date."""
        self._watched_s = time.monotonic()
        return self._live

    def ask(self) -> None:
        """Start to answer what the object is: a person asked."""
        self._update_session(lambda session: kiosk_session.ask(session, time.monotonic()))

    def dismiss(self) -> None:
        """Hide the answer: the person dismissed it."""
        self._update_session(kiosk_session.dismiss)

    def start_enrolment(self) -> None:
        """Start to take pictures of the object in front of the camera; drop earlier ones."""
        with self._lock:
            self._taken, self._sharpest = [], 0.0
            self._progress = EnrolmentProgress(0, self._wanted)
        self._update_session(kiosk_session.start_enrolment)

    def end_enrolment(self) -> None:
        """Drop the pictures that were taken, and leave the teaching phase."""
        with self._lock:
            self._taken, self._progress = [], EnrolmentProgress()
        self._update_session(kiosk_session.end_enrolment)

    def enrolment_picture(self, number: int) -> bytes | None:
        """Return a picture taken for the new item, as JPEG; None if there is no such picture."""
        with self._lock:
            return self._taken[number][1] if 0 <= number < len(self._taken) else None

    def enrol(self, label: str, category: str | None, *, negative: bool = False) -> Enrolment:
        """Save the pictures as a taught item. It is searchable when this returns.

        Args:
            label: its name.
            category: of the item; None: as classified.
            negative: whether the item must not be named; an object nearest to it is unknown.

        Raises:
            TaughtItemsError: no picture, no name, no such category, too many items, or the disk failed.
        """
        if category is not None and category not in self.models.stages.embedders:
            known = sorted(self.models.stages.embedders)
            raise TaughtItemsError(f"item {label!r}: there is no category {category!r}; choose one of {known}")
        with self._lock:
            jpegs = [jpeg for _, jpeg in self._taken]
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        item = self.store.save(label, category, jpegs, now, negative=negative)
        self._device.counters.add("taught")
        self._device.refresh_overlay()
        models = self.models
        pictures = [image.decode_image(jpeg, "look") for jpeg in jpegs]
        decisions = [recognise_image(models, picture, self.min_object_px, Timings()) for picture in pictures]
        if negative:
            recognised, warnings = sum(d.match is None for d in decisions), []
        else:
            recognised = sum(d.match is not None and d.match.item_id == item.item_id for d in decisions)
            warnings = _warnings(models, pictures, item, recognised)
        log.info("taught %s %r: %d pictures, %d recognised", item.item_id, item.label, len(jpegs), recognised)
        self.end_enrolment()
        return Enrolment(item, recognised, warnings)

    def forget(self, item_id: str) -> None:
        """Delete a taught item.

        Raises:
            TaughtItemsError: there is no such item, or the disk failed.
        """
        self.store.forget(item_id)
        self._device.counters.add("taught_forgotten")
        self._device.refresh_overlay()

    def _run(self) -> None:
        next_picture_s = 0.0
        while not self._stop.is_set():
            self._arrived.wait(_TICK_S)
            now_s = time.monotonic()
            if not self._arrived.is_set():
                self._update_session(lambda session: kiosk_session.pass_time(session, time.monotonic()))
                continue
            if self._stop.wait(max(0.0, next_picture_s - now_s)):
                return
            next_picture_s = time.monotonic() + _LIVE_INTERVAL_S
            self._arrived.clear()
            newest = self._newest
            try:
                if newest is not None:
                    self._process_frame(*newest)
            except Exception:
                self._device.counters.add("kiosk_failed")
                log.exception("kiosk: a frame failed")
                self._stop.wait(_FAILURE_PAUSE_S)

    def _process_frame(self, frame: Frame, summary: FrameSummary) -> None:
        summary = replace(summary, there_since_s=self._presence.update(frame, summary.at_s))
        session = self._update_session(lambda before: kiosk_session.update(before, summary))
        if session.phase == "teaching":
            self._consider_picture(frame.image_rgb, is_still=summary.track_id is not None)
        if time.monotonic() - self._watched_s < _WATCH_TIMEOUT_S:
            self._live = (self._live[0] + 1, _live_jpeg(frame))

    def _consider_picture(self, image_rgb: Image, *, is_still: bool) -> None:
        """Take a picture of the new item, if it is good enough."""
        measure = measure_picture(image_rgb, is_still=is_still)
        with self._lock:
            self._sharpest = max(self._sharpest, measure.sharpness)
            verdict = judge_picture(measure, [taken for taken, _ in self._taken], self._sharpest, self._wanted)
        jpeg = image.encode_image(image_rgb, ".jpg", _PICTURE_QUALITY) if verdict == "take" else b""
        with self._lock:
            if jpeg and self._session.phase == "teaching":
                self._taken.append((measure, jpeg))
            progress = EnrolmentProgress(len(self._taken), self._wanted, verdict)
            if progress != self._progress:
                self._progress, self._version = progress, self._version + 1

    def _update_session(self, change: Callable[[Session], Session]) -> Session:
        with self._lock:
            before, self._session = self._session, change(self._session)
            if _visible(before) != _visible(self._session):
                self._version += 1
            return self._session


def _warnings(models: LoadedModels, pictures: list[Image], item: TaughtItem, recognised: int) -> list[EnrolmentWarning]:
    """Return the warnings about the pictures of a new item."""
    rows: dict[str, list[FloatArray]] = {}
    for picture in pictures:
        for category, vector in extract_features(models, picture, Timings(), also=item.category).vectors.items():
            rows.setdefault(category, []).append(vector)
    vectors = {category: np.stack(found) for category, found in rows.items()}
    near = models.search({category: mean_vector(found) for category, found in vectors.items()})
    others = {
        category: [hit for hit in hits if hit.item_id != item.item_id and not hit.negative]
        for category, hits in near.items()
    }
    return enrolment_warnings(vectors, others, models.open_sets, recognised)


def _visible(session: Session) -> tuple[Any, ...]:
    """Return the part of a session that the page shows."""
    return session.phase, session.is_still, session.decision, session.hint


def _live_jpeg(frame: Frame) -> bytes:
    pyramid, live = pyramid_of(frame), frame.image_rgb
    if pyramid.width > _LIVE_WIDTH_PX:
        live = pyramid.resized(_LIVE_WIDTH_PX, pyramid.height * _LIVE_WIDTH_PX // pyramid.width)
    return image.encode_image(live, ".jpg", _LIVE_QUALITY)
