"""Writes the manifest of the contents of a bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge.durable import sha256_of
from edge.errors import QuantizeError
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import FileEntry, Manifest
from edge.manifest.model import Target
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel
from quantize.bundle.contents import BundleContents
from quantize.latency import cpu_name
from quantize.network_spec import Model

_TOOLS = ("finesight", "numpy", "onnx", "onnxruntime", "torch", "timm")


def manifest_of(bundle_id: str, sequence: int, contents: BundleContents) -> Manifest:
    """Return the manifest.

    Raises:
        QuantizeError: the models do not fit together.
    """
    text = {
        "schema": 1,
        "bundle_id": bundle_id,
        "sequence": sequence,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runtimes": _common_targets(contents.models),
        "files": [entry.model_dump() for entry in _file_entries(contents.folder)],
        "detector": _single(contents.models, DetectorModel),
        "classifier": _single(contents.models, ClassifierModel),
        "localiser": _single(contents.models, LocaliserModel),
        "finder": _single(contents.models, FinderModel),
        "embedders": [model.model_dump() for model in contents.models if isinstance(model, EmbedderModel)],
        "probes": [probe.model_dump() for probe in contents.probes.crops],
        "scene_probes": [probe.model_dump() for probe in contents.probes.scenes],
        "evaluation": contents.evaluation,
        "provenance": {
            "tools": dict(_versions()),
            "cpu": cpu_name(),
            "models": contents.provenance,
            "data": contents.data,
        },
        "waived": contents.waived,
    }
    try:
        return Manifest.model_validate(text)
    except ValueError as error:
        raise QuantizeError(f"bundle {bundle_id}: {str(error).splitlines()[-2].strip()}") from error


def _single(
    models: Sequence[Model], kind: type[DetectorModel | ClassifierModel | LocaliserModel | FinderModel]
) -> dict[str, Any] | None:
    found = [model for model in models if isinstance(model, kind)]
    if len(found) > 1:
        raise QuantizeError(f"found {len(found)} networks of kind {kind.__name__}, expected at most 1")
    return found[0].model_dump() if found else None


def _common_targets(models: Sequence[Model]) -> list[Target]:
    """Return the targets that at least one form of every model can run on."""
    runnable: dict[Target, set[Target]] = {
        "fp32": {"fp32"},
        "ort-u8": {"ort-u8", "fp32"},
        "fp16": {"fp16", "fp32"},
        "tensorrt-s8": {"tensorrt-s8", "fp16", "fp32"},
    }
    packed = {"fp32", "ort-u8"} | {form for model in models for form in model.files}
    return [t for t, forms in runnable.items() if t in packed and all(forms & set(model.files) for model in models)]


def _file_entries(folder: Path) -> Iterable[FileEntry]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            yield FileEntry(path=name, size=path.stat().st_size, sha256=sha256_of(path))


def _versions() -> Iterable[tuple[str, str]]:
    for tool in _TOOLS:
        try:
            yield tool, importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
