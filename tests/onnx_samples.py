"""Small ONNX networks whose answers are known without training, written with the onnx package and without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from quantize.network_spec import Spec, write_spec

SIDE = 64  # pixels of the input
CELL = 16  # input pixels per cell of the detector
RED = (220, 30, 30)


def preprocess(**changes) -> Preprocess:
    return Preprocess(**({"width": SIDE, "height": SIDE, "resize": "letterbox"} | changes))


def detector_spec(**changes) -> Spec:
    """A detector of red squares, `thing`, with a second label that it never gives."""
    fields = {
        "kind": "detector", "input_name": "image", "output_names": ["cells"], "preprocess": preprocess(),
        "strides": [CELL], "labels": ["thing", "other"], "score_threshold": 0.5, "iou_threshold": 0.3,
    }  # fmt: skip
    return Spec(**(fields | changes))


def embedder_spec(**changes) -> Spec:
    """An embedder whose vector is the mean colour less grey."""
    fields = {
        "kind": "embedder", "input_name": "image", "output_names": ["vector"], "preprocess": preprocess(),
        "categories": ["box"], "heads": [Head(name="class", dim=3)],
    }  # fmt: skip
    return Spec(**(fields | changes))


def detector(
    path: Path, spec: Spec | None = None, *, classes: int = 2, rows: int | str = "n", gain: float = 0.2
) -> Path:
    """Write a detector: each cell of redness is an object of two cells' side."""
    weight = np.zeros((4 + classes, 3, 1, 1), np.float32)
    bias = np.array([1.0] * 4 + [-10.0] + [-20.0] * (classes - 1), np.float32)
    weight[4, :, 0, 0] = (gain, -gain, 0.0)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["means", "weight", "bias"], ["cells"]),
    ]
    shape = [rows, 4 + classes, SIDE // CELL, SIDE // CELL]
    return _write(path, nodes, {"weight": weight, "bias": bias}, ("cells", shape), spec or detector_spec(), rows)


def embedder(path: Path, spec: Spec | None = None, *, sign: float = 1.0) -> Path:
    """Write an embedder of colours; another sign is another space."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["mean", "grey"], ["colour"]),
        helper.make_node("Mul", ["colour", "sign"], ["vector"]),
    ]
    constants = {"grey": np.array([127.5], np.float32), "sign": np.array([sign, 1.0, 1.0], np.float32)}
    return _write(path, nodes, constants, ("vector", ["n", 3]), spec or embedder_spec(), "n")


def _write(path, nodes, constants, output, spec, rows) -> Path:
    graph = helper.make_graph(
        nodes,
        "sample",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [rows, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    write_spec(path, spec)
    return path


def move_weights(path: Path, location: str = "weights.data") -> Path:
    """Move the weights of an ONNX file into a file beside it, as exporters of large models do; return that file."""
    model = onnx.load(str(path))
    data = b""
    for tensor in model.graph.initializer:
        raw = numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", str(len(data))), ("length", str(len(raw)))):
            tensor.external_data.add(key=key, value=value)
        data += raw
    weights = path.parent / "weights.data"
    weights.write_bytes(data)
    path.write_bytes(model.SerializeToString())
    return weights
