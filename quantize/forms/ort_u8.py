"""FP32 ONNX to INT8 ONNX for ONNX Runtime on a CPU: U8 activations, S8 weights per channel, as Q/DQ nodes.

The only module that imports onnxruntime.quantization. Two parts stay in FP32: the normalisation, and everything from
the last weighted layer of each output on. A detector's last convolutions and an embedder's projection would lose
accuracy and cost little time.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.inference.onnxruntime_library import ort  # first: it switches the reports of ONNX Runtime off

# isort: split
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from edge.errors import QuantizeError, first_line
from quantize.forms import weights
from quantize.forms.calibrate import Range
from quantize.forms.graph import constants, consumers, drop_unused
from quantize.forms.group_pixels import group_pixels, stem_of

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# x86 without these adds two U8*S8 products in 16 bits, which saturate, see quantize.forms.weights.
_DOT_PRODUCT_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


@dataclass(frozen=True, slots=True)
class Fusion:
    """How many convolutions ONNX Runtime runs as INT8."""

    int8: int
    fp32: int  # left in FP32, excluded ones included
    excluded: int  # kept in FP32 on purpose
    operators: dict[str, int]  # number of each operator in the optimised graph

    @property
    def share(self) -> float:
        """Return the share of the convolutions to be quantised that run as INT8."""
        return self.int8 / max(1, self.int8 + self.fp32 - self.excluded)


def lacks_dot_product(cpuinfo: str) -> bool:
    """Return whether the CPU of this /proc/cpuinfo has no 8-bit dot product (VNNI, AMX, ARM dotprod)."""
    words = {
        word for line in cpuinfo.splitlines() if line.lower().startswith(("flags", "features")) for word in line.split()
    }
    return not words & _DOT_PRODUCT_FLAGS


def prepare(fp32: Path, prepared: Path) -> None:
    """Infer shapes and fuse batch normalisation.

    Raises:
        QuantizeError: the file is not readable as ONNX.
    """
    try:
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        _name_nodes(prepared)
    except Exception as error:  # protobuf, onnx and onnxruntime each raise their own
        raise QuantizeError(f"{fp32}: cannot read as ONNX: {first_line(error)}") from error


def _name_nodes(path: Path) -> None:
    """Give every node a name of its own: exporters may leave names out, and the forms choose nodes by name."""
    model = onnx.load(str(path))
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}_{node.output[0]}"
        taken.add(node.name)
    onnx.save(model, str(path))


def unquantised_tail(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes from the last weighted layer of each output on, including those layers."""
    producer = {name: node for node in model.graph.node for name in node.output}
    names: list[str] = []
    pending = [output.name for output in model.graph.output]
    while pending:
        node = producer.get(pending.pop())
        if node is None or node.name in names:
            continue
        names.append(node.name)
        if node.op_type not in _WEIGHTED:
            pending.extend(node.input)
    return names


