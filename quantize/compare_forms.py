"""Compares the forms of one network on held-out pictures: accuracy for each, fusion and speed for those of this CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.errors import QuantizeError
from edge.inference.engine import open_engine
from edge.types import FloatArray
from quantize import compare, run_forms
from quantize.dataset import Data
from quantize.forms import calibrate, ort_u8
from quantize.gates import Gate, check_measurement
from quantize.latency import RUNS, cpu_info, cpu_name, interleaved_ms
from quantize.network_spec import Spec
from quantize.pictures import Picture, Sample

# Numbers of forms that this machine cannot run come from it: see edge.inference.onnxruntime_engine.
EMULATION = "onnxruntime without optimisation (arithmetic of TensorRT, not its speed)"
Rows = Sequence[Mapping[Sample, FloatArray]]  # what each form made of each crop


def compare_network(spec: Spec, fp32: Path, forms: Sequence[Path], data: Data) -> tuple[list[compare.Comparison], Rows]:
    """Compare forms with FP32 on held-out pictures, with the metrics of the network's kind.

    Returns:
        the comparison of each form; and of a classifier and an embedder, what FP32 and each form made of each crop.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    paths = (fp32, *forms)
    if spec.kind == "detector":
        scenes = data.scenes_for(data.held_out_split)
        if not scenes:
            raise QuantizeError(
                f"detector: there are no scenes of split {data.held_out_split!r} to compare on; check "
                f"--held-out-split; there are the splits {data.splits(spec.kind)}"
            )
        first, *others = run_forms.detect(spec, paths, scenes)
        return [compare.compare_detectors(first, one, scenes, spec.score_threshold) for one in others], ()
    held_out = data.held_out_crops(spec)
    if not held_out:
        raise QuantizeError(
            f"{spec.kind}: there are no crops of split {data.held_out_split!r} to compare on; check --held-out-split; "
            f"there are the splits {data.splits(spec.kind)}"
        )
    if spec.kind == "classifier":
        outputs = run_forms.classify(spec, paths, held_out)
        truth = [sample.category for sample in held_out]
        rows = [dict(zip(held_out, output.probabilities, strict=True)) for output in outputs]
        return [compare.compare_classifiers(outputs[0], one, truth, spec.labels) for one in outputs[1:]], rows
    if spec.kind == "localiser":
        masks, *other_masks = run_forms.locate(spec, paths, held_out)
        return [compare.compare_localisers(masks, one) for one in other_masks], ()
    gallery = data.gallery_crops(spec)
    found = run_forms.embed(spec, paths, [*held_out, *gallery])
    rows = [dict(zip([*held_out, *gallery], vectors, strict=True)) for vectors in found]
    parts = [compare.Vectors(vectors[: len(held_out)], vectors[len(held_out) :]) for vectors in found]
    return [compare.compare_embedders(parts[0], one, held_out, gallery) for one in parts[1:]], rows


def evaluate(
    spec: Spec, fp32: Path, int8: Path, data: Data, min_speedup: float
) -> tuple[dict[str, Any], list[Gate], Rows]:
    """Compare FP32 and INT8 for CPUs in accuracy, fusion and speed.

    Returns:
        the table for the manifest, every gate, and the outputs as `compare_network` returns them.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    (comparison,), outputs = compare_network(spec, fp32, [int8], data)
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
    table = accuracy_table(comparison, gates, "int8")
    table["metrics"]["latency_ms"] = {"fp32": round(fp32_ms, 4), "int8": round(int8_ms, 4)}
    table |= {
        "speedup": round(fp32_ms / int8_ms, 3),
        "convolutions": {"int8": fusion.int8, "fp32": fusion.fp32, "fp32_on_purpose": fusion.excluded},
        "measured_on": {
            "cpu": cpu_description(),
            "engine": "onnxruntime",
            "threads": 1,
            "batch": 1,
            "runs": RUNS,
            "clock": "CPU time",
        },
    }
    return table, gates, outputs


def accuracy_table(comparison: compare.Comparison, gates: Sequence[Gate], form: str) -> dict[str, Any]:
    """Return metrics and gates as the manifest stores them: each metric of FP32 beside that of a form."""
    rows = {name: {"fp32": round(a, 5), form: round(b, 5)} for name, (a, b) in comparison.table.items()}
    return {"images": comparison.images, "metrics": rows, "gates": {gate.name: gate.row() for gate in gates}}


def evaluate_emulated(spec: Spec, fp32: Path, form: Path, name: str, data: Data) -> tuple[dict[str, Any], list[Gate]]:
    """Compare FP32 and a form that this machine cannot run at its speed, in accuracy.

    Returns:
        the table for the manifest, and every gate of accuracy.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    (comparison,), _ = compare_network(spec, fp32, [form], data)
    gates = list(comparison.gates)
    table = accuracy_table(comparison, gates, name)
    return table | {"measured_on": {"cpu": cpu_description(), "engine": EMULATION}}, gates


def cpu_description() -> str:
    """Return the name of this CPU, and whether it lacks an 8-bit dot product."""
    return f"{cpu_name()}{' without 8-bit dot product' if ort_u8.lacks_dot_product(cpu_info()) else ''}"
