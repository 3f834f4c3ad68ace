"""A kiosk at work: follows one camera's recognition, keeps the live picture, and takes looks of what is taught.

The frame path only leaves its newest frame here. A thread of the kiosk's own does the rest, at the pace of a page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

import numpy as np

from edge.errors import TaughtItemsError
from edge.imaging import image
from edge.kiosk import session as kiosk_session
from edge.kiosk.enrolment import EnrolmentWarning, PictureMeasure, concerns, judge, measure_picture, together
from edge.kiosk.session import FrameSummary, Session
from edge.kiosk.taught_store import TaughtItem, TaughtStore
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.pipeline import Result
from edge.recognition.recognise_image import extract_features, recognise_image
from edge.telemetry.metrics import Counters
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Frame, Image

log = logging.getLogger(__name__)

_LIVE_INTERVAL_S = 0.08
_LIVE_WIDTH_PX = 960
_LIVE_QUALITY = 80
_LOOK_QUALITY = 95
_WATCHED_S = 3.0  # a live picture that nobody asked for this long is not encoded
_TICK_S = 0.25
_FAILURE_PAUSE_S = 1.0


class Device(Protocol):
    """What a kiosk needs of the running device."""

    counters: Counters
    observers: list[Callable[[Frame, Result], None]]

    @property
    def models(self) -> LoadedModels:
        """The pair that answers now."""

    def refresh_overlay(self) -> None:
        """Serve the same pair with what was taught meanwhile."""


@dataclass(frozen=True, slots=True)
class EnrolmentProgress:
    """How far the looks of a thing are."""

    looks: int = 0
    wanted: int = 0
    verdict: str = "moving"  # of the newest picture, as edge.kiosk.enrolment judges it


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What came of teaching."""

    item: TaughtItem
    recognised: int  # of its looks, how many are recognised now; of what must not be named, how many have no name
    concerns: list[EnrolmentWarning]  # what will make it harder to recognise