def unquantised(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the nodes that stay in FP32 in every network: the normalisation and the tail."""
    return frozenset(unquantised_tail(model)) | {node.name for node in _input_arithmetic(model.graph)}


def write_int8(
    prepared: Path,
    ranges: dict[str, Range],
    means: dict[str, NDArray[np.float64]],
    out: Path,
    *,
    saturates: bool,
    keep: Collection[str] = (),
) -> None:
    """Write the INT8 form of a network.

    Args:
        prepared: the FP32 network, written by `prepare`.
        ranges: range of each float activation, by name.
        means: mean of each channel of each map, by name.
        out: the file to write.
        saturates: whether the result must also be exact on CPUs without an 8-bit dot product.
        keep: names of further nodes that stay in FP32, see quantize.forms.sensitivity.

    Raises:
        QuantizeError: the graph cannot be quantised.
    """
    try:
        model = load_model_with_shape_infer(prepared)
        excluded = unquantised(model) | frozenset(keep)
        convolutions = [conv for conv in weights.conv_weights(model.graph) if conv.node.name not in excluded]
        stem, grouping = stem_of(model.graph) or (None, None)
        steps = {
            conv.node.input[1]: weights.scales(
                conv,
                saturates=saturates,
                also=grouping.weight(conv.weight) if grouping and stem and conv.node.name == stem.name else None,
            )
            for conv in convolutions
        }
        weights.correct_bias(model, steps, means)
        overrides = _byte_input(model.graph) | {name: _per_channel(step) for name, step in steps.items()}
        data = {name: (np.array(r.low, np.float32), np.array(r.high, np.float32)) for name, r in ranges.items()}
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=saturates,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, data),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(excluded),
            op_types_to_quantize=sorted(set(QLinearOpsRegistry) | set(QDQRegistry)),
            extra_options={"TensorQuantOverrides": overrides},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized = quantizer.model.model
        _accept_byte_input(quantized)
        if stem is not None and grouping is not None:
            group_pixels(quantized, stem.name, grouping)
        drop_unused(quantized)
        onnx.checker.check_model(quantized)
        onnx.save(quantized, str(out))
    except QuantizeError:
        raise
    except Exception as error:
        raise QuantizeError(f"{prepared}: cannot quantise: {type(error).__name__}: {first_line(error)}") from error


def _byte_input(graph: onnx.GraphProto) -> dict[str, list[dict[str, Any]]]:
    """Use the bytes as the quantised input: scale one, zero point at the centre."""
    sub = _centring_node(graph)
    if sub is None:
        return {}
    centre = np.array(constants(graph)[sub.input[1]], np.uint8)
    scale = np.array(1.0, np.float32)
    return {sub.output[0]: [{"scale": scale, "zero_point": centre, "quant_type": QuantType.QUInt8}]}


def _per_channel(steps: NDArray[np.float32]) -> list[dict[str, Any]]:
    zero = np.array(0, np.int8)
    return [{"axis": 0, "quant_type": QuantType.QInt8, "scale": step, "zero_point": zero} for step in steps]


def _centring_node(graph: onnx.GraphProto) -> onnx.NodeProto | None:
    """Find the node that subtracts the centre from the camera's bytes, see quantize.forms.fold_normalisation."""
    known = constants(graph)
    for node in graph.node:
        if node.op_type == "Sub" and node.input[1] in known and known[node.input[1]].size == 1:
            transpose = next((n for n in graph.node if node.input[0] in n.output), None)
            if transpose is not None and transpose.op_type == "Transpose" and _source(graph, transpose) is not None:
                return node
    return None


def _source(graph: onnx.GraphProto, transpose: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Cast that a transposition reads; None if it reads anything else."""
    return next((n for n in graph.node if transpose.input[0] in n.output and n.op_type == "Cast"), None)


def _input_arithmetic(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Find the arithmetic of a normalisation that is not folded. Quantised, it broadcasts slowly and loses bits."""
    found: list[onnx.NodeProto] = []
    names = {graph.input[0].name}
    for node in graph.node:
        if node.op_type in {"Transpose", "Cast", "Mul", "Add", "Sub", "Div"} and names & set(node.input):
            found.append(node)
            names |= set(node.output)
    return found


def _accept_byte_input(model: onnx.ModelProto) -> None:
    """Replace Cast, Sub and QuantizeLinear at the input with the bytes that they would reproduce, in place."""
    graph = model.graph
    sub = _centring_node(graph)
    if sub is None:
        return
    readers = consumers(graph, sub.output[0])
    transpose = next(n for n in graph.node if sub.input[0] in n.output)
    cast = _source(graph, transpose)
    if cast is None or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return
    transpose.input[0] = cast.input[0]  # bytes are moved in a quarter of the time of floats
    for node in consumers(graph, readers[0].output[0]):
        node.input[0] = transpose.output[0]
    for node in (cast, sub, readers[0]):
        graph.node.remove(node)


def measure_fusion(path: Path) -> Fusion:
    """Count the convolutions that ONNX Runtime runs as INT8 on this machine.

    Raises:
        QuantizeError: ONNX Runtime cannot load the model.
    """
    with tempfile.TemporaryDirectory(prefix="finesight-fusion-") as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(optimised)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            operators = Counter(node.op_type for node in onnx.load(str(optimised)).graph.node)
            model = onnx.load(str(path))
        except Exception as error:
            raise QuantizeError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error
    known = constants(model.graph)  # a quantised weight comes out of a DequantizeLinear
    excluded = sum(node.op_type == "Conv" and node.input[1] in known for node in model.graph.node)
    int8 = operators["QLinearConv"]
    return Fusion(int8, operators["Conv"] + operators["FusedConv"], excluded, dict(sorted(operators.items())))
