"""Builds one network: export to FP32, calibrate, write INT8, compare the two, choose the form that ships."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import onnx

from edge.durable import sha256_of
from edge.errors import QuantizeError
from edge.inference.engine import open_engine
from edge.manifest import Target
from edge.types import FloatArray
from quantize import compare, run_forms
from quantize.dataset import Data
from quantize.forms import calibrate, ort_u8
from quantize.gates import Gate, check_measurement
from quantize.latency import RUNS, cpu_info, cpu_name, interleaved_ms
from quantize.network_spec import Spec, conversion_path, model_entry, read_spec, spec_path, write_spec
from quantize.onnx_file import check_fits, fixed_batch, has_external_weights, largest_batch, read_onnx
from quantize.pictures import Picture, Sample

log = logging.getLogger(__name__)

PERCENTILES = (100.0, 99.999, 99.99)  # candidates; the one with outputs nearest to FP32 is kept
_TRIAL_IMAGES = 24
T = TypeVar("T")
Progress = Callable[[Sequence[T], str], Iterable[T]]


@dataclass(frozen=True, slots=True)
class Policy:
    """Conditions on the form that ships."""

    precision: Literal["auto", "fp32"] = "auto"
    min_speedup: float = 1 / 0.9  # INT8 must be this much faster
    waived: frozenset[str] = frozenset()  # gates that may fail, as model.gate
    fallback_fp32: bool = False  # ship FP32 instead of refusing where INT8 fails an accuracy gate
    saturates: bool = False  # INT8 must also be exact on CPUs without an 8-bit dot product


@dataclass(frozen=True, slots=True)
class Network:
    """A network with its forms and the form that was chosen."""

    name: str  # its name in the bundle: detector, classifier, embedder-<category>
    spec: Spec
    forms: dict[Target, Path]
    ship: Target
    why: str
    evaluation: dict[str, Any]
    provenance: dict[str, Any]
    failed: list[str] = field(default_factory=list)  # gates that forbid packing, as model.gate
    waived: list[str] = field(default_factory=list)  # gates that failed and were waived
    int8_accurate: bool = False  # INT8 passes every gate except latency, which depends on this machine
    # What the form that ships made of the crops that the forms were compared on: probabilities or vectors.
    outputs: Mapping[Sample, FloatArray] = field(default_factory=dict)


def export_or_copy(source: Path, fp32: Path, spec_of: Path | Spec | None = None) -> Spec:
    """Write a network as FP32 ONNX: export a training run, or copy an ONNX file that has a spec beside it.

    The weights of an ONNX file are put into the copy. A spec without `input_name` means the model's own name.

    Raises:
        TrainError: the training run cannot be loaded.
        QuantizeError: the network cannot be exported or read, has no spec, or is not what its spec says.
        EngineError: ONNX Runtime cannot run it.
    """
    if source.is_dir():
        from quantize.export import export_fp32

        return export_fp32(source, fp32)
    if source.suffix != ".onnx" or not source.is_file():
        raise QuantizeError(
            f"{source} is not a training run or an ONNX file; give a run folder or an exported .onnx model"
        )
    model = read_onnx(source)
    spec = spec_of if isinstance(spec_of, Spec) else read_spec(spec_of or spec_path(source))
    if "input_name" not in spec.model_fields_set:
        spec = spec.model_copy(update={"input_name": model.graph.input[0].name})
    if has_external_weights(source):
        onnx.save(model, str(fp32))
    elif source.resolve() != fp32.resolve():
        shutil.copyfile(source, fp32)  # byte for byte: its hash names the embedding space
    if spec.kind == "finder" and source.resolve() != fp32.resolve():
        shutil.copyfile(conversion_path(source), conversion_path(fp32))
    entry = model_entry(spec, {"fp32": fp32.name}, "fp32", "", "conversion.onnx")
    check_fits(fp32, entry, source)
    most = fixed_batch(model) or largest_batch(fp32, entry)
    if most == 1 and not fixed_batch(model):
        log.warning("%s: does not run batches, although its input says so; packed for one picture at a time", source)
    spec = spec.model_copy(update={"max_batch": most})
    write_spec(fp32, spec)
    return spec


def quantize_network(
    spec: Spec, fp32: Path, pictures: Sequence[Picture], out: Path, *, saturates: bool, progress: Progress[Picture]
) -> dict[str, Any]:
    """Write the INT8 form of a network.

    Returns:
        its provenance: calibration digest, number of pictures, chosen percentile, whether it is exact on every CPU.

    Raises:
        QuantizeError: the network or the pictures cannot be read, or the network cannot be quantised.
    """
    prepared = out.with_suffix(".prepared.onnx")
    ort_u8.prepare(fp32, prepared)
    batches = calibrate.preprocessed_batches(progress(pictures, f"calibrate {out.stem}"), spec.preprocess)
    histograms = calibrate.collect_histograms(prepared, batches)
    means = {name: mean for name, histogram in histograms.items() if (mean := histogram.channel_means) is not None}
    trials: list[tuple[float, float]] = []
    for percentile in PERCENTILES:
        ranges = {name: histogram.range(percentile) for name, histogram in histograms.items()}
        trial = out.with_suffix(f".{percentile:g}.onnx")
        ort_u8.write_int8(prepared, ranges, means, trial, saturates=saturates)
        trials.append((_quantisation_error(spec, fp32, trial, pictures[:_TRIAL_IMAGES]), percentile))
    error, percentile = min(trials)
    out.with_suffix(f".{percentile:g}.onnx").replace(out)
    for leftover in (prepared, *(out.with_suffix(f".{p:g}.onnx") for p in PERCENTILES)):
        leftover.unlink(missing_ok=True)
    write_spec(out, spec)
    return {
        "calibration_digest": calibrate.calibration_digest(pictures, spec.preprocess),
        "calibration_images": len(pictures),
        "percentile": percentile,
        "relative_error": round(error, 5),
        "saturation_free": saturates,
    }


def _quantisation_error(spec: Spec, fp32: Path, int8: Path, pictures: Sequence[Picture]) -> float:
    """Return the RMS difference of the outputs relative to FP32's RMS, averaged over outputs and pictures."""
    engines = [open_engine(path, "onnxruntime") for path in (fp32, int8)]
    errors = []
    for batch in calibrate.preprocessed_batches(pictures, spec.preprocess):
        for want, got in zip(*(engine.run(batch) for engine in engines), strict=True):
            want_f, got_f = np.asarray(want, np.float64), np.asarray(got, np.float64)
            errors.append(float(np.sqrt(((want_f - got_f) ** 2).mean() / max(float((want_f**2).mean()), 1e-12))))
    return float(np.mean(errors))


