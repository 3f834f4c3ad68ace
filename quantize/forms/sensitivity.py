"""Which layers lose the accuracy of an INT8 form, and which of them to keep in FP32.

A layer is a convolution, or another operator that does arithmetic, with the activation function behind it. Each layer
alone is rounded to 8 bits in an otherwise exact network, and its error is what that does to the task's output, see
`quantize.forms.output_error`. That also tells how much of each layer's range to clip. Two kinds of layers usually lead:
those whose channels differ widely in range (the first ones, before a depthwise convolution), and those that feed an
exponential.

Rules this module keeps:
1. It is bounded: at most MOST_LAYERS roundings of a few pictures, and a few forms to judge.
2. It sees calibration pictures only. The gates judge its choice on held-out pictures, like every form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge.errors import QuantizeError, first_line
from edge.inference.onnxruntime_library import ort
from quantize.forms.calibrate import Range
from quantize.forms.graph import constants, consumers
from quantize.forms.output_error import OutputError, Outputs
from quantize.forms.weights import rounded_to_steps

PICTURES = 3  # calibration pictures that the layers are ranked on
MOST_LAYERS = 160  # a deeper network is cut into as many runs of layers
COST_LIMIT = 0.5  # share of the multiplications that may stay in FP32
_GROWTH = (1, 2, 3, 5, 8, 13, 21, 34, 55)  # numbers of layers to try to keep
_ACTIVATIONS = {"Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Tanh", "Mul"}
_LEVELS = 255


@dataclass(slots=True)
class Layer:
    """An operator with its activation function, or a run of such layers."""

    nodes: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)  # activations that it writes
    weights: list[str] = field(default_factory=list)
    multiplications: int = 0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What rounding one layer alone does."""

    layer: Layer
    error: float  # of the output, see quantize.forms.output_error
    percentile: float  # of the layer's range, with which the error is least


@dataclass(frozen=True, slots=True)
class Kept:
    """Layers to keep in FP32."""

    nodes: frozenset[str]  # nodes that are not quantised
    layers: dict[str, float]  # first node of each layer, and the error that rounding it alone makes
    cost: float  # share of the network's multiplications
    ranges: Mapping[str, Range]  # of each activation, by the percentile that suits its layer best

    def record(self) -> dict[str, object]:
        """Return the choice as the manifest stores it."""
        reasons = {name: f"alone it changes the output by {error:.1%}" for name, error in self.layers.items()}
        return {"kept_in_fp32": reasons, "kept_nodes": len(self.nodes), "kept_multiplications": round(self.cost, 4)}

    def __str__(self) -> str:
        worst = ", ".join(f"{name} ({error:.1%})" for name, error in [*self.layers.items()][:4])
        more = f" and {len(self.layers) - 4} more" if len(self.layers) > 4 else ""
        return f"{worst}{more}: {self.cost:.0%} of the multiplications"


