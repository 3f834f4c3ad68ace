"""Recognise recorded video again: the same pictures at the same times, so the same events."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from edge.capture.gstreamer_source import PacketDecoder
from edge.capture.recorder import segments
from edge.capture.recording import Packet, Recognised, Record, Stream, StreamLost, read_records
from edge.errors import CaptureError
from edge.recognition.pipeline import Pipeline
from edge.types import Event, Frame, Image

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_HELD_BACK = 8  # pictures that a decoder may keep while it waits for the next packets
_KEPT = 64  # decoded pictures that wait to be asked for
_ROUNDING_NS = 1000  # a frame's pts_s was a float


def replay(folder: Path, build: Callable[[str], Pipeline]) -> Iterator[Event]:
    """Play one run's ring of one camera through a pipeline.

    Args:
        folder: of the segments.
        build: the pipeline for a camera of this name.

    Yields:
        events, as the device made them from the same pictures; ids and latencies are new.

    Raises:
        CaptureError: no segments, a damaged one, or a stream that does not decode any more.
    """
    files = segments(folder)
    if not files:
        raise CaptureError(f"{folder}: found no recorded video, expected segments (*.ring)")
    records = _records(files)
    first = next(records, None)
    if not isinstance(first, Stream):
        raise CaptureError(f"{files[0]}: found no stream at its beginning, expected one")
    player = _Player(first.camera, build(first.camera))
    stream: Stream | None = first
    while stream is not None:
        with closing(PacketDecoder(stream)) as decoder:
            stream = None
            for record in records:
                if isinstance(record, Stream):
                    stream = record
                    break
                yield from player.play(record, decoder)
            yield from player.finish(decoder)
    if player.missing:
        log.warning("%s: %d pictures that were looked at are not in what is left", folder, player.missing)
    yield from player.pipeline.end_tracks(first.camera)


def _records(files: Sequence[Path]) -> Iterator[Record]:
    """All records, but for the streams that only repeat, at the beginning of a segment, what was said."""
    said: Stream | None = None
    for path in files:
        with path.open("rb") as file:
            for number, record in enumerate(read_records(file, str(path))):
                if isinstance(record, Stream):
                    if number == 0 and record == said:
                        continue
                    said = record
                yield record


class _Player:
    """Pairs decoded pictures with the notes of what was recognised, in the order of the notes."""

    def __init__(self, camera: str, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.missing = 0
        self._camera = camera
        self._notes: deque[Recognised | StreamLost] = deque()  # not yet acted on
        self._pictures: deque[tuple[int, Image]] = deque(maxlen=_KEPT)
        self._owed = 0  # by the decoder

    def play(self, record: Packet | Recognised | StreamLost, decoder: PacketDecoder) -> Iterator[Event]:
        """Take in one record; the events that can be made now."""
        if not isinstance(record, Packet):
            self._notes.append(record)
        else:
            decoder.put(record)
            self._owed += 1
            while self._owed > _HELD_BACK and self._take(decoder):
                pass
        yield from self._act(ended=False)

    def finish(self, decoder: PacketDecoder) -> Iterator[Event]:
        """The events that are left when a connection has ended."""
        decoder.end()
        while self._take(decoder):
            yield from self._act(ended=False)
        yield from self._act(ended=True)
        self._pictures.clear()
        self._owed = 0

    def _take(self, decoder: PacketDecoder) -> bool:
        found = decoder.take(_PATIENCE_S)
        if found is None:
            self._owed = 0  # what was owed could not be decoded
            return False
        self._owed -= 1
        self._pictures.append(found)
        return True

    def _act(self, *, ended: bool) -> Iterator[Event]:
        while self._notes:
            note = self._notes[0]
            if isinstance(note, Recognised):
                while self._pictures and self._pictures[0][0] < note.pts_ns - _ROUNDING_NS:
                    self._pictures.popleft()
                if not self._pictures and not ended:
                    return
            self._notes.popleft()
            yield from self._events(note)

    def _events(self, note: Recognised | StreamLost) -> list[Event]:
        if isinstance(note, StreamLost):
            return self.pipeline.end_tracks(self._camera)
        if not self._pictures or self._pictures[0][0] > note.pts_ns + _ROUNDING_NS:
            self.missing += 1
            return []
        return self.pipeline.process(_frame(self._camera, self._pictures[0][1], note)).events


def _frame(camera: str, image_rgb: Image, seen: Recognised) -> Frame:
    return Frame(camera, seen.index, image_rgb, seen.captured_ns, seen.captured_at, seen.time_source, seen.pts_ns / 1e9)
