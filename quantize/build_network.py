"""Builds one network: export to FP32, calibrate once, write its forms, compare them, choose what ships."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from edge.durable import sha256_of
from edge.errors import QuantizeError
from edge.manifest.model import Target
from edge.types import FloatArray
from quantize.compare_forms import cpu_description, evaluate
from quantize.dataset import Data
from quantize.finder_forms import build_finder_forms
from quantize.forms.form_of import FOR_TENSORRT
from quantize.forms.sensitivity import Kept
from quantize.forms.write_forms import (
    Calibration,
    Progress,
    calibrate_network,
    sensitive_layers,
    write_ort_u8,
)
from quantize.fp32_model import export_or_copy, legalise_file
from quantize.further_forms import add_form, inaccuracies, keep_layers
from quantize.gates import Gate
from quantize.network_spec import Spec
from quantize.pictures import Picture, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """Conditions on the form that ships."""

    precision: Literal["auto", "fp32"] = "auto"
    min_speedup: float = 1 / 0.9  # INT8 must be this much faster
    waived: frozenset[str] = frozenset()  # gates that may fail, as model.gate
    fallback_fp32: bool = False  # ship FP32 instead of refusing where INT8 fails an accuracy gate
    saturates: bool = False  # INT8 must also be exact on CPUs without an 8-bit dot product
    further: frozenset[Target] = frozenset()  # forms to add where they pass their gates: fp16, tensorrt-s8
    required: frozenset[Target] = frozenset()  # of these, forms without which nothing is packed


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
    further: tuple[Target, ...] = ()  # forms that ship beside it, for other engines
    # What the form that ships made of the crops that the forms were compared on: probabilities or vectors.
    outputs: Mapping[Sample, FloatArray] = field(default_factory=dict)


def choose_form(name: str, gates: Sequence[Gate], policy: Policy) -> tuple[Target, str, list[str], list[str]]:
    """Choose the form that ships.

    Returns:
        the form, the reason, the failed gates that forbid packing, and the waived gates, each as model.gate.
    """
    latency = next(gate for gate in gates if gate.name == "latency")
    speedup = f"INT8 runs at {1 / latency.value:.2f}x the speed of FP32"
    if not latency.holds and f"{name}.latency" not in policy.waived:
        return "fp32", f"{speedup} on {cpu_description()}, expected at least {1 / latency.limit.value:.2f}x", [], []
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
    if rewritten := legalise_file(fp32, spec):  # not a bit of its outputs changes: the embedding space is the same
        log.info("%s: rewritten for TensorRT: %s", name, "; ".join(rewritten))
        provenance["rewritten"] = rewritten
    plain = _why_fp32_only(spec, data, policy)
    if plain:
        return Network(name, spec, {"fp32": fp32}, "fp32", plain, {}, provenance)
    if spec.kind == "finder":
        return _build_finder(name, spec, fp32, data, policy, progress, provenance)
    pictures: Sequence[Picture] = (
        data.scenes_for(data.calibration_split) if spec.kind == "detector" else data.calibration_crops(spec)
    )
    prepared = folder / f"{name}.prepared.onnx"
    try:
        calibration = calibrate_network(spec, fp32, pictures, prepared, progress)
        return _build_forms(name, spec, folder, data, policy, calibration, provenance)
    finally:
        prepared.unlink(missing_ok=True)


def _why_fp32_only(spec: Spec, data: Data, policy: Policy) -> str:
    """Return why no other form is tried; empty if one is."""
    if policy.precision == "fp32":
        return "requested"
    detects = spec.kind in {"detector", "finder"}
    if not (data.scenes_for(data.calibration_split) if detects else data.calibration_crops(spec)):
        return f"no pictures of split {data.calibration_split!r} to calibrate INT8 on"
    if policy.fallback_fp32 and not data.has_held_out(spec):
        return f"no pictures of split {data.held_out_split!r} to compare INT8 on"
    return ""


def _build_finder(
    name: str,
    spec: Spec,
    fp32: Path,
    data: Data,
    policy: Policy,
    progress: Progress[Picture],
    provenance: dict[str, Any],
) -> Network:
    """Build a finder, which ships FP32 wherever INT8 fails a gate."""
    made = build_finder_forms(
        name, spec, fp32, data, min_speedup=policy.min_speedup, saturates=policy.saturates, progress=progress
    )
    if made.int8 is None:
        return Network(name, spec, {"fp32": fp32}, "fp32", made.why, made.evaluation, provenance)
    forms: dict[Target, Path] = {"fp32": fp32, "ort-u8": made.int8}
    ship: Target = "ort-u8" if made.ships_int8 else "fp32"
    # older devices run a finder in FP32 only
    return Network(
        name, spec, forms, ship, made.why, made.evaluation, provenance | made.record,
        int8_accurate=True, further=("fp32",),
    )  # fmt: skip


def _build_forms(
    name: str,
    spec: Spec,
    folder: Path,
    data: Data,
    policy: Policy,
    calibration: Calibration,
    provenance: dict[str, Any],
) -> Network:
    fp32, int8 = calibration.fp32, folder / f"{name}.ort-u8.onnx"

    @cache  # ranking the layers takes long, and most networks do not need it
    def choices() -> list[Kept]:
        return list(sensitive_layers(calibration, spec, saturates=policy.saturates))

    record = calibration.record() | write_ort_u8(calibration, spec, int8, saturates=policy.saturates)
    table, gates, outputs = evaluate(spec, fp32, int8, data, policy.min_speedup)
    if failures := inaccuracies(gates):
        log.info("%s: INT8 fails %s; looking for layers to keep in FP32", name, failures)

        def write(kept: Kept) -> dict[str, Any]:
            return write_ort_u8(calibration, spec, int8, saturates=policy.saturates, kept=kept)

        if kept := keep_layers(name, spec, int8, data, calibration, choices(), write):
            record |= kept
            table, gates, outputs = evaluate(spec, fp32, int8, data, policy.min_speedup)
    ship, why, failed, waived = choose_form(name, gates, policy)
    log.info("%s: ships %s: %s", name, ship, why)
    forms: dict[Target, Path] = {"fp32": fp32, "ort-u8": int8}
    known = outputs[list(forms).index(ship)] if outputs else {}
    further = [one for one in FOR_TENSORRT if one in policy.further]
    results = {
        form: add_form(
            form, name, spec, data, calibration, choices,
            waived=policy.waived, required=form in policy.required,
        )
        for form in further
    }  # fmt: skip
    for form, result in results.items():
        failed += result.failed
        waived += result.waived
        if result.path is not None:
            forms[form] = result.path
    if results:
        table["forms"] = {form: result.table for form, result in results.items()}
        record["forms"] = {form: result.record for form, result in results.items() if result.record}
    return Network(
        name, spec, forms, ship, why, table, provenance | record, failed, waived,
        int8_accurate=_accurate(gates),
        further=tuple(form for form in results if form in forms) or (("fp32",) if further else ()),
        outputs=known,
    )  # fmt: skip


def _accurate(gates: Sequence[Gate]) -> bool:
    """Return whether every gate holds but that of latency, which depends on this machine."""
    return all(gate.holds for gate in gates if gate.name != "latency")
