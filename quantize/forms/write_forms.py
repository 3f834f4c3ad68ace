"""Writes the forms of a network from one calibration: U8 for ONNX Runtime, S8 and FP16 for TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.errors import QuantizeError, first_line
from edge.manifest.model import Preprocess
from quantize.forms import calibrate, fp16, ort_u8, sensitivity, tensorrt_s8
from quantize.forms.calibrate import Histogram, Range
from quantize.forms.graph import drop_unused, shorten_names
from quantize.forms.output_error import output_error
from quantize.forms.sensitivity import Kept
from quantize.forms.stored_weights import store_as_s8
from quantize.forms.tensorrt_rules import require_legal
from quantize.forms.weights import conv_weights, scales
from quantize.network_spec import Spec, write_spec
from quantize.pictures import Picture
from quantize.run_forms import open_form

PERCENTILES = (100.0, 99.999, 99.99)  # candidates; the one with outputs nearest to FP32 is kept
_TRIAL_IMAGES = 24
T = TypeVar("T")
Progress = Callable[[Sequence[T], str], Iterable[T]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What every form of a network is made from, measured once."""

    fp32: Path
    prepared: Path  # the FP32 network with batch normalisation fused
    preprocess: Preprocess  # of the pictures
    pictures: Sequence[Picture]
    histograms: Mapping[str, Histogram]  # of each float activation, by name

    def ranges(self, percentile: float) -> dict[str, Range]:
        """Return the range of each activation."""
        return {name: histogram.range(percentile) for name, histogram in self.histograms.items()}

    def means(self) -> dict[str, NDArray[np.float64]]:
        """Return the mean of each channel of each map."""
        means = {name: histogram.channel_means for name, histogram in self.histograms.items()}
        return {name: mean for name, mean in means.items() if mean is not None}

    def record(self) -> dict[str, Any]:
        """Return its provenance."""
        return {
            "calibration_digest": calibrate.calibration_digest(self.pictures, self.preprocess),
            "calibration_images": len(self.pictures),
        }

    def require(self, spec: Spec) -> None:
        """Check that a form gets the preprocessing that it was calibrated with.

        Raises:
            QuantizeError: it would get another one.
        """
        require_same_preprocessing(self.preprocess, spec.preprocess, self.fp32)


def require_same_preprocessing(calibrated: Preprocess, given: Preprocess, where: Path) -> None:
    """Check that two preprocessings are one.

    Raises:
        QuantizeError: they differ; the message names the first difference.
    """
    for name in Preprocess.model_fields:
        before, after = getattr(calibrated, name), getattr(given, name)
        if before != after:
            raise QuantizeError(
                f"{where}: was calibrated with {name} {before}, but its spec says {after}; quantise it again"
            )


def calibrate_network(
    spec: Spec, fp32: Path, pictures: Sequence[Picture], prepared: Path, progress: Progress[Picture]
) -> Calibration:
    """Measure the range of each activation of a network.

    Args:
        spec: of the network.
        fp32: the network.
        pictures: to calibrate on.
        prepared: where the prepared network is written; the forms are made from it.
        progress: wraps the pictures.

    Raises:
        QuantizeError: the network or the pictures cannot be read, or an activation is not finite.
    """
    ort_u8.prepare(fp32, prepared)
    name = fp32.name.removesuffix(".onnx").removesuffix(".fp32")
    batches = calibrate.preprocessed_batches(progress(pictures, f"calibrate {name}"), spec.preprocess)
    histograms = calibrate.collect_histograms(prepared, batches)
    return Calibration(fp32, prepared, spec.preprocess, pictures, histograms)


def quantize_network(
    spec: Spec, fp32: Path, pictures: Sequence[Picture], out: Path, *, saturates: bool, progress: Progress[Picture]
) -> dict[str, Any]:
    """Calibrate a network and write its INT8 form for CPUs.

    Returns:
        its provenance: calibration digest, number of pictures, chosen percentile, whether it is exact on every CPU.

    Raises:
        QuantizeError: the network or the pictures cannot be read, or the network cannot be quantised.
    """
    prepared = out.with_suffix(".prepared.onnx")
    try:
        calibration = calibrate_network(spec, fp32, pictures, prepared, progress)
        return calibration.record() | write_ort_u8(calibration, spec, out, saturates=saturates)
    finally:
        prepared.unlink(missing_ok=True)


