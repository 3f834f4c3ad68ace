"""Collects the best picture of each object that leaves without a name.

Rules this module keeps:
1. The frame path only queues a frame and a box. A thread of this module cuts, compares, encodes and writes.
2. At most _MAX_LOOKS frames wait, and _MAX_OBJECTS objects are followed. What does not fit is dropped and counted.
3. Only views that the recogniser embedded are compared: it chose them. The best is large, sharp and not cut off.
4. A track that is too brief leaves without an event, so nothing ends it here. Such tracks make room first, uncounted.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge.config.schema import UnknownsConfig
from edge.errors import UploadError
from edge.imaging import image
from edge.recognition.pipeline import Result
from edge.supervised_thread import SupervisedThread
from edge.types import Box, Counts, Event, Frame, Image
from edge.unknowns.limits import Alike, fingerprint
from edge.unknowns.record import Origin, View, describe, pack
from edge.unknowns.spool import Spool

log = logging.getLogger(__name__)

_MAX_LOOKS = 8  # frames that wait; each holds a whole picture
_MAX_ENDS = 256  # events that wait
_MAX_OBJECTS = 64  # in view without a name
_SHARPNESS_PX = 96  # at which pictures of any size are compared
_QUALITY = 90


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One view of one object."""

    camera: str
    track_id: int
    image_rgb: Image  # the whole frame
    box_px: Box
    weight: float  # 0..1, how much the recogniser trusts it
    captured_at: float
    is_announced: bool  # the object has an event, so its end will come


@dataclass(frozen=True, slots=True)
class _Best:
    """The best view of an object so far, encoded: a few kilobytes."""

    quality: float
    jpeg: bytes
    bits: int  # its fingerprint
    view: View
    is_announced: bool  # as of the newest view