def compare_network(
    spec: Spec, fp32: Path, int8: Path, data: Data
) -> tuple[compare.Comparison, Sequence[Mapping[Sample, FloatArray]]]:
    """Compare two forms on held-out pictures with the metrics of the network's kind.

    Returns:
        the comparison; and of a classifier and an embedder, what each form made of each crop.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    forms = (fp32, int8)
    if spec.kind == "detector":
        scenes = data.scenes_for(data.held_out_split)
        if not scenes:
            raise QuantizeError(
                f"detector: there are no scenes of split {data.held_out_split!r} to compare on; check "
                f"--held-out-split; there are the splits {data.splits(spec.kind)}"
            )
        boxes = run_forms.detect(spec, forms, scenes)
        return compare.compare_detectors(boxes[0], boxes[1], scenes, spec.score_threshold), ()
    held_out = data.held_out_crops(spec)
    if not held_out:
        raise QuantizeError(
            f"{spec.kind}: there are no crops of split {data.held_out_split!r} to compare on; check --held-out-split; "
            f"there are the splits {data.splits(spec.kind)}"
        )
    if spec.kind == "classifier":
        outputs = run_forms.classify(spec, forms, held_out)
        truth = [sample.category for sample in held_out]
        rows = [dict(zip(held_out, output.probabilities, strict=True)) for output in outputs]
        return compare.compare_classifiers(outputs[0], outputs[1], truth, spec.labels), rows
    if spec.kind == "localiser":
        return compare.compare_localisers(*run_forms.locate(spec, forms, held_out)), ()
    gallery = data.gallery_crops(spec)
    found = run_forms.embed(spec, forms, [*held_out, *gallery])
    rows = [dict(zip([*held_out, *gallery], vectors, strict=True)) for vectors in found]
    first, second = (compare.Vectors(vectors[: len(held_out)], vectors[len(held_out) :]) for vectors in found)
    return compare.compare_embedders(first, second, held_out, gallery), rows


def evaluate(
    spec: Spec, fp32: Path, int8: Path, data: Data, min_speedup: float
) -> tuple[dict[str, Any], list[Gate], Sequence[Mapping[Sample, FloatArray]]]:
    """Compare two forms in accuracy, fusion and speed.

    Returns:
        the table for the manifest, every gate, and the outputs as `compare_network` returns them.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    comparison, outputs = compare_network(spec, fp32, int8, data)
    fusion = ort_u8.measure_fusion(int8)
    examples: Sequence[Picture] = (
        data.scenes_for(data.held_out_split) if spec.kind == "detector" else data.held_out_crops(spec)
    )
    batch = next(calibrate.preprocessed_batches(examples[:1], spec.preprocess))
    fp32_ms, int8_ms = interleaved_ms([open_engine(path, "onnxruntime") for path in (fp32, int8)], batch)
    gates = [
        *comparison.gates,
        check_measurement("fusion", fusion.share, fusion.int8 + fusion.fp32),
        check_measurement("latency", int8_ms / fp32_ms, RUNS, limit=1 / min_speedup),
    ]
    rows = {name: {"fp32": round(a, 5), "int8": round(b, 5)} for name, (a, b) in comparison.table.items()}
    rows["latency_ms"] = {"fp32": round(fp32_ms, 4), "int8": round(int8_ms, 4)}
    table = {
        "images": comparison.images,
        "metrics": rows,
        "speedup": round(fp32_ms / int8_ms, 3),
        "convolutions": {"int8": fusion.int8, "fp32": fusion.fp32, "fp32_on_purpose": fusion.excluded},
        "gates": {gate.name: gate.row() for gate in gates},
        "measured_on": {
            "cpu": _cpu_description(),
            "engine": "onnxruntime",
            "threads": 1,
            "batch": 1,
            "runs": RUNS,
            "clock": "CPU time",
        },
    }
    return table, gates, outputs