def sensitive_layers(calibration: Calibration, spec: Spec, *, saturates: bool) -> Iterator[Kept]:
    """Rank the layers of a network by what INT8 does to them; yield growing sets of the worst, to keep in FP32.

    Raises:
        QuantizeError: the network cannot be run.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(str(calibration.prepared)))
    every = max(1, len(calibration.pictures) // sensitivity.PICTURES)
    pictures = calibration.pictures[::every][: sensitivity.PICTURES]
    ranges = {percentile: calibration.ranges(percentile) for percentile in PERCENTILES}
    ranked = sensitivity.rank_layers(
        model,
        sensitivity.layers_of(model, ort_u8.unquantised(model)),
        ranges,
        {conv.node.input[1]: scales(conv, saturates=saturates) for conv in conv_weights(model.graph)},
        list(calibrate.preprocessed_batches(pictures, spec.preprocess)),
        output_error(spec),
    )
    yield from sensitivity.growing_choices(model, ranked, ranges)


def write_ort_u8(
    calibration: Calibration, spec: Spec, out: Path, *, saturates: bool, kept: Kept | None = None
) -> dict[str, Any]:
    """Write the INT8 form for CPUs; return its provenance.

    Args:
        calibration: of the network.
        spec: of the network.
        out: the file to write.
        saturates: whether it must also be exact on CPUs without an 8-bit dot product.
        kept: layers that stay in FP32.

    Raises:
        QuantizeError: the network cannot be quantised, or was calibrated with another preprocessing.
    """
    means, keep = calibration.means(), kept.nodes if kept else ()

    def write(ranges: dict[str, Range], trial: Path) -> dict[str, Any]:
        ort_u8.write_int8(calibration.prepared, ranges, means, trial, saturates=saturates, keep=keep)
        finish_int8(trial)
        return {"saturation_free": saturates}

    return _write_best(calibration, spec, out, write, kept)


def finish_int8(path: Path) -> None:
    """Store the weights of an INT8 form as S8 and drop what it does not need, in place."""
    model = onnx.load(str(path))
    store_as_s8(model, "cast")
    drop_unused(model)
    shorten_names(model)
    onnx.save(model, str(path))


def write_tensorrt_s8(
    calibration: Calibration, spec: Spec, out: Path, *, rest: tensorrt_s8.Rest, kept: Kept | None = None
) -> dict[str, Any]:
    """Write the S8 form for TensorRT; return its provenance.

    Args:
        calibration: of the network.
        spec: of the network.
        out: the file to write.
        rest: what runs where nothing is quantised.
        kept: layers that are not quantised.

    Raises:
        QuantizeError: the network cannot be quantised, or was calibrated with another preprocessing.
    """
    means, keep = calibration.means(), kept.nodes if kept else ()

    def write(ranges: dict[str, Range], trial: Path) -> dict[str, Any]:
        layers = tensorrt_s8.write_s8(calibration.prepared, ranges, means, trial, rest=rest, keep=keep)
        return {"rest": rest, "layers": layers}

    record = _write_best(calibration, spec, out, write, kept)
    require_legal(onnx.load(str(out)), out)
    return record


def write_fp16(calibration: Calibration, spec: Spec, out: Path) -> dict[str, Any]:
    """Write the FP16 form; return its provenance.

    Raises:
        QuantizeError: the network cannot be converted, or was calibrated with another preprocessing.
    """
    calibration.require(spec)
    model = onnx.load(str(calibration.prepared))
    kept = fp16.convert(model, calibration.ranges(100.0))
    shorten_names(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        line = first_line(error)
        raise QuantizeError(f"{calibration.fp32}: cannot convert to FP16: {line}") from error
    require_legal(model, out)
    onnx.save(model, str(out))
    write_spec(out, spec)
    return {"in_fp32": kept}


def _write_best(
    calibration: Calibration,
    spec: Spec,
    out: Path,
    write: Callable[[dict[str, Range], Path], dict[str, Any]],
    kept: Kept | None,
) -> dict[str, Any]:
    """Write a form with the ranges of each percentile, and those of the kept layers; keep the one nearest to FP32."""
    calibration.require(spec)
    candidates: dict[float | str, Mapping[str, Range]] = {one: calibration.ranges(one) for one in PERCENTILES}
    if kept:
        candidates["by layer"] = kept.ranges
    fp32, error = open_form(calibration.fp32), output_error(spec)
    batches = list(calibrate.preprocessed_batches(calibration.pictures[:_TRIAL_IMAGES], spec.preprocess))
    exact = [fp32.run(batch) for batch in batches]
    trials = [out.with_suffix(f".{number}.onnx") for number in range(len(candidates))]
    found: list[tuple[float, float | str, Path, dict[str, Any]]] = []
    try:
        for (percentile, ranges), trial in zip(candidates.items(), trials, strict=True):
            record = write(dict(ranges), trial)
            form = open_form(trial)
            errors = [error(want, form.run(batch)) for want, batch in zip(exact, batches, strict=True)]
            found.append((float(np.mean(errors)), percentile, trial, record))
        least, percentile, best, record = min(found, key=lambda one: one[0])
        best.replace(out)
    finally:
        for trial in trials:
            trial.unlink(missing_ok=True)
    write_spec(out, spec)
    return {"percentile": percentile, "relative_error": round(least, 5), **record, **(kept.record() if kept else {})}
