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

from edge.bundle.bundle import Bundle, read_bundle
from edge.bundle.golden_probes import run_probes
from edge.durable import fsync_folder, fsync_tree, sha256_of
from edge.errors import QuantizeError
from edge.gallery.item_vectors import shrink_to_centroid
from edge.gallery.rerank import GallerySilhouettes, silhouettes_for
from edge.inference.stages import Stages, load_stages
from edge.manifest import (
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    FileEntry,
    FinderModel,
    LocaliserModel,
    Manifest,
    SilhouetteRule,
    Probe,
    Target,
    parse_manifest,
)
from quantize import backward_compatible as compatible
from quantize import base_bundle as carry
from quantize import embedding_spaces as spaces
from quantize import fit_silhouettes as outline
from quantize import fit_thresholds as openset
from quantize.build import Network
from quantize.compare import Vectors, embed_samples, silhouettes_of
from quantize.dataset import Data, choose
from quantize.latency import cpu_name
from quantize.network_spec import Model, conversion_path, model_entry
from quantize.predictions import ask, items_of, reference
from quantize.probes import Gallery, choose_probes, embedding_i8

log = logging.getLogger(__name__)

MANIFEST = "bundle.json"
_TOOLS = ("finesight", "numpy", "onnx", "onnxruntime", "torch", "timm")
DEFAULT_GATHERING = 0.5
_PROBE_POOL = 400  # crops that are asked, to choose probes from


@dataclass(frozen=True, slots=True)
class Order:
    """What bundle is wanted."""

    bundle_id: str
    sequence: int
    out: Path
    keep_both: bool = False  # pack FP32 beside a shipped INT8 form, and INT8 that is accurate beside shipped FP32
    with_probes: bool = True
    base: Path | None = None  # a bundle whose models are taken, byte for byte, where no network replaces them
    compatible_with: tuple[Path, ...] = ()  # bundles whose galleries shall be searched, if that is measured to work
    tolerance: float = compatible.TOLERANCE  # of Recall@1
    false_accept: float | None = None  # share of unknown objects that may be accepted, see quantize.fit_thresholds
    # Of a cosine, what the classifier's descriptor counts; None: as in the base, or nothing.
    classifier_share: float | None = None
    gathering: float | None = (
        None  # of the galleries' vectors, see edge.gallery.item_vectors; None: as in the base, or DEFAULT_GATHERING
    )


@dataclass(slots=True)
class _BundleContents:
    """A bundle while it is being put together."""

    folder: Path
    models: list[Model] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    waived: list[str] = field(default_factory=list)
    galleries: dict[str, Gallery] = field(default_factory=dict)
    outlines: dict[str, GallerySilhouettes] = field(default_factory=dict)  # of the categories where they count


