"""Merges zero padding into the convolution that follows, which pads by itself: one operator less, and legal in INT8."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from quantize.forms.graph import constants, consumers, has_inner_graphs, needed_for


def merge_padding(model: onnx.ModelProto) -> None:
    """Merge each constant zero padding of height and width that only convolutions read, in place."""
    graph = model.graph
    if has_inner_graphs(graph):  # they read tensors of the outer one
        return
    known, outputs = constants(graph), {one.name for one in graph.output}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        readers = consumers(graph, pad.output[0])
        before = _zeros_before(model, pad, known)
        if before is None or not readers or pad.output[0] in outputs:
            continue
        if any(one.op_type != "Conv" or _is_padded(one) for one in readers):
            continue
        for conv in readers:
            kept = [one for one in conv.attribute if one.name not in ("pads", "auto_pad")]
            del conv.attribute[:]
            conv.attribute.extend([*kept, helper.make_attribute("pads", before)])
            conv.input[0] = pad.input[0]
        graph.node.remove(pad)


def _zeros_before(
    model: onnx.ModelProto, pad: onnx.NodeProto, known: dict[str, NDArray[np.generic]]
) -> list[int] | None:
    """Return the zeros above, left, below and right; None if it pads in another way."""
    value = pad.input[2] if len(pad.input) > 2 else ""
    is_zero = not value or (value in known and not np.any(known[value]))
    if not is_zero or len(pad.input) > 3 or any(one.name == "mode" and one.s != b"constant" for one in pad.attribute):
        return None
    pads = _constant(model, pad.input[1])
    if pads is None or pads.size != 8 or np.any(pads[[0, 1, 4, 5]]) or pads.min() < 0:
        return None
    return [int(one) for one in pads[[2, 3, 6, 7]]]


def _constant(model: onnx.ModelProto, name: str) -> NDArray[np.int64] | None:
    """Compute a tensor that depends on constants only; None if it depends on an input of the graph."""
    graph = model.graph
    needed = needed_for(graph, [name])
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    if needed.intersection(one.name for one in graph.input).difference(tensor.name for tensor in weights):
        return None
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    output = helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
    part = helper.make_graph(nodes, "constant", [], [output], initializer=weights)
    versions = {one.domain: one.version for one in model.opset_import}
    return np.ravel(np.asarray(ReferenceEvaluator(part, opsets=versions).run(None, {})[0], np.int64))


def _is_padded(conv: onnx.NodeProto) -> bool:
    return any(
        (one.name == "pads" and any(one.ints)) or (one.name == "auto_pad" and one.s not in (b"", b"NOTSET"))
        for one in conv.attribute
    )
