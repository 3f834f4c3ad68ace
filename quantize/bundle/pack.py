"""Packs networks into a bundle folder: files, hashes, open-set rules, probes and `bundle.json`.

Rules this module keeps:
1. Nothing is written if a gate fails that is not waived by name.
2. The folder appears by one rename, after every file in it is on disk.
3. The packed models are loaded and the probes run before the rename.
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
from typing import Any, Literal

from edge.bundle.bundle import Bundle, read_bundle
from edge.durable import fsync_folder, fsync_tree, sha256_of
from edge.errors import QuantizeError
from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.stages import Detector, Stages, load_stages
from edge.manifest import (
    ClassifierModel,
    DetectorModel,
    EmbedderModel,
    FileEntry,
    FinderModel,
    LocaliserModel,
    Manifest,
    SilhouetteRule,
    Target,
    parse_manifest,
)
from edge.silhouettes.rerank import GallerySilhouettes, silhouettes_for
from quantize.build_network import Network
from quantize.bundle.backward_compatible import TOLERANCE, check_compatibility
from quantize.bundle.base_bundle import kept_models
from quantize.bundle.embedding_spaces import assign_embedding_spaces
from quantize.bundle.fit_silhouettes import Mode, fit_rule, silhouettes_by_item, similarities
from quantize.bundle.fit_whitening import Whiten, whiten_embedders
from quantize.compare import Vectors
from quantize.dataset import Data
from quantize.latency import cpu_name
from quantize.network_spec import Model, conversion_int8_path, conversion_path, model_entry
from quantize.onnx_file import check_fits
from quantize.open_set.familiarity import SHARE, Familiarity, fit_familiarity
from quantize.open_set.fit_rules import NewEmbedder, fit_rules, require_naming, warnings_about
from quantize.open_set.score_crops import KnownOutputs
from quantize.probes.choose_probes import GalleryVectors
from quantize.probes.pack_probes import PackedProbes
from quantize.run_forms import embed_samples, open_form, silhouettes_of

log = logging.getLogger(__name__)

MANIFEST = "bundle.json"
_TOOLS = ("finesight", "numpy", "onnx", "onnxruntime", "torch", "timm")
DEFAULT_GATHERING = 0.5


@dataclass(frozen=True, slots=True)
class PackOptions:
    """Options of the bundle to pack."""

    bundle_id: str
    sequence: int
    out: Path
    keep_both: bool = False  # pack FP32 beside a shipped INT8 form, and INT8 that is accurate beside shipped FP32
    with_probes: bool = True
    base: Path | None = None  # base bundle: its models are copied, byte for byte, unless a network replaces them
    compatible_with: tuple[Path, ...] = ()  # older bundles; their galleries are declared searchable if measured so
    tolerance: float = TOLERANCE  # largest allowed loss of Recall@1
    false_accept: float | None = None  # share of unknown objects that may be accepted, see quantize.fit_thresholds
    # Share of wrong names among all names, instead of false_accept; see quantize.open_set.risk.
    risk: float | None = None
    # Weight of the classifier's descriptor in each cosine; None: as in the base bundle, or 0.
    classifier_share: float | None = None
    # How far gallery vectors shrink to their centroid, see edge.gallery.item_vectors; None: as in the base bundle, or
    # DEFAULT_GATHERING.
    gathering: float | None = None
    unfamiliar: float = SHARE  # of the held-out crops; see quantize.open_set.familiarity. 0: every crop is familiar
    whiten: Whiten = "off"  # fit a whitening to new embedders, see quantize.bundle.fit_whitening
    # How silhouettes count: a mode, whether it pays or not; off; None: where they pay, and only with a new localiser.
    outline: Mode | Literal["off"] | None = None
    waived: frozenset[str] = frozenset()  # gates that may fail, as model.gate


@dataclass(slots=True)
class _BundleContents:
    """The contents of a bundle while it is packed."""

    folder: Path
    probes: PackedProbes
    models: list[Model] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # what the readers of the data sets left out and noticed
    waived: list[str] = field(default_factory=list)
    galleries: dict[str, GalleryVectors] = field(default_factory=dict)
    silhouettes: dict[str, GallerySilhouettes] = field(default_factory=dict)  # by category, if weighted


def pack(options: PackOptions, networks: Sequence[Network], data: Data) -> Manifest:
    """Write a bundle.

    Raises:
        QuantizeError: a gate fails, the networks do not fit together, or there are too few probes.
        BundleError: an older bundle is damaged, or the packed bundle cannot be read back.
        EngineError: a packed model cannot run.
    """
    require_gates(networks)
    if options.false_accept is not None and options.risk is not None:
        raise QuantizeError("--false-accept and --risk choose one threshold in two ways; give one of them")
    if options.classifier_share and not any(network.spec.kind == "embedder" for network in networks):
        raise QuantizeError(
            f"classifier share {options.classifier_share:g} needs a new embedder; give --embedder as well"
        )
    if options.out.exists():
        raise QuantizeError(f"{options.out} already exists; choose a new --out folder")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{options.out.name}.", dir=options.out.parent))
    try:
        manifest = _write_contents(options, networks, data, folder)
        folder.chmod(0o755)
        fsync_tree(folder)
        folder.rename(options.out)
        fsync_folder(options.out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def require_gates(networks: Sequence[Network]) -> None:
    """Check that every gate passed or was waived.

    Raises:
        QuantizeError: a gate failed; the message names every failed gate.
    """
    if failed := [gate for network in networks for gate in network.failed]:
        raise QuantizeError(
            f"{len(failed)} failed gates: {'; '.join(failed)}. Use --allow-degraded MODEL.GATE or --fallback-fp32"
        )


def _write_contents(options: PackOptions, networks: Sequence[Network], data: Data, folder: Path) -> Manifest:
    contents = _BundleContents(folder, PackedProbes(folder))
    (folder / "models").mkdir()
    older = [read_bundle(path) for path in options.compatible_with]
    base = None if options.base is None else read_bundle(options.base)
    share, gathering = _share_and_gathering(options, base)
    for network in networks:
        entry = _copy_forms(network, folder, keep_both=options.keep_both)
        if isinstance(entry, EmbedderModel):
            entry = entry.model_copy(update={"gathering": gathering})
        evaluation = {"ship": network.ship, "why": network.why, **network.evaluation}
        contents.models.append(entry)
        contents.evaluation[network.name] = evaluation
        contents.provenance[network.name] = network.provenance
        contents.waived += network.waived
    if base is not None:
        _copy_base_models(base, contents)
    contents.models = assign_embedding_spaces(contents.models, networks, contents.provenance, share)
    stages = load_stages(folder, _manifest(options, contents), "onnxruntime")
    familiarity = _fit_familiarity(contents, stages, networks, data, options.unfamiliar)
    if options.whiten != "off":
        contents.models, rows = whiten_embedders(contents.models, networks, stages, data, folder, options.whiten)
        for name, row in rows.items():
            contents.evaluation[name]["whitening"] = row
    if familiarity is not None or options.whiten != "off":
        stages = load_stages(folder, _manifest(options, contents), "onnxruntime")
    _fit_silhouettes(contents, stages, networks, data, options.outline)
    _fit_rules(contents, stages, networks, data, options, familiarity)
    if older:
        _declare_compatible(older, contents, stages, networks, data, options.tolerance)
    contents.probes.drop_failing(stages)  # those of the base bundle
    if options.with_probes:
        contents.probes.add(stages, _detectors(stages, networks), contents.galleries, data)
        failed = [result for result in contents.probes.run(stages) if not result.passed]
        if failed:
            raise QuantizeError(f"probes: {len(failed)} gave another result when run again, first {failed[0]}")
    contents.data = data.summary()
    manifest = _manifest(options, contents)
    text = manifest.model_dump_json(by_alias=True, indent=1)
    parse_manifest(text, str(folder / MANIFEST))
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _detectors(stages: Stages, networks: Sequence[Network]) -> list[Detector]:
    """Return every form of a new detector, the one that ships first."""
    for network in networks:
        if network.spec.kind == "detector" and stages.detector is not None:
            others = [path for form, path in network.forms.items() if form != network.ship]
            model = stages.detector.model
            return [stages.detector, *(Detector(model, open_form(path)) for path in others)]
    return []


def _share_and_gathering(options: PackOptions, base: Bundle | None) -> tuple[float, float]:
    """Return the options' values; where they give none, those of the base bundle."""
    before = [] if base is None else base.manifest.embedders
    share, gathering = options.classifier_share, options.gathering
    if share is None:
        share = max((one.classifier_share for one in before), default=0.0)
    if gathering is None:
        gathering = max((one.gathering for one in before), default=DEFAULT_GATHERING)
    return share, gathering


