"""ONNX files from anywhere: read with their external weights, and checked against what their spec says of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.errors import EngineError, QuantizeError
from edge.inference.engine import open_engine
from edge.inference.preprocess import to_batch
from edge.manifest.stages import DetectorModel
from edge.types import FloatArray
from quantize.network_spec import MAX_BATCH, Model

log = logging.getLogger(__name__)

MAX_BYTES = 2**31 - 1  # of one message in protocol buffers
_DTYPES = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
_GREY = 114
_ROUNDING = 1e-3
_BOX_CHANNELS = {"ltrb": 4, "yolox": 5}  # channels before those of the classes


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file; weights in files beside it are put into the model.

    Raises:
        QuantizeError: the file, or one with its weights, is missing, damaged, too large or outside its folder.
    """
    _require_size(path, _size(path))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read: {error.strerror}") from error
    except DecodeError:
        raise QuantizeError(f"{path}: not an ONNX file, or truncated; export or copy it again") from None
    if not model.graph.input or not model.graph.output or not model.graph.node:
        raise QuantizeError(f"{path}: not an ONNX file with inputs and outputs, or truncated; export or copy it again")
    if not all(isinstance(one.name, str) for one in (*model.graph.input, *model.graph.output)):
        raise QuantizeError(f"{path}: the names of its inputs and outputs are not UTF-8; export or copy it again")
    _embed_weights(model, path)
    return model


def has_external_weights(path: Path) -> bool:
    """Return whether an ONNX file that was read before has weights in other files."""
    return bool(_external(onnx.load(str(path), load_external_data=False)))


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read: {error.strerror}") from error
    if not size:
        raise QuantizeError(f"{path}: is empty; export or copy it again")
    return size


