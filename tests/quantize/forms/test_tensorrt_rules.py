"""TensorRT's rules. tests/integration compares them with the real parser; here each finding is one clear line."""

import numpy as np
import onnx
import pytest

from edge.errors import QuantizeError
from quantize.forms.tensorrt_rules import find_violations, require_legal
from tests.tensorrt_cases import BYTES, CONV, PAIR, STEP, WEIGHT, T, cases, graph

# What the linter says beyond TensorRT's parser, which builds these.
OURS = {
    "u8, zero point 0": "U8, which TensorRT reads as S8",
    "no zero point": "U8, which TensorRT reads as S8",
    "per channel": "a scale per channel on an activation",
    "weight along inputs": "scales along axis 1 of the weight of Conv",
    "nan in a weight": "values that are not finite",
    "inf in a weight": "values that are not finite",
    "opset 7": "opset 7; TensorRT 10 has 9 to 20",
    "opset 22": "opset 22; TensorRT 10 has 9 to 20",
}


def test_a_third_of_the_cases_and_more_are_wrong_on_each_side():
    refused = [any(one.refused for one in find_violations(model)) for _, model in cases()]
    assert len(refused) >= 200
    assert len(refused) / 3 < sum(refused) < len(refused) * 2 / 3


@pytest.mark.parametrize("name", OURS)
def test_rules_beyond_the_parser_are_found(name):
    found = find_violations(dict(cases())[name])
    assert not any(one.refused for one in found)
    assert any(OURS[name] in str(one) for one in found)


def test_finding_says_where_what_and_what_to_do():
    move = ("Transpose", "x", "t", {"perm": [0, 3, 1, 2], "name": "move"})
    model = graph([move, ("Cast", "t", "c", {"to": T.FLOAT}), CONV], {"w": WEIGHT}, BYTES)
    expected = "Transpose 'move': reads the bytes of 'x'; put a Cast to float in front of it"
    assert [str(one) for one in find_violations(model)] == [expected]
    with pytest.raises(QuantizeError, match=r"^car\.onnx: TensorRT does not take it: Transpose 'move'"):
        require_legal(model, "car.onnx")


def test_error_counts_the_other_findings():
    model = graph([*PAIR, CONV], {"w": WEIGHT} | STEP | {"z": np.int8(3)})
    with pytest.raises(QuantizeError, match=r"zero point that is not 0; .* \(and 1 more\)$"):
        require_legal(model, "x")


def test_sides_that_are_not_fixed_are_found():
    model = graph([("Identity", "x", "c"), CONV], {"w": WEIGHT}, ("x", T.FLOAT, ["n", 3, "h", "w"]))
    assert [one.problem for one in find_violations(model)] == ["a side that is not fixed"]


def test_graph_that_is_not_valid_onnx_is_an_error():
    model = graph([("Gelu", "x", "y", {"domain": "com.microsoft"})])
    del model.opset_import[1:]  # of which domain is the operator?
    with pytest.raises(QuantizeError, match="not a valid ONNX graph"):
        find_violations(model)


def test_bytes_at_the_end_of_a_deep_network_are_found():
    chain = [("Relu", "x" if number == 0 else f"r{number - 1}", f"r{number}") for number in range(1500)]
    model = graph([*chain, ("Cast", "r1499", "b", {"to": T.UINT8}), ("Cast", "b", "y", {"to": T.FLOAT})])
    assert [one.problem for one in find_violations(model)] == ["makes bytes inside the graph"]


def test_exported_networks_are_legal(exported):
    for path in exported.values():
        assert find_violations(onnx.load(str(path))) == []
