"""Tensors of two ONNX files are found by name, wherever they are; any other bytes are no error."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gallery_sync.transport.onnx_tensors import pieces_of
from gallery_sync.transport.residual import (
    COPY,
    LITERAL,
    STREAM_COUNT,
    WIDTHS,
    Operation,
    apply,
    decode_operations,
    difference,
    encode_operations,
    stream_sizes,
)

RANDOM = np.random.default_rng(0)


def model(weights: dict[str, np.ndarray], note: str = "") -> bytes:
    nodes = [helper.make_node("Identity", [name], [f"out_{name}"]) for name in sorted(weights)]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_model(helper.make_graph(nodes, "graph", [], [], tensors))
    made.doc_string = note
    return made.SerializeToString()


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "conv": random.integers(-127, 128, (64, 300), np.int8),
        "scale": random.random(64).astype(np.float32),
        "bias": random.integers(-9999, 9999, 64, np.int32),
        "half": random.random(640).astype(np.float16),
    }


def cost(data: bytes) -> int:
    return len(zlib.compress(data, 1))


def apply_in_memory(operations: list[Operation], base: bytes, streams: tuple[bytes, ...]) -> bytes:
    at = [0] * len(streams)

    def reader(number: int):
        def read(count: int) -> bytes:
            at[number] += count
            return streams[number][at[number] - count : at[number]]

        return read

    readers = [reader(number) for number in range(len(streams))]
    return b"".join(apply(operations, lambda offset, length: base[offset : offset + length], readers))


def test_pieces_are_the_whole_file_and_hold_every_tensor():
    data = model(weights())
    pieces = pieces_of(data)
    assert b"".join(data[piece.start : piece.stop] for piece in pieces) == data
    found = {piece.tensor: data[piece.start : piece.stop] for piece in pieces if piece.tensor}
    assert found == {name.encode(): value.tobytes() for name, value in weights().items()}


def test_tensor_without_raw_data_is_one_piece():
    tensor = helper.make_tensor("values", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    made = helper.make_model(helper.make_graph([], "graph", [], [], [tensor]))
    external = made.graph.initializer.add(name="outside", data_type=1, data_location=TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="weights.bin")
    data = made.SerializeToString()
    assert all(piece.tensor is None for piece in pieces_of(data))
    assert b"".join(data[piece.start : piece.stop] for piece in pieces_of(data)) == data


@given(st.binary(max_size=200))
def test_any_bytes_have_pieces_or_none(data):
    pieces = pieces_of(data)
    assert not pieces or b"".join(data[piece.start : piece.stop] for piece in pieces) == data


@given(st.data())
def test_any_change_of_a_model_has_pieces_or_none(data):
    changed = bytearray(model({"w": np.arange(20, dtype=np.int8)}))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    pieces = pieces_of(bytes(changed))
    assert not pieces or b"".join(changed[piece.start : piece.stop] for piece in pieces) == changed


def test_tensors_are_compared_by_name_in_another_layout():
    base = weights()
    moved = {name: base[name].copy() for name in reversed(base)}
    moved["conv"][::3] += 1
    moved["scale"] *= np.float32(1.001)
    moved["new"] = RANDOM.integers(-127, 128, 50, np.int8)
    target = model(moved, "a longer note")
    operations, streams = difference(model(base), target, cost)
    assert apply_in_memory(operations, model(base), streams) == target
    assert len(streams[0]) < 600  # literal: the new tensor and what describes it


def test_equal_files_are_one_copy():
    data = model(weights())
    operations, streams = difference(data, data, cost)
    assert operations == [Operation(COPY, len(data), 0)]
    assert not any(streams)


def test_renamed_or_resized_tensor_is_literal():
    base = {"conv": RANDOM.integers(-127, 128, 5000, np.int8)}
    for changed in ({"other": base["conv"]}, {"conv": base["conv"][:-1]}):
        operations, streams = difference(model(base), model(changed), cost)
        assert apply_in_memory(operations, model(base), streams) == model(changed)
        assert len(streams[0]) > 4900


@pytest.mark.parametrize("width", WIDTHS)
def test_difference_of_any_numbers_wraps_around(width):
    numbers = np.array([0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1], dtype=f"<u{width}")
    base, target = np.repeat(numbers, 5).tobytes(), np.tile(numbers, 5).tobytes()
    # the cost makes every other width dearer
    costs = iter([100] + [1 if w == width else 100 for w in WIDTHS for _ in range(w)])
    operations, streams = difference(base, target, lambda _: next(costs))
    assert operations == [Operation(width, len(target), 0)]
    assert apply_in_memory(operations, base, streams) == target


def test_long_operations_are_made_in_blocks():
    base = RANDOM.integers(0, 256, 3_000_004, np.uint8)
    target = base + 1
    operations, streams = difference(base.tobytes(), target.tobytes(), lambda data: len(set(data[:100])))
    assert apply_in_memory(operations, base.tobytes(), streams) == target.tobytes()


OPERATIONS = st.lists(
    st.one_of(
        st.builds(Operation, st.just(LITERAL), st.integers(1, 2**40)),
        st.builds(Operation, st.just(COPY), st.integers(1, 2**40), st.integers(0, 2**40)),
        st.builds(
            lambda width, count, base: Operation(width, width * count, base),
            st.sampled_from(WIDTHS), st.integers(1, 2**30), st.integers(0, 2**40),
        ),
    ),
    max_size=20,
)  # fmt: skip


@given(OPERATIONS)
def test_operations_are_read_as_they_were_written(operations):
    size = sum(operation.length for operation in operations)
    assert decode_operations(encode_operations(operations), 2**42, size) == operations
    assert len(stream_sizes(operations)) == STREAM_COUNT


@given(st.binary(max_size=60), st.integers(0, 1000), st.integers(0, 1000))
def test_any_bytes_are_operations_within_the_files_or_an_error(data, base_size, target_size):
    try:
        operations = decode_operations(data, base_size, target_size)
    except ValueError:
        return
    assert sum(operation.length for operation in operations) == target_size
    assert all(operation.base + operation.length <= base_size for operation in operations if operation.code != LITERAL)


def test_model_of_the_onnx_package_is_read():
    assert onnx.load_from_string(model(weights())).graph.name == "graph"