def _require_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise QuantizeError(f"{path}: {size} bytes with its weights; a model in a bundle has at most {MAX_BYTES}")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph and of the graphs in its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(graph)


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = [*_tensors(model.graph)]
    for function in model.functions:
        tensors += _tensors_of_nodes(function.node)
    return [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _embed_weights(model: onnx.ModelProto, path: Path) -> None:
    parts = [(tensor, *_place(tensor, path)) for tensor in _external(model)]
    _require_size(path, _size(path) + sum(length for *_, length in parts))
    for tensor, file, offset, length in parts:
        with file.open("rb") as weights:
            weights.seek(offset)
            tensor.raw_data = weights.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _place(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """Return file, offset and length in bytes of an external tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = str(entries.get("location", ""))  # protocol buffers give bytes where it is not UTF-8
    inner = PurePosixPath(location.replace("\\", "/"))
    folder = path.parent.resolve()
    file = folder / inner
    leaves = inner.is_absolute() or ".." in inner.parts or ":" in location or "\0" in location
    if not location or leaves or not file.resolve().is_relative_to(folder):
        raise QuantizeError(
            f"{path}: the weights of {tensor.name!r} are in {location!r}, outside the model's folder; save the model "
            "with its weights beside it"
        )
    if not file.is_file():
        raise QuantizeError(f"{path}: its weights are in {path.parent / inner}, which is missing; copy it there")
    size = _size(file)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else size - offset
        expected = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError, TypeError) as error:
        raise QuantizeError(f"{path}: the place of the weights of {tensor.name!r} cannot be read: {error}") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise QuantizeError(
            f"{path}: the weights of {tensor.name!r} are bytes {offset} to {offset + length} of {path.parent / inner}, "
            f"which has {size}; it is truncated or of another model: copy it again"
        )
    if length < expected and not _is_packed(tensor):
        raise QuantizeError(f"{path}: {tensor.name!r} has {length} bytes of weights, expected {expected}")
    return file, offset, length


def _is_packed(tensor: onnx.TensorProto) -> bool:
    """Return whether several numbers share a byte."""
    return any(bits in _dtype_name(tensor.data_type) for bits in ("int4", "int2", "float4"))


def check_fits(path: Path, model: Model, where: object) -> None:
    """Check that an ONNX file is what its spec or manifest says, by its graph and by one run on a grey picture.

    Args:
        path: the file; its weights are inside.
        model: what the spec or manifest says.
        where: names the file in messages.

    Raises:
        QuantizeError: names, types, shapes or values differ.
        EngineError: ONNX Runtime cannot load or run it.
    """
    graph = read_onnx(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]
    if [one.name for one in inputs] != [model.input_name]:
        raise QuantizeError(
            f"{where}: the model has the inputs {[one.name for one in inputs]}, "
            f"but its spec says input_name {model.input_name!r}"
        )
    if (outputs := [one.name for one in graph.output]) != model.output_names:
        raise QuantizeError(
            f"{where}: the model has the outputs {outputs}, in this order, "
            f"but its spec says output_names {model.output_names}"
        )
    _check_input(inputs[0], model, where)
    if unknown := sorted(set(getattr(model, "keep_labels", None) or ()) - set(getattr(model, "labels", ()))):
        raise QuantizeError(f"{where}: keep_labels has {unknown}, which labels does not have")
    _check_outputs(_run(path, model, 1), model, where)


def _check_input(value: onnx.ValueInfoProto, model: Model, where: object) -> None:
    spec, tensor = model.preprocess, value.type.tensor_type
    found: list[int | str] = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    rows = found[0] if found else "?"
    sides = [spec.height, spec.width]
    expected = [rows, *sides, 3] if spec.layout == "nhwc" else [rows, 3, *sides]
    fits = len(found) == 4 and all(not isinstance(a, int) or a == b for a, b in zip(found, expected, strict=True))
    if tensor.elem_type != _DTYPES[spec.dtype] or not fits:
        raise QuantizeError(
            f"{where}: the model's input {value.name!r} is {_dtype_name(tensor.elem_type)} {found}, but its "
            f"spec says {spec.dtype} {expected} (preprocess: dtype, layout {spec.layout}, height, width)"
        )
    if isinstance(rows, int) and rows != 1:
        raise QuantizeError(f"{where}: the model takes batches of {rows} only; export it with a batch size of 1")


def _dtype_name(elem_type: int) -> str:
    known: dict[int, str] = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    name = known.get(elem_type, f"type {elem_type}")
    return "float32" if name == "float" else name


def _run(path: Path, model: Model, rows: int) -> list[NDArray[np.generic]]:
    spec = model.preprocess
    canvas = np.full((spec.height, spec.width, 3), _GREY, np.uint8)
    return open_engine(path, "onnxruntime").run(to_batch(spec, [canvas] * rows))


def _check_outputs(outputs: Sequence[NDArray[np.generic]], model: Model, where: object) -> None:
    found, expected = [one.shape for one in outputs], model.output_shapes(1)
    if found != expected:
        raise QuantizeError(
            f"{where}: the model gives outputs of shapes {found}, but its spec means {expected}"
            f"{_reason(found, expected, model)}"
        )
    values = [np.asarray(one, np.float32) for one in outputs]
    if not all(np.isfinite(one).all() for one in values):
        raise QuantizeError(f"{where}: the model gives values that are not finite on a grey picture")
    if isinstance(model, DetectorModel):
        _notice_ranges(values, model, where)


def _reason(found: Sequence[tuple[int, ...]], expected: Sequence[tuple[int, ...]], model: Model) -> str:
    """Return what about a detector or classifier differs, where that is plain."""
    if isinstance(model, DetectorModel):
        axis, boxes = (2 if model.decoder == "yolox" else 1), _BOX_CHANNELS[model.decoder]
        others = [(*shape[:axis], *shape[axis + 1 :]) for shape in (*found, *expected)]
        if others[: len(found)] == others[len(found) :]:
            return f": {found[0][axis] - boxes} class channels for {len(model.labels)} labels"
        return f": decoder {model.decoder}, strides {model.strides}, {len(model.labels)} labels"
    if hasattr(model, "labels") and len(found) == len(expected):
        return f": {found[0][-1] if found[0] else 0} outputs for {len(model.labels)} labels"
    return ""


def _notice_ranges(values: Sequence[FloatArray], model: DetectorModel, where: object) -> None:
    """Warn of outputs that the decoder would misread: their shapes fit, so nothing else would tell."""
    if model.decoder == "yolox":
        low, high = float(values[0][..., 4:].min()), float(values[0][..., 4:].max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            log.warning(
                "%s: decoder yolox needs probabilities, and the model gives %.3g to %.3g for objectness and classes; "
                "export it with a sigmoid on them, or the scores will be wrong",
                where,
                low,
                high,
            )
    elif (low := min(float(one[:, :4].min()) for one in values)) < -_ROUNDING:
        log.warning("%s: decoder ltrb needs distances of 0 or more, and the model gives %.3g", where, low)


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """Return the batch size that a model's input is fixed to; None if it is dynamic."""
    shape = model.graph.input[0].type.tensor_type.shape.dim
    return shape[0].dim_value or None if shape else None


def largest_batch(path: Path, model: Model) -> int:
    """Return the largest batch that a model with a dynamic batch size runs: MAX_BATCH, or 1 if it fails."""
    try:
        outputs = _run(path, model, MAX_BATCH)
    except EngineError:
        return 1
    return MAX_BATCH if [one.shape for one in outputs] == model.output_shapes(MAX_BATCH) else 1
