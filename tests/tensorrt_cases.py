"""Right and wrong graphs, to compare the linter's verdicts with those of the real TensorRT parser and builder.

dict(cases())         name of each case: model
disagreements(said)   said: name of each case: what TensorRT says, empty where it builds the graph
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize.forms.tensorrt_rules import find_violations

T = TensorProto
F32, F16, S8 = np.float32, np.float16, np.int8
BYTES = ("x", T.UINT8, ["n", 16, 16, 3])
MAP = ("x", T.FLOAT, ["n", 3, 16, 16])
ROWS = ("x", T.FLOAT, ["n", 32])
TYPES = {"int32": T.INT32, "int64": T.INT64, "int8": T.INT8, "bool": T.BOOL, "double": T.DOUBLE}
UNARY = ["Abs", "Erf", "Exp", "Floor", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Neg", "Relu", "Sigmoid"]
BINARY = ["Add", "And", "Div", "Equal", "Greater", "MatMul", "Max", "Mul", "Sub"]
WEIGHT = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(F32)
S8_WEIGHT = np.clip(np.round(WEIGHT / 0.02), -127, 127).astype(S8)
CONV = ("Conv", "c w", "y", {"pads": [1, 1, 1, 1]})
CONV_BIAS = ("Conv", "c w b", "y", {"pads": [1, 1, 1, 1]})
PAIR = [("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "c")]
DEQUANTISED = [("DequantizeLinear", "wq ws wz", "w", {"axis": 0})]
STEP = {"s": F32(0.1), "z": S8(0)}
QUANTISED = {"wq": S8_WEIGHT, "ws": np.full(8, 0.02, F32), "wz": np.zeros(8, S8)}


def graph(nodes, known=None, source=MAP, result=("y", T.FLOAT, None), opset=17) -> onnx.ModelProto:
    """Make a model of nodes `(operator, inputs, outputs, attributes)`, names separated by spaces."""
    made = []
    for operator, inputs, outputs, *attributes in nodes:
        names = [name.strip("-") for name in inputs.split()]
        made.append(helper.make_node(operator, names, outputs.split(), **(attributes[0] if attributes else {})))
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in (known or {}).items()
    ]
    infos = [helper.make_tensor_value_info(*source)], [helper.make_tensor_value_info(*result)]
    body = helper.make_graph(made, "case", *infos, tensors)
    domains = {"": opset} | {node.domain: 1 for node in made if node.domain}
    versions = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(body, opset_imports=versions, ir_version=10)


def cases() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield every case: its name and the model."""
    yield from _bytes()
    yield from _quantisation()
    yield from _types()
    yield from _attributes()


def _bytes() -> Iterator[tuple[str, onnx.ModelProto]]:
    cast = ("Cast", "x", "f", {"to": T.FLOAT})
    move = {"perm": [0, 3, 1, 2]}
    yield "cast first", graph([cast, ("Transpose", "f", "c", move), CONV], {"w": WEIGHT}, BYTES)
    late = [("Transpose", "x", "t", move), ("Cast", "t", "c", {"to": T.FLOAT}), CONV]
    yield "transpose of bytes", graph(late, {"w": WEIGHT}, BYTES)
    end = ("Cast", "t", "y", {"to": T.FLOAT})
    yield "identity of bytes", graph([("Identity", "x", "t"), end], {}, BYTES)
    yield "reshape of bytes", graph([("Reshape", "x k", "t"), end], {"k": np.array([-1, 48, 16])}, BYTES)
    corner = {"a": np.array([0, 0, 0, 0]), "b": np.array([1, 4, 4, 3])}
    yield "slice of bytes", graph([("Slice", "x a b", "t"), end], corner, BYTES)
    yield "bytes as float16", graph([("Cast", "x", "y", {"to": T.FLOAT16})], {}, BYTES, ("y", T.FLOAT16, None))
    yield "two casts", graph([cast, ("Cast", "x", "g", {"to": T.FLOAT}), ("Add", "f g", "y")], {}, BYTES)
    yield "bytes as output", graph([("Cast", "x", "y", {"to": T.UINT8})], {}, ROWS, ("y", T.UINT8, None))
    yield "bytes inside", graph([("Cast", "x", "t", {"to": T.UINT8}), end], {}, ROWS)
    table = np.arange(32, dtype=np.uint8)
    yield "constant bytes", graph([("Cast", "k", "t", {"to": T.FLOAT}), ("Add", "x t", "y")], {"k": table}, ROWS)
    gather = [("Gather", "k i", "g"), ("Cast", "g", "t", {"to": T.FLOAT}), ("Add", "x t", "y")]
    yield "gathered bytes", graph(gather, {"k": table.reshape(1, 32), "i": np.array([0])}, ROWS)
    yield "bytes dequantised", graph([("DequantizeLinear", "x s z", "y")], {"s": F32(0.1), "z": np.uint8(0)}, BYTES)


