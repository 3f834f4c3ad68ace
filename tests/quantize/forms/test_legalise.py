"""Rewriting a graph for TensorRT without changing a bit of what it computes."""

import numpy as np
import pytest

from edge.inference.onnxruntime_engine import open_session_from_bytes
from quantize.forms.legalise import legalise
from quantize.forms.tensorrt_rules import find_violations
from tests.tensorrt_cases import BYTES, CONV, WEIGHT, T, graph

MOVE = ("Transpose", "x", "t", {"perm": [0, 3, 1, 2]})
CAST = ("Cast", "t", "c", {"to": T.FLOAT})


def outputs(model):
    batch = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    return open_session_from_bytes(model.SerializeToString()).run(batch)[0]


@pytest.mark.parametrize(
    ("nodes", "known"),
    [
        ([MOVE, CAST, CONV], {"w": WEIGHT}),
        ([("Identity", "x", "i"), ("Transpose", "i", "t", MOVE[3]), CAST, CONV], {"w": WEIGHT}),
        ([("Reshape", "x k", "t"), ("Cast", "t", "y", {"to": T.FLOAT})], {"k": np.array([-1, 48, 16])}),
        ([MOVE, CAST, ("Cast", "t", "d", {"to": T.FLOAT}), ("Add", "c d", "y")], {}),
        ([MOVE, ("MaxPool", "t", "p", {"kernel_shape": [2, 2]}), ("Cast", "p", "y", {"to": T.FLOAT})], {}),
    ],
    ids=["transpose", "identity and transpose", "reshape to the output", "two casts", "pool"],
)
def test_bytes_are_cast_first_and_no_bit_changes(nodes, known):
    model = graph(nodes, known, BYTES)
    assert any(one.refused for one in find_violations(model))
    before = outputs(model)
    assert legalise(model) == [f"cast the bytes of 'x' before {nodes[0][0]}"]
    assert find_violations(model) == []
    np.testing.assert_array_equal(outputs(model), before)


def test_legal_graph_stays_as_it_is():
    cast = ("Cast", "x", "f", {"to": T.FLOAT})
    model = graph([cast, ("Transpose", "f", "c", MOVE[3]), CONV], {"w": WEIGHT}, BYTES)
    before = model.SerializeToString()
    assert legalise(model) == []
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "nodes",
    [
        [MOVE, CAST, ("Cast", "t", "d", {"to": T.INT64}), ("Cast", "d", "e", {"to": T.FLOAT}), ("Add", "c e", "y")],
        [MOVE, CAST, ("Equal", "t t", "q"), ("Cast", "q", "e", {"to": T.FLOAT}), ("Add", "c e", "y")],
    ],
    ids=["cast to whole numbers", "another reader"],
)
def test_bytes_with_another_use_are_left_to_the_linter(nodes):
    model = graph(nodes, {}, BYTES)
    assert legalise(model) == []
    assert find_violations(model)


def test_places_that_nothing_reads_and_odd_constants_go():
    model = graph([("MaxPool", "x", "y places", {"kernel_shape": [2, 2]})], {"odd": np.ones(2, np.uint16)})
    assert len(find_violations(model)) == 2
    assert len(legalise(model)) == 2
    assert find_violations(model) == []
