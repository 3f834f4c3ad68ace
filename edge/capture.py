"""Keep cameras open: one thread each, the newest frame or every frame, reconnecting, telling the state with evidence.

Rules:
1. A camera always drains its source; what the pipeline has no time for is superseded, and counted.
2. A camera that dies is opened again after a jittered, doubling wait of 1 to 30 s; delivering well resets the wait. So
   does coming back: one that is not even there (edge/capture_knock.py) is asked for every second or two meanwhile.
3. No frame is ever made up: a camera without pictures gives a state and its evidence, nothing else.
4. Cameras share nothing but the mailbox: one that hangs in its library holds up no other, and not the process's end.
5. Durations are on the monotonic clock; the wall clock appears in `captured_at` alone.
6. A file or folder that cannot be read is told once and not tried again.
7. A picture that cannot be believed (edge/view.py) is told as a state and goes no further.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge.capture_door import FrameSource
from edge.capture_mailbox import Mailbox
from edge.clock_offset import ClockOffset
from edge.config import ViewConfig
from edge.errors import CaptureError
from edge.source import BadPictureError, EndOfStream, Picture, Source
from edge.types import CameraState, Frame
from edge.view import View

log = logging.getLogger(__name__)

_ALIVE: frozenset[CameraState] = frozenset({"online", "frozen", "obstructed"})  # frames arrive

OnState = Callable[[str, CameraState, str], None]  # camera, state, evidence; called on the capture thread


@dataclass(frozen=True, slots=True)
class Policy:
    """How a camera is kept."""

    delivery: Literal["newest", "every_frame"] = "newest"
    real_time: bool = False  # frames of a recording come no sooner than their position says
    poll_s: float = 0.25  # longest wait inside a door that can wait
    stalled_after_s: float = 5.0  # without a frame
    reopen_after_s: float = 15.0  # without a frame
    first_wait_s: float = 1.0  # before opening again
    longest_wait_s: float = 30.0
    knock_s: float = 2.0  # between asking for one that is not there, at most
    good_after_s: float = 10.0  # of frames, and the wait starts from the first again
    offline_after: int = 3  # failures in a row
    view: ViewConfig | None = None  # None: every picture is believed


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, waiting and chance, so that tests need none of them."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    unix_s: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], object] = threading.Event.wait
    chance: Callable[[], float] = random.random


def policy_for(
    source: Source,
    pacing: Literal["real_time", "every_frame"],
    stalled_after_s: float = 5.0,
    view: ViewConfig | None = None,
) -> Policy:
    """Recordings in order and whole where that is asked for; else every source behaves as a camera does."""
    view = view or (None if source.recorded else ViewConfig())
    if source.recorded and pacing == "every_frame":
        return Policy(delivery="every_frame", stalled_after_s=stalled_after_s, view=view)
    reopen_after_s = max(15.0, 3 * stalled_after_s)
    return Policy(real_time=source.recorded, stalled_after_s=stalled_after_s, reopen_after_s=reopen_after_s, view=view)


class Camera:
    """One camera, kept open by one thread."""

    def __init__(
        self,
        name: str,
        source: Source,
        open_door: Callable[[], FrameSource],
        mailbox: Mailbox,
        on_state: OnState,
        policy: Policy | None = None,
        timing: Timing | None = None,
        is_there: Callable[[], bool] | None = None,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            name: of the camera, in frames, states and logs.
            source: what it reads; says whether it ends, and is how it is printed.
            open_door: opens it; usually `partial(open_source, source, backend, options)`.
            mailbox: where frames go.
            on_state: told of every change of state, in order.
            policy: pace and patience.
            timing: clocks.
            is_there: asks for a camera without opening it, in a second at most; None where that cannot be done.
        """
        self.name = name
        self.source = source
        self.state: CameraState = "offline"
        self.evidence = "not opened yet"
        self.decode_path = ""
        self.error: CaptureError | None = None  # why a file or folder could not be read
        self.frames = 0  # that arrived, dropped ones included
        self.reconnects = 0
        self.dropped: Counter[str] = Counter()  # by reason
        self.last_frame_ns: int | None = None  # monotonic
        self.clock = ClockOffset()  # of a camera that tells its own time
        self._open_door = open_door
        self._mailbox = mailbox
        self._on_state = on_state
        self._policy = policy or Policy()
        self._timing = timing or Timing()
        self._is_there = is_there or (lambda: True)
        self._away = False  # it was not there when it was last asked for
        self._stop = threading.Event()
        self._telling = threading.RLock()
        self._inside_since_ns: int | None = None  # when a call into the door began
        self._failures = 0
        self._view = View(self._policy.view) if self._policy.view else None
        self._pace: tuple[int, float] | None = None  # when a recording's position was due
        self._thread = threading.Thread(target=self.run, name=f"capture-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._mailbox.add(self.name)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ask the thread to end; whether it did in time. One that hangs in its library ends with the process."""
        self._stop.set()
        self._mailbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self) -> None:
        """Tell of a door that does not return. Anybody's thread, every second or so: the camera's own is stuck."""
        since_ns = self._inside_since_ns
        if since_ns is None:
            return
        inside_s = (self._timing.monotonic_ns() - since_ns) / 1e9
        if inside_s >= self._policy.reopen_after_s:
            self._tell("stalled", f"the library has not returned for {inside_s:.0f} s")

    def run(self) -> None:
        """The thread: open, drain, wait, again."""
        self._mailbox.add(self.name)
        try:
            while not self._stop.is_set():
                try:
                    again = self._live_once()
                except Exception as error:
                    log.exception("camera %s: capture failed", self.name)
                    again = self._failed(f"{type(error).__name__}: {error}")
                if not again:
                    break
        finally:
            if self._stop.is_set():
                self._tell("offline", "stopped")
            self._mailbox.remove(self.name)

    def _live_once(self) -> bool:
        """Open the source and read it until it ends; whether to open it again."""
        begun = self.frames
        try:
            self._session()
        except EndOfStream:
            if self.source.loop and self.frames > begun:
                return True
            if not self.source.recorded:
                return self._failed("the stream ended")
            self._tell("offline", f"end of stream after {self.frames} frames")
            return False
        except CaptureError as error:
            if self.source.recorded:
                self.error = error
                log.error("camera %s: %s", self.name, error)  # noqa: TRY400, one line is the whole of it
                self._tell("offline", str(error))
                return False
            return self._failed(str(error))
        return False

    def _session(self) -> None:
        self._pace = None
        if self._view is not None:
            self._view.begin_anew()
        opened_ns = self._timing.monotonic_ns()
        self._inside_since_ns = opened_ns
        try:
            door = self._open_door()
            try:
                self._drain(door, opened_ns)
            finally:
                self._inside_since_ns = self._timing.monotonic_ns()
                door.close()
        finally:
            self._inside_since_ns = None

    def _drain(self, door: FrameSource, opened_ns: int) -> None:
        heard_ns = opened_ns
        first_ns: int | None = None
        while not self._stop.is_set():
            self._inside_since_ns = self._timing.monotonic_ns()
            try:
                picture = door.read(self._policy.poll_s)
            except BadPictureError as error:
                log.error("camera %s: %s", self.name, error)  # noqa: TRY400, one line is the whole of it
                self.dropped["unreadable"] += 1
                continue
            finally:
                self._inside_since_ns = None
            now_ns = self._timing.monotonic_ns()
            if picture is None:
                self._check_silence((now_ns - heard_ns) / 1e9)
                continue
            heard_ns = now_ns
            first_ns = first_ns or now_ns
            if now_ns - first_ns >= self._policy.good_after_s * 1e9:
                self._failures = 0
            self._deliver(picture, door)

    def _check_silence(self, silent_s: float) -> None:
        if silent_s >= self._policy.reopen_after_s:
            raise CaptureError(f"{self.source}: no frame for {silent_s:.0f} s")
        if silent_s >= self._policy.stalled_after_s and self.state in _ALIVE:
            self._tell("stalled", f"no frame for {silent_s:.1f} s")

    def _deliver(self, picture: Picture, door: FrameSource) -> None:
        paced = self._wait_for_position(picture.pts_s)
        if self._stop.is_set():
            return
        captured_ns = self._timing.monotonic_ns() if paced else picture.arrived_ns
        at = self._timing.unix_s() if picture.captured_at is None else picture.captured_at
        frame = Frame(self.name, self.frames, picture.image_rgb, captured_ns, at, picture.time_source, picture.pts_s)
        self.frames += 1
        self.last_frame_ns = captured_ns
        if door.decode_path != self.decode_path:
            self.decode_path = door.decode_path
            log.info("camera %s: %s by %s", self.name, self.source, self.decode_path)
        self._compare_clocks(picture)
        if not self._believe(picture, captured_ns):
            return
        if self._policy.delivery == "every_frame":
            self._mailbox.put_when_free(frame, self._stop.is_set)
        elif self._mailbox.put_newest(frame):
            self.dropped["superseded"] += 1

    def _compare_clocks(self, picture: Picture) -> None:
        if picture.captured_at is None:
            return
        now_ns = self._timing.monotonic_ns()
        arrived_at = self._timing.unix_s() - (now_ns - picture.arrived_ns) / 1e9
        if (told := self.clock.take(picture.captured_at, arrived_at, now_ns / 1e9)) is not None:
            log.warning("camera %s: %s", self.name, told)

    def _believe(self, picture: Picture, captured_ns: int) -> bool:
        """Tell how the picture is; whether it may be recognised."""
        height, width = picture.image_rgb.shape[:2]
        seen = f"{width}x{height} by {self.decode_path}"
        if self._view is None:
            self._tell("online", seen)
            return True
        scene_s = picture.pts_s if self.source.recorded and picture.pts_s is not None else captured_ns / 1e9
        verdict = self._view.judge(picture.image_rgb, scene_s)
        self._tell(verdict.state, verdict.evidence or seen)
        if verdict.doubt is not None:
            self.dropped[verdict.doubt] += 1
        return verdict.doubt is None

    def _wait_for_position(self, pts_s: float | None) -> bool:
        """Hold a recording's frame back until it is due; whether this one was paced."""
        if not self._policy.real_time or pts_s is None:
            return False
        now_ns = self._timing.monotonic_ns()
        if self._pace is None or pts_s < self._pace[1]:
            self._pace = (now_ns, pts_s)
            return True
        due_ns = self._pace[0] + round((pts_s - self._pace[1]) * 1e9)
        if due_ns > now_ns:
            self._timing.wait(self._stop, (due_ns - now_ns) / 1e9)
        return True

    def _failed(self, reason: str) -> bool:
        """Tell what happened and wait before the next attempt; True, to open again."""
        if self._stop.is_set():
            return False
        self._failures += 1
        self.reconnects += 1
        self._tell("offline" if self._failures >= self._policy.offline_after else "reconnecting", reason)
        ceiling_s = min(self._policy.longest_wait_s, self._policy.first_wait_s * 2 ** min(self._failures - 1, 16))
        # Between half the ceiling and all of it, so that many cameras of one switch do not come back at once.
        wait_s = max(self._policy.first_wait_s, ceiling_s * (0.5 + 0.5 * self._timing.chance()))
        log.debug("camera %s: %s; opening again in %.1f s", self.name, reason, wait_s)
        self._wait_to_open(wait_s)
        return True

    def _wait_to_open(self, wait_s: float) -> None:
        """Wait; when a camera that was not there comes back, no longer, and the waits begin anew."""
        was_away, self._away = self._away, not self._is_there()
        if not self._away:
            if was_away:  # it came back while it was being opened
                self._failures, wait_s = 0, self._policy.first_wait_s
            self._timing.wait(self._stop, wait_s)
            return
        until_ns = self._timing.monotonic_ns() + round(wait_s * 1e9)
        while not self._stop.is_set() and (left_s := (until_ns - self._timing.monotonic_ns()) / 1e9) > 0:
            self._timing.wait(self._stop, min(left_s, self._policy.knock_s * (0.5 + 0.5 * self._timing.chance())))
            if self._is_there():
                self._failures, self._away = 0, False
                break

    def _tell(self, state: CameraState, evidence: str) -> None:
        with self._telling:
            changed = state != self.state or self.evidence == "not opened yet"
            self.state, self.evidence = state, evidence
            if changed:
                log.log(
                    logging.INFO if state == "online" else logging.WARNING,
                    "camera %s: %s: %s",
                    self.name,
                    state,
                    evidence,
                )
                self._on_state(self.name, state, evidence)