def _quantisation() -> Iterator[tuple[str, onnx.ModelProto]]:
    plain = {"w": WEIGHT}
    yield "pair", graph([*PAIR, CONV], plain | STEP)
    for name, change in {
        "zero point 3": {"z": S8(3)},
        "u8, zero point 0": {"z": np.uint8(0)},
        "u8, zero point 128": {"z": np.uint8(128)},
        "negative scale": {"s": F32(-0.1)},
        "scale 0": {"s": F32(0)},
        "scale nan": {"s": F32(np.nan)},
        "tiny scale": {"s": F32(1e-40)},
        "scale in an array": {"s": np.full(1, 0.1, F32), "z": np.zeros(1, S8)},
    }.items():
        yield name, graph([*PAIR, CONV], plain | STEP | change)
    bare = [("QuantizeLinear", "x s", "q"), ("DequantizeLinear", "q s", "c"), CONV]
    yield "no zero point", graph(bare, plain | {"s": F32(0.1)})
    along = [(*one, {"axis": 1}) for one in PAIR]
    yield "per channel", graph([*along, CONV], plain | {"s": np.full(3, 0.1, F32), "z": np.zeros(3, S8)})
    s16 = plain | STEP | {"z": np.int16(0)}
    yield "s16", graph([*PAIR, CONV], s16, opset=21)
    shifted = {"wq": (S8_WEIGHT.astype(int) + 128).astype(np.uint8), "wz": np.full(8, 128, np.uint8)}
    for name, change in {
        "weight": {},
        "weight with zero point": {"wz": np.ones(8, S8)},
        "weight with scale 0": {"ws": np.zeros(8, F32)},
        "weight in u8": shifted,
    }.items():
        yield name, graph([*PAIR, *DEQUANTISED, CONV], STEP | QUANTISED | change)
    yield "weight alone", graph([("Identity", "x", "c"), *DEQUANTISED, CONV], QUANTISED)
    other = [("DequantizeLinear", "wq ws wz", "w", {"axis": 1})]
    columns = {"wq": S8_WEIGHT, "ws": np.full(3, 0.02, F32), "wz": np.zeros(3, S8)}
    yield "weight along inputs", graph([*PAIR, *other, CONV], STEP | columns)
    bias = [("DequantizeLinear", "bq bs bz", "b", {"axis": 0})]
    biases = {"bq": np.zeros(8, np.int32), "bs": np.full(8, 0.002, F32), "bz": np.zeros(8, np.int32)}
    yield "int32 bias", graph([*PAIR, *DEQUANTISED, *bias, CONV_BIAS], STEP | QUANTISED | biases)
    yield "float bias", graph([*PAIR, *DEQUANTISED, CONV_BIAS], STEP | QUANTISED | {"b": np.zeros(8, F32)})
    gemm = [("DequantizeLinear", "wq ws wz", "w", {"axis": 0}), ("Gemm", "x w b", "y", {"transB": 1})]
    matrix = {"wq": np.ones((16, 32), S8), "ws": np.full(16, 0.02, F32), "wz": np.zeros(16, S8), "b": np.zeros(16, F32)}
    yield "gemm with stored weight", graph(gemm, matrix, ROWS)
    half = {name: value.astype(F16) if value.dtype == F32 else value for name, value in (STEP | QUANTISED).items()}
    in_half = [("Cast", "x", "h", {"to": T.FLOAT16}), ("QuantizeLinear", "h s z", "q"), PAIR[1], *DEQUANTISED]
    out = [("Conv", "c w", "o", {"pads": [1, 1, 1, 1]}), ("Cast", "o", "y", {"to": T.FLOAT})]
    yield "pair in float16", graph([*in_half, *out], half, opset=19)


def _types() -> Iterator[tuple[str, onnx.ModelProto]]:
    end = ("Cast", "b", "y", {"to": T.FLOAT})
    for name, kind in TYPES.items():
        start = ("Cast", "x", "a", {"to": kind})
        for operator in UNARY:
            yield f"{operator} of {name}", graph([start, (operator, "a", "b"), end])
        for operator in BINARY:
            yield f"{operator} of {name}", graph([start, (operator, "a a", "b"), end])
        pool = {"kernel_shape": [2, 2]}
        yield f"MaxPool of {name}", graph([start, ("MaxPool", "a", "b", pool), end])
        yield f"Transpose of {name}", graph([start, ("Transpose", "a", "b"), end])
        yield f"ReduceL2 of {name}", graph([start, ("ReduceL2", "a", "b", {"axes": [2, 3]}), end])
        scales = {"k": np.array([1, 1, 2, 2], F32)}
        yield f"Resize of {name}", graph([start, ("Resize", "a - k", "b", {"mode": "nearest"}), end], scales)
    yield "Not of bool", graph([("Cast", "x", "a", {"to": T.BOOL}), ("Not", "a", "b"), end])
    half = ("Cast", "x", "h", {"to": T.FLOAT16})
    for operator in ("Add", "Mul", "Max", "MatMul"):
        yield f"{operator} of float16 and float32", graph([half, (operator, "h x", "y")])
    yield "Concat of float16 and float32", graph([half, ("Concat", "h x", "y", {"axis": 1})])
    yield "Conv with a float16 weight", graph([("Identity", "x", "c"), CONV], {"w": WEIGHT.astype(F16)})
    yield "Conv with a float16 bias", graph([("Identity", "x", "c"), CONV_BIAS], {"w": WEIGHT, "b": np.zeros(8, F16)})
    yield "PRelu with a float16 slope", graph([("PRelu", "x k", "y")], {"k": np.ones((3, 1, 1), F16)})
    yield "Conv in float16", graph([half, ("Conv", "h w", "b", {"pads": [1, 1, 1, 1]}), end], {"w": WEIGHT.astype(F16)})
    whole = [("Cast", "x", "a", {"to": T.INT64}), ("Add", "a k", "b"), end]
    yield "int64 and int32", graph(whole, {"k": np.ones(1, np.int32)})
    for name, kind in {"int16": T.INT16, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64}.items():
        yield f"cast to {name}", graph([("Cast", "x", "b", {"to": kind}), end])
    yield "constant of uint16", graph([("Relu", "x", "y")], {"k": np.ones(1, np.uint16)})
    for name, value in {"nan": np.nan, "inf": np.inf}.items():
        weight = WEIGHT.copy()
        weight[0, 0, 0, 0] = value
        yield f"{name} in a weight", graph([("Identity", "x", "c"), CONV], {"w": weight})