def _cpu_description() -> str:
    return f"{cpu_name()}{' without 8-bit dot product' if ort_u8.lacks_dot_product(cpu_info()) else ''}"


def choose_form(name: str, gates: Sequence[Gate], policy: Policy) -> tuple[Target, str, list[str], list[str]]:
    """Choose the form that ships.

    Returns:
        the form, the reason, the failed gates that forbid packing, and the waived gates, each as model.gate.
    """
    latency = next(gate for gate in gates if gate.name == "latency")
    speedup = f"INT8 runs at {1 / latency.value:.2f}x the speed of FP32"
    if not latency.holds and f"{name}.latency" not in policy.waived:
        return "fp32", f"{speedup} on {_cpu_description()}, expected at least {1 / latency.limit.value:.2f}x", [], []
    failed = [gate for gate in gates if not gate.holds]
    waived = [f"{name}.{gate.name}" for gate in failed if f"{name}.{gate.name}" in policy.waived]
    blocking = [gate for gate in failed if f"{name}.{gate.name}" not in policy.waived]
    reasons = "; ".join(str(gate) for gate in blocking)
    if blocking and policy.fallback_fp32:
        return "fp32", f"INT8 fails {reasons}", [], []
    if blocking:
        return "ort-u8", f"INT8 fails {reasons}", [f"{name}.{gate}" for gate in blocking], []
    uncertain = [gate.name for gate in gates if gate.verdict == "insufficient data"]
    return (
        "ort-u8",
        f"{speedup}; gates hold" + (f", too few images to be sure of {uncertain}" if uncertain else ""),
        [],
        waived,
    )


def build_network(
    name: str,
    source: Path,
    folder: Path,
    data: Data,
    policy: Policy,
    progress: Progress[Picture],
    spec_of: Path | Spec | None = None,
) -> Network:
    """Export, quantise and compare one network, and choose the form that ships.

    Args:
        name: name of the network in the bundle: its kind, for embedders with `-` and more.
        source: a training run or an ONNX file.
        folder: where the files are written.
        data: pictures to calibrate and compare on.
        policy: conditions on the form that ships.
        progress: wraps the calibration pictures.
        spec_of: spec of an ONNX file, or its path, if it is not beside the file.

    Raises:
        TrainError: the training run cannot be loaded.
        QuantizeError: the network cannot be exported, quantised or compared.
    """
    fp32 = folder / f"{name}.fp32.onnx"
    spec = export_or_copy(source, fp32, spec_of)
    if spec.kind != name.partition("-")[0]:
        raise QuantizeError(f"{source}: its kind is {spec.kind}; give it with --{spec.kind}")
    if spec.kind == "embedder" and not spec.categories:
        spec = spec.model_copy(update={"categories": data.categories()})
    provenance: dict[str, Any] = {"fp32_sha256": sha256_of(fp32), "training": spec.record}
    if spec.kind == "finder":
        return Network(name, spec, {"fp32": fp32}, "fp32", "finders run in FP32", {}, provenance)
    if policy.precision == "fp32":
        return Network(name, spec, {"fp32": fp32}, "fp32", "requested", {}, provenance)
    pictures: Sequence[Picture] = (
        data.scenes_for(data.calibration_split) if spec.kind == "detector" else data.calibration_crops(spec)
    )
    if not pictures:
        why = f"no pictures of split {data.calibration_split!r} to calibrate INT8 on"
        return Network(name, spec, {"fp32": fp32}, "fp32", why, {}, provenance)
    if policy.fallback_fp32 and not data.has_held_out(spec):
        why = f"no pictures of split {data.held_out_split!r} to compare INT8 on"
        return Network(name, spec, {"fp32": fp32}, "fp32", why, {}, provenance)
    int8 = folder / f"{name}.ort-u8.onnx"
    provenance |= quantize_network(spec, fp32, pictures, int8, saturates=policy.saturates, progress=progress)
    table, gates, outputs = evaluate(spec, fp32, int8, data, policy.min_speedup)
    ship, why, failed, waived = choose_form(name, gates, policy)
    log.info("%s: ships %s: %s", name, ship, why)
    accurate = all(gate.holds for gate in gates if gate.name != "latency")
    forms: dict[Target, Path] = {"fp32": fp32, "ort-u8": int8}
    known = outputs[list(forms).index(ship)] if outputs else {}
    return Network(name, spec, forms, ship, why, table, provenance, failed, waived, accurate, known)
