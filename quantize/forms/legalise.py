"""Rewrites a graph so that TensorRT takes it, where that changes no bit of what it computes.

1. Bytes that are moved and then cast are cast first: `Transpose, Cast` becomes `Cast, Transpose`.
2. What nothing reads goes: places of maxima, constants of types that TensorRT lacks.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from quantize.forms.graph import consumers, drop_unused, has_inner_graphs
from quantize.forms.tensorrt_rules import TYPES

# They move or choose values and compute none, so a cast of whole numbers up to 255 commutes with them.
_MOVES = {"Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}  # each holds every byte


def legalise(model: onnx.ModelProto) -> list[str]:
    """Rewrite a graph in place.

    Returns:
        what was done, one line each; empty if the graph is as it was.
    """
    graph = model.graph
    if has_inner_graphs(graph):  # they read tensors of the outer one
        return []
    done = [*_cast_first(graph), *_drop_places(graph)]
    if done or any(tensor.data_type not in TYPES for tensor in graph.initializer):
        before = len(graph.initializer)
        drop_unused(model)
        done += ["removed constants that nothing reads"] if len(graph.initializer) < before else []
    return done


def _cast_first(graph: onnx.GraphProto) -> list[str]:
    done = []
    known = {tensor.name for tensor in graph.initializer}
    for one in graph.input:
        if one.type.tensor_type.elem_type != TensorProto.UINT8 or one.name in known:
            continue
        moves, casts = _moved_bytes(graph, one.name)
        kinds = {attribute.i for cast in casts for attribute in cast.attribute if attribute.name == "to"}
        if not moves or len(kinds) != 1 or not kinds <= _FLOATS:
            continue
        floats = f"{one.name}_floats"
        for node in moves:
            node.input[0] = floats if node.input[0] == one.name else node.input[0]
        ends = {output.name for output in graph.output}
        for cast in casts:
            _replace_by_input(graph, cast, one.name, floats, ends)
        graph.node.insert(0, helper.make_node("Cast", [one.name], [floats], name=f"{one.name}_cast", to=kinds.pop()))
        done.append(f"cast the bytes of {one.name!r} before {moves[0].op_type}")
    return done


def _moved_bytes(graph: onnx.GraphProto, name: str) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """Return the nodes that move bytes and the casts that end them; none if anything else reads bytes."""
    moves: list[onnx.NodeProto] = []
    casts: list[onnx.NodeProto] = []
    pending = [name]
    ends = {output.name for output in graph.output}
    while pending:
        current = pending.pop()
        for node in consumers(graph, current):
            if node.op_type == "Cast":
                casts.append(node)
            elif node.op_type in _MOVES and node.input[0] == current and len(node.output) == 1:
                moves.append(node)
                pending.append(node.output[0])
            else:
                return [], []
        if current in ends:
            return [], []
    return moves, casts


def _replace_by_input(graph: onnx.GraphProto, cast: onnx.NodeProto, name: str, floats: str, ends: set[str]) -> None:
    source = floats if cast.input[0] == name else cast.input[0]
    if cast.output[0] in ends:  # an output keeps its name
        cast.CopyFrom(helper.make_node("Identity", [source], [cast.output[0]], name=cast.name))
        return
    for node in consumers(graph, cast.output[0]):
        for number, read in enumerate(node.input):
            node.input[number] = source if read == cast.output[0] else read
    graph.node.remove(cast)


def _drop_places(graph: onnx.GraphProto) -> list[str]:
    ends = {output.name for output in graph.output}
    done = []
    for node in graph.node:
        if node.op_type in {"MaxPool", "Dropout"} and len(node.output) > 1:
            second = node.output[1]
            if second not in ends and not consumers(graph, second):
                del node.output[1:]
                if second:
                    done.append(f"removed the second output of {node.op_type} {node.name!r}")
    return done
