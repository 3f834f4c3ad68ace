"""The file of a segment: the records by which one state of a category becomes its next one.

Rules this module keeps:
1. A segment is data from outside, also where its hash is right. Everything is checked, and no length in it is believed
   before that many bytes are there: memory is bounded by the size of the file.
2. A segment has one form. Its records are in ascending order of id, each id once: an item is changed or deleted,
   never both. Nothing follows the last record, and nothing is compressed.
3. It names its embedding space. Vectors of another space are refused, also where they have as many numbers.
4. Any damage raises SyncError, in one line.

The file, all numbers little-endian:

    8 bytes `FSGSEG` and the version as u16 | 32 bytes space id | u32 dim | u32 records | u32 CRC-32 of these 48 bytes
    records: `U` or `D` | u32 bytes of the body | body, see gallery_sync.gallery_log.records | u32 CRC-32 of all that
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from edge.errors import SyncError
from edge.gallery.limits import MAX_ITEMS
from edge.manifest.model import MAX_DIM
from gallery_sync.gallery_log.records import Record, Upsert, check, decode, decode_delete, encode

MOST_BYTES = 256 << 20  # of a segment; of larger changes, a base is made
MOST_RECORDS = 2 * MAX_ITEMS  # every item deleted, and as many added

_MAGIC, _VERSION = b"FSGSEG", 1
_HEADER, _RECORD, _CRC = struct.Struct("<6sH32sII"), struct.Struct("<cI"), struct.Struct("<I")
_UPSERT, _DELETE = b"U", b"D"


@dataclass(frozen=True, slots=True)
class SegmentRecords:
    """What a segment holds."""

    space_id: str
    dim: int  # numbers of a vector
    records: tuple[Record, ...]  # in ascending order of id, each id once

    @property
    def upserts(self) -> int:
        """The number of items that are added or changed."""
        return sum(isinstance(record, Upsert) for record in self.records)

    @property
    def deletes(self) -> int:
        """The number of items that are deleted."""
        return len(self.records) - self.upserts


def write_segment(records: Iterable[Record], space_id: str, dim: int) -> bytes:
    """Return the file of a segment. The same records in any order give the same bytes.

    Args:
        records: an upsert or a delete for each item that changes.
        space_id: embedding space of the vectors, 64 hexadecimal digits.
        dim: numbers of a vector.

    Raises:
        SyncError: a record breaks a limit, an id is there twice, or there are too many.
    """
    ordered = sorted(records, key=lambda record: record.item_id)
    for first, second in pairwise(ordered):
        if first.item_id == second.item_id:
            raise SyncError(f"item {first.item_id[:80]!r} changes twice in one segment; give each item one change")
    if len(ordered) > MOST_RECORDS:
        raise SyncError(f"found {len(ordered)} changed items, expected at most {MOST_RECORDS}; publish a new base")
    header = _HEADER.pack(_MAGIC, _VERSION, bytes.fromhex(space_id), dim, len(ordered))
    parts = [header, _CRC.pack(zlib.crc32(header))]
    size = sum(map(len, parts))
    for record in ordered:
        check(record, dim)
        kind, body = (_UPSERT, encode(record)) if isinstance(record, Upsert) else (_DELETE, record.item_id.encode())
        start = _RECORD.pack(kind, len(body))
        parts += [start, body, _CRC.pack(zlib.crc32(body, zlib.crc32(start)))]
        size += _RECORD.size + len(body) + _CRC.size
        if size > MOST_BYTES:
            raise SyncError(f"the changes have more than {MOST_BYTES} bytes; publish a new base instead")
    return b"".join(parts)


def read_segment(data: bytes, where: str = "segment") -> SegmentRecords:
    """Read the file of a segment, and check all of it.

    Args:
        data: the file.
        where: its name, for errors.

    Raises:
        SyncError: it is damaged, or breaks a limit.
    """
    try:
        return _read(memoryview(data))
    except SyncError as error:
        raise SyncError(f"{where}: damaged segment: {error}") from error


def _read(data: memoryview) -> SegmentRecords:
    if len(data) > MOST_BYTES:
        raise SyncError(f"found {len(data)} bytes, expected at most {MOST_BYTES}")
    if len(data) < _HEADER.size + _CRC.size:
        raise SyncError(f"found {len(data)} bytes, which is less than a header")
    magic, version, space, dim, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise SyncError("it is not the file of a segment")
    if version != _VERSION:
        raise SyncError(f"found format {version}, expected {_VERSION}; update finesight here")
    if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
        raise SyncError("the checksum of its header is wrong")
    if not 1 <= dim <= MAX_DIM:
        raise SyncError(f"found vectors of {dim} numbers, expected 1 to {MAX_DIM}")
    if count > MOST_RECORDS:
        raise SyncError(f"found {count} records, expected at most {MOST_RECORDS}")
    return SegmentRecords(bytes(space).hex(), dim, tuple(_records(data[_HEADER.size + _CRC.size :], dim, count)))


def _records(data: memoryview, dim: int, count: int) -> Iterator[Record]:
    at, last = 0, ""
    for number in range(count):
        if len(data) - at < _RECORD.size + _CRC.size:
            raise SyncError(f"it ends in record {number} of {count}")
        kind, size = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + size
        if size > len(data) - at - _RECORD.size - _CRC.size:
            raise SyncError(f"record {number} of {count}: found a length of {size} bytes, more than there are")
        if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[at:end]):
            raise SyncError(f"record {number} of {count}: the checksum is wrong")
        record = _record(kind, data[at + _RECORD.size : end], dim, f"record {number} of {count}")
        if number and record.item_id <= last:
            raise SyncError(f"record {number} of {count}: the ids are not in order, or one is there twice")
        at, last = end + _CRC.size, record.item_id
        yield record
    if at != len(data):
        raise SyncError(f"found {len(data) - at} bytes after the last record")


def _record(kind: bytes, body: memoryview, dim: int, where: str) -> Record:
    try:
        if kind == _UPSERT:
            return decode(body, dim)
        if kind == _DELETE:
            return decode_delete(body)
    except SyncError as error:
        raise SyncError(f"{where}: {error}") from error
    raise SyncError(f"{where}: found kind {kind!r}, expected U or D")
