"""Folds a network's normalisation into its first convolution, so that the network takes camera bytes.

    conv(x * scale + bias)  ->  conv'(u8 - centre)

`centre` is one whole number for all channels, because a quantised convolution has one zero point. Its input is then
the camera's bytes, without a multiplication before it (measured, 96 px, one AVX2 thread: 0.48 ms instead of 1.18 ms, of
which 0.98 ms was the quantised multiplication and addition). The interior is exact. The convolution's zero padding,
which was the mean colour, becomes the grey `centre`. The two are equal if 255 * mean is one whole number.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantize.forms.graph import constants, consumers

CENTRED = "image_centred"


def _chain(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """Return Cast, Transpose, Mul, Add, Conv from the input on; None if the graph does not start with that chain."""
    name, nodes = graph.input[0].name, []
    for wanted in ("Cast", "Transpose", "Mul", "Add", "Conv"):
        readers = consumers(graph, name)
        if len(readers) != 1 or readers[0].op_type != wanted:
            return None
        nodes.append(readers[0])
        name = readers[0].output[0]
    return nodes


def _per_channel(node: onnx.NodeProto, known: dict[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    value = next(known[name] for name in node.input if name in known)
    return np.broadcast_to(np.asarray(value, np.float64).reshape(-1), (3,))


def fold_normalisation(model: onnx.ModelProto) -> bool:
    """Fold the normalisation in place and return True; leave a graph of another form unchanged and return False."""
    graph = model.graph
    chain = _chain(graph)
    known = constants(graph)
    if chain is None or chain[-1].input[1] not in known:
        return False
    _, transpose, mul, add, conv = chain
    if any(a.name == "group" and a.i != 1 for a in conv.attribute):
        return False
    scale, bias = _per_channel(mul, known), _per_channel(add, known)
    centre = float(np.clip(np.round(np.mean(-bias / scale)), 0, 255))
    weight = np.asarray(known[conv.input[1]], np.float64)
    offset = (scale * centre + bias)[None, :, None, None]
    old_bias = np.asarray(known[conv.input[2]], np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
    names = [f"{conv.name}_folded_weight", f"{conv.name}_folded_bias"]
    folded = [weight * scale[None, :, None, None], old_bias + (weight * offset).sum(axis=(1, 2, 3))]
    graph.initializer.extend(
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in zip(names, folded, strict=True)]
    )
    graph.initializer.append(numpy_helper.from_array(np.asarray(centre, np.float32), "image_centre"))
    position = list(graph.node).index(transpose) + 1
    graph.node.insert(
        position, helper.make_node("Sub", [transpose.output[0], "image_centre"], [CENTRED], name="centre")
    )
    for node in (mul, add):
        graph.node.remove(node)
    del conv.input[:]
    conv.input.extend([CENTRED, *names])
    return True


def pool_by_average_pool(model: onnx.ModelProto) -> None:
    """Replace a mean over height and width with GlobalAveragePool, in place. ONNX Runtime quantises only that form."""
    graph = model.graph
    known = constants(graph)
    for node in [n for n in graph.node if n.op_type == "ReduceMean"]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axes = attributes.get("axes") or (known[node.input[1]].tolist() if len(node.input) > 1 else [])
        if [axis % 4 for axis in axes] != [2, 3]:
            continue
        position = list(graph.node).index(node)
        graph.node.remove(node)
        keep = bool(attributes.get("keepdims", 1))
        pooled = node.output[0] if keep else f"{node.output[0]}_pooled"
        if not keep:
            graph.node.insert(
                position, helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1)
            )
        pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool")
        graph.node.insert(position, pool)
