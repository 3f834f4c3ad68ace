"""Adds the forms of a network for other engines than this CPU: writes them, compares them, leaves out what fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from edge.errors import QuantizeError
from edge.manifest.model import Target
from quantize.compare_forms import compare_network, evaluate_emulated
from quantize.dataset import Data
from quantize.forms.sensitivity import Kept
from quantize.forms.tensorrt_rules import require_legal
from quantize.forms.write_forms import Calibration, write_fp16, write_tensorrt_s8
from quantize.gates import Gate
from quantize.network_spec import Spec

log = logging.getLogger(__name__)


def inaccuracies(gates: Sequence[Gate]) -> str:
    """Return the gates of accuracy that fail on enough pictures to know."""
    return "; ".join(str(gate) for gate in gates if gate.verdict == "fail" and gate.name not in {"latency", "fusion"})


def keep_layers(
    name: str,
    spec: Spec,
    int8: Path,
    data: Data,
    calibration: Calibration,
    choices: Sequence[Kept],
    write: Callable[[Kept], dict[str, Any]],
) -> dict[str, Any]:
    """Keep more and more layers in FP32 until INT8 passes the gates on the calibration pictures.

    If nothing passes, the form with the most layers in FP32 stays, and its record says which layers they are.

    Returns:
        the provenance of the form that stays; empty if there was no choice to try.
    """
    seen = replace(data, held_out_split=data.calibration_split)
    record: dict[str, Any] = {}
    for kept in choices:
        record = write(kept)
        (comparison,), _ = compare_network(spec, calibration.fp32, [int8], seen)
        if not (failures := inaccuracies(comparison.gates)):
            log.info("%s: keeps in FP32: %s", name, kept)
            return record
        log.info("%s: with these in FP32, INT8 still fails %s on the calibration pictures: %s", name, failures, kept)
    return record


@dataclass(slots=True)
class AddedForm:
    """A form for another engine: its file if it ships, and what the manifest says of it."""

    table: dict[str, Any]
    path: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    waived: list[str] = field(default_factory=list)


def add_form(
    form: Target,
    name: str,
    spec: Spec,
    data: Data,
    calibration: Calibration,
    choices: Callable[[], list[Kept]],
    *,
    waived: frozenset[str],
    required: bool,
) -> AddedForm:
    """Write a form and compare it; one that cannot be written or fails a gate is left out, with the reason.

    Args:
        form: fp16 or tensorrt-s8.
        name: of the network in the bundle.
        spec: of the network.
        data: pictures to compare on.
        calibration: of the network; the form is written beside its FP32 model.
        choices: returns growing sets of layers that need not be quantised; it may take long.
        waived: gates that may fail, as model.form.gate.
        required: whether a failed gate forbids packing.

    Raises:
        QuantizeError: the form was required and cannot be written.
    """
    path = calibration.fp32.with_name(f"{name}.{form}.onnx")
    added = AddedForm({})
    try:
        require_legal(onnx.load(str(calibration.fp32)), f"{name}.{form}")
        for record in _written(form, f"{name}.{form}", calibration, spec, path, data, choices):
            table, gates = evaluate_emulated(spec, calibration.fp32, path, form, data)
            broken = {f"{name}.{form}.{gate.name}": gate for gate in gates if not gate.holds}
            failures = [f"{name}.{form}.{gate}" for key, gate in broken.items() if key not in waived]
            added = AddedForm(table, path, record, failures, sorted(set(broken) & waived))
            if not failures:
                break
    except QuantizeError as error:
        if required:
            raise
        log.warning("%s: left out: %s", f"{name}.{form}", error)
        return AddedForm({"packed": False, "why": str(error)})
    why = f"fails {'; '.join(added.failed)}" if added.failed else "gates hold"
    if added.failed:
        log.warning("%s.%s: left out: %s", name, form, why)
    added.table |= {"packed": not added.failed, "why": why}
    if added.failed:
        added.path = None
        added.failed = added.failed if required else []
    return added


def _written(
    form: Target,
    name: str,
    calibration: Calibration,
    spec: Spec,
    path: Path,
    data: Data,
    choices: Callable[[], list[Kept]],
) -> Iterator[dict[str, Any]]:
    """Write a form again and again, more exactly each time; yield the provenance of each."""
    if form == "fp16":
        yield write_fp16(calibration, spec, path)
        return
    for rest in ("fp16", "fp32"):
        yield write_tensorrt_s8(calibration, spec, path, rest=rest)

    def write(kept: Kept) -> dict[str, Any]:
        return write_tensorrt_s8(calibration, spec, path, rest="fp16", kept=kept)

    if record := keep_layers(name, spec, path, data, calibration, choices(), write):
        yield record
