"""The format of recorded video: encoded pictures as they arrived, and which of them were recognised.

A segment is a file of records, each a line of JSON and, for a packet, its bytes and a line feed:

    {"kind": "stream", "camera": "door", "caps": "video/x-h264, ..."}    first, and again after a reconnect
    {"kind": "packet", "pts_ns": 0, "arrived_ns": 17, "key": true, "bytes": 5244}
    {"kind": "looked", "pts_ns": 0, "index": 0, "captured_ns": 17, "captured_at": 1.7e9, "time_source": "arrival"}
    {"kind": "lost"}    the view was lost: tracks ended here

A segment starts with a stream record and a key packet, so that the oldest can be deleted. What a power cut left of the
last record is not read.
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
    """What the packets after it are."""

    camera: str
    caps: str  # as GStreamer writes them, codec data included


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, as the decoder got it."""

    pts_ns: int
    arrived_ns: int  # monotonic
    key: bool
    data: bytes


OnPacket = Callable[[str, Packet], None]  # caps, encoded picture; called on the library's thread


@dataclass(frozen=True, slots=True)
class Recognised:
    """A picture that was recognised: which, and what its frame said."""

    pts_ns: int
    index: int
    captured_ns: int
    captured_at: float
    time_source: TimeSource


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The view was lost."""


Record = Stream | Packet | Recognised | StreamLost


def encode_record(record: Record) -> bytes:
    """A record's bytes."""
    fields: dict[str, Any] = {"kind": type(record).__name__.lower()} | asdict(record)
    if isinstance(record, Packet):
        fields["bytes"] = len(fields.pop("data"))
        return json.dumps(fields).encode() + b"\n" + record.data + b"\n"
    return json.dumps(fields).encode() + b"\n"


def read_records(file: BinaryIO, where: str) -> Iterator[Record]:
    """Every whole record of a segment.

    Raises:
        CaptureError: it is no segment, or damaged before its end.
    """
    kinds = {"stream": Stream, "looked": Recognised, "lost": StreamLost}
    while line := file.readline():
        if not line.endswith(b"\n"):
            return  # cut off by a power cut
        try:
            fields = json.loads(line)
            kind = fields.pop("kind")
            if kind != "packet":
                yield kinds[kind](**fields)
                continue
            size = fields.pop("bytes")
            data = file.read(size + 1)
            if len(data) < size + 1:
                return
            yield Packet(**fields, data=data[:-1])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaptureError(f"{where}: found {line[:60]!r}, expected a record of recorded video") from error
