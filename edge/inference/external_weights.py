"""Find weights that an ONNX file keeps in other files, without the `onnx` package.

A bundle is complete: what a model computes is in the file whose hash the manifest holds. Weights in another file would
be read from wherever its name points, unchecked. This module reads protobuf's wire format; numbers are those of
onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _LOCATION = 7, 5, 13, 14  # fields of ModelProto, GraphProto and TensorProto
_WHERE = b"location"  # the key that names the other file; without it, a tensor of that kind cannot be loaded
_VARINT, _FIXED64, _CHUNK, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def has_external_weights(path: Path) -> bool:
    """Return whether an ONNX file keeps weights of its main graph in other files; False for a file that is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(_WHERE) < 0:
                return False
            return any(
                number == _EXTERNAL_DATA or (number == _LOCATION and value)  # 0: in this file
                for graph in _chunks(data, 0, len(data), _GRAPH)
                for tensor in _chunks(data, *graph, _INITIALIZER)
                for number, value, _ in _fields(data, *tensor)
            )


def _chunks(data: mmap.mmap, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where each field of a number is."""
    for number, first, last in _fields(data, start, stop):
        if number == wanted:
            yield first, last


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field and where its content is; for a number, its value and 0."""
    at = start
    while at < stop:
        key, at = _varint(data, at, stop)
        if key & 7 == _VARINT:
            value, at = _varint(data, at, stop)
            yield key >> 3, value, 0
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
        if length is None:
            length, at = _varint(data, at, stop) if key & 7 == _CHUNK else (stop, at)  # else: not protobuf
        if at + length > stop:
            return
        yield key >> 3, at, at + length
        at += length


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """Return a number and where it ends; at the end of the data, 0 and the end."""
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if at >= stop:
            return 0, stop
        byte = data[at]
        at += 1
        value |= (byte & 127) << 7 * shift
        if byte < 128:  # the highest bit says that more follows
            return value, at
    return 0, stop
