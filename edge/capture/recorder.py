"""Record the latest encoded video of cameras on disk: one ring of segments per camera, bounded by bytes.

Rules:
1. Nothing waits for the disk. When the writer's queue is full, packets up to the next key picture are dropped and
   counted.
2. A full or failing disk stops the recording; this is logged once and counted. Recognition goes on.
3. The recording is a debugging aid, not a record to rely on: segments are not synced to disk.
"""

from __future__ import annotations

import logging
import queue
import shutil
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from edge.capture.recording import Packet, Recognised, Record, Stream, StreamLost, encode_record
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.types import Frame

log = logging.getLogger(__name__)

_SEGMENTS = 8  # of a full ring; a new segment replaces the oldest
_QUEUE_RECORDS = 256
_CLOSE_TIMEOUT_S = 2.0
_SUFFIX = ".ring"


class Recorder:
    """One camera's ring. Call `put` and `recognised` from any thread; a separate thread writes to disk."""

    def __init__(self, folder: Path, camera: str, max_bytes: int, counters: Counters) -> None:
        """Prepare a ring in a folder.

        Args:
            folder: for this camera and run only.
            camera: its name.
            max_bytes: of all segments together.
            counters: count dropped records.
        """
        self._folder, self._camera, self._counters = folder, camera, counters
        self._segment_bytes = max(max_bytes // _SEGMENTS, 65536)
        self._queue: queue.Queue[Record | None] = queue.Queue(_QUEUE_RECORDS)
        self._needs_key = False  # a packet was dropped: the packets after it cannot be decoded
        self._stream: Stream | None = None
        self._file: BinaryIO | None = None
        self._written: Stream | None = None  # the stream of the packets that are written now
        self._failed = False
        self._thread = SupervisedThread(f"record-{camera}", self._run, counters)

    def start(self) -> None:
        """Start the writer thread; it also writes the records put before."""
        self._thread.start()

    def put(self, caps: str, packet: Packet) -> None:
        """Record one encoded picture; return at once."""
        if self._needs_key and not packet.key:
            self._drop()
            return
        stream = Stream(self._camera, caps)
        if stream != self._stream or self._needs_key:
            if not self._enqueue(stream):
                self._needs_key = True
                return
            self._stream = stream
        self._needs_key = not self._enqueue(packet)

    def recognised(self, frame: Frame) -> None:
        """Record that a picture was recognised."""
        if frame.pts_s is not None:
            self._enqueue(
                Recognised(
                    round(frame.pts_s * 1e9), frame.index, frame.captured_ns, frame.captured_at, frame.time_source
                )
            )

    def connected(self) -> None:
        """Expect the packets of a new connection, whose times start again."""
        self._stream = None

    def stream_lost(self) -> None:
        """Record that the stream was lost."""
        self._enqueue(StreamLost())

    def close(self) -> None:
        """Write the queued records and end the thread."""
        with suppress(queue.Full):  # the disk hangs: the thread is a daemon
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
            self._thread.stop(_CLOSE_TIMEOUT_S)

    def _enqueue(self, record: Record) -> bool:
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._drop()
            return False
        return True

    def _drop(self) -> None:
        self._counters.add("records_dropped", camera=self._camera)

    # on the writer thread

    def _run(self) -> None:
        self._end_segment()  # after a bug, which may have left half a record
        while (record := self._queue.get()) is not None:
            if self._failed:
                self._drop()
                continue
            try:
                if isinstance(record, Stream):
                    self._written = record
                self._write(record, self._written)
            except OSError as error:
                self._failed = True
                self._counters.add("recordings_failed", camera=self._camera)
                log.error("camera %s: recording stopped: %s", self._camera, error)  # noqa: TRY400
        self._end_segment()

    def _end_segment(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: Record, stream: Stream | None) -> None:
        starts_segment = isinstance(record, Stream) or (isinstance(record, Packet) and record.key)
        full = self._file is None or self._file.tell() >= self._segment_bytes
        if full and starts_segment:
            self._file = self._begin_segment()
            if stream is not None and not isinstance(record, Stream):
                self._file.write(encode_record(stream))
        if self._file is not None:  # else no key picture has arrived yet
            self._file.write(encode_record(record))
            self._file.flush()

    def _begin_segment(self) -> BinaryIO:
        self._end_segment()
        self._folder.mkdir(parents=True, exist_ok=True)
        existing = segments(self._folder)
        for old in existing[: max(0, len(existing) - _SEGMENTS + 1)]:
            old.unlink(missing_ok=True)
        number = int(existing[-1].stem) + 1 if existing else 0
        return (self._folder / f"{number:09d}{_SUFFIX}").open("wb")


class Recorders:
    """The rings of one run of a device, by camera. Calls for a camera that is not recorded do nothing."""

    def __init__(self, folder: Path, counters: Counters) -> None:
        """Prepare without writing anything.

        Args:
            folder: holds one folder per run; this run's is created with the first recorded camera.
            counters: count dropped records.
        """
        self._folder, self._counters = folder, counters
        self._run: Path | None = None
        self._recorders: dict[str, Recorder] = {}

    def recorder_for(self, camera: str, max_bytes: int) -> Recorder:
        """Return a camera's recorder, started if necessary."""
        if camera not in self._recorders:
            self._run = self._run or begin_run(self._folder, datetime.now(timezone.utc))
            self._recorders[camera] = Recorder(self._run / camera, camera, max_bytes, self._counters)
            self._recorders[camera].start()
        return self._recorders[camera]

    def recognised(self, frame: Frame) -> None:
        """Record that a picture was recognised."""
        if frame.camera in self._recorders:
            self._recorders[frame.camera].recognised(frame)

    def stream_lost(self, camera: str) -> None:
        """Record that a camera's stream was lost."""
        if camera in self._recorders:
            self._recorders[camera].stream_lost()

    def end(self, camera: str) -> None:
        """Stop a camera's recorder; `recorder_for` starts a new one."""
        if camera in self._recorders:
            self._recorders.pop(camera).close()

    def close(self) -> None:
        """Write the queued records and stop all recorders."""
        for camera in list(self._recorders):
            self.end(camera)


def begin_run(folder: Path, at: datetime) -> Path:
    """Return the folder of a new run; delete all earlier runs but the last."""
    with suppress(OSError):  # the next start tries again
        for old in sorted(path for path in folder.glob("*Z") if path.is_dir())[:-1]:
            shutil.rmtree(old)
    return folder / at.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%SZ")


def segments(folder: Path) -> list[Path]:
    """Return the segments of a ring, oldest first."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())