def _copy_forms(network: Network, folder: Path, *, keep_both: bool) -> Model:
    """Copy the forms of a network that ship."""
    wanted: list[Target] = [network.ship, *network.further]
    if keep_both:
        wanted += ["fp32"]
        wanted += ["ort-u8"] if "ort-u8" in network.forms and network.int8_accurate else []
    files: dict[Target, str] = {}
    for target in dict.fromkeys(wanted):
        files[target] = f"models/{network.name}.{target}.onnx"
        shutil.copyfile(network.forms[target], folder / files[target])
    if network.spec.kind != "finder":
        return model_entry(network.spec, files, network.ship, network.why)
    fp32 = network.forms["fp32"]
    conversion, conversion_int8 = f"models/{conversion_path(Path(network.name)).name}", None
    shutil.copyfile(conversion_path(fp32), folder / conversion)
    if "ort-u8" in files and (source := conversion_int8_path(fp32)).is_file():
        conversion_int8 = f"models/{conversion_int8_path(Path(network.name)).name}"
        shutil.copyfile(source, folder / conversion_int8)
    return model_entry(network.spec, files, network.ship, network.why, conversion, conversion_int8)


def _copy_base_models(base: Bundle, contents: _BundleContents) -> None:
    """Copy the models of the base bundle that no network replaces, with their evaluation and probes.

    Probes of a model that is replaced are not copied: the new model gives other answers.
    """
    for kept in kept_models(base.manifest, contents.models):
        further = kept.model.conversions if isinstance(kept.model, FinderModel) else []
        if isinstance(kept.model, EmbedderModel) and kept.model.whitening is not None:
            further.append(kept.model.whitening.file)
        for path in (*kept.model.files.values(), *further):
            if (contents.folder / path).exists():
                raise QuantizeError(
                    f"{path} is also in base bundle {base.manifest.bundle_id}; give the new network another name"
                )
            shutil.copyfile(base.path(path), contents.folder / path)
        for path in kept.model.files.values():
            check_fits(contents.folder / path, kept.model, base.path(path))
        contents.models.append(kept.model)
        contents.evaluation[kept.name] = kept.evaluation
        contents.provenance[kept.name] = kept.provenance
        contents.waived += kept.waived
        contents.probes.copy_from(base, kept.model)


