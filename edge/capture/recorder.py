"""Keeps the latest encoded video of one camera on disk: a ring of segments, bounded by bytes.

Rules:
1. Nothing waits for the disk: what the writer has no room for is dropped up to the next key picture, and counted.
2. A full or failing disk stops the recording, is told once and counted; recognition goes on.
3. It is a help for people, not a record to rely on: segments are not forced to the disk.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from edge.capture.recording import Packet, Recognised, Record, Stream, StreamLost, encode_record
from edge.telemetry.metrics import Counters
from edge.types import Frame

log = logging.getLogger(__name__)

_SEGMENTS = 8  # of a full ring; the oldest goes when one more is begun
_WAITING = 256  # records
_CLOSING_S = 2.0
_SUFFIX = ".ring"


class Recorder:
    """One camera's ring; `put` and `looked` from any thread, the disk from one of its own."""

    def __init__(self, folder: Path, camera: str, max_bytes: int, counters: Counters) -> None:
        """Begin a ring in a folder.

        Args:
            folder: of this camera and run alone.
            camera: its name.
            max_bytes: of all segments together.
            counters: where what was dropped is counted.
        """
        self._folder, self._camera, self._counters = folder, camera, counters
        self._segment_bytes = max(max_bytes // _SEGMENTS, 65536)
        self._waiting: queue.Queue[Record | None] = queue.Queue(_WAITING)
        self._broken_chain = False  # a packet was dropped: those after it cannot be decoded
        self._stream: Stream | None = None
        self._file: BinaryIO | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, name=f"record-{camera}", daemon=True)

    def start(self) -> None:
        """Start the writer; what was put before waits."""
        self._thread.start()

    def put(self, caps: str, packet: Packet) -> None:
        """Take one encoded picture; returns at once."""
        if self._broken_chain and not packet.key:
            self._drop()
            return
        stream = Stream(self._camera, caps)
        if stream != self._stream or self._broken_chain:
            if not self._offer(stream):
                self._broken_chain = True
                return
            self._stream = stream
        self._broken_chain = not self._offer(packet)

    def recognised(self, frame: Frame) -> None:
        """Note that a picture was recognised."""
        if frame.pts_s is not None:
            self._offer(
                Recognised(round(frame.pts_s * 1e9), frame.index, frame.captured_ns, frame.captured_at, frame.time_source)
            )

    def connected(self) -> None:
        """Expect the packets of a new connection, which begins its times anew."""
        self._stream = None

    def stream_lost(self) -> None:
        """Note that the view was lost."""
        self._offer(StreamLost())

    def close(self) -> None:
        """Write what waits, and end."""
        with suppress(queue.Full):  # the disk hangs: the thread is a daemon
            self._waiting.put(None, timeout=_CLOSING_S)
            self._thread.join(_CLOSING_S)

    def _offer(self, record: Record) -> bool:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        self._counters.add("records_dropped", camera=self._camera)

    # the writer thread

    def _run(self) -> None:
        stream: Stream | None = None
        while (record := self._waiting.get()) is not None:
            if self._failed:
                self._drop()
                continue
            try:
                if isinstance(record, Stream):
                    stream = record
                self._write(record, stream)
            except OSError as error:
                self._failed = True
                self._counters.add("recordings_failed", camera=self._camera)
                log.error("camera %s: recording ends: %s", self._camera, error)  # noqa: TRY400
        if self._file is not None:
            self._file.close()

    def _write(self, record: Record, stream: Stream | None) -> None:
        begins = isinstance(record, Stream) or (isinstance(record, Packet) and record.key)
        full = self._file is None or self._file.tell() >= self._segment_bytes
        if full and begins:
            self._file = self._begin_segment()
            if stream is not None and not isinstance(record, Stream):
                self._file.write(encode_record(stream))
        if self._file is not None:  # else nothing has arrived yet that could be decoded
            self._file.write(encode_record(record))
            self._file.flush()

    def _begin_segment(self) -> BinaryIO:
        if self._file is not None:
            self._file.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        there = segments(self._folder)
        for old in there[: max(0, len(there) - _SEGMENTS + 1)]:
            old.unlink(missing_ok=True)
        number = int(there[-1].stem) + 1 if there else 0
        return (self._folder / f"{number:09d}{_SUFFIX}").open("wb")


class Recorders:
    """The rings of one run of a device, by camera. What concerns a camera that is not recorded is passed over."""

    def __init__(self, folder: Path, counters: Counters) -> None:
        """Write nothing yet.

        Args:
            folder: of the runs; this run's is made when a camera is first recorded.
            counters: where what was dropped is counted.
        """
        self._folder, self._counters = folder, counters
        self._run: Path | None = None
        self._recorders: dict[str, Recorder] = {}

    def recorder_for(self, camera: str, max_bytes: int) -> Recorder:
        """A camera's recorder, which runs."""
        if camera not in self._recorders:
            self._run = self._run or begin_run(self._folder, datetime.now(timezone.utc))
            self._recorders[camera] = Recorder(self._run / camera, camera, max_bytes, self._counters)
            self._recorders[camera].start()
        return self._recorders[camera]

    def recognised(self, frame: Frame) -> None:
        """Note that a picture was recognised."""
        if frame.camera in self._recorders:
            self._recorders[frame.camera].recognised(frame)

    def stream_lost(self, camera: str) -> None:
        """Note that a camera's view was lost."""
        if camera in self._recorders:
            self._recorders[camera].stream_lost()

    def end(self, camera: str) -> None:
        """Record a camera no more, or anew."""
        if camera in self._recorders:
            self._recorders.pop(camera).close()

    def close(self) -> None:
        """Write what waits, and end."""
        for camera in list(self._recorders):
            self.end(camera)


def begin_run(folder: Path, at: datetime) -> Path:
    """The folder of a new run of a device in the folder of its rings; of earlier runs, the last is kept."""
    with suppress(OSError):  # what cannot be deleted now can at the next start
        for old in sorted(path for path in folder.glob("*Z") if path.is_dir())[:-1]:
            shutil.rmtree(old)
    return folder / at.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def segments(folder: Path) -> list[Path]:
    """The segments of a ring, oldest first."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())
