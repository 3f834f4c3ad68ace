"""Runs recognition on recorded video: the same frames at the same times give the same events."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from edge.capture.packet_decoder import PacketDecoder
from edge.capture.recorder import segments
from edge.capture.recording import Packet, Recognised, Record, Stream, StreamLost, read_records
from edge.errors import CaptureError
from edge.recognition.pipeline import Pipeline
from edge.types import Event, Frame, Image

log = logging.getLogger(__name__)

_DECODE_TIMEOUT_S = 5.0
_DECODER_DELAY = 8  # frames that a decoder may hold back until it gets more packets
_MAX_IMAGES = 64  # decoded frames that wait for their note
_ROUNDING_NS = 1000  # pts_s of a frame is a float


def replay(
    folder: Path, build: Callable[[str], Pipeline], max_px_of: Callable[[str], int | None] = lambda _: None
) -> Iterator[Event]:
    """Replay the recording of one run and camera through a pipeline.

    Args:
        folder: holds the segments.
        build: returns the pipeline of a camera, by name.
        max_px_of: returns the largest side of a camera's pictures, as the device scaled them.

    Yields:
        The events that the device made from the same frames, with new ids and latencies.

    Raises:
        CaptureError: there are no segments, one is damaged, or the stream cannot be decoded.
    """
    files = segments(folder)
    if not files:
        raise CaptureError(f"{folder}: holds no recorded video (*.ring); give the folder of one run and camera")
    records = _records(files)
    first = next(records, None)
    if not isinstance(first, Stream):
        raise CaptureError(f"{files[0]}: does not start with a stream; the recording is damaged")
    matcher = _Matcher(first.camera, build(first.camera))
    stream: Stream | None = first
    while stream is not None:
        with closing(PacketDecoder(stream, max_px_of(first.camera))) as decoder:
            stream = None
            for record in records:
                if isinstance(record, Stream):
                    stream = record
                    break
                yield from matcher.play(record, decoder)
            yield from matcher.finish(decoder)
    if matcher.missing:
        log.warning("%s: %d recognised frames are no longer in the recording", folder, matcher.missing)
    yield from matcher.pipeline.end_tracks(first.camera)


def _records(files: Sequence[Path]) -> Iterator[Record]:
    """Yield all records, without the stream that each further segment repeats at its start."""
    last: Stream | None = None
    for path in files:
        with path.open("rb") as file:
            for number, record in enumerate(read_records(file, str(path))):
                if isinstance(record, Stream):
                    if number == 0 and record == last:
                        continue
                    last = record
                yield record


class _Matcher:
    """Matches decoded frames with the notes of which frames were recognised, in the order of the notes."""

    def __init__(self, camera: str, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.missing = 0
        self._camera = camera
        self._notes: deque[Recognised | StreamLost] = deque()  # not yet processed
        self._images: deque[tuple[int, Image]] = deque(maxlen=_MAX_IMAGES)
        self._undecoded = 0  # packets in the decoder

    def play(self, record: Packet | Recognised | StreamLost, decoder: PacketDecoder) -> Iterator[Event]:
        """Add one record; yield the events that are ready."""
        if not isinstance(record, Packet):
            self._notes.append(record)
        else:
            decoder.put(record)
            self._undecoded += 1
            while self._undecoded > _DECODER_DELAY and self._take_image(decoder):
                pass
        yield from self._process_notes(ended=False)

    def finish(self, decoder: PacketDecoder) -> Iterator[Event]:
        """Yield the remaining events at the end of a connection."""
        decoder.end()
        while self._take_image(decoder):
            yield from self._process_notes(ended=False)
        yield from self._process_notes(ended=True)
        self._images.clear()
        self._undecoded = 0

    def _take_image(self, decoder: PacketDecoder) -> bool:
        found = decoder.take(_DECODE_TIMEOUT_S)
        if found is None:
            self._undecoded = 0  # the rest could not be decoded
            return False
        self._undecoded -= 1
        self._images.append(found)
        return True

    def _process_notes(self, *, ended: bool) -> Iterator[Event]:
        while self._notes:
            note = self._notes[0]
            if isinstance(note, Recognised):
                while self._images and self._images[0][0] < note.pts_ns - _ROUNDING_NS:
                    self._images.popleft()
                if not self._images and not ended:
                    return
            self._notes.popleft()
            yield from self._events(note)

    def _events(self, note: Recognised | StreamLost) -> list[Event]:
        if isinstance(note, StreamLost):
            return self.pipeline.end_tracks(self._camera)
        if not self._images or self._images[0][0] > note.pts_ns + _ROUNDING_NS:
            self.missing += 1
            return []
        return self.pipeline.process(_frame(self._camera, self._images[0][1], note)).events


def _frame(camera: str, image_rgb: Image, note: Recognised) -> Frame:
    return Frame(camera, note.index, image_rgb, note.captured_ns, note.captured_at, note.time_source, note.pts_ns / 1e9)