def _fit_familiarity(
    contents: _BundleContents, stages: Stages, networks: Sequence[Network], data: Data, share: float
) -> Familiarity | None:
    """Fit the least logit of a new classifier."""
    for number, network in enumerate(networks):
        model = contents.models[number]
        if isinstance(model, ClassifierModel) and stages.classifier is not None:
            found = fit_familiarity(stages.classifier, data.held_out_crops(network.spec), share)
            if found is not None:
                contents.models[number] = model.model_copy(update={"least_logit": found.least_logit})
                contents.evaluation[network.name]["familiar"] = {"least_logit": found.least_logit, "share": share}
            return found
    return None


def _fit_rules(
    contents: _BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    options: PackOptions,
    familiarity: Familiarity | None,
) -> None:
    """Fit an open-set rule for each category of a new embedder."""
    pairs = zip(networks, contents.models, strict=False)  # models of the base bundle follow, with their own rules
    found = [(network, model) for network, model in pairs if isinstance(model, EmbedderModel)]
    embedders = [
        NewEmbedder(one.name, model, data.gallery_crops(one.spec), data.held_out_crops(one.spec))
        for one, model in found
    ]
    probabilities = {
        crop: row for one in networks if one.spec.kind == "classifier" for crop, row in one.outputs.items()
    }
    known = KnownOutputs(
        probabilities if familiarity is None else familiarity.scaled(probabilities),
        {
            crop: row
            for one, model in found
            if not (model.classifier_share or model.whitening)
            for crop, row in one.outputs.items()
        },
    )
    rules, contents.galleries = fit_rules(
        embedders, stages, contents.silhouettes, known, options.false_accept, options.risk
    )
    contents.waived += require_naming(rules, options.waived)
    contents.evaluation["warnings"] = warnings_about(rules)
    for number, network in enumerate(networks):
        if (rule := rules.get(network.name)) is not None:
            open_sets = {category: fit.open_set for category, fit in rule.fits.items()}
            contents.models[number] = contents.models[number].model_copy(update={"open_set": open_sets})
            contents.evaluation[network.name] |= rule.evaluation()


