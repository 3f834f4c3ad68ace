"""Calibration: the value range of each activation over a fixed list of pictures, in one pass and constant memory.

Each picture runs once, and only one histogram of fixed size per tensor is kept. ONNX Runtime's histogram calibrator
keeps the activations of all pictures that it is given at once, and frees them between chunks: 40 pictures of one
network took 817 MiB at once and 164 MiB in fours. The digest identifies the pictures and the preprocessing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.durable import sha256_of
from edge.errors import QuantizeError, first_line
from edge.inference.onnxruntime_library import ort
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest.model import Preprocess
from edge.types import FloatArray
from quantize.pictures import Picture

BINS = 2048
_MOST_COUNTED = 1 << 16  # values of one map that are counted; low and high are those of all


@dataclass(frozen=True, slots=True)
class Range:
    """The range of one activation that INT8 represents."""

    low: float
    high: float


class Histogram:
    """A histogram whose span doubles when a value exceeds it: one pass, constant memory."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf  # lowest and highest of all values
        self._span = 0.0  # bins cover -span..span
        self._counts = np.zeros(BINS, np.int64)
        self._sums: NDArray[np.float64] | None = None  # sum of the means of each channel, over the pictures
        self._pictures = 0

    def add(self, values: FloatArray) -> None:
        """Count the values of one picture.

        Raises:
            QuantizeError: a value is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise QuantizeError(f"activations range from {low} to {high}; the network must give finite values")
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(low), abs(high))
        if self._span == 0.0:
            self._span = largest or 1.0
        while self._span < largest:
            inner = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([np.zeros(BINS // 4, np.int64), inner, np.zeros(BINS // 4, np.int64)])
            self._span *= 2
        counted = values.ravel()[:: (values.size // _MOST_COUNTED) | 1]  # odd: steps through all columns of a map
        index = ((counted + self._span) * (BINS / (2 * self._span))).astype(np.intp)
        self._counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)
        if values.ndim == 4:
            means = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).mean(axis=1)  # along memory: twice as fast
            self._sums = means.astype(np.float64) + (0.0 if self._sums is None else self._sums)
            self._pictures += 1

    @property
    def channel_means(self) -> NDArray[np.float64] | None:
        """Return the mean of each channel; None if the tensor is not a 4-D map."""
        return None if self._sums is None else self._sums / self._pictures

    def range(self, percentile: float) -> Range:
        """Return the range that holds this percentage of the values on each side. It always includes zero."""
        if percentile >= 100.0:
            return Range(min(self.low, 0.0), max(self.high, 0.0))
        share = self._counts.cumsum() / self._counts.sum()
        edges = np.linspace(-self._span, self._span, BINS + 1)
        low = edges[np.searchsorted(share, 1 - percentile / 100)]
        high = edges[np.searchsorted(share, percentile / 100) + 1]
        return Range(min(max(float(low), self.low), 0.0), max(min(float(high), self.high), 0.0))


def calibration_digest(pictures: Sequence[Picture], preprocess: Preprocess) -> str:
    """Return the SHA-256 over the preprocessing, the contents of the files and the boxes in them, in order.

    Raises:
        QuantizeError: a file cannot be read.
    """
    whole = hashlib.sha256(preprocess.model_dump_json().encode())
    for picture in pictures:
        try:
            whole.update(bytes.fromhex(sha256_of(picture.path)))
        except OSError as error:
            raise QuantizeError(f"{picture.path}: cannot read: {error.strerror}") from error
        if picture.box_px is not None:
            whole.update(repr(picture.box_px).encode())
    return whole.hexdigest()


def preprocessed_batches(pictures: Iterable[Picture], preprocess: Preprocess) -> Iterator[NDArray[np.generic]]:
    """Yield each picture as a batch of one, cut and preprocessed as on the device."""
    for picture in pictures:
        canvas, _ = to_canvas(preprocess, picture.crop(preprocess.crop_margin))
        yield to_batch(preprocess, [canvas])


def _all_tensors(model: Path) -> ort.InferenceSession:
    """Load a network with every float tensor as an output."""
    try:
        graph_model = onnx.shape_inference.infer_shapes(onnx.load(str(model)))
        graph = graph_model.graph
        known = {tensor.name for tensor in graph.initializer} | {o.name for o in graph.output}
        graph.output.extend(
            info
            for info in graph.value_info
            if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and info.name not in known
        )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # optimising would remove tensors
        return ort.InferenceSession(graph_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX and ONNX Runtime raise types of their own C++ bindings
        raise QuantizeError(f"{model}: cannot load for calibration: {first_line(error)}") from error


def _count(histogram: Histogram, name: str, values: FloatArray, model: Path) -> None:
    try:
        histogram.add(values)
    except QuantizeError as error:
        raise QuantizeError(f"{model}: tensor {name!r}: {error}") from error


def collect_histograms(model: Path, batches: Iterable[NDArray[np.generic]]) -> dict[str, Histogram]:
    """Run a network and return a histogram of each float activation.

    Raises:
        QuantizeError: the network cannot be loaded or run, or there is no batch.
    """
    session = _all_tensors(model)
    floats = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    feed = session.get_inputs()[0]
    histograms = {name: Histogram() for name in floats}
    if feed.type == "tensor(float)":
        histograms[feed.name] = Histogram()
    count = 0
    for batch in batches:
        count += 1
        try:
            values = session.run(floats, {feed.name: batch})
        except Exception as error:
            raise QuantizeError(f"{model}: cannot run for calibration: {first_line(error)}") from error
        for name, value in zip(floats, values, strict=True):
            if value.size:
                _count(histograms[name], name, value, model)
        if feed.name in histograms:
            histograms[feed.name].add(np.asarray(batch, np.float32))
    if count == 0:
        raise QuantizeError(f"{model}: there are no calibration pictures; give 100 to 300")
    return histograms