class UnknownObjects:
    """Follows the objects without a name: `with UnknownObjects(...) as unknowns`, and pass it frames and events."""

    def __init__(
        self,
        config: UnknownsConfig,
        origin: Origin,
        spool: Spool,
        counts: Counts,
        *,
        is_wanted: Callable[[str], bool],
        margin: Callable[[], float],
        on_kept: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """Prepare; entering the context starts the thread.

        Args:
            config: limits.
            origin: of the pictures.
            spool: where they wait for the server.
            counts: `unknowns` and `unknowns_dropped`.
            is_wanted: whether the objects of a camera are sent.
            margin: what the models see around a box, as a share of its size.
            on_kept: called when a picture was kept.
            now: Unix seconds, for the limits.
        """
        self._config, self._origin, self._spool, self._counts = config, origin, spool, counts
        self._is_wanted, self._margin, self._on_kept, self._now = is_wanted, margin, on_kept, now
        self._waiting: deque[_Look | Event] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._best: OrderedDict[tuple[str, int], _Best] = OrderedDict()
        self._alike = Alike(config.fold_s)
        self._thread = SupervisedThread("unknowns", self._run, counts)

    def __enter__(self) -> UnknownObjects:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.stop()

    def observe(self, frame: Frame, result: Result) -> None:
        """Queue the views of this frame; the frame path calls this, and it returns at once."""
        if not result.looks or not self._is_wanted(frame.camera):
            return
        looks = [
            _Look(
                frame.camera,
                one.track.track_id,
                frame.image_rgb,
                one.track.box_px,
                result.looks[one.track.track_id],
                frame.captured_at,
                one.decision is not None,
            )
            for one in result.objects
            if one.track.track_id in result.looks
            and (one.decision is None or one.decision.match is None)
            and _shorter_side(one.track.box_px) >= self._config.min_px
        ]
        for look in looks:
            self._put(look, _MAX_LOOKS)

    def observe_event(self, event: Event) -> None:
        """Queue the end of an object; the frame path calls this, and it returns at once."""
        if event.type == "end" and self._is_wanted(event.camera):
            self._put(event, _MAX_ENDS)

    def _put(self, one: _Look | Event, most: int) -> None:
        with self._changed:
            alike = [other for other in self._waiting if type(other) is type(one)]
            if len(alike) >= most:
                self._waiting.remove(alike[0])
                self._drop(alike[0].camera, "busy")
            self._waiting.append(one)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                one = self._waiting.popleft()
            try:
                if isinstance(one, _Look):
                    self._compare(one)
                else:
                    self._finish(one)
            except Exception:
                self._drop(one.camera, "failed")
                log.exception("camera %s: the picture of an unknown object failed", one.camera)

    def _compare(self, look: _Look) -> None:
        """Keep a view if it is the best of its object so far."""
        key = (look.camera, look.track_id)
        best = self._best.get(key)
        height, width = look.image_rgb.shape[:2]
        left, top, right, bottom = image.crop_bounds(width, height, look.box_px, self._margin())
        picture = look.image_rgb[top:bottom, left:right]
        sharpness = image.sharpness(image.resize(picture, _SHARPNESS_PX, _SHARPNESS_PX, "area"))
        quality = look.weight * (picture.shape[0] * picture.shape[1] * (1.0 + sharpness)) ** 0.5
        looks = best.view.looks + 1 if best else 1
        if best is not None and quality <= best.quality:
            best = replace(best, view=replace(best.view, looks=looks), is_announced=look.is_announced)
        else:
            picture = image.shrink(picture, self._config.max_px)
            scale = picture.shape[1] / (right - left)
            x0, y0, x1, y1 = look.box_px
            rel = _rounded((x0 / width, y0 / height, x1 / width, y1 / height), 5)
            box = _rounded(((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale), 1)
            jpeg = image.encode_image(picture, ".jpg", _QUALITY)
            view = View(look.captured_at, rel, box, looks)
            best = _Best(quality, jpeg, fingerprint(picture), view, look.is_announced)
        self._best[key] = best
        self._best.move_to_end(key)
        if len(self._best) > _MAX_OBJECTS:
            self._make_room()

    def _make_room(self) -> None:
        """Give up the object that was seen longest ago, of those without an event if there are any."""
        oldest = next(iter(self._best))
        given_up = next((key for key, best in self._best.items() if not best.is_announced), oldest)
        if self._best.pop(given_up).is_announced:
            self._drop(given_up[0], "busy")  # others were too brief; one whose end comes counts as no_picture

    def _finish(self, event: Event) -> None:
        """Keep the best view of an object that has left, if it is to be sent."""
        best = self._best.pop((event.camera, event.track_id), None)
        if event.decision.match is not None or event.decision.reason not in self._config.reasons:
            return
        if best is None:
            self._drop(event.camera, "no_picture")
            return
        now, elapsed_s = self._now(), time.monotonic()
        if self._alike.is_known(event.camera, best.bits, elapsed_s):
            self._drop(event.camera, "alike")
            return
        if self._spool.is_full_for(now, self._config.per_hour, self._config.per_day):
            self._drop(event.camera, "limit")
            return
        object_id = f"unknown-{secrets.token_hex(6)}"
        record = describe(object_id, event, self._origin, best.view)
        try:
            self._spool.keep(f"{object_id}.zip", pack(record, best.jpeg), now)
        except UploadError as error:
            self._drop(event.camera, "disk")
            log.warning("camera %s: %s", event.camera, error)
            return
        self._alike.add(event.camera, best.bits, elapsed_s)
        self._counts.add("unknowns", camera=event.camera)
        self._on_kept()

    def _drop(self, camera: str, reason: str) -> None:
        self._counts.add("unknowns_dropped", camera=camera, reason=reason)


def _shorter_side(box_px: Box) -> float:
    return min(box_px[2] - box_px[0], box_px[3] - box_px[1])


def _rounded(box: Box, digits: int) -> Box:
    x0, y0, x1, y1 = (round(float(value), digits) for value in box)
    return x0, y0, x1, y1