def _fit_silhouettes(
    contents: _BundleContents,
    stages: Stages,
    networks: Sequence[Network],
    data: Data,
    wanted: Mode | Literal["off"] | None,
) -> None:
    """Fit the weight of silhouettes with the forms that ship, and keep the gallery's silhouettes if it is above 0."""
    kinds = {network.spec.kind for network in networks}
    if wanted == "off" or (wanted is None and "localiser" not in kinds):
        return
    if stages.localiser is None:
        raise QuantizeError(f"outline {wanted}: the bundle has no localiser; give --localiser")
    if wanted is not None and "embedder" not in kinds:
        raise QuantizeError(f"outline {wanted}: the mode is fitted for new embedders; give --embedder as well")
    for number, network in enumerate(networks):
        model = contents.models[number]
        if not isinstance(model, EmbedderModel) or not model.categories:
            continue
        gallery, held_out = data.gallery_crops(network.spec), data.held_out_crops(network.spec)
        crops, embedder = (held_out, gallery), stages.embedders[model.categories[0]]
        vectors = [embed_samples(embedder, samples) for samples in crops]
        silhouettes = [silhouettes_of(stages.localiser, samples) for samples in crops]
        rules: dict[str, SilhouetteRule] = {}
        rows: dict[str, Any] = {}
        for category in model.categories:
            queries, known = ([i for i, s in enumerate(samples) if s.category == category] for samples in crops)
            if not queries or not known:
                continue
            items = [gallery[i].item for i in known]
            similar = similarities(
                vectors[0][queries],
                [silhouettes[0][i] for i in queries],
                [held_out[i].item for i in queries],
                shrink_to_centroid(vectors[1][known], items, model.gathering),
                [silhouettes[1][i] for i in known],
                items,
            )
            fit = fit_rule(similar, wanted)
            rows[category] = fit.row()
            log.info("%s: %s: silhouettes %s", network.name, category, rows[category])
            if fit.rule.counts:
                rules[category] = fit.rule
                by_item = silhouettes_by_item(gallery, silhouettes[1], known)
                contents.silhouettes[category] = silhouettes_for(fit.rule, by_item)
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
    """Declare which galleries of older bundles may be searched, measured with the forms that ship."""
    for number, network in enumerate(networks):
        model = contents.models[number]
        if not isinstance(model, EmbedderModel):
            continue
        crops = data.held_out_crops(network.spec), data.gallery_crops(network.spec)
        vectors = Vectors(*(embed_samples(stages.embedders[model.categories[0]], part) for part in crops))
        results = [one for old in older for one in check_compatibility(old, model, vectors, crops, tolerance)]
        rows: dict[str, Any] = {}
        for result in results:
            log.info("%s: %s", network.name, result)
            rows.setdefault(result.bundle_id, {})[result.category] = result.row()
        declared = [result.declared for result in results if result.declared]
        contents.models[number] = model.model_copy(update={"compatible": declared})
        if rows:
            contents.evaluation[network.name]["compatible"] = rows


def _manifest(options: PackOptions, contents: _BundleContents) -> Manifest:
    text = {
        "schema": 1,
        "bundle_id": options.bundle_id,
        "sequence": options.sequence,
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
        raise QuantizeError(f"bundle {options.bundle_id}: {str(error).splitlines()[-2].strip()}") from error


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
