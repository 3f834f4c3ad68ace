"""Small ONNX models for engine tests, written without the onnx package, which devices do not have."""

from __future__ import annotations

import math
import struct

FLOAT, UINT8, INT64, DOUBLE = 1, 2, 7, 11  # onnx.proto: TensorProto.DataType


def sums_model(batch="n", side=3, *, out=FLOAT, outputs=("total", "twice")) -> bytes:
    """Return a model of uint8 (batch, 2, side) to its sum over the last axis, `total`, and to that doubled, `twice`."""
    return _model(
        "sums",
        [
            _node("Cast", ["image"], ["x"], to=out),
            _node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
            _node("Add", ["total", "total"], ["twice"]),
        ],
        constants=[_tensor("axis", INT64, [1], struct.pack("<q", 2))],
        inputs=[_value("image", UINT8, [batch, 2, side])],
        outputs=[_value(name, out, [batch, 2]) for name in outputs],
    )


def shapes_model(*row_shapes, batch="n", size=64, factor=0.0) -> bytes:
    """Return a model of uint8 (batch, size, size, 3) to (batch, *row_shape): the brightest value times a factor."""
    nodes, constants, outputs = [_node("Cast", ["image"], ["x"], to=FLOAT)], [], []
    nodes.append(_node("ReduceMax", ["x"], ["brightest"], axes=[1, 2, 3], keepdims=0))
    for i, shape in enumerate(row_shapes):
        column = [-1, *[1] * len(shape)]
        one_row = [1, *shape]
        constants += [
            _tensor(f"column{i}", INT64, [len(column)], struct.pack(f"<{len(column)}q", *column)),
            _tensor(f"factors{i}", FLOAT, one_row, struct.pack("<f", factor) * math.prod(one_row)),
        ]
        nodes.append(_node("Reshape", ["brightest", f"column{i}"], [f"rows{i}"]))
        nodes.append(_node("Mul", [f"rows{i}", f"factors{i}"], [f"output{i}"]))
        outputs.append(_value(f"output{i}", FLOAT, [batch, *shape]))
    return _model("shapes", nodes, constants, [_value("image", UINT8, [batch, size, size, 3])], outputs)


def external_model(location: str) -> bytes:
    """Return a model of float32 (1, 3) to (1, 4), whose weights are in another file."""
    entry = _bytes(1, b"location") + _bytes(2, location.encode())
    weights = _number(1, 3) + _number(1, 4) + _number(2, FLOAT) + _bytes(8, b"w") + _bytes(13, entry) + _number(14, 1)
    inputs, outputs = [_value("image", FLOAT, [1, 3])], [_value("output0", FLOAT, [1, 4])]
    return _model("external", [_node("MatMul", ["image", "w"], ["output0"])], [weights], inputs, outputs)


# The messages of onnx.proto, field by field, in protocol buffer encoding.


def _model(name, nodes, constants, inputs, outputs) -> bytes:
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, name.encode())
    graph += b"".join(_bytes(5, constant) for constant in constants)
    graph += b"".join(_bytes(11, value) for value in inputs) + b"".join(_bytes(12, value) for value in outputs)
    ir_version, opset = 8, _bytes(1, b"") + _number(2, 17)
    return _number(1, ir_version) + _bytes(7, graph) + _bytes(8, opset)


def _node(operator, inputs, outputs, **attributes) -> bytes:
    node = b"".join(_bytes(1, name.encode()) for name in inputs) + b"".join(
        _bytes(2, name.encode()) for name in outputs
    )
    return node + _bytes(4, operator.encode()) + b"".join(_bytes(5, _attribute(*item)) for item in attributes.items())


def _attribute(name, value) -> bytes:
    if isinstance(value, int):
        return _bytes(1, name.encode()) + _number(3, value) + _number(20, 2)  # INT
    return _bytes(1, name.encode()) + b"".join(_number(8, one) for one in value) + _number(20, 7)  # INTS


def _tensor(name, dtype, shape, data) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, dtype) + _bytes(8, name.encode()) + _bytes(9, data)


def _value(name, dtype, shape) -> bytes:
    dims = b"".join(
        _bytes(1, _bytes(2, size.encode()) if isinstance(size, str) else _number(1, size)) for size in shape
    )
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, dtype) + _bytes(2, dims)))


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
