"""Lets the first INT8 convolution read four neighbouring pixels as twelve channels, without moving a byte.

ONNX Runtime's fast INT8 convolution needs a multiple of 4 input channels. A picture has 3, so its convolution copies
every window before it multiplies. Channels are the last axis in memory, so (n, h, w, 3) is also (n, h, w / 4, 12): one
reshape, no copy. A convolution with a horizontal stride of 2 becomes one with a stride of 1 that computes two columns
at a time, as twice the channels; another reshape separates them. All outputs are bit for bit the same, at the border
too: a border cell holds the zero point, which multiplies to zero.

A fourth channel of zeros would do the same, but writing it costs more than it saves. A classifier of 96 px takes
0.40 ms with 3 channels, 0.45 ms with a fourth one by `Concat`, 0.38 ms this way; by `Pad` 0.71 ms instead of 0.51 ms in
another run (AVX2 without VNNI, one thread).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantize.forms.graph import constants, consumers

CHANNELS = 3  # of a picture
# Measured at 112 px (AVX2 without VNNI): with 16 outputs 1.24 to 1.51 x for kernels of 3 to 8, with 32 about 1.1 x.
# With 64 outputs 1.1 to 1.2 x for kernels of 3 and 4, and 0.86 to 0.99 x for larger ones, where copying matters less.
_FEW_OUTPUTS, _SMALL_KERNEL = 32, 4
GROUP = 4  # pixels side by side; 4 x 3 channels is a multiple of 4
_Number = TypeVar("_Number", bound=np.generic)
_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a convolution over pixels becomes one over groups of pixels."""

    columns: int  # output columns that one group gives
    before: int  # groups to the left of its own that an output needs
    after: int
    left_pad: int  # of the convolution over pixels

    def weight(self, weight: NDArray[_Number]) -> NDArray[_Number]:
        """Return (columns * out, GROUP * channels, height, groups) for (out, channels, height, width)."""
        out, channels, height, width = weight.shape
        stride = GROUP // self.columns
        shape = (self.columns, out, GROUP, channels, height, self.before + 1 + self.after)
        grouped = np.zeros(shape, weight.dtype)
        for column in range(self.columns):
            for tap in range(width):
                pixel = column * stride + tap - self.left_pad + self.before * GROUP
                grouped[column, :, pixel % GROUP, :, :, pixel // GROUP] = weight[:, :, :, tap]
        return grouped.reshape(self.columns * out, GROUP * channels, height, -1)


def grouping_of(conv: onnx.NodeProto, weight: NDArray[np.generic], width_px: int) -> Grouping | None:
    """Return how to group the pixels that a convolution reads; None if it would gain nothing or give other columns.

    Args:
        conv: the convolution.
        weight: its weight, (out, in / group, height, width).
        width_px: width of its input.
    """
    given = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    stride = given.get("strides", [1, 1])[1]
    _, left, _, right = given.get("pads", [0, 0, 0, 0])
    padded_by_hand = given.get("auto_pad", b"NOTSET") in {b"NOTSET", b""}
    plain = set(given.get("dilations", [1])) == {1} and given.get("group", 1) == 1
    pays = len(weight) <= _FEW_OUTPUTS or weight.shape[3] <= _SMALL_KERNEL
    # With a stride of 1, a group needs three times the multiplications.
    if not pays or weight.shape[1] != CHANNELS or stride not in {2, 4} or not padded_by_hand or not plain:
        return None
    last = GROUP - stride + weight.shape[3] - 1 - left  # the last pixel that a group's columns need
    if width_px % GROUP or (width_px + left + right - weight.shape[3]) // stride + 1 != width_px // stride:
        return None
    return Grouping(GROUP // stride, -(-left // GROUP), max(0, last // GROUP), left)


def stem_of(graph: onnx.GraphProto) -> tuple[onnx.NodeProto, Grouping] | None:
    """Find the first convolution of a network and how to group its pixels; None if it is not of that kind.

    Args:
        graph: the FP32 network, or its Q/DQ form; with the shapes of its tensors.
    """
    known = constants(graph)
    widths = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.value_info)}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in known:
            sizes = widths.get(node.input[0], ())
            found = grouping_of(node, known[node.input[1]], sizes[3].dim_value) if len(sizes) == 4 else None
            return (node, found) if found else None
    return None


