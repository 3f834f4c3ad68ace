"""The records of a gallery log: an item as it is from now on, and the id of an item that is gone.

Rules this module keeps:
1. An item has one encoding. What is decoded and encoded again has the same bytes, so a digest of them names the item.
2. A record that does not keep the limits of edge.gallery.limits is never made, read or written.

The body of an upsert, all numbers little-endian:

    u16 bytes of the id | id | u16 bytes of the label | label | u32 bytes of the metadata | JSON text
    u32 bytes of the thumbnail, 0 for none | JPEG or PNG | u32 bytes of the silhouettes, 0 for none | packed bits
    u32 vectors | float32 scale of each | int8 numbers of each, `dim` times

The body of a delete is the id.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import SyncError, one_line
from edge.gallery import limits
from edge.gallery.limits import parse_metadata, text_problem, thumbnail_problem
from edge.gallery.writer import MAX_SILHOUETTE_BYTES, silhouettes_problem
from edge.types import FloatArray

_U16, _U32 = struct.Struct("<H"), struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Upsert:
    """An item, new or changed: all of it, whatever was there under its id."""

    item_id: str
    label: str
    metadata: str  # JSON text of an object, as a store holds it
    thumbnail: bytes | None  # JPEG or PNG
    silhouettes: bytes | None  # 512 bytes each, see edge.silhouettes.silhouette
    vectors_i8: NDArray[np.int8]  # (n, dim), n >= 1
    scales: FloatArray  # (n,), vector = int8 * scale, of about unit length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Upsert) and encode(self) == encode(other)

    def __hash__(self) -> int:
        return hash(encode(self))


@dataclass(frozen=True, slots=True)
class Delete:
    """An item that is gone. Where there is none with this id, nothing changes."""

    item_id: str


Record = Upsert | Delete


def encode(record: Upsert) -> bytes:
    """Return the body of an upsert."""
    item_id, label, metadata = record.item_id.encode(), record.label.encode(), record.metadata.encode()
    thumbnail, silhouettes = record.thumbnail or b"", record.silhouettes or b""
    return b"".join(
        [
            *(_U16.pack(len(item_id)), item_id, _U16.pack(len(label)), label, _U32.pack(len(metadata)), metadata),
            *(_U32.pack(len(thumbnail)), thumbnail, _U32.pack(len(silhouettes)), silhouettes),
            *(_U32.pack(len(record.scales)), np.ascontiguousarray(record.scales, "<f4").tobytes()),
            np.ascontiguousarray(record.vectors_i8, np.int8).tobytes(),
        ]
    )


def digest(record: Upsert) -> int:
    """Return the SHA-256 of the body of an upsert, as a number: what an item adds to a live root."""
    return int.from_bytes(hashlib.sha256(encode(record)).digest(), "big")


def check(record: Record, dim: int) -> None:
    """Check a record.

    Args:
        record: the record.
        dim: numbers of a vector.

    Raises:
        SyncError: it does not keep a limit, or a vector is not of about unit length.
    """
    if problem := _problem(record, dim):
        raise SyncError(f"item {one_line(repr(record.item_id)[:80])}: {one_line(problem)}")


def _problem(record: Record, dim: int) -> str | None:
    """Return what is wrong with a record, None if nothing is."""
    if problem := text_problem(record.item_id, limits.MAX_ID_CHARACTERS):
        return f"the id: {problem}"
    if not record.item_id:
        return "the id is empty"
    if isinstance(record, Delete):
        return None
    if problem := text_problem(record.label, limits.MAX_LABEL_CHARACTERS):
        return f"the label: {problem}"
    try:
        parse_metadata(record.metadata)
    except ValueError as error:
        return f"the metadata: {error}"
    return (
        thumbnail_problem(record.thumbnail)
        or silhouettes_problem(record.silhouettes)
        or _vectors_problem(record.vectors_i8, record.scales, dim)
    )


def _vectors_problem(vectors_i8: NDArray[np.int8], scales: FloatArray, dim: int) -> str | None:
    if vectors_i8.shape != (len(scales), dim) or not len(scales):
        return f"found vectors of shape {vectors_i8.shape} and {len(scales)} scales, expected (n >= 1, {dim})"
    if len(scales) > limits.MAX_VECTORS:
        return f"found {len(scales)} vectors, expected {limits.MAX_VECTORS} at most"
    numbers = vectors_i8.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a scale from outside may be infinite
        lengths = np.sqrt(np.einsum("ij,ij->i", numbers, numbers)) * scales.astype(np.float64)
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= limits.LENGTH_TOLERANCE))  # so that NaN is wrong, too
    return f"found a vector of length {lengths[wrong[0]]:.4g}, expected 1" if len(wrong) else None


def decode(body: memoryview, dim: int) -> Upsert:
    """Decode and check the body of an upsert.

    Args:
        body: all of it.
        dim: numbers of a vector.

    Raises:
        SyncError: it is damaged, or breaks a limit.
    """
    rest = _Bytes(body)
    item_id, label = rest.text(_U16, limits.MAX_ID_CHARACTERS), rest.text(_U16, limits.MAX_LABEL_CHARACTERS)
    metadata = rest.text(_U32, limits.MAX_METADATA_BYTES)
    thumbnail = rest.sized(_U32, limits.MAX_THUMBNAIL_BYTES)
    silhouettes = rest.sized(_U32, MAX_SILHOUETTE_BYTES)
    count = rest.number(_U32)
    if rest.left != count * (4 + dim):
        raise SyncError(f"found {rest.left} bytes of vectors, expected {count} vectors of {dim} numbers")
    scales = np.frombuffer(rest.take(4 * count), "<f4").astype(np.float32)
    vectors = np.frombuffer(rest.take(count * dim), np.int8).reshape(count, dim)
    record = Upsert(item_id, label, metadata, bytes(thumbnail) or None, bytes(silhouettes) or None, vectors, scales)
    check(record, dim)
    return record


def decode_delete(body: memoryview) -> Delete:
    """Decode and check the body of a delete.

    Raises:
        SyncError: it is no id.
    """
    record = Delete(_text(body, limits.MAX_ID_CHARACTERS))
    check(record, 0)
    return record


def _text(data: memoryview, most: int) -> str:
    if len(data) > 4 * most:  # bytes of a character in UTF-8
        raise SyncError(f"found a text of {len(data)} bytes, expected at most {most} characters")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise SyncError("found a text that is not UTF-8") from error


class _Bytes:
    """Takes one part after the other from a body, never more than there is."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise SyncError(f"ends after {len(self._data)} bytes, where {count - self.left} more are expected")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, kind: struct.Struct) -> int:
        (found,) = kind.unpack(self.take(kind.size))
        return int(found)

    def sized(self, kind: struct.Struct, most: int) -> memoryview:
        if (count := self.number(kind)) > most:
            raise SyncError(f"found a part of {count} bytes, expected at most {most}")
        return self.take(count)

    def text(self, kind: struct.Struct, most: int) -> str:
        return _text(self.sized(kind, 4 * most), most)
