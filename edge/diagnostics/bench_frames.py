"""Read frames for a measurement: one by one, with the times at which a live camera would have delivered them.

Rules:
1. A recording is read as fast as its frames are recognised, and none is dropped. Each frame is captured at its position
   in the recording, so that whatever is limited by time, such as the look budget, behaves as it does on a camera.
2. Reading a recording counts with its wall time. A camera makes its reader wait, so reading it counts with the
   processor time of the reading thread.
3. What a camera would not recognise is skipped and counted: unreadable pictures, a covered or frozen view, and the
   backlog that a stream delivers when it opens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from edge.capture.camera_policy import policy_for
from edge.capture.cameras import capture_options
from edge.capture.frame_source import BadPictureError, EndOfStream, FrameSource, Picture
from edge.capture.open_source import SourceOpener
from edge.capture.positions import Backlog
from edge.capture.tamper import TamperDetector
from edge.config.camera_url import parse_source
from edge.config.schema import CameraConfig
from edge.errors import CaptureError
from edge.imaging import image
from edge.types import Frame

CAMERA = "bench"  # the name of the camera that is measured
_TIMEOUT_S = 5.0
_MOST_SKIPPED = 1000  # frames in a row of a source without an end


@dataclass(frozen=True, slots=True)
class ReadFrame:
    """One frame, and what it cost to read it."""

    frame: Frame
    stages_ms: dict[str, float]  # decode, and view where the view is checked
    cpu_ms: float  # of all threads while it was decoded


class BenchFrames:
    """The frames of one source."""

    def __init__(self, camera: CameraConfig, resize: tuple[int, int] | None = None, name: str | None = None) -> None:
        """Prepare to read.

        Args:
            camera: names the source, and how its view is checked.
            resize: width and height to scale the frames to; this is not measured.
            name: of the source, for people; None: its address, without secrets.
        """
        self.source = parse_source(camera.source)
        self.name = str(self.source) if name is None else name
        self.skipped: Counter[str] = Counter()  # frames, by reason
        self.frame_bytes = 0  # of the newest frame, decoded
        view = policy_for(self.source, camera.pacing, camera.stall_timeout_s, camera.view).view
        self._view, self._resize = view, resize
        self._opener = SourceOpener(self.source, camera.backend, capture_options(camera))
        self._opened: FrameSource | None = None
        self._restart()

    @property
    def is_endless(self) -> bool:
        """Whether it never ends by itself."""
        return self.source.loop or not self.source.recorded

    @property
    def clock(self) -> Literal["stream", "device"]:
        """The clock by which frames are captured."""
        return "stream" if self.source.recorded else "device"

    def read(self, count: int) -> list[ReadFrame]:
        """Return the next frames, fewer at the end.

        Raises:
            CaptureError: the source cannot be read.
        """
        return list(islice(self._frames(), count))

    def rewind(self) -> None:
        """Start again at the beginning; a camera goes on."""
        if self.source.recorded:
            self.close()
            self._restart()

    def close(self) -> None:
        """Close the source."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _restart(self) -> None:
        self.skipped.clear()
        self._index = 0
        self._offset_s, self._last_s, self._step_s = 0.0, 0.0, 0.0  # of a recording that starts again
        self._tamper = None if self._view is None else TamperDetector(self._view)
        self._backlog = Backlog()

    def _frames(self) -> Iterator[ReadFrame]:
        in_a_row = 0  # skipped
        while in_a_row < _MOST_SKIPPED or not self.is_endless:
            self._opened = self._opened or self._opener.open()  # opening is not measured
            cpu_ns, own_ns, started_ns = time.process_time_ns(), time.thread_time_ns(), time.perf_counter_ns()
            try:
                picture = self._next_picture()
            except EndOfStream:
                return
            except BadPictureError:
                self.skipped["unreadable"] += 1
                in_a_row += 1
                continue
            wall_ns = time.perf_counter_ns() - started_ns
            decode_ns = wall_ns if self.source.recorded else time.thread_time_ns() - own_ns
            cpu_ms = (time.process_time_ns() - cpu_ns) / 1e6
            read = ReadFrame(self._frame(picture), {"decode": decode_ns / 1e6}, cpu_ms)
            if (reason := self._reason_to_skip(picture, read)) is None:
                in_a_row = 0
                yield read
            else:
                self.skipped[reason] += 1
                in_a_row += 1
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
        raise CaptureError(f"{self.name}: no frame to recognise ({reasons}); check the source")

    def _next_picture(self) -> Picture:
        """Read the next picture; a recording that starts again is opened again."""
        while True:
            self._opened = self._opened or self._opener.open()
            try:
                picture = self._opened.read(_TIMEOUT_S)
            except EndOfStream:
                if not (self.source.loop and self._index):
                    raise
                self.close()
                self._offset_s = self._last_s + (self._step_s or 1.0 / (self.source.fps or 1.0))
                continue
            if picture is None:
                raise CaptureError(f"{self.name}: no frame within {_TIMEOUT_S:g} s; check the source")
            return picture

    def _reason_to_skip(self, picture: Picture, read: ReadFrame) -> str | None:
        """Return why a device would not recognise a picture; the time of the check is added to the frame's."""
        if self.source.kind == "rtsp" and self._backlog.holds(picture.pts_s, picture.arrived_ns / 1e9):
            return "backlog"
        if self._tamper is None:
            return None
        started_ns = time.perf_counter_ns()
        suspected = self._tamper.update(read.frame.image_rgb, read.frame.captured_ns / 1e9).suspected
        read.stages_ms["view"] = (time.perf_counter_ns() - started_ns) / 1e6
        return suspected

    def _frame(self, picture: Picture) -> Frame:
        image_rgb = picture.image_rgb if self._resize is None else image.resize(picture.image_rgb, *self._resize)
        self.frame_bytes = image_rgb.nbytes
        captured_ns = picture.arrived_ns
        if self.source.recorded and picture.pts_s is not None:
            shown_s = picture.pts_s + self._offset_s
            self._step_s, self._last_s = shown_s - self._last_s, shown_s
            captured_ns = round(shown_s * 1e9)
        captured_at = captured_ns / 1e9 if picture.captured_at is None else picture.captured_at
        index, self._index = self._index, self._index + 1
        return Frame(CAMERA, index, image_rgb, captured_ns, captured_at, picture.time_source, picture.pts_s)