class Kiosk:
    """One camera's page: `with Kiosk(...) as kiosk`."""

    def __init__(self, device: Device, store: TaughtStore, camera: str, wanted_looks: int, min_object_px: int) -> None:
        self.store = store
        self._device = device
        self._camera = camera
        self._wanted = wanted_looks
        self.min_object_px = min_object_px
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._stop = threading.Event()
        self._newest: tuple[Frame, FrameSummary] | None = None
        self._session = Session()
        self._version = 0
        self._live: tuple[int, bytes] = (0, b"")
        self._watched_s = float("-inf")
        self._teaching = EnrolmentProgress()
        self._taken: list[tuple[PictureMeasure, bytes]] = []
        self._sharpest = 0.0
        self._thread = threading.Thread(target=self._run, name="kiosk", daemon=True)

    def __enter__(self) -> Kiosk:  # noqa: PYI034  Self is not in Python 3.10
        self._device.observers.append(self.observe)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._device.observers.remove(self.observe)
        self._stop.set()
        self._arrived.set()
        self._thread.join()

    @property
    def models(self) -> LoadedModels:
        """The pair that answers now."""
        return self._device.models

    def observe(self, frame: Frame, result: Result) -> None:
        """Take note of a recognised frame; called by the frame path, which this does not hold up."""
        if frame.camera != self._camera:
            return
        seen = FrameSummary(time.monotonic(), None, None)
        for shown in result.objects[:1]:
            seen = FrameSummary(seen.at_s, shown.track.track_id, shown.decision)
        self._newest = (frame, seen)
        self._arrived.set()

    def state(self) -> tuple[int, Session, EnrolmentProgress]:
        """What the page shows, with a number that grows when it changes."""
        with self._lock:
            return self._version, self._session, self._teaching

    def live(self) -> tuple[int, bytes]:
        """The newest live picture as JPEG, with a number that grows; it is made while somebody asks for it."""
        self._watched_s = time.monotonic()
        return self._live

    def ask(self) -> None:
        """Somebody asks what this is."""
        self._become(lambda session: kiosk_session.ask(session, time.monotonic()))

    def dismiss(self) -> None:
        """Somebody is done with the answer."""
        self._become(kiosk_session.dismiss)

    def begin_teaching(self) -> None:
        """Take looks of what is before the camera, from the first."""
        with self._lock:
            self._taken, self._sharpest = [], 0.0
            self._teaching = EnrolmentProgress(0, self._wanted)
        self._become(kiosk_session.teach)

    def end_teaching(self) -> None:
        """Forget the looks that were taken."""
        with self._lock:
            self._taken, self._teaching = [], EnrolmentProgress()
        self._become(kiosk_session.taught)

    def look(self, number: int) -> bytes | None:
        """A look that was taken, as JPEG."""
        with self._lock:
            return self._taken[number][1] if 0 <= number < len(self._taken) else None

    def teach(self, label: str, category: str | None, *, negative: bool = False) -> Enrolment:
        """Learn what the looks show, searchable when this returns.

        Args:
            label: its name.
            category: where it belongs; None: where the classifier sees it.
            negative: it must not be named: what is nearest to it is unknown.

        Raises:
            TaughtItemsError: no look was taken, no name given, no such category, no room, or the disk refused.
        """
        if category is not None and category not in self.models.stages.embedders:
            expected = sorted(self.models.stages.embedders)
            raise TaughtItemsError(f"taught {label!r}: found category {category!r}, expected one of {expected}")
        with self._lock:
            looks = [encoded for _, encoded in self._taken]
        now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
        item = self.store.keep(label, category, looks, now, negative=negative)
        self._device.counters.add("taught")
        self._device.refresh_overlay()
        models = self.models
        pictures = [image.decode_image(look, "look") for look in looks]
        decisions = [recognise_image(models, picture, self.min_object_px, Timings()) for picture in pictures]
        if negative:
            recognised, found = sum(d.match is None for d in decisions), []
        else:
            recognised = sum(d.match is not None and d.match.item_id == item.item_id for d in decisions)
            found = _concerns(models, pictures, item, recognised)
        log.info("learnt %s %r from %d pictures, recognises %d", item.item_id, item.label, len(looks), recognised)
        self.end_teaching()
        return Enrolment(item, recognised, found)

    def forget(self, item_id: str) -> None:
        """Unlearn a thing.

        Raises:
            TaughtItemsError: there is no such thing, or the disk refused.
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
                self._become(lambda session: kiosk_session.pass_time(session, time.monotonic()))
                continue
            if self._stop.wait(max(0.0, next_picture_s - now_s)):
                return
            next_picture_s = time.monotonic() + _LIVE_INTERVAL_S
            self._arrived.clear()
            newest = self._newest
            try:
                if newest is not None:
                    self._follow(*newest)
            except Exception:
                self._device.counters.add("kiosk_failed")
                log.exception("kiosk: a frame failed")
                self._stop.wait(_FAILURE_PAUSE_S)

    def _follow(self, frame: Frame, seen: FrameSummary) -> None:
        session = self._become(lambda before: kiosk_session.see(before, seen))
        if session.phase == "teaching":
            self._take(frame.image_rgb, is_still=seen.track_id is not None)
        if time.monotonic() - self._watched_s < _WATCHED_S:
            self._live = (self._live[0] + 1, _live_jpeg(frame.image_rgb))

    def _take(self, image_rgb: Image, *, is_still: bool) -> None:
        """Take a look if it is worth it."""
        glance = measure_picture(image_rgb, is_still=is_still)
        with self._lock:
            self._sharpest = max(self._sharpest, glance.sharpness)
            verdict = judge(glance, [taken for taken, _ in self._taken], self._sharpest, self._wanted)
        encoded = image.encode_image(image_rgb, ".jpg", _LOOK_QUALITY) if verdict == "take" else b""
        with self._lock:
            if encoded and self._session.phase == "teaching":
                self._taken.append((glance, encoded))
            teaching = EnrolmentProgress(len(self._taken), self._wanted, verdict)
            if teaching != self._teaching:
                self._teaching, self._version = teaching, self._version + 1

    def _become(self, change: Callable[[Session], Session]) -> Session:
        with self._lock:
            before, self._session = self._session, change(self._session)
            if _shown(before) != _shown(self._session):
                self._version += 1
            return self._session


def _concerns(models: LoadedModels, pictures: list[Image], item: TaughtItem, recognised: int) -> list[EnrolmentWarning]:
    """What the person is told of the looks."""
    rows: dict[str, list[FloatArray]] = {}
    for picture in pictures:
        for category, vector in extract_features(models, picture, Timings(), also=item.category).vectors.items():
            rows.setdefault(category, []).append(vector)
    vectors = {category: np.stack(found) for category, found in rows.items()}
    near = models.search({category: together(found) for category, found in vectors.items()})
    others = {
        category: [hit for hit in hits if hit.item_id != item.item_id and not hit.negative]
        for category, hits in near.items()
    }
    return concerns(vectors, others, models.open_sets, recognised)


def _shown(session: Session) -> tuple[Any, ...]:
    """What of a session the page sees."""
    return session.phase, session.is_still, session.decision, session.hint


def _live_jpeg(image_rgb: Image) -> bytes:
    height, width = image_rgb.shape[:2]
    if width > _LIVE_WIDTH_PX:
        image_rgb = image.resize(image_rgb, _LIVE_WIDTH_PX, height * _LIVE_WIDTH_PX // width, "area")
    return image.encode_image(image_rgb, ".jpg", _LIVE_QUALITY)
