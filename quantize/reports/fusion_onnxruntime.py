"""The fusion audit of ONNX Runtime on the CPU: its optimised graph, and its profile for the time of each operator.

ONNX Runtime names the operators it makes after those they replace: a quantised convolution keeps the name, an
activation that is fused adds "fused ", and the blocked layout of FP32 takes the name of the tensor. Each convolution of
the file is found by these names.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.errors import QuantizeError
from edge.inference.onnxruntime_library import ort
from quantize.reports.fusion import Convolution, FusionAudit, Graph, Precision, read_graph, shape_of, why_not_fused

RUNS = 20
_WARM_UP = 3
_ADDED = re.compile(r"^fused |_token_\d+$|_nchwc$")
_INT8 = {"QLinearConv", "ConvInteger"}
_FOLLOWING = 4  # elementwise operators after a convolution that an FP32 operator may take in


def audit_onnxruntime(path: Path, batch: NDArray[np.generic], runs: int = RUNS) -> FusionAudit:
    """Audit a model file on this machine.

    Args:
        path: the ONNX file.
        batch: its input, one picture.
        runs: how often it runs for the times.

    Raises:
        QuantizeError: the file cannot be read, holds no convolution, or ONNX Runtime cannot run it.
    """
    graph = read_graph(path)
    with tempfile.TemporaryDirectory(prefix="finesight-fusion-") as folder:
        optimised, times_ms = _optimise(path, batch, runs, Path(folder))
    by_name = {_plain(node.name): node for node in optimised.graph.node if "Conv" in node.op_type}
    constants = {tensor.name: tensor.data_type for tensor in optimised.graph.initializer}
    return FusionAudit(
        "onnxruntime",
        f"onnxruntime {ort.__version__}: its optimised graph and profile on this machine",
        tuple(_audited(graph, conv, by_name, constants, times_ms) for conv in graph.convolutions),
    )


def _audited(
    graph: Graph,
    conv: onnx.NodeProto,
    by_name: dict[str, onnx.NodeProto],
    constants: dict[str, int],
    times_ms: dict[str, float],
) -> Convolution:
    shape = shape_of(graph, conv)
    found = next((by_name[name] for name in _names(graph, conv) if name in by_name), None)
    if found is None:
        return Convolution(conv.name, shape, "FP32", "?", "not found in the optimised graph of ONNX Runtime")
    precision: Precision = "INT8" if found.op_type in _INT8 else "FP32"
    if constants.get(found.input[1]) == onnx.TensorProto.FLOAT16:
        precision = "FP16"
    why = "" if precision == "INT8" else why_not_fused(graph, conv)
    return Convolution(conv.name, shape, precision, found.op_type, why, times_ms.get(found.name))


def _names(graph: Graph, conv: onnx.NodeProto) -> list[str]:
    """Return the names that ONNX Runtime may give the operator that a convolution becomes."""
    names, tensor = [conv.name], conv.output[0]
    for _ in range(_FOLLOWING):
        names.append(tensor)
        readers = graph.readers[tensor]
        if not readers:
            break
        tensor = readers[-1].output[0]
    return names


def _plain(name: str) -> str:
    while (shorter := _ADDED.sub("", name)) != name:
        name = shorter
    return name


def _optimise(
    path: Path, batch: NDArray[np.generic], runs: int, folder: Path
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """Return the optimised graph, and the median milliseconds of each of its nodes by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(_WARM_UP + runs):
            session.run(None, {session.get_inputs()[0].name: batch})
        profile = session.end_profiling()
        optimised = onnx.load(str(folder / "optimised.onnx"))
        events = json.loads(Path(profile).read_bytes())
    except Exception as error:  # ONNX Runtime raises exception types of its C++ binding
        raise QuantizeError(
            f"{path}: ONNX Runtime cannot run it for the audit: {(str(error).splitlines() or [''])[0][:300]}"
        ) from error
    taken_us: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken_us[event["name"].removesuffix("_kernel_time")].append(float(event["dur"]))
    return optimised, {name: float(np.median(times[_WARM_UP:])) / 1000 for name, times in taken_us.items()}