def layers_of(model: onnx.ModelProto, excluded: frozenset[str]) -> list[Layer]:
    """Return the layers of a network in its order.

    Args:
        model: the FP32 network with the shapes of its tensors.
        excluded: names of nodes that no form quantises.
    """
    graph = model.graph
    known = constants(graph)
    sizes = {
        info.name: [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    owner: dict[str, Layer] = {}
    found: list[Layer] = []
    for node in graph.node:
        if node.op_type == "Constant" or node.name in excluded:
            continue
        before = [owner[name] for name in node.input if name in owner]
        if node.op_type not in _ACTIVATIONS or not before:
            found.append(Layer())
        layer = before[-1] if node.op_type in _ACTIVATIONS and before else found[-1]
        layer.nodes.append(node.name)
        layer.tensors += node.output
        if len(node.input) > 1 and node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
            layer.weights += [name for name in node.input[1:2] if name in known]
            of = known.get(node.input[1])
            if of is not None:
                cells = int(np.prod(sizes.get(node.output[0], [1])[2:]))
                layer.multiplications += of.size * cells
        owner |= dict.fromkeys(node.output, layer)
    return _merged(found)


def _merged(layers: list[Layer]) -> list[Layer]:
    """Join neighbours until there are at most MOST_LAYERS."""
    each = -(-len(layers) // MOST_LAYERS)
    runs = [layers[start : start + each] for start in range(0, len(layers), max(1, each))]
    return [
        Layer(
            [name for one in run for name in one.nodes],
            [name for one in run for name in one.tensors],
            [name for one in run for name in one.weights],
            sum(one.multiplications for one in run),
        )
        for run in runs
    ]


def rank_layers(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[float, Mapping[str, Range]],
    steps: Mapping[str, NDArray[np.float32]],
    batches: Sequence[NDArray[np.generic]],
    error: OutputError,
) -> list[Sensitivity]:
    """Return the error that rounding each layer alone makes, worst first.

    Args:
        model: the FP32 network.
        layers: layers of it.
        ranges: range of each activation, by percentile and name.
        steps: scale of each channel of a weight, by the name of the weight.
        batches: inputs to compare on.
        error: how far outputs are from FP32's.

    Raises:
        QuantizeError: ONNX Runtime cannot run the network.
    """
    exact = run_plainly(model, batches)
    ranked = []
    for layer in layers:
        trials: list[tuple[float, float]] = []
        for percentile, given in ranges.items():
            if trials and _same(layer, given, ranges[trials[0][1]]):
                continue  # nothing to clip
            found = run_plainly(rounded(model, layer, given, steps), batches)
            trials.append((float(np.mean([error(a, b) for a, b in zip(exact, found, strict=True)])), percentile))
        ranked.append(Sensitivity(layer, *min(trials)))
    return sorted(ranked, key=lambda one: -one.error)


def _same(layer: Layer, a: Mapping[str, Range], b: Mapping[str, Range]) -> bool:
    """Return whether two percentiles give ranges that differ by less than a hundredth."""
    spans = [(a[name].high - a[name].low, b[name].high - b[name].low) for name in layer.tensors if name in a]
    return all(abs(one - other) <= max(one, other) / 100 for one, other in spans)


def _suited_ranges(ranked: Sequence[Sensitivity], ranges: Mapping[float, Mapping[str, Range]]) -> dict[str, Range]:
    """Return the range of each activation, by the percentile that suits its layer."""
    chosen = dict(ranges[max(ranges)])
    for one in ranked:
        chosen |= {name: ranges[one.percentile][name] for name in one.layer.tensors if name in chosen}
    return chosen


def growing_choices(
    model: onnx.ModelProto, ranked: Sequence[Sensitivity], ranges: Mapping[float, Mapping[str, Range]]
) -> Iterator[Kept]:
    """Yield sets of layers to keep in FP32, each with more of the worst, until COST_LIMIT is reached.

    A tensor stays exact if neither the node that writes it nor those that read it are quantised. So the readers of a
    layer stay in FP32 with it.

    Args:
        model: the FP32 network.
        ranked: its layers, worst first.
        ranges: range of each activation, by percentile and name.
    """
    graph = model.graph
    suited = _suited_ranges(ranked, ranges)
    whole = sum(one.layer.multiplications for one in ranked) or 1
    multiplications = {one.layer.nodes[0]: one.layer.multiplications for one in ranked}
    last: frozenset[str] = frozenset()
    for count in _GROWTH:
        worst = ranked[:count]
        nodes = {name for one in worst for name in one.layer.nodes}
        nodes |= {node.name for one in worst for tensor in one.layer.tensors for node in consumers(graph, tensor)}
        cost = sum(share for name, share in multiplications.items() if name in nodes) / whole
        if cost > COST_LIMIT or nodes == last:  # or all layers are kept
            return
        last = frozenset(nodes)
        yield Kept(last, {one.layer.nodes[0]: round(one.error, 5) for one in worst}, cost, suited)


def rounded(
    model: onnx.ModelProto, layer: Layer, ranges: Mapping[str, Range], steps: Mapping[str, NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return a copy of a network with one layer rounded to 8 bits: what it writes, and its weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    writer = {name: index for index, node in enumerate(graph.node) for name in node.output}
    last = {output.name for output in graph.output}
    tensors = [name for name in layer.tensors if name in ranges and name not in last]
    for name in sorted(tensors, key=lambda one: -writer[one]):  # from the end, so that indices stay true
        scale, zero = _steps_of(ranges[name])
        names = [f"{name}_rounding_{part}" for part in ("scale", "zero", "bytes", "float")]
        graph.initializer.extend([numpy_helper.from_array(v, n) for v, n in ((scale, names[0]), (zero, names[1]))])
        for node in consumers(graph, name):
            for index, given in enumerate(node.input):
                if given == name:
                    node.input[index] = names[3]
        at = writer[name] + 1
        graph.node.insert(at, helper.make_node("DequantizeLinear", [names[2], *names[:2]], [names[3]]))
        graph.node.insert(at, helper.make_node("QuantizeLinear", [name, *names[:2]], [names[2]]))
    for tensor in graph.initializer:
        if tensor.name in layer.weights and tensor.name in steps:
            weight = np.asarray(numpy_helper.to_array(tensor), np.float64)
            step = steps[tensor.name].astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
            near = rounded_to_steps(weight, step) * step
            tensor.CopyFrom(numpy_helper.from_array(near.astype(np.float32), tensor.name))
    del graph.value_info[:]
    return copy


def _steps_of(given: Range) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the scale and the zero point of a U8 activation."""
    scale = np.float32((given.high - given.low) / _LEVELS or 1.0)
    return np.array(scale), np.array(np.clip(np.round(-given.low / scale), 0, _LEVELS), np.uint8)


def run_plainly(model: onnx.ModelProto, batches: Sequence[NDArray[np.generic]]) -> list[Outputs]:
    """Run a network as it is written, with no float arithmetic fused into its Q/DQ nodes; return its outputs.

    Raises:
        QuantizeError: ONNX Runtime cannot run it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # keeps float and Q/DQ apart
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return [session.run(None, {name: batch}) for batch in batches]
    except Exception as error:  # ONNX Runtime raises types of its own C++ bindings
        raise QuantizeError(f"cannot run the network to rank its layers: {first_line(error)}") from error
