"""Keep cameras open: one thread each, the newest frame or every frame, reconnecting, telling the state with evidence.

Rules:
1. A camera always drains its source; what the pipeline has no time for is superseded, and counted.
2. A camera that dies is opened again after a while (edge/capture/reconnect.py).
3. No frame is ever made up: a camera without pictures gives a state and its evidence, nothing else.
4. Cameras share nothing but the mailbox: one that hangs in its library holds up no other, and not the process's end.
5. Durations are on the monotonic clock; the wall clock appears in `captured_at` alone.
6. A file or folder that cannot be read is told once and not tried again.
7. A picture that cannot be believed (edge/capture/tamper.py) is told as a state and goes no further.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from edge.capture.clock_offset import ClockOffset
from edge.capture.latest_frames import Mailbox
from edge.capture.open_source import FrameSource
from edge.capture.policy import Policy, Timing
from edge.capture.reconnect import Patience
from edge.capture.tamper import View
from edge.config.camera_url import BadPictureError, EndOfStream, Picture, Source
from edge.errors import CaptureError
from edge.types import CameraState, Frame

log = logging.getLogger(__name__)

_ALIVE: frozenset[CameraState] = frozenset({"online", "frozen", "obstructed"})  # frames arrive

OnState = Callable[[str, CameraState, str], None]  # camera, state, evidence; called on the capture thread


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
        self._patience = Patience(self._policy, self._timing, is_there or (lambda: True))
        self._stop = threading.Event()
        self._telling = threading.RLock()
        self._inside_since_ns: int | None = None  # when a call into the door began
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
                self._patience.begin_anew()
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
        self.reconnects += 1
        self._patience.note_failure()
        self._tell("offline" if self._patience.is_spent else "reconnecting", reason)
        wait_s = self._patience.next_wait_s()
        log.debug("camera %s: %s; opening again in %.1f s", self.name, reason, wait_s)
        self._patience.wait(wait_s, self._stop)
        return True

    def _tell(self, state: CameraState, evidence: str) -> None:
        with self._telling:
            changed = state != self.state or self.evidence == "not opened yet"
            self.state, self.evidence = state, evidence
            if changed:
                level = logging.INFO if state == "online" else logging.WARNING
                log.log(level, "camera %s: %s: %s", self.name, state, evidence)
                self._on_state(self.name, state, evidence)
