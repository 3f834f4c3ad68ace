"""Serialise a small ONNX model: one int8 matrix product of a query with all rows, then the top rows.

This module writes protobuf's wire format directly, because the `onnx` package is not installed on devices. Field
numbers are those of onnx.proto (IR version 8, opset 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray

QUERY, COUNT = "query", "count"  # uint8 (1, dim) around QUERY_ZERO; int64 (1,)
QUERY_ZERO = 64
QUERY_PEAK = 63  # 7 bits: with 8, AVX2 without VNNI saturates pairs of products (u8 * s8 summed in 16 bits)
_FLOAT, _UINT8, _INT8, _INT64 = 1, 2, 3, 7
_ATTRIBUTE_INT = 2
_IR_VERSION, _OPSET = 8, 13


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _chunk(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(kind: str, inputs: list[str], outputs: list[str], attribute: bytes = b"") -> bytes:
    names = b"".join(_chunk(1, name) for name in inputs) + b"".join(_chunk(2, name) for name in outputs)
    return _chunk(1, names + _chunk(4, kind) + attribute)


def _constant(name: str, kind: int, array: NDArray[np.generic]) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return _chunk(5, dims + _number(2, kind) + _chunk(8, name) + _chunk(9, little.tobytes()))


def _value(field: int, name: str, kind: int, shape: list[int | str]) -> bytes:
    dims = b"".join(_chunk(1, _chunk(2, d) if isinstance(d, str) else _number(1, d)) for d in shape)
    return _chunk(field, _chunk(1, name) + _chunk(2, _chunk(1, _number(1, kind) + _chunk(2, dims))))


def search_graph(rows_i8: NDArray[np.int8], weights: FloatArray) -> bytes:
    """Serialise the model that finds the rows with the largest weighted product with a query.

    Args:
        rows_i8: (n, dim) int8.
        weights: (n,) float32, the factor for each row's product.

    Returns:
        A model with two inputs, QUERY and COUNT, and one output: int64 (1, COUNT), the rows, best first.
    """
    to_float = _chunk(5, _chunk(1, "to") + _number(3, _FLOAT) + _number(20, _ATTRIBUTE_INT))
    graph = b"".join(
        [
            _node("MatMulInteger", [QUERY, "rows", "zero"], ["products"]),
            _node("Cast", ["products"], ["floats"], to_float),
            _node("Mul", ["floats", "weights"], ["scores"]),
            _node("TopK", ["scores", COUNT], ["best_scores", "best"]),
            _chunk(2, "search"),
            _constant("rows", _INT8, np.ascontiguousarray(rows_i8.T)),
            _constant("zero", _UINT8, np.array(QUERY_ZERO, np.uint8)),
            _constant("weights", _FLOAT, weights),
            _value(11, QUERY, _UINT8, [1, rows_i8.shape[1]]),
            _value(11, COUNT, _INT64, [1]),
            _value(12, "best", _INT64, [1, "found"]),
        ]
    )
    return _number(1, _IR_VERSION) + _chunk(7, graph) + _chunk(8, _chunk(1, "") + _number(2, _OPSET))


def search_query(query: FloatArray) -> NDArray[np.uint8]:
    """Quantise one query, (dim,) float32, to the model's input: (1, dim) uint8."""
    peak = max(float(np.abs(query).max()), 1e-12)
    row: NDArray[np.uint8] = (np.rint(query * (QUERY_PEAK / peak)) + QUERY_ZERO).astype(np.uint8)[None]
    return row
