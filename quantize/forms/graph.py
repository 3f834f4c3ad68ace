"""Reads and tidies ONNX graphs: constants, readers of a tensor, unused parts, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edge.errors import QuantizeError


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """Return every named constant of a graph."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def consumers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """Return the nodes that read a tensor."""
    return [node for node in graph.node if name in node.input]


def has_inner_graphs(graph: onnx.GraphProto) -> bool:
    """Return whether a node has a graph inside: If, Loop, Scan."""
    return any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute)


def require_plain(graph: onnx.GraphProto) -> None:
    """Check that a graph has no graphs inside: other forms are made of plain graphs only.

    Raises:
        QuantizeError: it has.
    """
    if has_inner_graphs(graph):
        raise QuantizeError("the graph has graphs inside (If, Loop, Scan); export it without control flow")


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Replace each Constant node that holds a tensor with an initialiser, in place."""
    graph = model.graph
    for node in [n for n in graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def needed_for(graph: onnx.GraphProto, names: Iterable[str]) -> set[str]:
    """Return these tensors of a plain graph, and all that they are computed from."""
    made_by = {output: node for node in graph.node for output in node.output}
    needed: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name and name not in needed:  # an optional input that is absent has no name
            needed.add(name)
            pending += made_by[name].input if name in made_by else []
    return needed


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and initialisers that no output depends on, in place; none from a graph with graphs inside."""
    graph = model.graph
    if not has_inner_graphs(graph):  # they read tensors of the outer one
        needed = needed_for(graph, [output.name for output in graph.output])
        for node in [one for one in graph.node if not needed.intersection(one.output)]:
            graph.node.remove(node)
        for tensor in [t for t in graph.initializer if t.name not in needed]:
            graph.initializer.remove(tensor)
    del graph.value_info[:]


def shorten_names(model: onnx.ModelProto) -> None:
    """Give the tensors inside a graph short names, and the nodes around quantisation none, in place.

    The names are up to a quarter of a small file. Nodes that compute keep theirs: errors and reports say them.
    """
    graph = model.graph
    keep = {one.name for one in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}
    for name in _names(graph):
        if name not in keep:
            short.setdefault(name, f"t{len(short)}")
    for node in graph.node:
        for names in (node.input, node.output):
            for number, name in enumerate(names):
                names[number] = short.get(name, name)
        if node.op_type in {"Cast", "DequantizeLinear", "QuantizeLinear"}:
            node.ClearField("name")
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    del graph.value_info[:]


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
