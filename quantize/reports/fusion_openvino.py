"""The fusion audit of OpenVINO on the CPU: its runtime model names the nodes of the file that each layer runs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.errors import QuantizeError
from edge.inference.openvino_engine import Layer, profile_layers
from quantize.reports.fusion import (
    Convolution,
    FusionAudit,
    Graph,
    Precision,
    read_graph,
    shape_of,
    why_not_int8,
)

RUNS = 20
_PRECISIONS: dict[str, Precision] = {"u8": "INT8", "i8": "INT8", "f16": "FP16", "bf16": "FP16"}
_SUFFIX = "/WithoutBiases"  # of a convolution whose bias OpenVINO reads as a node of its own


def audit_openvino(path: Path, batch: NDArray[np.generic], runs: int = RUNS) -> FusionAudit:
    """Audit a model file on this machine.

    Args:
        path: the ONNX file.
        batch: its input, one picture.
        runs: how often it runs for the times.

    Raises:
        QuantizeError: the file cannot be read or holds no convolution.
        EngineError: OpenVINO cannot load or run it.
    """
    graph = read_graph(path)
    library, layers = profile_layers(path, batch, runs)
    by_name: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        for name in layer.original_names:
            by_name[name.removesuffix(_SUFFIX)].append(layer)
    rows = []
    for conv in graph.convolutions:
        found = next((one for one in by_name[conv.name] if "onvolution" in one.kind), None)
        if found is None:
            raise QuantizeError(f"{path}: OpenVINO's runtime model has no layer for {conv.name!r}")
        precision = _PRECISIONS.get(found.precision, "FP32")
        runs_as = f"{found.kind}, {found.primitive}"
        why = "" if precision == "INT8" else _why(graph, conv)
        rows.append(Convolution(conv.name, shape_of(graph, conv), precision, runs_as, why, found.ms))
    return FusionAudit("openvino", f"{library}: its runtime model and counters on this machine", tuple(rows))


def _why(graph: Graph, conv: onnx.NodeProto) -> str:
    if why := why_not_int8(graph, conv):
        return why
    before = graph.producer.get(graph.producer[conv.input[0]].input[0])
    if before is None or before.op_type != "QuantizeLinear":
        # measured: with a QuantizeLinear whose scale is not one, OpenVINO runs a first convolution in INT8
        what = "bytes" if before is None else f"bytes from {before.op_type}"
        return f"its input is {what} without a QuantizeLinear; OpenVINO turns only whole Q/DQ pairs into INT8"
    return "OpenVINO runs it in floating point, although the file allows INT8"