def _attributes() -> Iterator[tuple[str, onnx.ModelProto]]:
    for opset in (7, 9, 13, 17, 20, 22):
        yield f"opset {opset}", graph([("Identity", "x", "c"), CONV], {"w": WEIGHT}, opset=opset)
    bits = [("Cast", "x", "a", {"to": T.INT32}), ("BitwiseAnd", "a a", "b"), ("Cast", "b", "y", {"to": T.FLOAT})]
    yield "BitwiseAnd", graph(bits, opset=18)
    dynamic = [("DynamicQuantizeLinear", "x", "q s z"), ("DequantizeLinear", "q s z", "y")]
    yield "DynamicQuantizeLinear", graph(dynamic)
    yield "operator of another domain", graph([("FusedConv", "x w", "y", {"domain": "com.microsoft"})], {"w": WEIGHT})
    fused = [PAIR[0], ("QLinearConv", "q s z wq s z s z", "o"), ("DequantizeLinear", "o s z", "y")]
    yield "QLinearConv", graph(fused, STEP | {"wq": S8_WEIGHT})
    sequence = [("SequenceConstruct", "x x", "q"), ("ConcatFromSequence", "q", "y", {"axis": 0})]
    yield "sequence", graph(sequence)
    pool = {"kernel_shape": [3, 3]}
    yield "MaxPool", graph([("MaxPool", "x", "y", pool)])
    yield "MaxPool with places", graph([("MaxPool", "x", "y i", pool)])
    for operator in ("MaxPool", "AveragePool"):
        dilated = [(operator, "x", "y", pool | {"dilations": [2, 2]})]
        yield f"{operator} with dilations", graph(dilated, opset=19)
    scales = {"k": np.array([1, 1, 2, 2], F32)}
    for way in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"):
        resize = [("Resize", "x - k", "y", {"mode": "linear", "coordinate_transformation_mode": way})]
        yield f"Resize {way}", graph(resize, scales, opset=19)
    smooth = [("Resize", "x - k", "y", {"mode": "linear", "antialias": 1})]
    yield "Resize with antialiasing", graph(smooth, {"k": np.array([1, 1, 0.5, 0.5], F32)}, opset=19)
    trained = [("Dropout", "x r t", "y")]
    yield "Dropout in training", graph(trained, {"r": F32(0.5), "t": np.array(True)})
    yield "Dropout", graph([("Dropout", "x", "y")])
    one = {"k": np.ones(3, F32)}
    yield "BatchNormalization", graph([("BatchNormalization", "x k k k k", "y")], one)
    training = [("BatchNormalization", "x k k k k", "y m v", {"training_mode": 1})]
    yield "BatchNormalization in training", graph(training, one)
    for fmod in (0, 1):
        yield f"Mod with fmod {fmod}", graph([("Mod", "x k", "y", {"fmod": fmod})], {"k": F32(3)})
    for count in (30, 4000):
        wide = ("x", T.FLOAT, ["n", 8000])
        yield f"TopK of {count}", graph([("TopK", "x k", "y i")], {"k": np.array([count])}, wide)
    yield "fixed batch", graph([("Identity", "x", "c"), CONV], {"w": WEIGHT}, ("x", T.FLOAT, [4, 3, 16, 16]))


def disagreements(said: Mapping[str, str]) -> list[str]:
    """Compare the linter with TensorRT; return a line for each case on which they differ.

    Args:
        said: what TensorRT says of each case, by name; empty where it builds the graph.
    """
    lines = []
    for name, model in cases():
        refused = [finding for finding in find_violations(model) if finding.refused]
        if bool(refused) != bool(said[name]):
            linter = str(refused[0]) if refused else "legal"
            lines.append(f"{name}: the linter says {linter}; TensorRT says {said[name] or 'builds'}")
    return lines
