"""Finds the weights of an ONNX file by name, without the `onnx` package.

Rules this module keeps:
1. It only cuts a file into pieces; together they are the whole file, in order. It never interprets a weight.
2. What is not an ONNX file with a graph is no error: it has no pieces. Every length is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Field numbers of onnx.proto
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_NAME, _TENSOR_RAW_DATA = 8, 9

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_LONGEST_VARINT = 10
_MOST_PIECES = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of bytes of a file."""

    start: int
    stop: int
    tensor: bytes | None = None  # name of the tensor whose weights these bytes are; None: any other bytes


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    start: int  # of its tag
    content: int  # of its content; where a field has a length, after that
    stop: int
    has_length: bool


def pieces_of(data: bytes) -> list[Piece]:
    """Cut an ONNX file into its weights and what is between them.

    Args:
        data: the file.

    Returns:
        The pieces in the order of the file, none of them empty. No piece: it is not an ONNX file.
    """
    pieces: list[Piece] = []
    try:
        for field in _fields(data, 0, len(data)):
            if field.number == _MODEL_GRAPH and field.has_length:
                pieces.append(Piece(field.start, field.content))
                pieces += _pieces_of_graph(data, field)
            else:
                pieces.append(Piece(field.start, field.stop))
            if len(pieces) > _MOST_PIECES:
                return []
    except ValueError:
        return []
    return [piece for piece in pieces if piece.stop > piece.start]


def _pieces_of_graph(data: bytes, graph: _Field) -> Iterator[Piece]:
    for field in _fields(data, graph.content, graph.stop):
        if field.number == _GRAPH_INITIALIZER and field.has_length:
            yield from _pieces_of_tensor(data, field)
        else:
            yield Piece(field.start, field.stop)


def _pieces_of_tensor(data: bytes, tensor: _Field) -> Iterator[Piece]:
    fields = [field for field in _fields(data, tensor.content, tensor.stop) if field.has_length]
    name = next((data[field.content : field.stop] for field in fields if field.number == _TENSOR_NAME), None)
    weights = next((field for field in fields if field.number == _TENSOR_RAW_DATA), None)
    if name is None or weights is None:
        yield Piece(tensor.start, tensor.stop)
        return
    yield Piece(tensor.start, weights.content)
    yield Piece(weights.content, weights.stop, name)
    yield Piece(weights.stop, tensor.stop)


def _fields(data: bytes, start: int, stop: int) -> Iterator[_Field]:
    """Read the fields of a message.

    Raises:
        ValueError: it is not one.
    """
    at = start
    while at < stop:
        tag, content = _varint(data, at, stop)
        wire = tag & 7
        if wire == _VARINT:
            _, end = _varint(data, content, stop)
        elif wire == _LENGTH:
            length, content = _varint(data, content, stop)
            end = content + length
        elif wire in (_FIXED64, _FIXED32):
            end = content + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError("a wire type that ONNX does not use")
        if end > stop or not tag >> 3:
            raise ValueError("a field is longer than its message")
        yield _Field(tag >> 3, at, content, end, wire == _LENGTH)
        at = end


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at + shift >= stop:
            break
        byte = data[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a number without end")
