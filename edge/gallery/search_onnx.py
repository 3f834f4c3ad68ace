"""Serialise a small ONNX model: the int8 product of one query with blocks of rows, then the best places.

The rows are inputs of the model, not part of it: ONNX Runtime reads the caller's arrays and copies none of them. This
module writes protobuf's wire format directly, because the `onnx` package is not installed on devices. Field numbers are
those of onnx.proto (IR version 8, opset 13).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray

QUERY_ZERO = 64  # of a quantised query
QUERY_PEAK = 63  # 7 bits: with 8, AVX2 without VNNI saturates pairs of products (u8 * s8 summed in 16 bits)
BIAS_OF_DELETED = -4.0  # with the weight 0: below any cosine
_FLOAT, _UINT8, _INT8, _INT64 = 1, 2, 3, 7
_ATTRIBUTE_INT = 2
_IR_VERSION, _OPSET = 8, 13


class Scan:
    """Names of the model's inputs."""

    QUERY = "query"  # uint8 (1, 1, dim), see search_query
    BLOCKS = "blocks"  # int8 (blocks, dim, rows)
    WEIGHTS = "weights"  # float32 (blocks, 1, rows), the factor of each row's product
    BIASES = "biases"  # float32 (blocks, 1, rows), added then
    COUNT = "count"  # int64 (1,), how many places to return
    WHICH = "which"  # int64 (n,), the blocks to search


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


def scan_graph(*, some: bool) -> bytes:
    """Serialise the model that finds the rows with the largest `product * weight + bias`.

    The product takes a query around QUERY_ZERO as it is, without a zero point: ONNX Runtime has a fast path for that, a
    product with a vector that reads the rows where they are. A bias of `-QUERY_ZERO * weight * sum of the row` takes
    the offset out again.

    Args:
        some: the model has the input WHICH and searches those blocks alone.

    Returns:
        A model with the inputs of Scan and one output: int64 (COUNT,), places in the searched blocks, best first.
    """
    rows = (Scan.BLOCKS, Scan.WEIGHTS, Scan.BIASES)
    blocks, weights, biases = (f"some_{name}" for name in rows) if some else rows
    to_float = _chunk(5, _chunk(1, "to") + _number(3, _FLOAT) + _number(20, _ATTRIBUTE_INT))
    graph = b"".join(
        [
            *(_node("Gather", [name, Scan.WHICH], [f"some_{name}"]) for name in rows if some),
            _node("MatMulInteger", [Scan.QUERY, blocks], ["products"]),
            _node("Cast", ["products"], ["floats"], to_float),
            _node("Mul", ["floats", weights], ["scaled"]),
            _node("Add", ["scaled", biases], ["scores"]),
            _node("Reshape", ["scores", "flat"], ["line"]),
            _node("TopK", ["line", Scan.COUNT], ["best_scores", "best"]),
            _chunk(2, "search"),
            _constant("flat", _INT64, np.array([-1])),
            _value(11, Scan.QUERY, _UINT8, [1, 1, "dim"]),
            _value(11, Scan.BLOCKS, _INT8, ["blocks", "dim", "rows"]),
            _value(11, Scan.WEIGHTS, _FLOAT, ["blocks", 1, "rows"]),
            _value(11, Scan.BIASES, _FLOAT, ["blocks", 1, "rows"]),
            _value(11, Scan.COUNT, _INT64, [1]),
            *(_value(11, Scan.WHICH, _INT64, ["searched"]) for _ in range(some)),
            _value(12, "best", _INT64, ["found"]),
        ]
    )
    return _number(1, _IR_VERSION) + _chunk(7, graph) + _chunk(8, _chunk(1, "") + _number(2, _OPSET))


def search_query(query: FloatArray) -> NDArray[np.uint8]:
    """Quantise one query, (dim,) float32, to the model's input: (1, dim) uint8."""
    peak = max(float(np.abs(query).max()), 1e-12)
    row: NDArray[np.uint8] = (np.rint(query * (QUERY_PEAK / peak)) + QUERY_ZERO).astype(np.uint8)[None]
    return row
