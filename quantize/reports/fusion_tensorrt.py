"""The fusion audit of TensorRT: by its engine inspector where an engine exists, else by the rules of the graph.

A network is strongly typed, so the graph alone sets each precision: a convolution between Q/DQ pairs runs in INT8, one
with FP16 weights in FP16. What the graph cannot tell is which layers TensorRT fused, and their time. The report says
which of the two sources it used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx

from edge.errors import QuantizeError
from quantize.reports.fusion import (
    FOLDED,
    Convolution,
    FusionAudit,
    Graph,
    Precision,
    graph_precision,
    read_graph,
    shape_of,
    why_not_int8,
)

BY_RULES = "the rules of TensorRT applied to the graph; no engine was built or run"
BY_INSPECTOR = "TensorRT's engine inspector"
_PRECISIONS: tuple[tuple[str, Precision], ...] = (("int8", "INT8"), ("half", "FP16"), ("fp16", "FP16"))


def audit_tensorrt(path: Path, inspector: Path | None = None) -> FusionAudit:
    """Audit a model file for TensorRT.

    Args:
        path: the ONNX file.
        inspector: JSON of the engine inspector for an engine built from it, with detailed verbosity; None: only the
            graph is read.

    Raises:
        QuantizeError: a file cannot be read, or the JSON is not that of an inspector.
    """
    graph = read_graph(path)
    if inspector is None:
        rows = tuple(_by_rules(graph, conv) for conv in graph.convolutions)
        return FusionAudit("tensorrt", BY_RULES, rows)
    layers = _layers(inspector)
    return FusionAudit("tensorrt", BY_INSPECTOR, tuple(_inspected(graph, conv, layers) for conv in graph.convolutions))


def _by_rules(graph: Graph, conv: onnx.NodeProto) -> Convolution:
    """Apply the rules: what precedes sets the precision, what follows is fused as far as it may be."""
    precision = graph_precision(graph, conv)
    fused, tensor = [conv.op_type], conv.output[0]
    for _ in range(3):  # bias is part of the convolution; then an activation, an addition, a QuantizeLinear
        readers = graph.readers[tensor]
        if len(readers) != 1 or readers[0].op_type not in {*FOLDED, "Add", "QuantizeLinear"}:
            break
        fused.append(readers[0].op_type)
        tensor = readers[0].output[0]
        if fused[-1] == "QuantizeLinear":
            break
    why = "" if precision == "INT8" else why_not_int8(graph, conv)
    return Convolution(conv.name, shape_of(graph, conv), precision, "+".join(fused), why)


def _layers(inspector: Path) -> list[dict[str, Any]]:
    try:
        told = json.loads(inspector.read_bytes())
        layers = told["Layers"]
        if not all(isinstance(layer, dict) and isinstance(layer.get("Name"), str) for layer in layers):
            raise ValueError("its layers are names only; build the engine with detailed profiling verbosity")  # noqa: TRY301
    except OSError as error:
        raise QuantizeError(f"{inspector}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise QuantizeError(f"{inspector}: not the JSON of TensorRT's engine inspector: {error}") from error
    return list(layers)


def _inspected(graph: Graph, conv: onnx.NodeProto, layers: list[dict[str, Any]]) -> Convolution:
    found = next((layer for layer in layers if conv.name in _names(layer)), None)
    if found is None:
        return Convolution(conv.name, shape_of(graph, conv), "FP32", "?", "the inspector names no layer for it")
    types = " ".join(str(port.get("Format/Datatype", "")) for port in found.get("Inputs", [])[:1]).lower()
    precision: Precision = next((name for word, name in _PRECISIONS if word in types), "FP32")
    why = "" if precision == "INT8" else why_not_int8(graph, conv) or "TensorRT chose this precision"
    runs_as = f"{found.get('LayerType', 'layer')}: {found['Name']}"
    return Convolution(conv.name, shape_of(graph, conv), precision, runs_as, why)


def _names(layer: dict[str, Any]) -> set[str]:
    """Return the ONNX nodes that a layer runs: of its metadata where it has some, else of its name."""
    metadata = str(layer.get("Metadata", ""))
    told = [part.partition("]")[0].strip() for part in metadata.split("[ONNX Layer:")[1:]]
    return {*told, *(part.strip() for part in layer["Name"].split(" + "))}
