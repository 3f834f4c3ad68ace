"""Merges zero padding into the convolution that follows, which pads by itself: one operator less, and legal in INT8."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from quantize.forms.graph import constants, consumers


def merge_padding(model: onnx.ModelProto) -> None:
    """Merge each constant zero padding of height and width that only convolutions read, in place."""
    graph = model.graph
    known = constants(graph)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        readers = consumers(graph, pad.output[0])
        before = _zeros_before(model, pad, known)
        if before is None or not readers or any(one.op_type != "Conv" or _is_padded(one) for one in readers):
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
    """Compute a tensor that hangs on constants only; None if it hangs on an input of the graph."""
    made_by = {output: number for number, node in enumerate(model.graph.node) for output in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    numbers: set[int] = set()
    asked, used = [name], {}
    while asked:
        one = asked.pop()
        if one in weights:
            used[one] = weights[one]
        elif one in made_by:
            numbers.add(made_by[one])
            asked += [read for read in model.graph.node[made_by[one]].input if read]
        else:
            return None
    nodes = [model.graph.node[number] for number in sorted(numbers)]
    output = helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
    part = helper.make_graph(nodes, "constant", [], [output], initializer=list(used.values()))
    versions = {one.domain: one.version for one in model.opset_import}
    return np.ravel(np.asarray(ReferenceEvaluator(part, opsets=versions).run(None, {})[0], np.int64))


def _is_padded(conv: onnx.NodeProto) -> bool:
    return any(
        (one.name == "pads" and any(one.ints)) or (one.name == "auto_pad" and one.s not in (b"", b"NOTSET"))
        for one in conv.attribute
    )