def pack(order: Order, networks: Sequence[Network], data: Data) -> Manifest:
    """Write a bundle.

    Raises:
        QuantizeError: a gate fails, the networks do not make a bundle, or there are too few probes.
        BundleError: an older bundle that it builds on is damaged.
        BundleError: the packed bundle cannot be read back.
        EngineError: a packed model cannot be run.
    """
    require_gates(networks)
    if order.classifier_share and not any(network.spec.kind == "embedder" for network in networks):
        raise QuantizeError(
            f"found a classifier's share of {order.classifier_share:g} and no embedder, expected one that takes it"
        )
    if order.out.exists():
        raise QuantizeError(f"{order.out}: found something there, expected a new folder")
    order.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{order.out.name}.", dir=order.out.parent))
    try:
        manifest = _write_contents(order, networks, data, folder)
        folder.chmod(0o755)
        fsync_tree(folder)
        folder.rename(order.out)
        fsync_folder(order.out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def require_gates(networks: Sequence[Network]) -> None:
    """Refuse to pack networks of which a gate fails.

    Raises:
        QuantizeError: names every such gate.
    """
    if failed := [gate for network in networks for gate in network.failed]:
        raise QuantizeError(
            f"found {len(failed)} failed gates, expected none or each waived by name: {'; '.join(failed)}"
        )


def _write_contents(order: Order, networks: Sequence[Network], data: Data, folder: Path) -> Manifest:
    contents = _BundleContents(folder)
    (folder / "models").mkdir()
    older = [read_bundle(path) for path in order.compatible_with]
    base = None if order.base is None else read_bundle(order.base)
    before = [] if base is None else base.manifest.embedders
    share, gathering = order.classifier_share, order.gathering
    if share is None:
        share = max((one.classifier_share for one in before), default=0.0)
    if gathering is None:
        gathering = max((one.gathering for one in before), default=DEFAULT_GATHERING)
    for network in networks:
        entry = _copy_forms(network, folder, keep_both=order.keep_both)
        if isinstance(entry, EmbedderModel):
            entry = entry.model_copy(update={"gathering": gathering})
        evaluation = {"ship": network.ship, "why": network.why, **network.evaluation}
        contents.models.append(entry)
        contents.evaluation[network.name] = evaluation
        contents.provenance[network.name] = network.provenance
        contents.waived += network.waived
    if base is not None:
        _copy_base_models(base, contents)
    contents.models = spaces.named(contents.models, networks, contents.provenance, share)
    stages = load_stages(folder, _manifest(order, contents), "onnxruntime")
    if any(network.spec.kind == "localiser" for network in networks):
        _fit_silhouettes(contents, stages, networks, data)
    _fit_thresholds(contents, stages, networks, data, order.false_accept)
    if older:
        _declare_compatible(older, contents, stages, networks, data, order.tolerance)
    manifest = _manifest(order, contents)
    if order.with_probes:
        _write_probes(contents, stages, data)
        manifest = _manifest(order, contents)
        failed = [proof for proof in run_probes(folder, manifest.probes, stages) if not proof.passed]
        if failed:
            raise QuantizeError(f"probes: found {len(failed)} answered differently when asked again, first {failed[0]}")
    text = manifest.model_dump_json(by_alias=True, indent=1)
    parse_manifest(text, str(folder / MANIFEST))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _copy_forms(network: Network, folder: Path, *, keep_both: bool) -> Model:
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


def _copy_base_models(base: Bundle, contents: _BundleContents) -> None:
    """Copy what no network of the order replaces: models, what is known of them, and their probes."""
    for carried in carry.kept_models(base.manifest, contents.models):
        further = [carried.model.conversion] if isinstance(carried.model, FinderModel) else []
        for path in (*carried.model.files.values(), *further):
            if (contents.folder / path).exists():
                raise QuantizeError(f"{path}: found in bundle {base.manifest.bundle_id}, too, expected another name")
            shutil.copyfile(base.path(path), contents.folder / path)
        contents.models.append(carried.model)
        contents.evaluation[carried.name] = carried.evaluation
        contents.provenance[carried.name] = carried.provenance
        contents.waived += carried.waived
    served = {c for model in contents.models if isinstance(model, EmbedderModel) for c in model.categories}
    for probe in base.manifest.probes:
        if probe.category in served - set(contents.galleries):
            path = f"probes/{base.manifest.bundle_id}-{Path(probe.path).name}"
            (contents.folder / "probes").mkdir(exist_ok=True)
            shutil.copyfile(base.path(probe.path), contents.folder / path)
            contents.probes.append(probe.model_copy(update={"path": path}))


def _fit_thresholds(
    contents: _BundleContents, stages: Stages, networks: Sequence[Network], data: Data, false_accept: float | None
) -> None:
    """ThresholdFit a rule per category, by the forms that ship: with them a gallery is embedded."""
    specs = [network.spec for network in networks if network.spec.kind == "embedder"]
    contents.galleries = reference([crop for spec in specs for crop in data.gallery_crops(spec)], stages)
    held_out = [crop for spec in specs for crop in data.held_out_crops(spec)]
    answers = openset.leave_items_out(
        ask(held_out, stages, contents.galleries, contents.outlines), items_of(contents.galleries)
    )
    fits = openset.fit(answers, [category for spec in specs for category in spec.categories], false_accept)
    for category, fit in fits.items():
        log.info("%s: threshold %.3f, %s", category, fit.open_set.threshold, fit.rule)
    # what is taken from another bundle comes after, with its own rules
    for number, (network, model) in enumerate(zip(networks, contents.models, strict=False)):
        if isinstance(model, EmbedderModel):
            own = {category: fits[category] for category in model.categories}
            rules = {category: fit.open_set for category, fit in own.items()}
            contents.models[number] = model.model_copy(update={"open_set": rules})
            contents.evaluation[network.name]["open_set"] = {category: fit.row() for category, fit in own.items()}


def _fit_silhouettes(contents: _BundleContents, stages: Stages, networks: Sequence[Network], data: Data) -> None:
    """ThresholdFit how much outlines count, by the forms that ship; where they pay, those of the gallery are kept."""
    assert stages.localiser is not None
    for number, network in enumerate(networks):
        model = contents.models[number]
        if not isinstance(model, EmbedderModel) or not model.categories:
            continue
        reference, held_out = data.gallery_crops(network.spec), data.held_out_crops(network.spec)
        crops, embedder = (held_out, reference), stages.embedders[model.categories[0]]
        vectors = [embed_samples(embedder, samples) for samples in crops]
        outlines = [silhouettes_of(stages.localiser, samples) for samples in crops]
        rules: dict[str, SilhouetteRule] = {}
        rows: dict[str, Any] = {}
        for category in model.categories:
            asked, known = ([i for i, s in enumerate(samples) if s.category == category] for samples in crops)
            if not asked or not known:
                continue
            items = [reference[i].item for i in known]
            similar = outline.similarities(
                vectors[0][asked],
                [outlines[0][i] for i in asked],
                [held_out[i].item for i in asked],
                shrink_to_centroid(vectors[1][known], items, model.gathering),
                [outlines[1][i] for i in known],
                items,
            )
            fit = outline.fit_rule(similar)
            rows[category] = fit.row()
            log.info("%s: %s: outline %s", network.name, category, rows[category])
            if fit.rule.counts:
                rules[category] = fit.rule
                contents.outlines[category] = silhouettes_for(fit.rule, outline.by_item(reference, outlines[1], known))
        contents.models[number] = model.model_copy(update={"outline": rules})
        contents.evaluation[network.name]["outline"] = rows


def _declare_compatible(
    older: Sequence[Bundle],
    contents: _BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    tolerance: float,
) -> None:
    """Declare which galleries of older bundles may be searched, by what the forms that ship find in them."""
    for number, network in enumerate(networks):
        model = contents.models[number]
        if not isinstance(model, EmbedderModel):
            continue
        crops = data.held_out_crops(network.spec), data.gallery_crops(network.spec)
        vectors = Vectors(*(embed_samples(stages.embedders[model.categories[0]], part) for part in crops))
        judged = [v for old in older for v in compatible.check_compatibility(old, model, vectors, crops, tolerance)]
        told: dict[str, Any] = {}
        for verdict in judged:
            log.info("%s: %s", network.name, verdict)
            told.setdefault(verdict.bundle_id, {})[verdict.category] = verdict.row()
        declared = [verdict.declared for verdict in judged if verdict.declared]
        contents.models[number] = model.model_copy(update={"compatible": declared})
        if told:
            contents.evaluation[network.name]["compatible"] = told


def _write_probes(contents: _BundleContents, stages: Stages, data: Data) -> None:
    kept = [proof.probe for proof in run_probes(contents.folder, contents.probes, stages) if proof.passed]
    for probe in contents.probes:
        if probe not in kept:  # another classifier may see another category in it
            (contents.folder / probe.path).unlink()
    contents.probes = kept
    held_out = [s for s in data.samples if s.split == data.held_out_split and s.category in contents.galleries]
    (contents.folder / "probes").mkdir(exist_ok=True)
    pool = choose(held_out, _PROBE_POOL)
    for number, candidate in enumerate(choose_probes(pool, stages, contents.galleries, len(kept))):
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


def _manifest(order: Order, contents: _BundleContents) -> Manifest:
    text = {
        "schema": 1,
        "bundle_id": order.bundle_id,
        "sequence": order.sequence,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runtimes": _common_targets(contents.models),
        "files": [entry.model_dump() for entry in _file_entries(contents.folder)],
        "detector": _single(contents.models, DetectorModel),
        "classifier": _single(contents.models, ClassifierModel),
        "localiser": _single(contents.models, LocaliserModel),
        "finder": _single(contents.models, FinderModel),
        "embedders": [model.model_dump() for model in contents.models if isinstance(model, EmbedderModel)],
        "probes": [probe.model_dump() for probe in contents.probes],
        "evaluation": contents.evaluation,
        "provenance": {
            "tools": dict(_versions()),
            "cpu": cpu_name(),
            "models": contents.provenance,
        },
        "waived": contents.waived,
    }
    try:
        return Manifest.model_validate(text)
    except ValueError as error:
        raise QuantizeError(f"bundle {order.bundle_id}: {str(error).splitlines()[-2].strip()}") from error


def _single(
    models: Sequence[Model], kind: type[DetectorModel | ClassifierModel | LocaliserModel | FinderModel]
) -> dict[str, Any] | None:
    found = [model for model in models if isinstance(model, kind)]
    if len(found) > 1:
        raise QuantizeError(f"found {len(found)} networks of kind {kind.__name__}, expected at most one")
    return found[0].model_dump() if found else None


def _common_targets(models: Sequence[Model]) -> list[Target]:
    """What at least one file of every model can run on."""
    runnable: dict[Target, set[Target]] = {"fp32": {"fp32"}, "ort-u8": {"ort-u8", "fp32"}}
    return [t for t, forms in runnable.items() if all(forms & set(model.files) for model in models)]


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
