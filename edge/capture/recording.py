"""The file format of recorded video: encoded pictures as they arrived, and which of them were recognised.

A segment is a file of records. A record is a line of JSON and, for a packet, its bytes and a line feed:

    {"kind": "stream", "camera": "door", "caps": "video/x-h264, ..."}    first, and after each reconnect
    {"kind": "packet", "pts_ns": 0, "arrived_ns": 17, "key": true, "bytes": 5244}
    {"kind": "looked", "pts_ns": 0, "index": 0, "captured_ns": 17, "captured_at": 1.7e9, "time_source": "arrival"}
    {"kind": "lost"}    the stream was lost: tracks ended here

A segment starts with a stream record and a key packet, so that the oldest segment can be deleted. A last record that a
power cut truncated is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from edge.errors import CaptureError
from edge.types import TimeSource


@dataclass(frozen=True, slots=True)
class Stream:
    """The camera and format of the packets that follow."""

    camera: str
    caps: str  # as GStreamer writes them, including codec data


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, as the decoder received it."""

    pts_ns: int
    arrived_ns: int  # monotonic
    key: bool
    data: bytes


OnPacket = Callable[[str, Packet], None]  # caps, encoded picture; called on the library's thread


@dataclass(frozen=True, slots=True)
class Recognised:
    """A picture that was recognised, with the times of its frame."""

    pts_ns: int
    index: int
    captured_ns: int
    captured_at: float
    time_source: TimeSource


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The stream was lost."""


Record = Stream | Packet | Recognised | StreamLost


_MAX_PACKET_BYTES = 2**28  # more is a damaged record
_KINDS: dict[str, type[Stream | Packet | Recognised | StreamLost]] = {
    "stream": Stream,
    "packet": Packet,
    "looked": Recognised,
    "lost": StreamLost,
}
_NAMES = {of: kind for kind, of in _KINDS.items()}


def encode_record(record: Record) -> bytes:
    """Return the bytes of a record."""
    fields: dict[str, Any] = {"kind": _NAMES[type(record)]} | asdict(record)
    if isinstance(record, Packet):
        fields["bytes"] = len(fields.pop("data"))
        return json.dumps(fields).encode() + b"\n" + record.data + b"\n"
    return json.dumps(fields).encode() + b"\n"


def read_records(file: BinaryIO, where: str) -> Iterator[Record]:
    """Yield every complete record of a segment.

    Raises:
        CaptureError: the file is not a segment, or is damaged before its end.
    """
    while line := file.readline():
        if not line.endswith(b"\n"):
            return  # truncated by a power cut
        try:
            record = _read_record(line, file)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CaptureError(f"{where}: {line[:60]!r} is not a record of a recording") from error
        if record is None:
            return  # truncated by a power cut
        yield record


def _read_record(line: bytes, file: BinaryIO) -> Record | None:
    """Return the record that begins with a line; None when its packet is truncated."""
    fields = json.loads(line)
    kind = _KINDS[fields.pop("kind")]
    if kind is not Packet:
        return kind(**fields)
    size = fields.pop("bytes")
    if not 0 <= size <= _MAX_PACKET_BYTES:
        raise ValueError(f"found a packet of {size} bytes, expected at most {_MAX_PACKET_BYTES}")
    data = file.read(size + 1)
    return Packet(**fields, data=data[:-1]) if len(data) == size + 1 else None
