"""Keep one camera open on its own thread: deliver frames, report the state with a reason, reconnect.

Rules:
1. A camera always drains its source. A frame that the pipeline has no time for is superseded and counted.
2. A camera that dies is opened again after a wait (edge/capture/reconnect.py).
3. No frame is ever invented: a camera without pictures reports a state and a reason, nothing else.
4. Cameras share only the `LatestFrames`. One that hangs in its library delays no other camera, and not the shutdown.
   One that fails by a bug is counted and opened again.
5. Durations use the monotonic clock; only `captured_at` uses the wall clock.
6. A file or folder that cannot be read is reported once and not retried. Video that no library here can read makes the
   camera `unsupported`.
7. A picture that waited while a camera was opened (edge/capture/positions.py) is stale: it is counted, not delivered.
8. A picture from a frozen or obstructed camera (edge/capture/tamper.py) sets the state and is not delivered.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from edge.capture.camera_policy import Policy, Timing
from edge.capture.clock_offset import ClockOffset
from edge.capture.frame_source import BackendError, BadPictureError, EndOfStream, FrameSource, Picture
from edge.capture.latest_frames import LatestFrames
from edge.capture.positions import Backlog
from edge.capture.reconnect import Backoff
from edge.capture.tamper import TamperDetector
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.types import CameraState, Counts, Frame

log = logging.getLogger(__name__)

_DELIVERING: frozenset[CameraState] = frozenset({"online", "frozen", "obstructed"})  # frames arrive

OnState = Callable[[str, CameraState, str], None]  # camera, state, reason; called on the capture thread


class Camera:
    """One camera, kept open by one thread."""

    def __init__(  # noqa: PLR0913  half of them are doors with a default
        self,
        name: str,
        source: Source,
        open_frame_source: Callable[[], FrameSource],
        latest_frames: LatestFrames,
        on_state: OnState,
        policy: Policy | None = None,
        timing: Timing | None = None,
        is_reachable: Callable[[], bool] | None = None,
        *,
        counters: Counts | None = None,
    ) -> None:
        """Prepare the camera; `start` opens it.

        Args:
            name: of the camera, in frames, states and logs.
            source: the address; says whether the source ends, and how to print it.
            open_frame_source: opens the source; usually `partial(open_source, source, backend, options)`.
            latest_frames: receives the frames.
            on_state: called with every change of state, in order.
            policy: pacing, timeouts and reconnect back-off.
            timing: clocks.
            is_reachable: checks for the camera without opening it, in a second at most; None if it cannot.
            counters: count the thread's restarts after unexpected exceptions.
        """
        self.name = name
        self.source = source
        self.state: CameraState = "offline"
        self.reason = "not opened yet"
        self.decode_path = ""
        self.error: CaptureError | None = None  # why a file or folder cannot be read
        self.frames = 0  # arrived, including dropped ones
        self.reconnects = 0
        self.dropped: Counter[str] = Counter()  # by reason
        self.last_frame_ns: int | None = None  # monotonic
        self.clock = ClockOffset()  # of a camera that sends its own time
        self._open_frame_source = open_frame_source
        self._latest_frames = latest_frames
        self._on_state = on_state
        self._policy = policy or Policy()
        self._timing = timing or Timing()
        self._backoff = Backoff(self._policy, self._timing, is_reachable or (lambda: True))
        self._stop = threading.Event()
        self._state_lock = threading.RLock()
        self._call_began_ns: int | None = None  # when the current call into the library began
        self._tamper = TamperDetector(self._policy.view) if self._policy.view else None
        self._backlog = Backlog()  # of the current connection
        self._pace: tuple[int, float] | None = None  # monotonic time and position of a recording's first frame
        self._counters = counters or Counters()
        self._known_bugs: set[str] = set()  # types of unexpected exceptions, logged with their traceback once
        self._thread = SupervisedThread(f"capture-{name}", self.run, self._counters)

    def start(self) -> None:
        """Start the capture thread."""
        self._latest_frames.add(self.name)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ask the thread to end; return whether it did in time.

        A thread that hangs in its library ends with the process.
        """
        self._stop.set()
        self._latest_frames.wake()
        return self._thread.stop(timeout_s)

    def watch(self) -> None:
        """Report a library call that does not return. Call this every second or so from another thread."""
        began_ns = self._call_began_ns
        if began_ns is None:
            return
        elapsed_s = (self._timing.monotonic_ns() - began_ns) / 1e9
        if elapsed_s >= self._policy.reopen_after_s:
            self._set_state("stalled", f"the library has not returned for {elapsed_s:.0f} s")

    def run(self) -> None:
        """Open the source, drain it, wait, repeat until stopped. The body of the thread."""
        self._latest_frames.add(self.name)
        try:
            while not self._stop.is_set():
                try:
                    reopen = self._run_session()
                except Exception as error:  # noqa: BLE001  _recover logs it
                    reopen = self._recover(error)
                if not reopen:
                    break
        finally:
            if self._stop.is_set():
                self._set_state("offline", "stopped")
            self._latest_frames.remove(self.name)

    def _recover(self, error: Exception) -> bool:
        """Report an unexpected exception and wait; return whether to open the camera again."""
        kind = type(error).__name__
        known = kind in self._known_bugs
        self._known_bugs.add(kind)
        log.log(logging.DEBUG if known else logging.ERROR, "camera %s: capture failed", self.name, exc_info=error)
        self._counters.add("thread_restarts", thread=f"capture-{self.name}")
        return self._back_off(f"{kind}: {self.source.scrub(str(error))}")

    def _run_session(self) -> bool:
        """Open the source and read it until it ends; return whether to open it again."""
        frames_before = self.frames
        try:
            self._open_and_drain()
        except EndOfStream:
            if self.source.loop and self.frames > frames_before:
                return True
            if not self.source.recorded:
                return self._back_off("the stream ended")
            self._set_state("offline", f"end of stream after {self.frames} frames")
            return False
        except CaptureError as error:
            if self.source.recorded:
                self.error = error
                log.error("camera %s: %s", self.name, error)  # noqa: TRY400, the message says it all
                self._set_state("unsupported" if isinstance(error, BackendError) else "offline", str(error))
                return False
            return self._back_off(str(error), is_supported=not isinstance(error, BackendError))
        return False

    def _open_and_drain(self) -> None:
        self._pace = None
        self._backlog = Backlog()
        if self._tamper is not None:
            self._tamper.reset()
        opened_ns = self._timing.monotonic_ns()
        self._call_began_ns = opened_ns
        try:
            frame_source = self._open_frame_source()
            try:
                self._drain(frame_source, opened_ns)
            finally:
                self._call_began_ns = self._timing.monotonic_ns()
                frame_source.close()
        finally:
            self._call_began_ns = None

    def _drain(self, frame_source: FrameSource, opened_ns: int) -> None:
        last_ns = opened_ns
        first_ns: int | None = None
        while not self._stop.is_set():
            self._call_began_ns = self._timing.monotonic_ns()
            picture: Picture | None = None
            try:
                picture = frame_source.read(self._policy.poll_s)
            except BadPictureError as error:
                repeats = not self.source.recorded and self.dropped["unreadable"]
                log.log(logging.DEBUG if repeats else logging.ERROR, "camera %s: %s", self.name, error)
                self.dropped["unreadable"] += 1
                last_ns = self._timing.monotonic_ns() if self.source.recorded else last_ns
            finally:
                self._call_began_ns = None
            now_ns = self._timing.monotonic_ns()
            if picture is None:
                self._check_silence((now_ns - last_ns) / 1e9)
                continue
            last_ns = now_ns
            first_ns = first_ns or now_ns
            if now_ns - first_ns >= self._policy.good_after_s * 1e9:
                self._backoff.reset()
            self._deliver(picture, frame_source)

    def _check_silence(self, silent_s: float) -> None:
        if silent_s >= self._policy.reopen_after_s:
            raise CaptureError(f"{self.source}: no frame for {silent_s:.0f} s")
        if silent_s >= self._policy.stalled_after_s and self.state in _DELIVERING:
            self._set_state("stalled", f"no frame for {silent_s:.1f} s")

    def _deliver(self, picture: Picture, frame_source: FrameSource) -> None:
        paced = self._wait_for_position(picture.pts_s)
        if self._stop.is_set():
            return
        captured_ns = self._timing.monotonic_ns() if paced else picture.arrived_ns
        captured_at = self._timing.unix_s() if picture.captured_at is None else picture.captured_at
        frame = Frame(
            self.name, self.frames, picture.image_rgb, captured_ns, captured_at, picture.time_source, picture.pts_s
        )
        self.frames += 1
        self.last_frame_ns = captured_ns
        if frame_source.decode_path != self.decode_path:
            self.decode_path = frame_source.decode_path
            log.info("camera %s: %s by %s", self.name, self.source, self.decode_path)
        self._compare_clocks(picture)
        if not self._check_tamper(picture, captured_ns):
            return
        if self.source.kind == "rtsp" and self._backlog.holds(picture.pts_s, picture.arrived_ns / 1e9):
            self.dropped["backlog"] += 1
            return
        if self._policy.delivery == "every_frame":
            self._latest_frames.put_when_free(frame, self._stop.is_set)
        elif self._latest_frames.put_newest(frame):
            self.dropped["superseded"] += 1

    def _compare_clocks(self, picture: Picture) -> None:
        if picture.captured_at is None:
            return
        now_ns = self._timing.monotonic_ns()
        arrived_at = self._timing.unix_s() - (now_ns - picture.arrived_ns) / 1e9
        if (message := self.clock.add(picture.captured_at, arrived_at, now_ns / 1e9)) is not None:
            log.warning("camera %s: %s", self.name, message)

    def _check_tamper(self, picture: Picture, captured_ns: int) -> bool:
        """Set the state by the picture; return whether to deliver it."""
        height, width = picture.image_rgb.shape[:2]
        stream = f"{width}x{height} by {self.decode_path}"
        if self._tamper is None:
            self._set_state("online", stream)
            return True
        scene_s = picture.pts_s if self.source.recorded and picture.pts_s is not None else captured_ns / 1e9
        tamper = self._tamper.update(picture.image_rgb, scene_s)
        self._set_state(tamper.state, tamper.reason or stream)
        if tamper.suspected is not None:
            self.dropped[tamper.suspected] += 1
        return tamper.suspected is None

    def _wait_for_position(self, pts_s: float | None) -> bool:
        """Hold a recording's frame back until its position is due; return whether this frame was paced."""
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

    def _back_off(self, reason: str, *, is_supported: bool = True) -> bool:
        """Report a failure and wait before the next attempt; return whether to open again."""
        if self._stop.is_set():
            return False
        self.reconnects += 1
        self._backoff.record_failure()
        state: CameraState = "offline" if self._backoff.seems_offline else "reconnecting"
        self._set_state(state if is_supported else "unsupported", reason)
        wait_s = self._backoff.next_wait_s()
        log.debug("camera %s: %s; opening again in %.1f s", self.name, reason, wait_s)
        self._backoff.wait(wait_s, self._stop)
        return True

    def _set_state(self, state: CameraState, reason: str) -> None:
        with self._state_lock:
            changed = state != self.state or self.reason == "not opened yet"
            self.state, self.reason = state, reason
            if changed:
                level = logging.INFO if state == "online" else logging.WARNING
                log.log(level, "camera %s: %s: %s", self.name, state, reason)
                self._on_state(self.name, state, reason)
