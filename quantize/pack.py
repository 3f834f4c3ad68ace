"""Judged networks to a bundle folder: files, hashes, open-set rules, probes, `bundle.json`; whole or not at all.

Rules this module keeps:
1. Nothing is written where a gate fails that is not waived by name.
2. The folder appears by one rename, after every file in it is on the disk.
3. What was packed is read back and its probes are run before the rename.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge.digest import sha256_of
from edge.durable import fsync_folder, fsync_tree
from edge.errors import QuantizeError
from edge.manifest import (
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    FileEntry,
    FinderModel,
    Manifest,
    Probe,
    Target,
    embedding_space_id,
    parse_manifest,
)
from edge.prove import prove_stages
from edge.stages import load_stages
from quantize import openset
from quantize.build import Network
from quantize.compare import vectors_of
from quantize.index import Data, choose
from quantize.latency import cpu_name
from quantize.probes import Gallery, choose_probes, embedding_i8
from quantize.spec import Model, conversion_path, model_entry

log = logging.getLogger(__name__)

MANIFEST = "bundle.json"
_TOOLS = ("finesight", "numpy", "onnx", "onnxruntime", "torch", "timm")
_PROBE_POOL = 400  # crops that are asked, to choose probes from


@dataclass(frozen=True, slots=True)
class Order:
    """What bundle is wanted."""

    bundle_id: str
    sequence: int
    out: Path
    keep_both: bool = False  # pack FP32 beside a shipped INT8 form, and INT8 that is accurate beside shipped FP32
    with_probes: bool = True


@dataclass(slots=True)
class _Contents:
    """A bundle while it is being put together."""

    folder: Path
    models: list[Model] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    galleries: dict[str, Gallery] = field(default_factory=dict)


def pack(order: Order, networks: Sequence[Network], data: Data) -> Manifest:
    """Write a bundle.

    Raises:
        QuantizeError: a gate fails, the networks do not make a bundle, or there are too few probes.
        BundleError: the packed bundle cannot be read back.
        EngineError: a packed model cannot be run.
    """
    refuse_failed(networks)
    if order.out.exists():
        raise QuantizeError(f"{order.out}: found something there, expected a new folder")
    order.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{order.out.name}.", dir=order.out.parent))
    try:
        manifest = _fill(order, networks, data, folder)
        folder.chmod(0o755)
        fsync_tree(folder)
        folder.rename(order.out)
        fsync_folder(order.out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def refuse_failed(networks: Sequence[Network]) -> None:
    """Refuse to pack networks of which a gate fails.

    Raises:
        QuantizeError: names every such gate.
    """
    if failed := [gate for network in networks for gate in network.failed]:
        raise QuantizeError(
            f"found {len(failed)} failed gates, expected none or each waived by name: {'; '.join(failed)}"
        )


def _fill(order: Order, networks: Sequence[Network], data: Data, folder: Path) -> Manifest:
    contents = _Contents(folder)
    (folder / "models").mkdir()
    for network in networks:
        entry = _place(network, folder, keep_both=order.keep_both)
        evaluation = {"ship": network.ship, "why": network.why, **network.evaluation}
        if isinstance(entry, EmbedderModel):
            entry, evaluation["open_set"] = _fit_open_sets(network, entry, data, contents.galleries)
        contents.models.append(entry)
        contents.evaluation[network.name] = evaluation
    manifest = _manifest(order, contents, networks)
    stages = load_stages(folder, manifest, "onnxruntime")
    if order.with_probes:
        _place_probes(contents, manifest, data)
        manifest = _manifest(order, contents, networks)
        failed = [proof for proof in prove_stages(folder, manifest.probes, stages) if not proof.passed]
        if failed:
            raise QuantizeError(f"probes: found {len(failed)} answered differently when asked again, first {failed[0]}")
    text = manifest.model_dump_json(by_alias=True, indent=1)
    parse_manifest(text, str(folder / MANIFEST))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _place(network: Network, folder: Path, *, keep_both: bool) -> Model:
    """Copy the forms that ship."""
    wanted: list[Target] = [network.ship]
    if keep_both:
        wanted += [form for form in network.forms if form != network.ship and (form == "fp32" or network.int8_accurate)]
    files: dict[Target, str] = {}
    for target in wanted:
        files[target] = f"models/{network.name}.{target}.onnx"
        shutil.copyfile(network.forms[target], folder / files[target])
    conversion = None
    if network.spec.kind == "finder":
        conversion = f"models/{network.name}.conversion.onnx"
        shutil.copyfile(conversion_path(network.forms["fp32"]), folder / conversion)
    return model_entry(network.spec, files, network.ship, network.why, conversion)


def _fit_open_sets(
    network: Network, entry: EmbedderModel, data: Data, galleries: dict[str, Gallery]
) -> tuple[EmbedderModel, dict[str, Any]]:
    """Fit a rule per category; queries and gallery by the form that ships, by which a gallery is embedded."""
    spec = network.spec
    reference, held_out = data.gallery_crops(spec), data.held_out_crops(spec)
    gallery = vectors_of(spec, network.forms[network.ship], reference)
    queries = vectors_of(spec, network.forms[network.ship], held_out)
    scores = {}
    for category in entry.categories:
        in_gallery = [i for i, s in enumerate(reference) if s.category == category]
        asked = [i for i, s in enumerate(held_out) if s.category == category]
        crops = [reference[i] for i in in_gallery]
        if crops:
            galleries[category] = Gallery(gallery[in_gallery], tuple(s.item for s in crops))
        if crops and asked:
            crops_asked = [held_out[i] for i in asked]
            scores[category] = openset.scores_of(queries[asked], crops_asked, gallery[in_gallery], crops)
    fits = openset.fit_each(scores, entry.categories)
    rules = {category: fit.open_set for category, fit in fits.items()}
    for category, fit in fits.items():
        log.info("%s: %s: threshold %.3f, %s", network.name, category, fit.open_set.threshold, fit.rule)
    space = embedding_space_id(network.provenance["fp32_sha256"], spec.preprocess, spec.heads)
    return entry.model_copy(update={"open_set": rules, "space_id": space}), {c: fit.row() for c, fit in fits.items()}


def _place_probes(contents: _Contents, manifest: Manifest, data: Data) -> None:
    held_out = [s for s in data.samples if s.split == data.held_out_split and s.category in contents.galleries]
    stages = load_stages(contents.folder, manifest, "onnxruntime")
    (contents.folder / "probes").mkdir()
    for number, candidate in enumerate(choose_probes(choose(held_out, _PROBE_POOL), stages, contents.galleries)):
        path = f"probes/{number:02}.png"
        (contents.folder / path).write_bytes(candidate.png)
        contents.probes.append(
            Probe(
                path=path,
                category=candidate.sample.category,
                item_id=candidate.sample.item,
                embedding_i8=embedding_i8(candidate.vector),
            )
        )


def _manifest(order: Order, contents: _Contents, networks: Sequence[Network]) -> Manifest:
    text = {
        "schema": 1,
        "bundle_id": order.bundle_id,
        "sequence": order.sequence,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runtimes": _common_targets(contents.models),
        "files": [entry.model_dump() for entry in _entries(contents.folder)],
        "detector": _only(contents.models, DetectorModel),
        "classifier": _only(contents.models, ClassifierModel),
        "finder": _only(contents.models, FinderModel),
        "embedders": [model.model_dump() for model in contents.models if isinstance(model, EmbedderModel)],
        "probes": [probe.model_dump() for probe in contents.probes],
        "evaluation": contents.evaluation,
        "provenance": {
            "tools": dict(_versions()),
            "cpu": cpu_name(),
            "models": {network.name: network.provenance for network in networks},
        },
        "waived": [gate for network in networks for gate in network.waived],
    }
    try:
        return Manifest.model_validate(text)
    except ValueError as error:
        raise QuantizeError(f"bundle {order.bundle_id}: {str(error).splitlines()[-2].strip()}") from error


def _only(models: Sequence[Model], kind: type[DetectorModel | ClassifierModel | FinderModel]) -> dict[str, Any] | None:
    found = [model for model in models if isinstance(model, kind)]
    if len(found) > 1:
        raise QuantizeError(f"found {len(found)} networks of kind {kind.__name__}, expected at most one")
    return found[0].model_dump() if found else None


def _common_targets(models: Sequence[Model]) -> list[Target]:
    """What at least one file of every model can run on."""
    runnable: dict[Target, set[Target]] = {"fp32": {"fp32"}, "ort-u8": {"ort-u8", "fp32"}}
    return [t for t, forms in runnable.items() if all(forms & set(model.files) for model in models)]


def _entries(folder: Path) -> Iterable[FileEntry]:
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
