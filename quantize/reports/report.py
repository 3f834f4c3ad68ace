"""Makes the report of a bundle: what it holds, what each form gains and costs, and what this machine would run.

The folder gets `report.html`, one page with its pictures inside, and `report.json`, the same numbers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle.bundle import Bundle, read_bundle
from edge.errors import CaptureError, EngineError, QuantizeError
from edge.imaging.image import read_image
from edge.inference.engine import RUNS
from edge.inference.engine_choice import choice_path, models_of, read_choice
from edge.manifest.model import Target
from edge.types import Image
from quantize.compare_forms import cpu_description
from quantize.dataset import Data
from quantize.forms.form_of import FOR_TENSORRT
from quantize.forms.ort_u8 import lacks_dot_product
from quantize.latency import cpu_info
from quantize.reports import bundle_models
from quantize.reports.accuracy import Flip, FormAccuracy, measure_accuracy
from quantize.reports.bundle_models import BundleModel
from quantize.reports.fusion import FusionAudit
from quantize.reports.fusion_onnxruntime import audit_onnxruntime
from quantize.reports.fusion_tensorrt import audit_tensorrt
from quantize.reports.measure import backends_here, input_batch, measure_latency, measure_memory
from quantize.reports.report_page import render_page

log = logging.getLogger(__name__)

_MANY = 24  # models from which each is timed less often
_FEWER_RUNS = 20
Progress = Callable[[Sequence[BundleModel], str], Iterable[BundleModel]]


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What to report."""

    out: Path
    state: Path | None = None  # state folder of a device, for what it chose
    measure: bool = True  # latency, memory and fusion on this machine
    tensorrt_layers: Path | None = None  # folder of engine inspector JSON, <model>.<form>.json


def write_report(folder: Path, options: ReportOptions, data: Data | None, progress: Progress) -> dict[str, Any]:
    """Write the report of a bundle into a new folder; return what `report.json` holds.

    Args:
        folder: of the bundle.
        options: what to report.
        data: pictures to measure accuracy on again; None: only what was measured when the bundle was packed.
        progress: wraps the models.

    Raises:
        BundleError: the bundle is damaged.
        QuantizeError: the output folder exists, or there are pictures but none fits a model.
        EngineError: a model cannot be run.
    """
    new_folder(options.out)
    bundle = read_bundle(folder)
    models = bundle_models.models_of(bundle)
    chosen = _chosen(bundle, models, options.state)
    accuracies = {one.name: {} if data is None else measure_accuracy(one, data) for one in progress(models, "accuracy")}
    backends, problems = backends_here() if options.measure else ([], {})
    memory = measure_memory(models, backends)
    rows = []
    for one in progress(models, "measure"):
        row = _model_row(one, accuracies[one.name], chosen.get(one.name))
        if options.measure:
            picture = _probe_picture(bundle, one)
            row |= _measured(one, backends, picture, options, len(models) > _MANY)
            row["memory_mib"] = {
                f"{backend} {form}": round(mib, 2)
                for backend, grew in memory.items()
                if not isinstance(grew, str)
                for (name, form), mib in grew.items()
                if name == one.name
            }
        rows.append(row)
    report = {
        "bundle": {
            "id": bundle.manifest.bundle_id,
            "sequence": bundle.manifest.sequence,
            "created_at": bundle.manifest.created_at,
            "bytes": sum(entry.size for entry in bundle.manifest.files),
            "packed_on": bundle.manifest.provenance.get("cpu", ""),
            "waived": list(bundle.manifest.waived),
            "warnings": list(bundle.manifest.evaluation.get("warnings", [])),
        },
        "made": {
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cpu": cpu_description(),
            "cores": os.cpu_count(),
            "load_1_min": round(os.getloadavg()[0], 1),
            "engines": backends,
            "not_tried": problems | {name: why for name, why in memory.items() if isinstance(why, str)},
            "accuracy_measured": data is not None,
        },
        "models": rows,
    }
    _write(options.out, report, accuracies)
    return report


def new_folder(out: Path) -> None:
    """Check that a folder can be made.

    Raises:
        QuantizeError: it exists, or something on its path is no folder.
    """
    if out.exists() or out.is_symlink():
        raise QuantizeError(f"{out} already exists; choose a new folder with -o")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuantizeError(f"{out.parent}: cannot make the folder: {error.strerror}") from error