def group_pixels(model: onnx.ModelProto, name: str, grouping: Grouping) -> bool:
    """Group the pixels of a quantised convolution, in place.

    Args:
        model: a network with Q/DQ nodes.
        name: name of the convolution.
        grouping: how to group its pixels.

    Returns:
        whether the graph around the convolution has the form that this needs; if not, it is unchanged.
    """
    graph = model.graph
    known = constants(graph)
    conv = next(node for node in graph.node if node.name == name)
    quantised = _quantised_output(graph, conv)
    producer = {out: node for node in graph.node for out in node.output}
    inputs = [producer[tensor] for tensor in conv.input if tensor in producer]
    constant = all(tensor in known for node in inputs[1:] for tensor in node.input)
    dequantised = all(node.op_type == "DequantizeLinear" for node in inputs) and len(inputs) == len(conv.input)
    if quantised is None or not constant or not dequantised:
        return False
    pixels, weight, *bias = inputs
    plain = known[weight.input[0]]
    _replace(graph, weight, 0, grouping.weight(plain))
    per_channel = [(weight, 1), (weight, 2), *((node, index) for node in bias for index in range(3))]
    for node, index in per_channel:
        if index < len(node.input) and known[node.input[index]].ndim:
            _replace(graph, node, index, np.tile(known[node.input[index]], grouping.columns))
    _step_by_groups(conv, grouping, plain.shape[2])
    pixels.input[0] = _reshaped(graph, pixels.input[0], GROUP * CHANNELS, "grouped")
    if grouping.columns > 1:
        readers = consumers(graph, quantised)
        single = _reshaped(graph, quantised, len(plain), "separated")
        for node in readers:
            node.input[list(node.input).index(quantised)] = single
    del graph.value_info[:]
    return True


def _quantised_output(graph: onnx.GraphProto, conv: onnx.NodeProto) -> str | None:
    """Return the bytes that a convolution and its activation function give; None if they give something else."""
    node = conv
    while node.op_type in {"Conv", "Relu", "Clip"}:
        readers = consumers(graph, node.output[0])
        if len(readers) != 1:
            return None
        node = readers[0]
    return node.output[0] if node.op_type == "QuantizeLinear" else None


def _step_by_groups(conv: onnx.NodeProto, grouping: Grouping, height: int) -> None:
    """Set the width of the kernel, the stride and the padding of a convolution, in groups."""
    given = {a.name: list(a.ints) for a in conv.attribute if a.name in {"strides", "pads"}}
    top, _, bottom, _ = given.get("pads", [0, 0, 0, 0])
    changed = {
        "kernel_shape": [height, grouping.before + 1 + grouping.after],
        "strides": [given["strides"][0], 1],
        "pads": [top, grouping.before, bottom, grouping.after],
    }
    kept = [a for a in conv.attribute if a.name not in changed and a.name != "auto_pad"]
    attributes = [*kept, *(helper.make_attribute(name, value) for name, value in changed.items())]
    del conv.attribute[:]
    conv.attribute.extend(attributes)


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, index: int, value: NDArray[np.generic]) -> None:
    name = f"{node.input[index]}_grouped"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    node.input[index] = name


def _reshaped(graph: onnx.GraphProto, tensor: str, channels: int, suffix: str) -> str:
    """Change a tensor's number of channels without moving bytes; ONNX Runtime drops both transpositions."""
    names = [f"{tensor}_{suffix}_{step}" for step in ("nhwc", "shape", "reshaped", "nchw")]
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1, channels], np.int64), names[1]))
    producers = [index for index, node in enumerate(graph.node) if tensor in node.output]
    nodes = [
        helper.make_node("Transpose", [tensor], [names[0]], name=names[0], perm=_TO_NHWC),
        helper.make_node("Reshape", names[:2], [names[2]], name=names[2]),
        helper.make_node("Transpose", [names[2]], [names[3]], name=names[3], perm=_TO_NCHW),
    ]
    for offset, node in enumerate(nodes):
        graph.node.insert(producers[0] + 1 + offset, node)
    return names[3]