def _model_row(
    one: BundleModel, accuracy: Mapping[Target, FormAccuracy], chosen: dict[str, Any] | None
) -> dict[str, Any]:
    preprocess = one.spec.preprocess
    return {
        "name": one.name,
        "kind": one.spec.kind,
        "categories": list(one.spec.categories),
        "input": f"{preprocess.width}x{preprocess.height} {preprocess.dtype} {preprocess.layout}",
        "ship": one.model.ship,
        "why": one.model.why,
        "bytes": {form: path.stat().st_size for form, path in one.files.items()},
        "packed": dict(one.evaluation),
        "measured": {form: result.row() for form, result in accuracy.items()},
        "saturates_here": one.provenance.get("saturation_free") is False and lacks_dot_product(cpu_info()),
        "chosen": chosen,
    }


def _measured(
    one: BundleModel,
    backends: Sequence[str],
    picture: Image | None,
    options: ReportOptions,
    many: bool,
) -> dict[str, Any]:
    batch = input_batch(one.spec.preprocess, picture)
    runs = {"runs": _FEWER_RUNS} if many else {}
    audits = []
    for form in one.files:
        for backend in ("onnxruntime", "openvino", "tensorrt"):
            try:
                if (audit := _audit(one, backend, form, batch, backends, options.tensorrt_layers)) is not None:
                    audits.append({"form": form, **audit.row()})
            except (EngineError, QuantizeError) as error:
                log.warning("%s: no fusion audit of %s %s: %s", one.name, backend, form, error)
    return {
        "latency": [timed.row() for timed in measure_latency(one, backends, batch, **runs)],
        "fusion": audits,
    }


def _audit(
    one: BundleModel,
    backend: str,
    form: Target,
    batch: NDArray[np.generic],
    backends: Sequence[str],
    layers: Path | None,
) -> FusionAudit | None:
    """Return the audit of one engine and form; None if that engine does not run this form, or is not here."""
    path = one.files[form]
    if backend == "tensorrt" and form in FOR_TENSORRT:  # needs no TensorRT: the graph tells
        inspected = None if layers is None else layers / f"{one.name}.{form}.json"
        return audit_tensorrt(path, inspected if inspected is not None and inspected.is_file() else None)
    if backend not in backends or form not in RUNS[backend]:
        return None
    if backend == "onnxruntime":
        return audit_onnxruntime(path, batch)
    if backend == "openvino":
        from quantize.reports.fusion_openvino import audit_openvino  # only where it is installed

        return audit_openvino(path, batch)
    return None


def _probe_picture(bundle: Bundle, one: BundleModel) -> Image | None:
    """Return a probe that the model may see; None without one."""
    manifest = bundle.manifest
    paths = [probe.path for probe in manifest.scene_probes] if one.spec.kind == "detector" else []
    paths += [p.path for p in manifest.probes if not one.spec.categories or p.category in one.spec.categories]
    try:
        return read_image(bundle.path(paths[0])) if paths else None
    except CaptureError as error:
        log.warning("%s", error)
        return None


def _chosen(bundle: Bundle, models: Sequence[BundleModel], state: Path | None) -> dict[str, dict[str, Any]]:
    """Return what a device chose for each model, by its name in the bundle.

    Raises:
        QuantizeError: the state folder is missing, or holds no choice for this bundle.
    """
    if state is None:
        return {}
    if not state.is_dir():
        raise QuantizeError(f"{state}: no such folder; give the state folder of a device (state_dir)")
    choice = read_choice(choice_path(state, bundle.manifest))
    if choice is None:
        raise QuantizeError(f"{state}: holds no choice of engines for bundle {bundle.manifest.bundle_id}")
    names = {id(one.model): one.name for one in models}
    found = {}
    for key, model in models_of(bundle.manifest).items():
        if (entry := choice.models.get(key)) is not None:
            found[names[id(model)]] = {
                "engine": entry.backend,
                "form": entry.form,
                "reason": entry.reason,
                "since": entry.since,
                "tried": [one.model_dump() for one in entry.tried],
            }
    return found


def _write(out: Path, report: dict[str, Any], accuracies: Mapping[str, Mapping[Target, FormAccuracy]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        flips: dict[tuple[str, str], Sequence[Flip]] = {
            (name, form): one.flips for name, forms in accuracies.items() for form, one in forms.items()
        }
        (folder / "report.html").write_text(render_page(report, flips), encoding="utf-8")
        folder.chmod(0o755)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
